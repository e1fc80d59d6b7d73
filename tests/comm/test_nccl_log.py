"""What NCCL printed, from several of its versions, and what it means."""

import pytest

from comm.backends.torch_distributed import parse_choices

PREFIX = "node-1:4711:4802 [0] NCCL INFO "
NEW = "AllReduce: 16384 Bytes -> Algo RING proto LL channel{Lo..Hi}={0..3}"


@pytest.mark.parametrize(
    ("line", "case", "choice"),
    [
        (NEW, ("all_reduce", 16384), "ring LL"),
        (NEW + " cgaClusterSize 2", ("all_reduce", 16384), "ring LL"),
        ("AllReduce: 4096 Bytes -> Algo Tree proto LL128 channel{Lo..Hi}={0..1}", ("all_reduce", 4096), "tree LL128"),
        (
            "AllReduce: 268435456 Bytes -> Algo NVLS proto Simple channel{Lo..Hi}={0..15}",
            ("all_reduce", 268435456),
            "nvls SIMPLE",
        ),
        (
            "AllReduce: 512 Bytes -> Algo NVLS_TREE proto SIMPLE channel{Lo..Hi}={0..15}",
            ("all_reduce", 512),
            "nvls-tree SIMPLE",
        ),
        ("AllGather: 64 Bytes -> Algo PAT proto SIMPLE channel{Lo..Hi}={0..0}", ("all_gather", 64), "pat SIMPLE"),
        ("AllReduce: 64 Bytes -> Algo COLLNET_DIRECT proto SIMPLE ch", ("all_reduce", 64), "collnet-direct SIMPLE"),
        ("AllReduce: 64 Bytes -> Algo CollNetChain proto SIMPLE ch", ("all_reduce", 64), "collnet-chain SIMPLE"),
        ("AllGather: 37756928 Bytes -> Algo 1 proto 2 time 2860.208008", ("all_gather", 37756928), "ring SIMPLE"),
        ("ReduceScatter: 1024 Bytes -> Algo 0 proto 0 time 12.3", ("reduce_scatter", 1024), "tree LL"),
        (
            "AllReduce [Symmetric]: 8192 Bytes -> Kernel AllReduce_AGxLL_R nchannels 4 nthreads 512 nWorks 1",
            ("all_reduce", 8192),
            "symmetric AllReduce_AGxLL_R",
        ),
    ],
)
def test_a_choice_is_read_in_every_form_that_nccl_prints(line, case, choice):
    assert parse_choices(f"{PREFIX}something else\n{PREFIX}{line}\n{PREFIX}more") == {case: choice}


@pytest.mark.parametrize(
    "line",
    [
        "16384 Bytes -> Algo 1 proto 0 time 12.3",  # of which operation?
        "AllReduce: 16384 Bytes -> Algo 9 proto 0 time 12.3",
        "AllReduce: 16384 Bytes -> Algo MESH proto LL channel{Lo..Hi}={0..3}",
        "AllReduce: 16384 Bytes -> Algo RING proto LL256 channel{Lo..Hi}={0..3}",
        "SendRecv: 16384 Bytes -> Algo RING proto LL channel{Lo..Hi}={0..3}",
        "AllGather [Symmetric]: 8192 Bytes -> Kernel AllGather_LL nchannels 4",  # bytes of a part, not of the whole
        "AllReduce: opCount 1606 sendbuff 0x93fd44a00 recvbuff 0x96d44e200 count 8192 datatype 7 op 0 root 0",
        "",
    ],
)
def test_what_is_not_known_stays_unknown(line):
    assert parse_choices(PREFIX + line) == {}


def test_a_size_for_which_nccl_chose_differently_has_no_answer_and_others_keep_theirs():
    other = "AllReduce: 16384 Bytes -> Algo TREE proto LL channel{Lo..Hi}={0..3}"
    third = "AllReduce: 32768 Bytes -> Algo TREE proto LL channel{Lo..Hi}={0..3}"
    assert parse_choices("\n".join([NEW, NEW, third])) == {
        ("all_reduce", 16384): "ring LL",
        ("all_reduce", 32768): "tree LL",
    }
    assert parse_choices("\n".join([NEW, other, third])) == {("all_reduce", 32768): "tree LL"}

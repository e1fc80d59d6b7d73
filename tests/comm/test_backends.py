"""Backends of GPUs without one: what they say they lack, and the calls they make, against the libraries' signatures."""

import inspect
import re
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from comm.backend import TORCH_DTYPES, Communicator, World
from comm.backends import BACKENDS, cupy_nccl, mpi, symmetric, torch_distributed
from specs.errors import UserError

GPU_NAMES = ["nccl", "cupy-nccl", "symm-one-shot", "symm-two-shot", "symm-multimem", "triton-one-shot", "peer"]


def world(**changes):
    return World(**{"rank": 0, "ranks": 2, "local_rank": 0, "local_ranks": 2, "kind": "cuda"} | changes)


@pytest.fixture
def gpus(monkeypatch):
    """As many GPUs as are asked for, and an NCCL."""

    def there(count, version=(2, 29, 7)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda.nccl, "version", lambda: version)
        monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
        monkeypatch.setattr(cupy_nccl, "find_spec", lambda name: object())
        fake = SimpleNamespace(get_version=lambda: torch_distributed.nccl_version())
        monkeypatch.setattr(cupy_nccl, "load_nccl", lambda: fake)

    return there


def test_all_backends_are_there_by_the_names_that_result_files_have():
    assert set(BACKENDS) == {"gloo", "mpi", *GPU_NAMES}
    assert all(name == row.name for name, row in BACKENDS.items())


@pytest.mark.parametrize("row", BACKENDS.values(), ids=str)
def test_a_communicator_offers_what_its_row_lists(row):
    made = {
        "nccl": torch_distributed.TorchCommunicator,
        "cupy-nccl": cupy_nccl.CupyNcclCommunicator,
        "triton-one-shot": symmetric.TritonOneShotCommunicator,
        "peer": symmetric.PeerCommunicator,
    }.get(row.name, symmetric.SymmetricCommunicator if row.name.startswith("symm") else None)
    if made is None:
        pytest.skip("tested where it runs: on a CPU")
    own = {name for name, method in vars(Communicator).items() if getattr(made, name) is not method}
    assert row.methods | {"barrier"} <= own
    assert ("recv" in own) == ("send" in row.methods)
    assert row.in_place <= row.methods
    assert row.device_kinds == {"cuda"}


@pytest.mark.parametrize("name", GPU_NAMES)
def test_without_gpus_each_says_in_one_line_what_it_takes(name, gpus):
    why_not = BACKENDS[name].why_not
    assert "the ranks are on cpu" in why_not(world(kind="cpu"))
    gpus(0)
    assert "2 ranks need 2 GPUs, torch sees 0" in why_not(world())
    gpus(1)
    assert "2 ranks need 2 GPUs, torch sees 1" in why_not(world())
    assert "\n" not in why_not(world())
    gpus(2)
    assert why_not(world()) is None


@pytest.mark.parametrize("name", ["nccl", "cupy-nccl"])
def test_ranks_that_share_a_gpu_need_a_newer_nccl_that_is_told_so(name, gpus, monkeypatch):
    shared, why_not = world(overlapping=True), BACKENDS[name].why_not
    monkeypatch.setenv(torch_distributed.MULTI_RANK_VARIABLE, "1")
    gpus(1, (2, 29, 7))
    assert why_not(shared) == "NCCL 2.29.7 takes one rank a GPU; several need 2.30 or later"
    gpus(1, (2, 30, 0))
    assert why_not(shared) is None
    monkeypatch.delenv(torch_distributed.MULTI_RANK_VARIABLE)
    assert why_not(shared) == "ranks share a GPU; set NCCL_MULTI_RANK_GPU_ENABLE=1 for them"


@pytest.mark.parametrize("name", ["symm-one-shot", "symm-two-shot", "triton-one-shot"])
def test_symmetric_memory_on_one_gpu_is_told_so_and_ends_at_the_host(name, gpus, monkeypatch):
    gpus(8)
    why_not = BACKENDS[name].why_not
    monkeypatch.delenv(torch_distributed.OVERLAPPING_VARIABLE, raising=False)
    assert (
        why_not(world(overlapping=True))
        == f"ranks share a GPU; set {torch_distributed.OVERLAPPING_VARIABLE}=1 for them"
    )
    monkeypatch.setenv(torch_distributed.OVERLAPPING_VARIABLE, "1")
    assert why_not(world(overlapping=True)) is None
    assert "these ranks are on 2" in why_not(world(ranks=16, local_ranks=8))


def test_multimem_and_peer_copies_need_a_gpu_for_each_rank(gpus, monkeypatch):
    gpus(1)
    monkeypatch.setenv(torch_distributed.OVERLAPPING_VARIABLE, "1")
    assert "no multicast to itself" in BACKENDS["symm-multimem"].why_not(world(overlapping=True))
    assert "needs two GPUs" in BACKENDS["peer"].why_not(world(overlapping=True))


def test_cupy_says_what_is_missing_and_how_to_get_it(gpus, monkeypatch):
    gpus(2)
    monkeypatch.setattr(cupy_nccl, "load_nccl", lambda: None)
    assert cupy_nccl.why_no_cupy_nccl(world()) == "CuPy finds no NCCL; `pip install nvidia-nccl-cu13`"
    monkeypatch.setattr(cupy_nccl, "find_spec", lambda name: None)
    assert cupy_nccl.why_no_cupy_nccl(world()) == "CuPy is not installed; `pip install -c constraints.txt .[cu13]`"
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    assert torch_distributed.why_no_nccl(world()) == "this torch is built without NCCL; install one that has it"


PARAMETERS = {
    "allReduce": "sendbuf recvbuf count datatype op stream",
    "allGather": "sendbuf recvbuf count datatype stream",
    "reduceScatter": "sendbuf recvbuf recvcount datatype op stream",
    "broadcast": "sendbuff recvbuff count datatype root stream",
    "send": "sendbuf count datatype peer stream",
    "recv": "recvbuf count datatype peer stream",
}
"""Of the methods of CuPy 14.2's NcclCommunicator, as their docstrings give them."""


class FakeNccl:
    """cupy.cuda.nccl, with a log."""

    def __init__(self):
        self.log = []

    def NcclCommunicator(self, *arguments):  # noqa: N802 - CuPy's name
        self.log.append(arguments)
        return self

    def groupStart(self):  # noqa: N802
        self.log.append("start")

    def groupEnd(self):  # noqa: N802
        self.log.append("end")

    def __getattr__(self, name):
        names = PARAMETERS[name].split()

        def call(*arguments):
            assert len(arguments) == len(names)
            assert all(type(one) is int for one in arguments)
            self.log.append((name, dict(zip(names, arguments, strict=True))))

        return call


@pytest.fixture
def raw(monkeypatch):
    """A CuPy communicator of rank 1 of 4 on the stream 77, on CPU tensors."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=77))
    fake = FakeNccl()
    made = cupy_nccl.CupyNcclCommunicator(world(kind="cpu", rank=1, ranks=4, local_ranks=4), fake, "id")
    assert fake.log == [(4, "id", 1)]
    fake.log.clear()
    return made, fake.log


def test_cupys_nccl_is_called_with_what_each_parameter_means(raw):
    communicator, log = raw
    small, large = torch.zeros(3, dtype=torch.bfloat16), torch.zeros(12, dtype=torch.bfloat16)
    s, l = small.data_ptr(), large.data_ptr()  # noqa: E741
    communicator.all_reduce(large, large)
    communicator.all_gather(small, large)
    communicator.reduce_scatter(large, small)
    communicator.broadcast(small, 2)
    communicator.exchange(small, 3, large, 0)
    common = {"datatype": 9, "stream": 77}
    assert log == [
        ("allReduce", {"sendbuf": l, "recvbuf": l, "count": 12, "op": 0, **common}),
        ("allGather", {"sendbuf": s, "recvbuf": l, "count": 3, **common}),
        ("reduceScatter", {"sendbuf": l, "recvbuf": s, "recvcount": 3, "op": 0, **common}),
        ("broadcast", {"sendbuff": s, "recvbuff": s, "count": 3, "root": 2, **common}),
        "start",
        ("send", {"sendbuf": s, "count": 3, "peer": 3, **common}),
        ("recv", {"recvbuf": l, "count": 12, "peer": 0, **common}),
        "end",
    ]


def test_cupys_own_names_and_signatures_agree_where_it_is_installed():
    pytest.importorskip("cupy", reason="CuPy is not installed")
    if (real := cupy_nccl.load_nccl()) is None:
        pytest.skip("CuPy finds no NCCL")
    assert (real.NCCL_FLOAT16, real.NCCL_FLOAT32, real.NCCL_SUM) == (6, 7, cupy_nccl.NCCL_SUM)
    assert getattr(real, "NCCL_BFLOAT16", 9) == 9
    for name, parameters in PARAMETERS.items():
        told = getattr(real.NcclCommunicator, name).__doc__ or ""
        assert [one.split()[-1] for one in told.split("(")[1].rstrip(")").split(",")[1:]] == parameters.split()


def test_a_unique_id_passes_a_store_whether_cupy_has_it_as_bytes_or_as_signed_chars(monkeypatch):
    drawn = bytes(range(0, 256, 2))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(__version__="14.2.0"))
    assert cupy_nccl.decode_unique_id(cupy_nccl.encode_unique_id(drawn)) == drawn
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(__version__="13.6.0"))
    chars = tuple(one - 256 if one > 127 else one for one in drawn)
    assert cupy_nccl.decode_unique_id(cupy_nccl.encode_unique_id(chars)) == chars


def test_types_have_the_numbers_of_nccl():
    assert {name: cupy_nccl.NCCL_DTYPES[kind] for name, kind in TORCH_DTYPES.items()} == {
        "fp16": 6,
        "fp32": 7,
        "bf16": 9,
    }


def test_symmetric_memory_is_shared_in_the_group_of_the_world(monkeypatch):
    seen = []
    empty = lambda size, stride, dtype, device: torch.zeros(size, dtype=dtype)  # noqa: E731
    monkeypatch.setattr(symmetric, "_SymmetricMemory", SimpleNamespace(empty_strided_p2p=empty))
    monkeypatch.setattr(symmetric.symm_mem, "rendezvous", lambda memory, group: seen.append(group))
    everyone = SimpleNamespace(group_name="0")
    monkeypatch.setattr(symmetric.dist.distributed_c10d, "_get_default_group", lambda: everyone)
    symmetric.allocate_shared(8, torch.float32, world())
    symmetric.allocate_shared(8, torch.float32, world(group=SimpleNamespace(group_name="7")))
    assert seen == ["0", "7"]


def test_libraries_that_join_all_ranks_refuse_to_join_some(gpus):
    gpus(2)
    for library in (mpi.MPI, cupy_nccl.CUPY_NCCL):
        assert "it joins all ranks that were started" in library.why_not(world(group=object()))


class FakeMemory:
    """Shared memory and torch's operators on it, with a log of what is called in terms of torch's own schemas."""

    def __init__(self, monkeypatch, multicast=0):
        self.log, self.multicast_ptr, self.offset, self.buffer_ptrs = [], multicast, 64, [1000, 2000]
        empty = lambda size, stride, dtype, device: torch.zeros(size, dtype=dtype)  # noqa: E731
        monkeypatch.setattr(symmetric, "_SymmetricMemory", SimpleNamespace(empty_strided_p2p=empty))
        monkeypatch.setattr(symmetric.symm_mem, "rendezvous", lambda memory, group: self)
        monkeypatch.setattr(symmetric, "group_name", lambda world: "0")
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
        names = ("one_shot_all_reduce_out", "two_shot_all_reduce_", "multimem_all_reduce_")
        operators = SimpleNamespace(**{name: partial(self.call, name) for name in names})
        monkeypatch.setattr(torch.ops, "symm_mem", operators, raising=False)

    def barrier(self, channel):
        self.log.append("barrier")

    def call(self, name, *arguments):
        schema = next(one for one in torch._C._jit_get_all_schemas() if one.name == f"symm_mem::{name}")
        kinds = {"Tensor": torch.Tensor, "str": str}
        assert len(arguments) == len(schema.arguments)
        for given, wanted in zip(arguments, schema.arguments, strict=True):
            assert isinstance(given, kinds[str(wanted.type)]), f"{name}: {wanted.name}"
        named = {wanted.name: given for given, wanted in zip(arguments, schema.arguments, strict=True)}
        assert (named["reduce_op"], named["group_name"]) == ("sum", "0")
        writes = [wanted.name for wanted in schema.arguments if wanted.alias_info and wanted.alias_info.is_write]
        self.log.append((name, named["input"].tolist(), {one: named[one].tolist() for one in writes}))


@pytest.mark.parametrize(
    ("name", "operator", "written"),
    [
        ("symm-one-shot", "one_shot_all_reduce_out", {"out": [2.0]}),
        ("symm-two-shot", "two_shot_all_reduce_", {"input": [1.0]}),
        ("symm-multimem", "multimem_all_reduce_", {"input": [1.0]}),
    ],
)
def test_torchs_operators_are_given_what_their_schemas_ask_for(monkeypatch, name, operator, written):
    memory, row = FakeMemory(monkeypatch, multicast=4096), BACKENDS[name]
    communicator = row.connect(world(kind="cpu"))
    message, out = communicator.buffer(1, "bf16").fill_(1), communicator.buffer(1, "bf16").fill_(2)
    communicator.all_reduce(message, out)
    assert memory.log == [(operator, [1.0], written)]
    assert ("all_reduce" in row.in_place) == ("input" in written)


def test_shared_memory_is_kept_and_given_again_to_the_next_case(monkeypatch):
    FakeMemory(monkeypatch)
    communicator = BACKENDS["symm-one-shot"].connect(world(kind="cpu"))
    first = [communicator.buffer(8, "bf16"), communicator.buffer(8, "bf16"), communicator.buffer(16, "bf16")]
    assert len({one.data_ptr() for one in first}) == 3
    communicator.recycle_buffers()
    again = [communicator.buffer(8, "bf16"), communicator.buffer(8, "bf16"), communicator.buffer(16, "bf16")]
    assert [one.data_ptr() for one in again] == [one.data_ptr() for one in first]


def test_multimem_without_a_multicast_address_does_not_connect(monkeypatch):
    FakeMemory(monkeypatch)
    with pytest.raises(UserError, match="no multicast to its peers; it takes NVSwitch"):
        BACKENDS["symm-multimem"].connect(world(kind="cpu"))


def test_memory_that_cannot_be_shared_is_told_in_one_line(monkeypatch):
    FakeMemory(monkeypatch)

    def fail(memory, group):
        raise RuntimeError("CUDA driver error: peer access is not supported\nException raised from map_block\n#1 frame")

    monkeypatch.setattr(symmetric.symm_mem, "rendezvous", fail)
    with pytest.raises(
        UserError, match=r"^symmetric memory does not start: CUDA driver error: peer access is not supported$"
    ):
        BACKENDS["symm-one-shot"].connect(world(kind="cpu"))


def test_our_one_shot_begins_at_each_ranks_own_tensor_behind_a_barrier(monkeypatch):
    memory = FakeMemory(monkeypatch)
    made = BACKENDS["triton-one-shot"].connect(world(kind="cpu"))
    assert made._sum._buffers.tolist() == [1064, 2064]
    assert memory.log == ["barrier"]


def test_real_signatures_are_those_that_are_called():
    parameters = inspect.signature(symmetric.symm_mem.rendezvous).parameters
    assert list(parameters) == ["tensor", "group"]
    told = re.findall(r"(\w+): ", symmetric._SymmetricMemory.empty_strided_p2p.__doc__)
    assert told[:4] == ["size", "stride", "dtype", "device"]


def test_a_peer_copy_lands_with_the_rank_that_is_named_and_says_how(monkeypatch):
    made = symmetric.PeerCommunicator(world())
    asked = []
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda *pair: asked.append(pair) or pair == (0, 1))
    assert (made.transfer_path(1), made.transfer_path(2)) == ("peer", "host")
    assert asked == [(0, 1), (0, 2)]
    with pytest.raises(ValueError, match="out lies on cpu, not with rank 1"):
        made.copy_to(torch.ones(2), 1, torch.zeros(2))
    monkeypatch.setattr(torch, "empty", lambda *size, dtype, device: (size, dtype, device))
    assert made.buffer_at(1, 8, "bf16") == ((8,), torch.bfloat16, torch.device("cuda", 1))

import re

import pytest

from reports import machine
from reports.__main__ import main
from reports.roofline import CaseMetrics
from specs.roofline import Ceilings
from tests.reports.importers.nccl_tests import planted_outputs as planted
from tests.reports.importers.nccl_tests.planted_outputs import ALL_REDUCE, line, output


def case(file, name):
    (found,) = [one for one in file.measurements if one.case.name == f"nccl-tests::{name}"]
    return found


def test_a_run_is_read_as_it_was_printed(run):
    file, said = run(ALL_REDUCE)
    assert said.startswith("6 cases of NVIDIA H100 80GB HBM3: 6 all_reduce\n")
    one = case(file, "all_reduce[8x16384-fp32-nccl-eager-out-of-place]")
    assert one.samples == pytest.approx([18.3e-6], rel=1e-12)
    assert case(file, "all_reduce[8x268435456-fp32-nccl-eager-in-place]").median == pytest.approx(1015.5e-6, rel=1e-12)
    assert (one.case.question, one.case.op, one.case.implementation) == ("communication", "all_reduce", "nccl")
    assert (one.case.dtype, one.case.ranks, one.case.message_bytes, one.case.launch) == ("fp32", 8, 16384, "eager")
    assert one.case.wire_bytes_sent_per_rank == 28_672  # 2·7/8·16384
    assert (one.case.hbm_bytes, one.case.flops, one.case.gap_seconds, one.case.pair) == (0, 0, 0.0, None)
    assert (one.provenance, one.clock, one.calls, one.doubts) == ("measured", "nccl-tests", 20, ())
    assert (one.framework, one.version, one.kernel_source) == ("nccl-tests", "2.17.6", "NCCL 2.28.7")
    assert (file.not_run, file.failed) == ({}, {})


def test_an_average_of_unknown_spread_is_a_single_pass(run):
    file, _ = run(ALL_REDUCE)
    for one in file.measurements:
        assert one.interval is None
        assert CaseMetrics(one, Ceilings(None, {}), None).warnings() == ["single pass"]


def test_the_gpu_is_known_and_the_host_is_not(run, tmp_path):
    file, _ = run(ALL_REDUCE)
    assert machine.known_gpu(file).slug == "h100_sxm"
    assert file.machine["nccl"] == "2.28.7"
    assert file.machine["source"] == "nccl-tests 2.17.6, imported; not timed by shardbench"
    assert "all_reduce_perf: 8 ranks on 1 host, eager, average of 20 calls" in file.notes
    assert not re.search("node-17|4711", (tmp_path / "out.json").read_text())


def test_json_is_read_like_text_and_its_environment_is_not_kept(run, tmp_path):
    file, _ = run(planted.document())
    one = case(file, "all_reduce[8x1048576-fp32-nccl-eager-out-of-place]")
    assert (one.case.ranks, one.median, one.kernel_source) == (8, pytest.approx(35.2e-6), "NCCL 2.28.7")
    assert not re.search("node-17|somebody|hunter2|4711", (tmp_path / "out.json").read_text())


@pytest.mark.parametrize(
    ("processes", "each", "listed", "ranks"),
    [(1, 8, [0], 8), (2, 8, [0, 8], 16), (8, 1, [*range(8)], 8), (1, 8, [*range(8)], 8)],
)
def test_json_lists_one_device_a_process_or_all(run, processes, each, listed, ranks):
    device = {"group": 0, "hostname": "h", "device_info": planted.GPU}
    config = {"nthreads": 1, "ngpus": each, "devices": [device | {"rank": rank} for rank in listed]}
    rate = 1e6 / 100 / 1e3
    half = {"time": 100.0, "alg_bw": rate, "bus_bw": rate, "nwrong": None}
    result = {"size": 10**6, "count": 250_000, "type": "float", "redop": "none", "root": "-1"}
    file, _ = run(
        planted.document(
            config=config, args=["sendrecv_perf"], results=[result | {"out_of_place": half, "in_place": None}]
        )
    )
    (one,) = file.measurements
    assert (one.case.ranks, one.case.launch, one.doubts) == (ranks, "unknown", ("result unchecked",))


@pytest.mark.parametrize(
    ("program", "op", "sent"),
    [
        ("all_reduce", "all_reduce", 1_835_008),  # 2·7/8·1048576
        ("all_gather", "all_gather", 917_504),  # 7/8·1048576
        ("reduce_scatter", "reduce_scatter", 917_504),
        ("broadcast", "broadcast", 1_048_576),
        ("sendrecv", "ring_shift", 1_048_576),
    ],
)
def test_every_program_is_our_operation(run, program, op, sent):
    file, _ = run(output(line(program), op=program))
    assert {one.case.op for one in file.measurements} == {op}
    assert {one.case.wire_bytes_sent_per_rank for one in file.measurements} == {sent}
    assert {one.case.message_bytes for one in file.measurements} == {1_048_576}
    assert not file.not_run


@pytest.mark.parametrize(
    ("name", "each", "dtype"),
    [("bfloat16", 2, "bf16"), ("half", 2, "fp16"), ("double", 8, "double"), ("int8", 1, "int8")],
)
def test_formats_have_our_names_or_keep_their_own(run, name, each, dtype):
    file, _ = run(output(line(name=name, each=each)))
    assert {one.case.dtype for one in file.measurements} == {dtype}


def test_graphs_are_another_launch_and_count_calls(run):
    file, _ = run(ALL_REDUCE.replace("graph: 0", "graph: 10"))
    assert {(one.case.launch, one.calls) for one in file.measurements} == {("graph", 200)}


def test_versions_without_graphs_say_nothing_of_them(run):
    file, _ = run(ALL_REDUCE.replace(" agg iters: 1 validation: 1 graph: 0", " validation: 1"))
    assert {one.case.launch for one in file.measurements} == {"eager"}


def test_hosts_are_counted(run):
    half = re.sub(r"(Rank  [4-7] .* on    )node-17", r"\1node-18", ALL_REDUCE)
    file, _ = run(half)
    assert case(file, "all_reduce[8x16384-fp32-nccl-eager-out-of-place-2-hosts]")
    assert "all_reduce_perf: 8 ranks on 2 hosts, eager, average of 20 calls" in file.notes


def test_groups_that_call_at_once_are_as_many_ranks_each(run):
    # 2 groups of 4: busbw = algbw · 2·3/4 = 29.789·1.5 = 44.68
    text = output(line().replace("52.13", "44.68"))
    file, _ = run(re.sub(r"(Rank  \d*[13579] Group  )0", r"\g<1>1", text))
    assert case(file, "all_reduce[4x1048576-fp32-nccl-eager-in-place-2-groups]").case.ranks == 4


def test_a_case_printed_again_is_another_pass(run):
    file, _ = run(output(line(microseconds=35.2), line(microseconds=36.2)), output(line(microseconds=35.7)))
    (one, _) = file.measurements
    assert one.seconds == (pytest.approx((35.2e-6,)), pytest.approx((36.2e-6,)), pytest.approx((35.7e-6,)))


def test_several_programs_in_one_log_and_lines_between_them(run):
    noise = "NCCL version 2.28.7+cuda13.0\nnode-17:4711:4720 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1]\n"
    log = "".join(
        f"[1,0]<stdout>:{one}\n" for one in (ALL_REDUCE + noise + output(line("sendrecv"), op="sendrecv")).splitlines()
    )
    file, _ = run(log)
    assert {one.case.op for one in file.measurements} == {"all_reduce", "ring_shift"}
    assert len(file.measurements) == 8


def test_a_program_without_a_counterpart_is_listed(run):
    file, said = run(ALL_REDUCE + output(line(), op="alltoall"))
    assert len(file.measurements) == 6
    assert file.not_run == {
        "nccl-tests::alltoall_perf": "alltoall_perf has no counterpart here; known: all_reduce_perf, all_gather_perf, "
        "reduce_scatter_perf, broadcast_perf, sendrecv_perf"
    }
    assert "not imported: alltoall_perf has no counterpart here" in said


def test_rccl_is_named_so(run):
    text = ALL_REDUCE.replace("nccl-", "rccl-").replace(planted.GPU, "AMD Instinct MI300X")
    file, _ = run(text)
    assert {one.case.implementation for one in file.measurements} == {"rccl"}
    assert file.machine["gpu"] == "AMD Instinct MI300X"
    assert file.machine["rccl"] == "2.28.7"


def test_an_old_version_names_no_program_and_gives_errors(run):
    text = ALL_REDUCE[ALL_REDUCE.index("# nThread") :].replace(" Group  0", "").replace("#wrong", " error")
    text = text.replace("       0\n", "   2e-07\n").replace("    root", "").replace("      -1", "")
    _, said = run(text)
    assert "does not say which program it is of; give --op, one of all_reduce_perf, " in said
    file, _ = run(text, options=["--op", "all_reduce"])
    assert len(file.measurements) == 6
    assert not file.failed


def test_a_result_that_nobody_checked_says_so(run):
    file, _ = run(output(line("sendrecv", wrong=("0", "N/A")), op="sendrecv"))
    assert case(file, "ring_shift[8x1048576-fp32-nccl-eager-out-of-place]").doubts == ()
    assert case(file, "ring_shift[8x1048576-fp32-nccl-eager-in-place]").doubts == ("result unchecked",)


def test_wrong_elements_fail_the_case_and_leave_no_number(run):
    file, said = run(output(line(wrong=("0", "1e+06")), bounds="1 FAILED"))
    assert [one.case.name for one in file.measurements] == [
        "nccl-tests::all_reduce[8x1048576-fp32-nccl-eager-out-of-place]"
    ]
    assert file.failed == {
        "nccl-tests::all_reduce[8x1048576-fp32-nccl-eager-in-place]": "line 18: 1e+06 elements were wrong"
    }
    assert "failed: line 18: 1e+06 elements were wrong" in said


def test_wrong_once_is_wrong(run):
    file, _ = run(output(line(), line(wrong=("3", "0")), bounds="1 FAILED"))
    assert [*file.failed] == ["nccl-tests::all_reduce[8x1048576-fp32-nccl-eager-out-of-place]"]
    assert len(file.measurements) == 1


def test_show_prints_it(run, tmp_path, capsys):
    run(ALL_REDUCE)
    with pytest.raises(SystemExit) as caught:
        main(["show", str(tmp_path / "out.json")])
    assert not caught.value.code
    said = capsys.readouterr().out
    assert "NVIDIA H100 80GB HBM3" in said
    assert "8 ranks on 1 host, eager, average of 20 calls" in said

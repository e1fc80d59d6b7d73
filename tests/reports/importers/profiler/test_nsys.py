"""Traces of Nsight Systems: whose a kernel is, and what a call of a case takes."""

import pytest

from tests.reports.importers.profiler.planted_trace import CASE, GRAPH, HOST, MEMCPY, NVTX, RUNTIME, Trace
from tests.reports.run_reports import run_reports


@pytest.fixture
def told(imported, tmp_path):
    """The row of the one case, the notes and the file."""

    def reads(trace, *options, **how):
        cases, notes, file = imported(trace.write(tmp_path / "trace.sqlite", **how), *options)
        (one,) = cases.values()
        assert one["case"] == CASE
        return one, notes, file

    return reads


def eager(calls=4, marked=True):
    """A call is a gemm of 10 us and, right behind it, a sum of 8 us; calls begin every 20 us. Our clock says 20 us."""
    trace = Trace()
    trace.visit(0, 1000, (200, 900), call=(10, 100))
    trace.eager(11, 12, 25)  # the first call is slower
    trace.eager(13, 25, 40, "sum")
    for at in range(210, 210 + 20 * calls, 20):
        trace.eager(at, at + 2, at + 12)
        trace.eager(at + 1, at + 12, at + 20, "sum")
    if marked:
        trace.tell(950, calls, 20e-6)
    return trace


def test_an_eager_call_takes_what_its_kernels_take_and_our_clock_sees_the_gaps_too(told):
    one, notes, file = told(eager())
    # 4 calls of 10 + 8 us; from 212 to 210 + 60 + 20 = 290: 78 us over 4 calls; 20 us by our clock
    assert one["busy_seconds"] == pytest.approx(18e-6)
    assert one["span_seconds"] == pytest.approx(19.5e-6)
    assert one["sum_seconds"] == pytest.approx(18e-6)
    assert (one["clock_seconds"], one["ratio"]) == (pytest.approx(20e-6), pytest.approx(20 / 18))
    assert (one["visits"], one["calls"], one["kernels_per_call"], one["streams"]) == (1, 4, 2, 1)
    assert one["launch"] == "eager"
    assert one["explained_by"] == "device idle 10%: the host's launch gaps"
    (measurement,) = file.measurements
    assert (measurement.case.name, measurement.case.question, measurement.clock) == (CASE, "decode", "nsys")
    assert (measurement.case.kernel, measurement.case.launch) == ("void gemm<float>(int)", "eager")
    assert measurement.seconds == ((pytest.approx(18e-6),),)
    assert any("nsys was attached" in note for note in notes)


def test_the_file_says_that_it_is_a_profile_and_names_the_gpu_but_no_host(told, tmp_path):
    _, _, file = told(eager())
    assert (file.profiler, file.published) == ("Nsight Systems 2024.6.2.225", False)
    machine = {"gpu": "NVIDIA H100 80GB HBM3", "arch": "sm_90", "sms": 132, "gpu_memory_bytes": 85_017_493_504}
    assert machine.items() <= file.machine.items()
    assert HOST in (tmp_path / "trace.sqlite").read_bytes().decode(errors="ignore")
    assert HOST not in file.path.read_text()
    assert run_reports("check", file.path) == 0


def test_every_visit_is_a_pass_and_the_figure_their_median(told):
    trace = eager()
    # a second and a third visit of two calls: 15 us and 30 us each
    for start, each in ((2000, 15), (3000, 30)):
        trace.visit(start, start + 500, (start + 10, start + 400))
        for at in (start + 20, start + 120):
            trace.eager(at, at + 2, at + 2 + each - 5)
            trace.eager(at + 1, at + 2 + each - 5, at + 2 + each, "sum")
        trace.tell(start + 450, 2, each * 1e-6)
    one, _, file = told(trace)
    assert file.measurements[0].seconds == tuple((pytest.approx(each * 1e-6),) for each in (18, 15, 30))
    assert one["busy_seconds"] == pytest.approx(18e-6)
    assert one["clock_seconds"] == pytest.approx(20e-6)
    assert (one["visits"], one["calls"]) == (3, 8)


def graphs(node=True, marked=True):
    """A graph of 2 calls and one of 4, launched once each: a call is a gemm of 10 us, a gap of 1, a sum of 5."""
    trace = Trace()
    trace.visit(0, 1000, (200, 900), call=(10, 100))
    trace.eager(11, 12, 22)
    trace.eager(13, 25, 30, "sum")
    for at, calls in ((300, 2), (500, 4)):
        number = trace.launch(at - 90, name="cudaGraphLaunch_v10000")
        if not node:
            trace.kernel(number, at, at + 16 * calls - 1, table=GRAPH)
            continue
        for call in range(calls):
            start = at + 16 * call
            trace.kernel(number, start, start + 10, node=1 + 2 * call)
            trace.kernel(number, start + 11, start + 15 + 1, "sum", node=2 + 2 * call)
    if marked:
        trace.tell(950, 6, 16e-6)
    return trace


def test_the_kernels_of_a_graph_belong_to_the_range_in_which_it_was_launched(told):
    one, _, file = told(graphs())
    # 6 calls of 10 + 5 us; each graph from its first start to its last end: 2 x 16 and 4 x 16 us
    assert one["launch"] == file.measurements[0].case.launch == "graph"
    assert one["busy_seconds"] == pytest.approx(15e-6)
    assert one["span_seconds"] == pytest.approx(16e-6)
    assert (one["calls"], one["kernels_per_call"]) == (6, 2)
    assert one["ratio"] == pytest.approx(16 / 15)
    assert one["explained_by"] == "device idle 6.2%: gaps between a graph's kernels"


def test_graphs_that_were_traced_as_a_whole_are_counted_by_the_mark(told):
    one, notes, _ = told(graphs(node=False))
    # 31 and 63 us over 2 + 4 calls, gaps included; the checked call tells how many kernels a call has
    assert one["busy_seconds"] == pytest.approx(94e-6 / 6)
    assert (one["calls"], one["kernels_per_call"], one["launch"]) == (6, 2, "graph")
    assert any("--cuda-graph-trace=node" in note for note in notes)


def test_whole_graphs_without_a_mark_are_refused_for_nothing_says_how_many_calls_they_hold(refused, tmp_path):
    said = refused(graphs(node=False, marked=False).write(tmp_path / "trace.sqlite"))
    assert "no mark says how many calls they hold: `--cuda-graph-trace=node`" in said


def test_a_graph_that_is_there_as_a_whole_and_by_node_counts_once(told):
    trace = graphs()
    trace.kernel(trace.launches, 500, 564, table=GRAPH)
    one, *_ = told(trace)
    assert one["busy_seconds"] == pytest.approx(15e-6)


@pytest.mark.parametrize(("dropped", "note"), [((), "taken from the kernels"), (("call",), "greatest common divisor")])
def test_a_trace_without_marks_is_counted_by_the_checked_call_or_else_by_its_kernels(told, dropped, note):
    trace = eager(marked=False)
    if dropped:
        trace.rows[NVTX] = [row for row in trace.rows[NVTX] if row.get("textId") != trace.string("call")]
    one, notes, _ = told(trace)
    assert (one["calls"], one["busy_seconds"]) == (4, pytest.approx(18e-6))
    assert one["clock_seconds"] is None
    assert any(note in text for text in notes)


def test_streams_that_overlap_count_once(told):
    trace = Trace()
    trace.visit(0, 1000, (200, 900))
    # one call: 10 us on one stream, 8 us on another that begins 6 us after it, so 14 us busy and 18 us of kernels
    trace.eager(210, 220, 230)
    trace.eager(211, 226, 234, "sum", stream=13)
    trace.tell(950, 1, 14e-6)
    one, *_ = told(trace)
    assert one["busy_seconds"] == pytest.approx(14e-6)
    assert one["sum_seconds"] == pytest.approx(18e-6)
    assert (one["streams"], one["ratio"]) == (2, pytest.approx(1.0))
    assert one["explained_by"] == "streams overlap: kernels add up to 1.29 times the busy time"


def test_processes_that_count_launches_alike_are_told_apart_and_the_slowest_rank_is_the_sample(told):
    trace = Trace()
    for pid, each in ((100, 10), (200, 12)):
        trace.visit(0, 1000, (200, 900), pid=pid)
        for number in (1, 2):  # the same correlation ids in both
            trace.eager(200 + 20 * number, 300 + 20 * number, 300 + 20 * number + each, pid=pid, number=number)
        trace.tell(950, 2, 1e-6 * each, pid=pid)
    one, notes, file = told(trace)
    assert file.measurements[0].seconds == ((pytest.approx(12e-6),),)
    assert (one["visits"], one["clock_seconds"]) == (1, pytest.approx(12e-6))
    assert any("several processes" in note for note in notes)


def test_a_kernel_belongs_to_the_range_of_its_own_thread_and_to_ours_alone(told):
    trace = eager()
    trace.eager(215, 400, 450, "other thread", tid=2)  # while ours is timing
    trace.range("step", 190, 920, domain="someone else's")  # around ours and within it
    trace.range("layer", 205, 300, domain="someone else's")
    trace.range("timed", 960, 990, domain="someone else's")
    trace.eager(970, 971, 981, "theirs")
    trace.eager(1500, 1501, 1599, "outside of any range")
    one, notes, _ = told(trace)
    assert (one["busy_seconds"], one["calls"]) == (pytest.approx(18e-6), 4)
    assert any(note.startswith("2 kernels and copies were launched outside of our ranges") for note in notes)
    # "theirs" was launched in our case's range, though in none of its parts


def test_a_copy_is_device_time_and_no_kernel(told):
    trace = Trace()
    trace.visit(0, 1000, (200, 900))
    trace.eager(210, 220, 230)
    trace.kernel(trace.launch(211, name="cudaMemcpyAsync_v3020"), 230, 234, table=MEMCPY)
    trace.tell(950, 1)
    one, *_ = told(trace)
    assert (one["busy_seconds"], one["kernels_per_call"]) == (pytest.approx(14e-6), 1)


def test_what_ranks_do_between_calls_is_left_out(told):
    trace = eager()
    trace.eager(205, 206, 207, "fill")
    one, notes, _ = told(trace)
    assert (one["busy_seconds"], one["kernels_per_call"]) == (pytest.approx(18e-6), 2)
    assert any("left out of `timed`" in note for note in notes)


def test_a_call_that_launches_more_than_the_checked_one_is_said(told):
    trace = eager()
    trace.eager(300, 301, 303)
    _, notes, _ = told(trace)
    assert any(note.startswith("9 kernels and copies in 4 calls, where the checked call launches 2") for note in notes)


def test_a_trace_that_was_stopped_inside_our_ranges_and_lacks_the_domains_name_is_still_read(told):
    trace = eager()
    trace.rows[NVTX] = [row for row in trace.rows[NVTX] if row["eventType"] not in (75, 33)]
    for row in trace.rows[NVTX]:
        if row.get("textId") == trace.string(CASE):
            row["end"] = None
    one, _, file = told(trace)
    assert one["busy_seconds"] == pytest.approx(18e-6)
    assert file.measurements[0].case.question == "unknown"


def test_a_visit_in_which_the_trace_ended_is_left_out(told):
    trace = eager()
    trace.visit(2000, None, (2100, None))
    trace.eager(2110, 2120, 2199)
    one, notes, _ = told(trace)
    assert (one["visits"], one["calls"], one["busy_seconds"]) == (1, 4, pytest.approx(18e-6))
    assert "the trace ended inside of 1 visit: left out" in notes


def test_columns_that_versions_lack_are_done_without(told):
    old = {NVTX: ("jsonText", "binaryData", "floatValue"), "CUPTI_ACTIVITY_KIND_KERNEL": ("graphNodeId", "mangledName")}
    one, *_ = told(eager(), dropped={**old, "TARGET_INFO_GPU": ("l2CacheSize", "cuDevice")})
    assert one["busy_seconds"] == pytest.approx(18e-6)
    one, _, file = told(eager(), without=("TARGET_INFO_GPU", "META_DATA_EXPORT"))
    assert (file.machine["gpu"], file.profiler) == ("unknown GPU (of unknown architecture)", "Nsight Systems")


def test_a_case_of_which_nothing_was_timed_is_listed(told):
    trace = eager()
    trace.visit(2000, 2100, (2050, 2090), case=f"{CASE}x")
    _, _, file = told(trace)
    assert file.not_run == {f"{CASE}x": "no kernel was launched in `timed`"}


def test_the_api_calls_have_to_be_there(refused, tmp_path):
    said = refused(eager().write(tmp_path / "trace.sqlite", without=(RUNTIME,)))
    assert "ranges of 1 case, but 10 kernels and copies, none in them" in said

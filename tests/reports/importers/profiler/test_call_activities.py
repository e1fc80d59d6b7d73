"""Which kernels of `timed` are a call's: what is left out is said, and no gap that it may fill is called idle."""

import pytest

from tests.reports.importers.profiler.planted_trace import CASE, Trace
from tests.reports.importers.profiler.test_nsys import eager, graphs, told

__all__ = ["told"]


def test_a_kernel_that_runs_in_every_call_counts_though_the_checked_call_did_not_launch_it(told):
    trace = Trace()
    trace.visit(0, 1000, (200, 900), call=(10, 100))
    trace.eager(11, 12, 22)
    for at in (210, 250, 290):
        trace.eager(at, at + 2, at + 12)
        trace.eager(at + 1, at + 12, at + 32, "split-k sum")
    trace.tell(950, 3, 30e-6)
    one, notes, _ = told(trace)
    # 10 + 20 us a call; the gemm alone would leave 20 of our clock's 30 us to be explained
    assert (one["busy_seconds"], one["kernels_per_call"]) == (pytest.approx(30e-6), 2)
    assert one["explained_by"] == ""
    assert [note for note in notes if "split-k sum" in note and note.startswith("counted")]


def test_what_does_not_run_in_every_call_is_named_with_its_time_and_its_gap_is_not_called_idle(told):
    trace = eager()
    trace.eager(205, 300, 340, "fill")
    one, notes, _ = told(trace)
    # 40 us over 4 calls; the calls take 18 of our clock's 20 us
    assert one["busy_seconds"] == pytest.approx(18e-6)
    assert one["explained_by"] == "device idle or at kernels not counted here, 10%: see the notes"
    assert [note for note in notes if note.endswith("void fill<float>(int), 10 us a call in all")]


def test_a_timed_part_of_other_kernels_alone_is_counted_whole_and_that_is_said(told):
    trace = Trace()
    trace.visit(0, 1000, (200, 900), call=(10, 100))
    trace.eager(11, 12, 22)
    trace.eager(210, 212, 242, "other")
    trace.eager(250, 252, 282, "other")
    trace.tell(950, 2)
    one, notes, _ = told(trace)
    assert (one["busy_seconds"], one["calls"]) == (pytest.approx(30e-6), 2)
    assert "`timed` holds none of the kernels of the checked call: all of it is counted" in notes


def test_what_ranks_do_between_samples_is_left_out_though_its_kernel_is_the_calls_own(told):
    trace = eager()
    trace.range("between", 600, 700)
    trace.eager(610, 620, 690)  # a barrier: the kernel of an all-reduce
    one, notes, _ = told(trace)
    assert (one["busy_seconds"], one["kernels_per_call"]) == (pytest.approx(18e-6), 2)
    assert not [note for note in notes if "calls" in note and "kernels" in note]


def test_beside_graphs_what_is_in_none_is_no_call(told):
    trace = graphs()
    trace.eager(250, 260, 290)  # a barrier of an older run, by the name of the graph's own kernels
    one, notes, _ = told(trace)
    assert one["busy_seconds"] == pytest.approx(15e-6)
    # 30 us over 6 calls
    assert [note for note in notes if note.endswith("void gemm<float>(int), 5 us a call in all")]


def test_the_first_checked_call_alone_is_a_call(told):
    trace = eager(marked=False)
    trace.range("call", 101, 150)
    widened = next(row for row in trace.rows["NVTX_EVENTS"] if row.get("textId") == trace.string("warm-up"))
    widened["end"] = 160_000
    trace.eager(110, 120, 130)
    trace.eager(111, 130, 140, "sum")
    one, *_ = told(trace)
    # 4 calls of 10 + 8 us, and not 2 of twice that
    assert (one["calls"], one["busy_seconds"]) == (4, pytest.approx(18e-6))


def test_events_that_were_lost_leave_a_gap_that_is_not_called_idle(told):
    trace = eager()
    trace.rows["CUPTI_ACTIVITY_KIND_KERNEL"].pop()
    one, notes, _ = told(trace)
    assert one["explained_by"].startswith("device idle or at kernels not counted here")
    assert [note for note in notes if note.startswith("7 kernels and copies in 4 calls")]


def ranks(*visits):
    """Visits of two calls: process, start, microseconds a call."""
    trace = Trace()
    for pid, start, each in visits:
        trace.visit(start, start + 1000, (start + 200, start + 900), pid=pid)
        for at in (start + 210, start + 410):
            trace.eager(at, at + 2, at + 2 + each, pid=pid)
        trace.tell(start + 950, 2, pid=pid)
    return trace


def test_processes_one_after_another_are_visits_of_their_own(told):
    one, notes, file = told(ranks((100, 0, 10), (200, 5000, 20)))
    assert file.measurements[0].seconds == ((pytest.approx(10e-6),), (pytest.approx(20e-6),))
    assert one["visits"] == 2
    assert "several processes ran it one after another: each is a visit of its own" in notes
    assert not [note for note in notes if "slowest" in note]


def test_a_visit_that_one_rank_lacks_is_left_out_and_that_is_said(told):
    # the second rank's only visit is the second of the first rank
    one, notes, file = told(ranks((100, 0, 10), (100, 2000, 12), (100, 4000, 14), (200, 2001, 13)))
    assert file.measurements[0].seconds == ((pytest.approx(13e-6),),)
    assert (one["visits"], one["streams"]) == (1, 1)
    assert "2 visits that not all of 2 processes have: left out" in notes


def test_streams_are_those_of_one_process(told):
    trace = ranks((100, 0, 10), (200, 1, 12))
    for row in trace.rows["CUPTI_ACTIVITY_KIND_KERNEL"][:2]:
        row["deviceId"] = 1
    one, *_ = told(trace)
    assert one["streams"] == 1


def test_kernels_that_overlap_on_one_stream_are_no_streams_that_overlap(told):
    trace = Trace()
    trace.visit(0, 1000, (200, 900))
    trace.eager(210, 220, 230)
    trace.eager(211, 226, 234, "sum")
    trace.tell(950, 1, 14e-6)
    one, *_ = told(trace)
    assert one["explained_by"].startswith("kernels start before the one before them ends, on one stream")


def test_names_of_people_in_a_traces_texts_are_not_passed_on(imported, tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "annabel")
    trace = Trace()
    trace.visit(0, 1000, (200, 900), case=f"/home/somebody/{CASE}")
    trace.eager(210, 220, 230, "annabel::gemm")
    trace.tell(950, 1)
    cases, _, file = imported(trace.write(tmp_path / "trace.sqlite"))
    assert list(cases) == [f"/home/<user>/{CASE}"]
    assert file.measurements[0].case.kernel == "void <user>::gemm<float>(int)"
    assert "annabel" not in file.path.read_text()
    assert "somebody" not in file.path.read_text()

"""All-reduces behind a linear: what the ranks' times add up to, and what cannot run."""

import pytest

from kernels.linear import RTOL
from specs.measurement import WAITED_SHARE
from suites.case import CollectiveRunConfig
from suites.probes.late_ranks import (
    MAX_CALLS,
    QUESTION,
    CollectiveAndInStepBench,
    InStepAllReduce,
    combine_ranks,
    plan_in_step_case,
)
from suites.workers.launcher import RankPlan

HOW = CollectiveRunConfig("bf16", "eager", 0.0, "gloo")
PART = InStepAllReduce("tiny", 2, "o", 4, 0.0)
RANKS = RankPlan(2, "cpu")


def of_rank(all_reduces, delays=(), call=1e-3):
    return {"all_reduces": list(all_reduces), "delays": list(delays), "call_seconds": call}


class FakeWorkers:
    """Ranks that report planted seconds of each call; the first round, which warms up, is far off."""

    processes, hosts = (), 1

    def __init__(self, *all_reduces, delay=0.0, call=1e-3, errors=(1e-3, 1e-3), copies=(7, 5)):
        self.told, self.is_running = [], False
        self._all_reduces, self._delay, self._call = all_reduces, delay, call
        self._errors, self._copies = errors, copies

    def start(self):
        self.is_running = True

    def run_command(self, command, arguments, doing):
        self.told.append((command, arguments, doing))
        if command == "draw":
            return [{"copies": count} for count in self._copies]
        if command == "check":
            return [{"error": error} for error in self._errors]
        assert command == "sample_behind_linear"
        return [{"rounds": self._rounds(rank, **arguments), "clock": "perf_counter"} for rank in range(2)]

    def _rounds(self, rank, calls, rounds):
        late = [self._delay] * calls if rank == 1 and self._delay else []
        usual = of_rank([self._all_reduces[rank]] * calls, late, self._call)
        return [of_rank([9.0] * calls, late, 9.0), *[usual] * (rounds - 1)]

    def asked(self, command):
        return [arguments for one, arguments, _ in self.told if one == command]


def planned(part=PART, how=HOW, ranks=RANKS):
    return plan_in_step_case("a case", ranks, part, QUESTION, how)


def visit(workers, entry, ranks=RANKS, share=1.0):
    bench = CollectiveAndInStepBench(workers, ranks, 2**40, [entry])
    samples = bench.visit(entry, share)
    if samples:
        entry.seconds.append(samples)
    return bench, samples


def test_a_sample_is_the_mean_over_ranks_and_the_skew_the_part_before_the_latest_has_come():
    entry = planned()
    _, samples = visit(FakeWorkers(5e-4, 3e-4), entry)
    assert samples == pytest.approx([4e-4] * len(samples)), "without the first round"
    assert len(samples) > 1
    assert entry.measurement().skew_seconds == pytest.approx(1e-4)  # one of two ranks waits 200 us
    assert entry.measurement().clock == "perf_counter"
    assert entry.measurement().copies == 5, "the fewest of all ranks"


def test_the_latest_rank_may_be_another_in_every_call():
    found = combine_ranks([of_rank([5.0, 1.0, 2.0]), of_rank([1.0, 7.0, 2.0])], late=False)
    assert found.all_reduce == pytest.approx(3.0)
    assert found.wait == pytest.approx(3.0 - (1 + 1 + 2) / 3)


def test_of_a_late_rank_the_others_count_and_what_they_wait_stands_over_its_own_delay():
    entry = planned(PART._replace(late_seconds=1e-3))
    # planned 1 ms, made 1.25 ms; the others wait 1 ms of it
    _, samples = visit(FakeWorkers(1.3e-3, 0.3e-3, delay=1.25e-3), entry)
    assert samples == pytest.approx([1.3e-3] * len(samples))
    assert entry.measurement().skew_seconds == pytest.approx(1.0e-3)
    assert entry.measurement().telemetry[WAITED_SHARE] == pytest.approx(0.8)


def test_without_a_late_rank_no_share_is_kept():
    entry = planned()
    visit(FakeWorkers(5e-4, 3e-4), entry)
    assert WAITED_SHARE not in (entry.measurement().telemetry or {})


def test_the_share_is_the_mean_of_all_visits():
    entry = planned(PART._replace(late_seconds=1e-3))
    visit(FakeWorkers(1.3e-3, 0.3e-3, delay=1e-3), entry)
    visit(FakeWorkers(0.8e-3, 0.3e-3, delay=1e-3), entry)
    assert entry.measurement().telemetry[WAITED_SHARE] == pytest.approx(0.75)


def test_times_that_are_no_times_end_the_case_and_none_becomes_a_zero():
    with pytest.raises(RuntimeError, match="took no time in a sample"):
        visit(FakeWorkers(-1e-7, 1e-7), planned())


def test_a_wrong_result_is_not_timed_and_the_worst_rank_decides():
    workers, entry = FakeWorkers(1e-3, 1e-3, errors=(0.0, 0.25)), planned()
    _, samples = visit(workers, entry)
    assert samples == ()
    assert entry.failed.startswith("wrong result: relative error 0.25")
    assert not workers.asked("sample_behind_linear")


def test_the_parts_of_all_ranks_are_rounded():
    visit(FakeWorkers(1e-3, 1e-3, errors=(1.4 * RTOL["bf16"], 0.0)), entry := planned())
    assert entry.failed is None
    visit(FakeWorkers(1e-3, 1e-3, errors=(1.5 * RTOL["bf16"], 0.0)), entry := planned())
    assert entry.failed


def test_a_case_is_set_up_in_every_visit_and_checked_in_the_first():
    workers, entry = FakeWorkers(1e-3, 1e-3), planned()
    bench, _ = visit(workers, entry)
    bench.visit(entry, 1.0)
    assert (len(workers.asked("check")), len(workers.asked("draw"))) == (1, 2)
    assert workers.asked("draw")[0]["task"] == {
        "op": "all_reduce", "backend": "gloo", "dtype": "bf16", "elements": 4 * 256, "row": 256, "launch": "eager",
        "gap_seconds": 0.0, "source": 0, "target": 1, "k": 128, "late_seconds": 0.0,
    }  # fmt: skip


def test_a_sample_spans_twenty_milliseconds_of_whole_calls():
    workers = FakeWorkers(1e-4, 1e-4, call=9e-4)
    visit(workers, planned())
    first, sampled = workers.asked("sample_behind_linear")
    assert first == {"calls": 2, "rounds": 2}, "an estimate, whose first round warms up"
    assert sampled["calls"] == 23


@pytest.mark.parametrize(("copies", "calls"), [((100, 100), 100), ((1000, 1000), MAX_CALLS), ((4, 4), 50)])
def test_a_graph_holds_as_many_calls_as_leave_the_weights_cold(copies, calls):
    gpus = RankPlan(2, "cuda")
    entry = planned(how=HOW._replace(launch="graph", implementation="nccl"), ranks=gpus)
    entry.not_run, entry.call_seconds = None, 2e-5
    workers = FakeWorkers(1e-5, 1e-5, call=2e-5, copies=copies)
    visit(workers, entry, gpus)
    assert workers.asked("sample_behind_linear")[-1]["calls"] == calls


def test_a_case_names_its_linear_message_and_delay_and_no_gap():
    case = planned(PART._replace(late_seconds=4e-3, layer="down")).case
    assert (case.question, case.op, case.layer, case.tp, case.pp, case.tokens) == (
        "late_ranks", "all_reduce", "down", 2, 1, 4,
    )  # fmt: skip
    assert (case.ranks, case.message_bytes, case.wire_bytes_sent_per_rank) == (2, 4 * 256 * 2, 4 * 256 * 2)
    assert (case.late_seconds, case.gap_seconds, case.is_back_to_back) == (4e-3, 0.0, False)
    assert not planned().case.is_back_to_back


@pytest.mark.parametrize(
    ("part", "how", "ranks", "reason"),
    [
        (PART, HOW, RankPlan(1, "cuda"), "one GPU is one rank"),
        (PART._replace(tp=4), HOW, RANKS, "tp 4 is 4 ranks and this run has 2; choose --ranks 4"),
        (PART._replace(model="llama-3.2-1b", tp=3), HOW, RankPlan(3, "cpu"), "llama-3.2-1b: tp=3 must divide 32 heads"),
        (PART._replace(model="deepseek-v3"), HOW, RANKS, "deepseek-v3: its attention is not grouped-query"),
        (PART, HOW._replace(launch="graph"), RANKS, "launch graph: gloo cannot be captured"),
        (PART, HOW._replace(implementation="nccl"), RANKS, "nccl runs on cuda, and these ranks are on cpu"),
    ],
)
def test_what_cannot_run_says_why(part, how, ranks, reason):
    assert planned(part, how, ranks).not_run.startswith(reason)

"""How ranks' answers become samples: the slowest rank counts, and all are told the same."""

import math

import pytest

from comm.collectives import COLLECTIVES
from suites.case import CollectiveRunConfig
from suites.probes.collective import CollectiveBench, CollectiveCaseState, plan_collective_case
from suites.workers.launcher import RankPlan
from suites.workers.pool import MAX_LOSSES_IN_A_ROW
from suites.workers.process import RankLostError

HOW = CollectiveRunConfig("bf16", "eager", 0.0, "gloo")
RANKS = RankPlan(2, "cpu")


class FakeCollectiveWorkers:
    """Ranks that answer as planted: `seconds(calls)` is each rank's time a call."""

    processes = ()

    def __init__(self, seconds=lambda calls: (1e-3, 1e-3), errors=(0.0, 0.0), hosts=1, starts=None):
        self.told, self._seconds, self._errors, self.hosts = [], seconds, errors, hosts
        self.is_running, self._starts = False, iter(starts or ())

    def start(self):
        self.told.append(("start", {}))
        if next(self._starts, True) is False:
            raise RankLostError("rank 1 did not start within 60 s")
        self.is_running = True

    def run_command(self, command, arguments, doing):
        self.told.append((command, arguments))
        if command == "check":
            return [{"error": error} for error in self._errors]
        if command == "sample":
            times, first = self._seconds(arguments["calls"]), 9.0 if arguments["rounds"] > 3 else None
            rounds = [[first or one, *[one] * (arguments["rounds"] - 1)] for one in times]
            return [{"seconds": of_rank, "clock": "perf_counter"} for of_rank in rounds]
        return [{}, {}]

    def asked(self, command):
        return [arguments for one, arguments in self.told if one == command]


def case(op="all_reduce", message=2**14, how=HOW, **more) -> CollectiveCaseState:
    return plan_collective_case(
        "a case", RANKS, COLLECTIVES[op], "communication", how, None, message_bytes=message, **more
    )


def visit(crew, entry, share=1.0):
    bench = CollectiveBench(crew, RANKS, 2**40, [entry])
    samples = bench.visit(entry, share)
    if samples:
        entry.seconds.append(samples)
    return bench, samples


def test_a_sample_is_the_slowest_ranks_and_the_skew_is_that_of_the_whole_sample():
    entry = case()
    _, samples = visit(FakeCollectiveWorkers(lambda calls: (1.0e-3, 1.25e-3)), entry)
    assert set(samples) == {1.25e-3}, "the first one, which warms up, is none"
    assert entry.calls == 4
    assert entry.measurement().skew_seconds == pytest.approx(4 * 0.25e-3)


def test_how_long_a_call_takes_is_learnt_anew_in_every_visit():
    times = iter([4e-3, 4e-3, 1e-3, 1e-3, 1e-3])
    crew, entry = FakeCollectiveWorkers(lambda calls: (next(times, 1e-3),) * 2), case()
    bench, _ = visit(crew, entry)
    first = crew.asked("sample")[-1]["calls"]
    bench.visit(entry, 1.0)
    assert (first, crew.asked("sample")[-1]["calls"]) == (2, 5)


def test_on_a_gpu_one_difference_of_two_events_does_not_decide_how_many_calls_there_are():
    gpus = RankPlan(2, "cuda")
    entry = plan_collective_case("a", gpus, COLLECTIVES["all_reduce"], "communication", HOW, None, message_bytes=2**14)
    entry.not_run = None
    crew = FakeCollectiveWorkers(lambda calls: (-5e-6,) * 2 if calls < 8 else (1.5e-5,) * 2)
    CollectiveBench(crew, gpus, 2**40, [entry]).visit(entry, 1.0)
    assert crew.asked("sample")[-1]["calls"] == 67  # 1 ms over 15 us


def test_differences_that_are_no_times_end_the_case():
    gpus = RankPlan(2, "cuda")
    entry = plan_collective_case("a", gpus, COLLECTIVES["all_reduce"], "communication", HOW, None, message_bytes=2**14)
    entry.not_run = None
    with pytest.raises(RuntimeError, match="took no longer than"):
        CollectiveBench(FakeCollectiveWorkers(lambda calls: (-1e-6,) * 2), gpus, 2**40, [entry]).visit(entry, 1.0)


def test_ranks_that_were_started_anew_check_every_case_again():
    crew, entry = FakeCollectiveWorkers(), case()
    bench, _ = visit(crew, entry)
    crew.is_running = False
    bench.visit(entry, 1.0)
    assert [command for command, _ in crew.told if command in ("start", "check")] == ["start", "check"] * 2


def test_ranks_that_never_came_end_the_run_and_others_are_tried_twice():
    entry = case()
    bench = CollectiveBench(FakeCollectiveWorkers(starts=[False]), RANKS, 2**40, [entry])
    with pytest.raises(RankLostError):
        bench.visit(entry, 1.0)
    assert bench.lost() == "rank 1 did not start within 60 s"
    crew = FakeCollectiveWorkers(starts=[True, False, False])
    bench, _ = visit(crew, entry)
    for lost in ("", "rank 1 did not start within 60 s"):
        crew.is_running = False
        with pytest.raises(RankLostError):
            bench.visit(entry, 1.0)
        assert bench.lost() == lost


@pytest.mark.parametrize(("hosts", "transport"), [(1, "loopback"), (2, "network")])
def test_what_ranks_talk_over_is_known_when_they_have_met(hosts, transport):
    entry = case()
    visit(FakeCollectiveWorkers(hosts=hosts), entry)
    assert entry.measurement().transport == transport


def test_of_two_that_talk_the_waiting_ranks_do_not_count():
    entry = plan_collective_case(
        "a case", RankPlan(3, "cpu"), COLLECTIVES["send_recv"], "communication", HOW, None,
        message_bytes=2**14, source=0, target=1,
    )  # fmt: skip
    crew = FakeCollectiveWorkers(lambda calls: (2e-3, 1e-3, 1e-9), errors=(None, 0.0, None))
    _, samples = visit(crew, entry)
    assert set(samples) == {2e-3}
    assert entry.measurement().skew_seconds == pytest.approx(3 * 1e-3)  # three calls of 2 ms pass the 5 ms of a sample


def test_calls_come_from_the_slowest_rank_and_every_rank_is_told_the_same():
    crew = FakeCollectiveWorkers(lambda calls: (1e-5, 5e-5))
    visit(crew, case())
    # 5 ms a sample over 50 us a call
    assert crew.asked("sample")[-1]["calls"] == 100


def test_a_wrong_result_is_not_timed_and_the_worst_rank_decides():
    crew, entry = FakeCollectiveWorkers(errors=(0.0, 0.25)), case()
    _, samples = visit(crew, entry)
    assert samples == ()
    assert entry.failed.startswith("wrong result: relative error 0.25")
    assert not crew.asked("sample")


@pytest.mark.parametrize("errors", [("nan", 0.0), (0.0, "nan"), (None, None)])
def test_what_was_not_written_or_nobody_checked_fails(errors):
    entry = case()
    visit(FakeCollectiveWorkers(errors=errors), entry)
    assert entry.failed.startswith("wrong result: relative error nan")


def test_a_case_is_checked_on_its_first_visit_only():
    crew, entry = FakeCollectiveWorkers(), case()
    bench, _ = visit(crew, entry)
    bench.visit(entry, 1.0)
    assert len(crew.asked("check")) == 1


def test_after_an_idle_gap_a_sample_is_one_call():
    crew = FakeCollectiveWorkers(lambda calls: (1e-5, 1e-5))
    visit(crew, case(how=HOW._replace(gap_seconds=1e-3)))
    assert {asked["calls"] for asked in crew.asked("sample")} == {1}


def test_an_all_reduce_in_place_overflows_no_buffer():
    crew, entry = FakeCollectiveWorkers(lambda calls: (1e-6, 1e-6)), case()
    visit(crew, entry)
    calls, copies = crew.asked("sample")[-1]["calls"], crew.asked("draw")[-1]["copies"]
    assert calls == 5000
    # from 2^7, each copy doubled by every call that it serves: under 2^127
    assert 7 + math.ceil(calls / copies) < 127


def test_what_only_moves_needs_no_copies():
    crew, entry = FakeCollectiveWorkers(lambda calls: (1e-6, 1e-6)), case("all_gather")
    visit(crew, entry)
    assert {asked["copies"] for asked in crew.asked("draw")} == {1}


def test_three_lost_in_a_row_end_the_run_and_a_good_one_between_does_not():
    entry = case()
    bench = CollectiveBench(FakeCollectiveWorkers(), RANKS, 2**40, [entry])
    lost = RankLostError("rank 1 was killed")
    for _ in range(MAX_LOSSES_IN_A_ROW - 1):
        bench.describe_error(entry, lost)
    entry.seconds.append(bench.visit(entry, 1.0))
    bench.describe_error(entry, lost)
    assert bench.lost() == ""
    for _ in range(MAX_LOSSES_IN_A_ROW - 1):
        bench.describe_error(entry, lost)
    assert bench.lost().startswith(f"{MAX_LOSSES_IN_A_ROW} cases in a row ended a rank")


def test_what_does_not_fit_is_refused_before_anything_runs():
    entry = case(message=2**28)
    CollectiveBench(FakeCollectiveWorkers(), RANKS, 2**29, [entry])
    assert entry.failed.startswith("out of memory: needs about 1.50 GiB")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"how": HOW._replace(implementation="nccl")}, "nccl runs on cuda, and these ranks are on cpu"),
        ({"how": HOW._replace(launch="graph")}, "launch graph: gloo cannot be captured"),
        ({"how": HOW._replace(implementation="mpi")}, "mpi"),
        ({"op": "all_gather", "message": 6}, "a part for each of 2 ranks; give a multiple of 4"),
        ({"message": 3}, "3 bytes are no whole bf16 elements; give a multiple of 2"),
    ],
)
def test_what_cannot_run_says_why(change, reason):
    assert reason in case(**change).not_run


def test_one_rank_has_nobody_to_talk_to():
    entry = plan_collective_case(
        "a", RankPlan(1, "cuda"), COLLECTIVES["all_reduce"], "communication", HOW, None, message_bytes=64
    )
    assert "one rank" in entry.not_run

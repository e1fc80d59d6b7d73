"""How walks of ranks that compute their shares become samples of layers and of heads."""

import json

import pytest

from kernels.timing.device import SAMPLING_LIMITS, Device
from specs.layer import HEAD_SHARE, LAYER_SHARE
from suites.case import StepRunConfig
from suites.probes.share import Share, StepAndShareBench, plan_share_case
from suites.runner import PassRunner
from suites.workers.launcher import RankPlan
from suites.workers.process import CaseRefusedError
from tests.suites.probes.share_workers import FakeShareWorkers
from tests.suites.probes.test_model import case as step

CPU = Device("cpu", "cpu", 2**30, SAMPLING_LIMITS["cpu"])
RANKS = RankPlan(2, "cpu")
HOW = StepRunConfig("bf16", "torch", "gloo")


def case(part=LAYER_SHARE, *, tp=2, ranks=2, how=HOW):
    return plan_share_case(f"{part} {tp} {ranks}", CPU, RANKS, Share("tiny", 2, tp, ranks, 16, 32, part), "shares", how)


def pair(**how):
    return [case(LAYER_SHARE, **how), case(HEAD_SHARE, **how)]


def visit(crew, *entries, times=1):
    ours = StepAndShareBench(crew, RANKS, entries)
    for _ in range(times):
        for entry in entries:
            if samples := ours.visit(entry, 1.0):
                entry.seconds.append(samples)
    return ours


def run(crew, entries, passes=2):
    PassRunner(
        entries, StepAndShareBench(crew, RANKS, entries), passes, 1e9, lambda entry: None, lambda *_: None
    ).measure()


def test_a_sample_is_the_slowest_ranks_and_skew_what_the_fastest_was_ahead():
    crew, (layer, head) = FakeShareWorkers(), pair()
    visit(crew, layer, head)
    # rank 1: a step of twice 4 ms and 1 ms is longer than the 5 ms of a sample; rank 0 takes 2 ms for each of 2 layers
    assert set(layer.seconds[0]) == {4e-3}
    assert layer.calls == 2
    assert layer.measurement().skew_seconds == pytest.approx(2 * 2e-3)
    assert set(head.seconds[0]) == {1e-3}
    assert (head.calls, head.measurement().skew_seconds) == (1, 0)


def test_ranks_of_a_layer_wait_for_each_other_at_each_message_and_others_at_none():
    # two stretches in each of two layers; rank 0 takes longer in the second and the third
    crew = FakeShareWorkers(stretches=([1e-3, 3e-3, 2e-3, 1e-3], [2e-3, 1e-3, 1e-3, 1e-3]))
    under_tp, beside = case(), case(tp=1)
    visit(crew, under_tp, beside)
    assert under_tp.seconds[0][0] == pytest.approx((2 + 3 + 2 + 1) / 2 * 1e-3)
    assert beside.calls_per_step == 1  # half of the layers on each rank
    assert beside.seconds[0][0] == pytest.approx((1 + 3 + 2 + 1) * 1e-3)
    assert under_tp.measurement().skew_seconds == pytest.approx((7 - 5) * 1e-3)


def test_both_parts_of_a_share_come_of_one_walk():
    crew, entries = FakeShareWorkers(), pair()
    visit(crew, *entries, times=3)
    # 9 ms a step: one to learn from, then in each pass a warm one and the ten that a visit of 0.1 s has time for
    assert [asked["steps"] for asked in crew.asked("walk")] == [1, 11, 11, 11]
    assert len(crew.asked("share")) == 3
    assert [len(entry.seconds[0]) for entry in entries] == [10, 10]
    assert [entry.clock for entry in entries] == ["perf_counter"] * 2


def test_a_head_alone_is_walked_for_itself():
    crew, head = FakeShareWorkers(), case(HEAD_SHARE)
    visit(crew, head, times=2)
    assert len(crew.asked("share")) == 2
    assert len(head.seconds) == 2


def test_a_step_that_outlasts_a_visit_is_its_sample():
    crew, (layer, head) = FakeShareWorkers(layer=0.5), pair()
    visit(crew, layer, head, times=2)
    assert [asked["steps"] for asked in crew.asked("walk")] == [1, 1]
    assert layer.seconds == [(1.0,), (1.0,)]


def test_ranks_are_told_how_many_of_them_compute_and_the_others_have_no_say():
    crew, layer = FakeShareWorkers(), case(tp=1, ranks=1)
    visit(crew, layer)
    (asked,) = crew.asked("share")
    assert (asked["ranks"], asked["deployment"]["tp"], asked["deployment"]["pp"]) == (1, 1, 1)
    assert (asked["model"], asked["layers"], asked["batch"], asked["context"]) == ("tiny", 2, 16, 32)
    assert asked["label"] == {"name": "layer 1 1", "question": "shares", "number": 0}
    assert json.dumps(asked)
    assert set(layer.seconds[0]) == {2e-3}
    assert layer.relative_error == 1e-3


@pytest.mark.parametrize("wrong", [0.3, "nan"])
def test_a_wrong_part_leaves_no_number_and_the_other_its_own(wrong):
    for planted, right in ((LAYER_SHARE, HEAD_SHARE), (HEAD_SHARE, LAYER_SHARE)):
        crew, entries = FakeShareWorkers(wrong={planted: wrong}), {one.share.part: one for one in pair()}
        visit(crew, *entries.values(), times=2)
        assert entries[planted].seconds == []
        assert entries[planted].failed.startswith("wrong result: relative error")
        assert len(entries[right].seconds) == 2


def test_nothing_is_timed_that_was_not_checked_and_new_ranks_are_checked_again():
    crew, entries = FakeShareWorkers(), pair()
    ours = visit(crew, *entries, times=2)
    commands = [command for command, _ in crew.commands]
    assert commands.index("prove") < commands.index("walk")
    assert commands.count("prove") == 1
    crew.is_running = False
    ours.visit(entries[0], 1.0)
    assert len(crew.asked("prove")) == 2


def test_a_walk_of_ranks_that_are_gone_is_not_used():
    crew, (layer, head) = FakeShareWorkers(), pair()
    ours = StepAndShareBench(crew, RANKS, [layer, head])
    ours.visit(layer, 1.0)
    crew.is_running, crew.head = False, 7e-3
    assert set(ours.visit(head, 1.0)) == {7e-3}


def test_rivals_are_visited_there_and_back_and_each_head_has_its_own_walks():
    triton = HOW._replace(implementation="triton")
    entries = [case(part, how=how) for part in (LAYER_SHARE, HEAD_SHARE) for how in (HOW, triton)]
    for entry in entries:
        entry.not_run = None
    crew = FakeShareWorkers()
    run(crew, entries)
    assert [len(entry.seconds) for entry in entries] == [2] * 4
    assert len(crew.asked("share")) == 2 * 4  # two ways of two rivals in two passes, none for a head


def test_steps_and_shares_are_measured_in_one_run():
    crew, entries = FakeShareWorkers(), [step(), *pair()]
    run(crew, entries)
    assert [len(entry.seconds) for entry in entries] == [2, 2, 2]
    assert entries[0].measurement().ledgers
    commands = [command for command, _ in crew.commands if command in ("build", "share")]
    assert commands == ["build", "share"] * 2


def test_a_share_that_cannot_be_set_up_ends_its_case_alone():
    class Refusing(FakeShareWorkers):
        def run_command(self, command, arguments, doing):
            if command == "share":
                raise CaseRefusedError("rank 1 failed: OutOfMemoryError: tried")
            return super().run_command(command, arguments, doing)

    entries = [step(), *pair()]
    run(Refusing(), entries)
    assert [bool(entry.failed) for entry in entries] == [False, True, True]
    assert entries[1].failed.startswith("out of memory: rank 1 failed")

"""How walks of all ranks become samples, a ledger for each pass and a timeline."""

import json
from dataclasses import replace
from itertools import chain, repeat

import pytest

from kernels.timing.device import SAMPLING_LIMITS, Device
from specs.measurement import Measurement, timeline_blocks
from specs.parallel import Deployment
from suites.case import StepRunConfig
from suites.decoder.workload import StepWorkload
from suites.probes import model
from suites.probes.model import StepBench, StepCaseState, plan_step_case
from suites.runner import PassRunner
from suites.workers.launcher import RankPlan
from suites.workers.process import CaseRefusedError, RankLostError
from tests.suites.probes.traces import shares, trace_message

CPU = Device("cpu", "cpu", 2**20, SAMPLING_LIMITS["cpu"])
RANKS = RankPlan(2, "cpu")
HOW = StepRunConfig("bf16", "torch", "gloo")
TP2 = Deployment(tp=2)


class FakeModelWorkers:
    """Two ranks under TP: a step takes `seconds`, of which rank 1 has a share of `norms`; all else is linears."""

    processes = ()
    hosts = 1

    def __init__(self, seconds=10e-3, errors=(0.0, None), refuses="", norms=()):
        self.commands, self.seconds, self._errors, self._refuses = [], seconds, errors, refuses
        self.is_running, self._norms = False, chain(norms, repeat(0.25))

    def start(self):
        self.commands.append(("start", {}))
        self.is_running = True

    def run_command(self, command, arguments, doing):
        self.commands.append((command, arguments))
        if command == "build" and self._refuses:
            raise CaseRefusedError(self._refuses)
        if command == "prove":
            return [{"error": error} for error in self._errors]
        if command == "walk":
            norms, steps = next(self._norms), arguments["steps"]
            return [self._walked(norms * rank, steps) for rank in range(2)]
        return [{"bytes": 1}, {"bytes": 1}]

    def _walked(self, norms, steps):
        rows = [("start", 0.0, 0.0, 0, -1)]
        for step in range(steps):
            start, end = step * self.seconds, (step + 1) * self.seconds
            turn = end - norms * self.seconds
            rows += [("linears", start, turn, step, 0), ("norms", turn, end, step, 0)]
        return {"clock": "perf_counter", "trace": trace_message(rows)}

    def asked(self, command):
        return [arguments for one, arguments in self.commands if one == command]


def case(deployment=TP2, batch=16, ranks=RANKS, how=HOW) -> StepCaseState:
    part = StepWorkload("tiny", 2, batch, batch, 32)
    return plan_step_case("a case", CPU, ranks, deployment, "tp_vs_pp", how, part)


def visit(crew, entry, *, times=1):
    ours = StepBench(crew, RANKS, [entry])
    for _ in range(times):
        if samples := ours.visit(entry, 1.0):
            entry.seconds.append(samples)
    return ours, entry.seconds


def test_every_rank_is_told_the_model_its_cut_and_who_runs_it():
    crew, entry = FakeModelWorkers(), case()
    visit(crew, entry)
    (asked,) = crew.asked("build")
    assert asked["deployment"] == {
        "tp": 2, "pp": 1, "replicas": 1, "schedule": "tp", "micro_batches": 1, "partition": "even",
    }  # fmt: skip
    assert {name: asked[name] for name in ("model", "layers", "tokens", "batch", "context")} == {
        "model": "tiny", "layers": 2, "tokens": 16, "batch": 16, "context": 32,
    }  # fmt: skip
    assert {name: asked[name] for name in ("dtype", "implementation", "backend")} == HOW._asdict()
    assert asked["label"] == {"name": "a case", "question": "tp_vs_pp", "number": 0}
    assert json.dumps(asked)


def test_a_visit_fills_its_time_with_samples_of_several_short_steps():
    # 2 ms a step: three pass the 5 ms of a sample, and ten of those are more than enough, which 0.1 s has time for
    crew, entry = FakeModelWorkers(2e-3), case()
    _, ((*samples,),) = visit(crew, entry)
    assert [asked["steps"] for asked in crew.asked("walk")] == [1, 30]
    assert entry.calls == 3
    assert samples == pytest.approx([2e-3] * 10)


def test_a_first_step_that_outlasts_a_visit_is_its_sample():
    crew, entry = FakeModelWorkers(0.5), case()
    _, seconds = visit(crew, entry)
    assert seconds == [(0.5,)]
    assert len(crew.asked("walk")) == 1


def test_later_visits_know_how_long_a_step_takes():
    crew, entry = FakeModelWorkers(0.5), case()
    visit(crew, entry, times=3)
    assert [asked["steps"] for asked in crew.asked("walk")] == [1, 1, 1]


def test_traces_stay_small_enough_to_be_read(monkeypatch):
    monkeypatch.setattr(model, "MAX_SEGMENTS", 200)  # of which two layers have 14 each, and 8 besides
    crew, entry = FakeModelWorkers(1e-3), case()
    visit(crew, entry)
    assert crew.asked("walk")[-1]["steps"] == 5


def test_a_closed_loop_has_to_fill_and_one_of_several_micro_batches_must_not_drain():
    flat, deep = Deployment(pp=2, schedule="sync"), Deployment(pp=2, schedule="async", micro_batches=2)
    prompt = replace(case(deep), part=StepWorkload("tiny", 2, 64, 4, 16))
    around = [(model._warm_up_steps(one), model._drain_steps(one)) for one in (case(), case(flat), case(deep), prompt)]
    assert around == [(0, 0), (1, 0), (1, 1), (0, 0)]


def test_the_worst_rank_proves_and_none_that_holds_no_logits():
    entry = case()
    visit(FakeModelWorkers(errors=(None, 0.01)), entry)
    assert entry.relative_error == 0.01


@pytest.mark.parametrize(
    ("errors", "told"), [((0.0, 0.5), "0.5 is over 0.0208"), (("nan", 0.0), "nan"), ((None,), "nan")]
)
def test_a_wrong_result_is_not_timed(errors, told):
    crew, entry = FakeModelWorkers(errors=errors), case()
    _, seconds = visit(crew, entry)
    assert seconds == []
    assert told in entry.failed
    assert not crew.asked("walk")


def test_a_case_is_proven_once_and_again_by_ranks_that_were_started_anew():
    crew, entry = FakeModelWorkers(), case()
    ours, _ = visit(crew, entry, times=2)
    assert len(crew.asked("prove")) == 1
    crew.is_running = False
    ours.visit(entry, 1.0)
    assert len(crew.asked("prove")) == 2


def test_a_rank_that_cannot_build_ends_the_case_and_says_what_helps():
    entry = case()
    ours, error = StepBench(FakeModelWorkers(refuses="rank 1 failed: OutOfMemoryError: tried"), RANKS, [entry]), None
    try:
        ours.visit(entry, 1.0)
    except CaseRefusedError as refused:
        error = refused
    told = ours.describe_error(entry, error)
    assert told.startswith("out of memory: rank 1 failed")
    assert told.endswith("try fewer --layers, a smaller --batch or --context")
    assert ours.lost() == ""


def test_three_lost_in_a_row_end_the_run():
    entry = case()
    ours = StepBench(FakeModelWorkers(), RANKS, [entry])
    for _ in range(3):
        ours.describe_error(entry, RankLostError("rank 1 was killed"))
    assert ours.lost().startswith("3 cases in a row ended a rank")


def test_each_pass_has_its_ledger_and_the_case_the_newest_timeline():
    crew, entry = FakeModelWorkers(), case()
    visit(crew, entry, times=2)
    crew.seconds = 40e-3
    visit(crew, entry)
    found = entry.measurement()
    # rank 0 has nothing but linears, rank 1 three quarters of them
    assert list(found.ledgers) == [[shares(linears=0.875, norms=0.125)]] * 3
    assert found.timeline["seconds"] == pytest.approx(80e-3)
    assert {block.kind for block in timeline_blocks(found.timeline)} == {"compute"}
    assert found.transport == "loopback"


def test_rivals_are_visited_there_and_back_and_a_pass_has_the_mean_ledger():
    entries = [case(), case(how=HOW._replace(implementation="triton"))]
    entries[1].not_run = None
    crew = FakeModelWorkers(
        0.5, norms=(0.1, 0.2, 0.4, 0.5, 0.8, 0.8, 0.8, 0.8)
    )  # first there and back: torch, triton, triton, torch
    PassRunner(entries, StepBench(crew, RANKS, entries), 2, 1e9, lambda entry: None, lambda *_: None).measure()
    found = [[ledger[0]["norms"] for ledger in entry.measurement().ledgers] for entry in entries]
    # the mean of both ranks, of which one has no norms
    assert found == [[pytest.approx((0.1 + 0.5) / 4), pytest.approx(0.4)], [pytest.approx(0.6 / 4), pytest.approx(0.4)]]
    assert [len(one) for entry in entries for one in entry.seconds] == [2, 2, 2, 2]


def test_what_a_visit_noted_of_a_pass_that_never_ended_is_left_out():
    crew, entry = FakeModelWorkers(), case()
    ours, _ = visit(crew, entry)
    ours.visit(entry, 0.5)  # the way out; the way back does not come
    assert len(entry.measurement().ledgers) == len(entry.seconds) == 1


def test_an_interrupted_case_goes_on_with_its_ledgers_and_timeline():
    entry = case()
    visit(FakeModelWorkers(), entry, times=2)
    before = entry.measurement()
    file = {"fullname": "a case", "extra_info": before.extra_info(), "stats": {"data": list(before.samples)}}
    fresh = case()
    fresh.restore(Measurement.from_benchmark(json.loads(json.dumps(file))))
    assert fresh.measurement().ledgers == before.ledgers
    assert fresh.measurement().timeline == before.timeline
    visit(FakeModelWorkers(), fresh)
    assert len(fresh.measurement().ledgers) == 3

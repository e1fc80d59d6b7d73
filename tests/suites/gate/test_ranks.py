"""The gate's ranks on one GPU, played on the CPU: gloo as a backend, and processes that die, hang or are wrong."""

import json
import os
import time
from multiprocessing import get_context

import pytest
import torch

from comm.backends.torch_distributed import GLOO, TorchCommunicator
from suites.gate import overlapping, ranks
from suites.gate.command import wrong_result_alerts
from suites.gate.ranks import TrialOutcome, judge_trials, run_processes
from suites.gate.step import StepResult
from tests.suites.gate import faulty_ranks

CONTEXT = get_context("forkserver")
ONE_SHOT = {"ranks": 2, "backend": "triton-one-shot", "wanted": 500, "right": 500, "wrong": 0, "first": None}
NO_NCCL = {"ranks": 2, "backend": "nccl", "not_run": "NCCL 2.29.7 takes one rank a GPU"}
LABEL = "ranks share one GPU: functional check: "


@pytest.fixture(autouse=True, scope="module")
def ready():
    """The process that ranks are forks of: that it imports torch is no test's time."""
    CONTEXT.set_forkserver_preload([overlapping.__name__])
    first = process(time.sleep, 0)
    first.start()
    first.join()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(ranks, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(ranks, "MARGIN_SECONDS", 0.0)


def told_by(tmp_path, games, number, rank=None, seconds=120):
    path = tmp_path / "verdict.json"
    arguments = ["--kind", "cpu", "--out", str(tmp_path), "--verdict", str(path), "--seconds", str(seconds)]
    status = ranks.main(arguments, games=games, ranks=number, rank=rank)
    found = json.loads(path.read_text())
    assert status == (found["outcome"] == "failed")
    return found


def shouted(found):
    return wrong_result_alerts([StepResult("ranks", found["outcome"], 1.0, found["detail"], found["figures"])])


def test_ranks_are_started_once_and_the_first_of_them_play_in_groups_of_their_own(tmp_path):
    found = told_by(tmp_path, [(2, "gloo", 12), (3, "gloo", 12), (2, "peer", 5), (2, "gloo", 11)], 3)
    assert found["outcome"] == "passed"
    assert found["figures"]["wrong"] == 0
    sound = [row for row in found["figures"]["games"] if "right" in row]
    assert sorted((row["ranks"], row["right"]) for row in sound) == [(2, 11)] * 2 + [(2, 12)] * 2 + [(3, 12)] * 3
    assert found["detail"].startswith(f"{LABEL}gloo with 2: 11 of 12 rounds right; gloo with 3: 12 of 12 rounds right")
    assert "not run: peer with 2: it moves messages between GPUs" in found["detail"]
    assert not any(word in found["detail"] for word in ("GB/s", "us", "busbw"))


def test_wrong_sums_are_caught(tmp_path):
    found = told_by(tmp_path, [(2, "gloo", 5)], 2, faulty_ranks.run_with_wrong_sums)
    assert found["outcome"] == "failed"
    assert found["figures"]["wrong"] == 10
    assert found["detail"].startswith(f"{LABEL}gloo with 2 ranks: 10 results WRONG, first round 0, 8 elements")
    assert shouted(found)


def test_a_rank_that_hangs_in_a_game_leaves_the_check_unfinished_and_nothing_is_shouted(tmp_path):
    found = told_by(tmp_path, [(2, "gloo", 5)], 2, faulty_ranks.run_and_hang, seconds=20)
    assert (found["outcome"], found["figures"]["wrong"]) == ("unfinished", 0)
    assert "no sum was wrong; rank " in found["detail"]
    assert "(at: gloo with 2)" in found["detail"]
    assert not shouted(found)


def test_a_rank_that_dies_is_named_with_its_last_line_and_is_no_wrong_sum(tmp_path):
    found = told_by(tmp_path, [(3, "gloo", 5), (2, "gloo", 5)], 3, faulty_ranks.run_and_die)
    assert (found["outcome"], found["figures"]["wrong"]) == ("unfinished", 0)
    assert "rank 1 ended with status 1: RuntimeError: no room on this host" in found["detail"]
    assert not shouted(found)


def test_a_fault_of_the_gpu_fails_and_is_no_wrong_sum(tmp_path):
    found = told_by(tmp_path, [(2, "gloo", 5)], 2, faulty_ranks.run_and_fault)
    assert (found["outcome"], found["figures"]["wrong"]) == ("failed", 0)
    assert "gloo with 2: the GPU faulted: CUDA error: an illegal memory access was encountered" in found["detail"]


def gone(pid):
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def logs(tmp_path, number=2):
    return [tmp_path / f"{rank}.log" for rank in range(number)]


def process(target, *arguments):
    return CONTEXT.Process(target=target, args=arguments)


def test_a_rank_that_hangs_is_ended_at_the_limit_and_named(tmp_path):
    mark = tmp_path / "pid"
    both = [process(time.sleep, 0), process(faulty_ranks.sleeps, mark, 600)]
    assert run_processes(both, 20.0, logs(tmp_path)) == "rank 1 did not end within 20 s"
    assert gone(int(mark.read_text()))


def test_when_a_rank_dies_the_others_follow_soon_and_it_is_named(tmp_path):
    began, mark = time.monotonic(), tmp_path / "pid"
    both = [process(faulty_ranks.sleeps, mark, 600), process(faulty_ranks.dies_after, mark)]
    assert run_processes(both, 300.0, logs(tmp_path)) == "rank 1 ended with status -9"
    assert time.monotonic() - began < 200
    assert gone(int(mark.read_text()))


def test_a_rank_that_cannot_start_says_why(tmp_path):
    (log,) = logs(tmp_path, 1)
    ended = run_processes([process(faulty_ranks.says_and_exits, log, 3)], 120.0, [log])
    assert ended == "rank 0 ended with status 3: ImportError: no torch here"


def test_the_rank_that_died_first_is_named_also_when_others_follow_at_once(tmp_path):
    both = logs(tmp_path)
    for log, age in zip(both, (0, 60), strict=True):
        log.write_text(f"RuntimeError: {age}")
        os.utime(log, (time.time() - age,) * 2)
    ended = [process(os._exit, 1), process(os._exit, 1)]
    for one in ended:
        one.start()
    for one in ended:
        one.join()
    assert ranks._first_death(ended, both) == "rank 1 ended with status 1: RuntimeError: 60"


def test_all_right_is_passed_with_the_reasons_for_what_was_not_run():
    verdict = judge_trials(TrialOutcome(([ONE_SHOT, NO_NCCL],) * 2, None))
    assert (verdict.outcome, verdict.detail) == (
        "passed",
        f"{LABEL}triton-one-shot with 2: 500 of 500 rounds right; "
        "not run: nccl with 2: NCCL 2.29.7 takes one rank a GPU",
    )


def test_fewer_rounds_than_wanted_are_said_and_pass():
    verdict = judge_trials(TrialOutcome(([ONE_SHOT | {"right": 130}],) * 2, None))
    assert verdict.outcome == "passed"
    assert "130 of 500 rounds right" in verdict.detail


WRONG = ONE_SHOT | {"wrong": 3, "first": "round 7"}


@pytest.mark.parametrize(
    ("told", "outcome", "says"),
    [
        (
            TrialOutcome(([ONE_SHOT], [WRONG]), "rank 1 ended with status 1"),
            "failed",
            "triton-one-shot with 2 ranks: 3 results WRONG, first round 7; rank 1 ended with status 1",
        ),
        (
            TrialOutcome(([ONE_SHOT],), "rank 1 ended with status -9"),
            "unfinished",
            "no sum was wrong; rank 1 ended with status -9; triton-one-shot with 2: 500 of 500 rounds right",
        ),
        (TrialOutcome((), "rank 0, 1 did not end within 9 s"), "unfinished", "rank 0, 1 did not end within 9 s"),
        (TrialOutcome(([NO_NCCL],) * 2, None), "not_run", "no round was played; not run: nccl with 2"),
        (
            TrialOutcome(([ONE_SHOT | {"right": 0}],) * 2, None),
            "unfinished",
            "no round was played; triton-one-shot with 2: 0",
        ),
    ],
)
def test_only_a_wrong_sum_is_wrong(told, outcome, says):
    verdict = judge_trials(told)
    assert verdict.outcome == outcome
    assert says in verdict.detail
    assert verdict.figures["wrong"] == (3 if outcome == "failed" else 0)


class OffByOne(TorchCommunicator):
    """An all-reduce that spoils one element, or does not write the last."""

    def all_reduce(self, message, out):
        message[-1] = self.spoil(message[-1].item())


@pytest.mark.parametrize(("spoil", "wrong"), [(lambda x: x, 0), (lambda x: x + 1, 25), (lambda x: torch.nan, 25)])
def test_every_wrong_or_unwritten_element_is_seen(monkeypatch, spoil, wrong):
    world = overlapping.World(0, 1, 0, 1, "cpu")
    monkeypatch.setattr(OffByOne, "spoil", staticmethod(spoil), raising=False)
    monkeypatch.setattr(overlapping, "have_time_left", lambda deadline, group: True)
    row = overlapping.Backend("spoilt", GLOO.methods, lambda _: None, lambda w: OffByOne(w, None), GLOO.in_place)
    found = overlapping.run_trial(world, row, 25, time.monotonic() + 60)
    assert (found["right"], found["wrong"]) == (25 - wrong, wrong)
    assert found["first"] == ("round 0, 8 elements" if wrong else None)


def test_the_step_asks_for_ranks_on_one_gpu_and_leaves_time_to_the_others():
    assert ranks.STEP.environment == {
        "TORCH_SYMM_MEM_ALLOW_OVERLAPPING_DEVICES": "1",
        "NCCL_MULTI_RANK_GPU_ENABLE": "1",
    }
    assert 60 <= ranks.STEP.seconds <= 75
    games = ranks.TRIALS["cuda"]
    assert [game for game in games if game[1] == "triton-one-shot"] == [(n, "triton-one-shot", 500) for n in (2, 4, 8)]
    assert max(number for number, _, _ in games) == ranks.RANK_COUNT
    assert {backend for _, backend, _ in games} <= set(overlapping.BACKENDS)

"""The gate's ranks on one GPU, played on the CPU: gloo as a backend, and processes that die, hang or are wrong."""

import json
import os
import sys
import time

import pytest
import torch

from comm.backends.gloo import GLOO
from comm.backends.through_torch import TorchCommunicator
from suites.gate import overlapping, ranks
from suites.gate.ranks import Game, Told, judge, supervise

SLEEPS = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
GAME = Game(2, ("triton-one-shot:500", "nccl:25"))
RIGHT = {"wanted": 500, "right": 500, "wrong": 0, "first": None}
NO_NCCL = {"not_run": "NCCL 2.29.7 takes one rank a GPU"}


def test_ranks_play_to_the_end_and_their_counts_are_the_verdict(tmp_path, capfd):
    verdict = tmp_path / "verdict.json"
    arguments = ["--out", str(tmp_path), "--verdict", str(verdict), "--seconds", "60"]
    assert ranks.main(arguments, kind="cpu", games=(Game(2, ("gloo:12", "peer:5")),)) == 0
    told = json.loads(verdict.read_text())
    assert told["outcome"] == "passed"
    assert told["detail"].startswith(
        "ranks share one GPU: functional check: gloo with 2: 12 of 12 rounds right; not run"
    )
    assert "peer with 2: it moves messages between GPUs" in told["detail"]
    assert not any(word in told["detail"] for word in ("GB/s", "us", "busbw"))


def gone(pid):
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_rank_that_hangs_is_ended_at_the_limit_and_named(tmp_path):
    began, mark = time.monotonic(), tmp_path / "pid"
    commands = [[sys.executable, "-c", "pass"], [sys.executable, "-c", SLEEPS, str(mark)]]
    assert supervise(commands, 2.0, tmp_path / "log") == "rank 1 did not end within 2 s"
    assert time.monotonic() - began < 12
    assert gone(int(mark.read_text()))


def test_when_a_rank_dies_the_others_follow_soon_and_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "SETTLE_SECONDS", 0.5)
    began, mark = time.monotonic(), tmp_path / "pid"
    dies = f"import os, time\nwhile not os.path.exists({str(mark)!r}): time.sleep(0.01)\nos.kill(os.getpid(), 9)"
    commands = [[sys.executable, "-c", SLEEPS, str(mark)], [sys.executable, "-c", dies]]
    assert supervise(commands, 60.0, tmp_path / "log") == "rank 1 ended with status -9"
    assert time.monotonic() - began < 15
    assert gone(int(mark.read_text() or 0))


def test_all_right_is_passed_with_the_reasons_for_what_was_not_run():
    verdict = judge([GAME], [Told(({"triton-one-shot": RIGHT, "nccl": NO_NCCL},) * 2, None)])
    assert (verdict.outcome, verdict.detail) == (
        "passed",
        "ranks share one GPU: functional check: triton-one-shot with 2: 500 of 500 rounds right; "
        "not run: nccl with 2: NCCL 2.29.7 takes one rank a GPU",
    )


def test_fewer_rounds_than_wanted_are_said_and_pass():
    verdict = judge([GAME], [Told(({"triton-one-shot": RIGHT | {"right": 130}},) * 2, None)])
    assert verdict.outcome == "passed"
    assert "130 of 500 rounds right" in verdict.detail


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (
            Told(({"triton-one-shot": RIGHT}, {"triton-one-shot": RIGHT | {"wrong": 3, "first": "round 7"}}), None),
            "triton-one-shot with 2 ranks: 3 results WRONG, first round 7",
        ),
        (Told(({"triton-one-shot": RIGHT},), "rank 1 ended with status -9"), "2 ranks: rank 1 ended with status -9"),
        (Told((), "rank 0, 1 did not end within 9 s"), "2 ranks: rank 0, 1 did not end within 9 s"),
        (Told(({"nccl": NO_NCCL},) * 2, None), "no round was right or wrong"),
    ],
)
def test_a_wrong_result_a_dead_rank_or_nothing_run_fails(told, says):
    verdict = judge([GAME], [told])
    assert verdict.outcome == "failed"
    assert says in verdict.detail


class OffByOne(TorchCommunicator):
    """An all-reduce that spoils one element, or does not write the last."""

    def all_reduce(self, message, out):
        message[-1] = self.spoil(message[-1].item())


@pytest.mark.parametrize(("spoil", "wrong"), [(lambda x: x, 0), (lambda x: x + 1, 25), (lambda x: torch.nan, 25)])
def test_every_wrong_or_unwritten_element_is_seen(monkeypatch, spoil, wrong):
    world = overlapping.World(0, 1, 0, 1, "cpu")
    monkeypatch.setattr(OffByOne, "spoil", staticmethod(spoil), raising=False)
    monkeypatch.setattr(overlapping, "in_time", lambda deadline: True)
    row = overlapping.Backend("spoilt", GLOO.methods, lambda _: None, lambda w: OffByOne(w, None), GLOO.in_place)
    found = overlapping.play(world, row, 25, time.monotonic() + 60)
    assert (found["right"], found["wrong"]) == (25 - wrong, wrong)
    assert found["first"] == ("round 0, 8 elements" if wrong else None)


def test_the_step_asks_for_ranks_on_one_gpu_and_leaves_time_to_the_others():
    assert ranks.STEP.environment == {
        "TORCH_SYMM_MEM_ALLOW_OVERLAPPING_DEVICES": "1",
        "NCCL_MULTI_RANK_GPU_ENABLE": "1",
    }
    assert [game.ranks for game in ranks.GAMES] == [2, 4, 8]
    assert all("triton-one-shot:500" in game.rounds for game in ranks.GAMES)

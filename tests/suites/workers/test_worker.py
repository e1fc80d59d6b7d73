"""A case on one rank: how many calls it makes, on which values, and what it checks before it is timed."""

import math
from contextlib import contextmanager

import pytest
import torch

from comm.backend import Backend, Communicator, World
from suites import nvtx
from suites.workers.process import CollectiveTask
from suites.workers.worker import CollectiveCase

LABEL = {"name": "a case", "question": "communication", "number": 0}


class Alone(Communicator):
    """Two ranks in one: a sum that the other rank's equal message doubles; it counts, and can be planted wrong."""

    def __init__(self, wrong_at=()):
        super().__init__(World(0, 1, 0, 1, "cpu"))
        self.calls, self.barriers, self._wrong_at = 0, 0, wrong_at
        self.given = []

    def buffer(self, elements, dtype):
        self.given.append(super().buffer(elements, dtype))
        return self.given[-1]

    def barrier(self):
        self.barriers += 1

    def all_reduce(self, message, out):
        out.copy_(message)
        if self.world.ranks == 1 and self.doubles:
            out.mul_(2)
        if self.calls in self._wrong_at:
            out[-1] += 1
        self.calls += 1

    doubles = False


def case(communicator, in_place=False, elements=1000, gap=0.0):
    backend = Backend("alone", frozenset({"all_reduce"}), lambda world: None, lambda world: communicator,
                      in_place=frozenset({"all_reduce"}) if in_place else frozenset())  # fmt: skip
    task = CollectiveTask("all_reduce", "alone", "bf16", elements, 1, "eager", gap)
    return CollectiveCase(task, backend, communicator, 2, LABEL)


def test_a_sample_makes_the_calls_that_it_was_told_behind_one_barrier_each():
    communicator = Alone()
    assert len(case(communicator).sample(7, 3)) == 3
    assert (communicator.calls, communicator.barriers) == (21, 3)


@pytest.mark.parametrize("gap", [0.0, 1e-4])
def test_a_barrier_stands_in_a_range_between_samples_and_no_call_does(monkeypatch, gap):
    opened, seen = [], []

    @contextmanager
    def mark(name, question, number):
        assert (question, number) == (LABEL["question"], LABEL["number"])
        opened.append(name)
        yield
        opened.pop()

    monkeypatch.setattr(nvtx, "annotate", mark)
    communicator = Alone()
    for name in ("barrier", "all_reduce"):
        run = getattr(communicator, name)
        monkeypatch.setattr(
            communicator, name, lambda *given, run=run, name=name: (seen.append((name, *opened)), run(*given))
        )
    case(communicator, gap=gap).sample(1, 2)
    assert seen == [("barrier", "between"), ("all_reduce",)] * 2


def test_of_two_checked_calls_a_trace_is_shown_the_first(monkeypatch):
    shown = []
    communicator = Alone()

    @contextmanager
    def mark(name, question, number):
        before = communicator.calls
        yield
        shown.append((name, before, communicator.calls))

    monkeypatch.setattr(nvtx, "annotate", mark)
    case(communicator).check(3)
    assert (communicator.calls, shown) == (2, [("call", 0, 1)])


def test_buffers_that_every_call_doubles_are_fresh_in_each_round():
    communicator = Alone()
    communicator.doubles = True
    made = case(communicator, in_place=True)
    made.sample(100, 5)
    # 127 x 2^50 after 100 calls on two buffers in turn; five rounds without fresh values would overflow
    assert all(math.isfinite(float(one.float().abs().max())) for one in communicator.given)
    assert max(float(one.float().abs().max()) for one in communicator.given) <= 127 * 2**50


def test_a_right_result_has_no_error():
    assert case(Alone()).check(3) == 0.0


@pytest.mark.parametrize("call", [0, 1], ids=["the first slot", "the second slot"])
def test_a_result_that_is_wrong_in_one_of_two_calls_is_found(call):
    assert case(Alone(wrong_at=(call,))).check(3) > 0


def test_a_replay_that_does_nothing_is_found(monkeypatch):
    made = case(Alone())
    made._task = CollectiveTask(**{**made._task.to_json(), "launch": "graph"})
    monkeypatch.setattr(made.clock, "prepare", lambda call: lambda: None)
    assert math.isnan(made.check(3))


def test_values_are_the_messages_own_dtype():
    communicator = Alone()
    case(communicator)
    assert {one.dtype for one in communicator.given} == {torch.bfloat16}

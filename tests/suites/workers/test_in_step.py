"""An all-reduce behind a linear on one rank: what is timed of a call, and which results are refused."""

import math

import pytest
import torch

from comm.backend import Backend, Communicator, World
from kernels.linear import RTOL, TORCH_LINEAR
from kernels.timing import device
from suites.workers.in_step import (
    CALIBRATION_CYCLES,
    CudaInStepTimer,
    HostInStepTimer,
    LinearAllReduceCase,
    LinearInputs,
)
from suites.workers.process import CollectiveTask
from suites.workers.worker import CudaCallTimer

LINEAR, ALL_REDUCE, BARRIER = 3e-3, 2e-3, 7.0
CYCLES_PER_SECOND = 1.5e9


class FakeTimeline:
    """Time that passes by what is called, and what was called."""

    def __init__(self):
        self.now, self.done, self.first = 0.0, [], 0.0

    def linear(self):
        self.done.append("linear")
        self.now += LINEAR

    def all_reduce(self):
        self.done.append("all_reduce")
        self.now += ALL_REDUCE + self.first
        self.first = 0.0

    def barrier(self):
        self.done.append("barrier")
        self.now += BARRIER
        self.first = 50.0  # the first call of a round waits for ranks that left the barrier later

    def spin(self, cycles):
        self.done.append("spin")
        self.now += cycles / CYCLES_PER_SECOND

    def tick(self):
        self.now += 1e-8  # so that spinning ends
        return self.now


@pytest.fixture
def world(monkeypatch):
    world = FakeTimeline()
    monkeypatch.setattr("time.perf_counter", world.tick)

    class Event:
        def __init__(self, enable_timing, external=False):
            assert enable_timing
            self.external = external

        def record(self):
            self.at = world.now

        def elapsed_time(self, other):
            return (other.at - self.at) * 1000  # milliseconds, as CUDA's

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: world.done.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "_sleep", world.spin)
    return world


def rounds(timer, world, late=0.0, calls=2, count=2):
    return timer.rounds(world.linear, world.all_reduce, world.barrier, late, calls, count)


TIMERS = {"cpu": HostInStepTimer, "gpu": lambda: CudaInStepTimer(CudaCallTimer(graph=False).prepare)}


@pytest.mark.parametrize("kind", TIMERS)
def test_a_call_is_timed_from_the_linears_end_and_the_first_of_a_round_is_left_out(world, kind):
    found = rounds(TIMERS[kind](), world)
    assert [one.all_reduces for one in found] == [pytest.approx([ALL_REDUCE] * 2, abs=1e-6)] * 2
    assert [one.call_seconds for one in found] == pytest.approx([LINEAR + ALL_REDUCE] * 2, abs=1e-6)
    assert [one.delays for one in found] == [[], []]
    assert [step for step in world.done if step != "synchronize"] == ["barrier", *["linear", "all_reduce"] * 3] * 2


@pytest.mark.parametrize("kind", TIMERS)
def test_a_delay_lies_between_linear_and_all_reduce_and_belongs_to_neither(world, kind):
    found = rounds(TIMERS[kind](), world, late=0.01)
    for one in found:
        assert one.all_reduces == pytest.approx([ALL_REDUCE] * 2, abs=1e-6)
        assert one.delays == pytest.approx([0.01] * 2, abs=1e-6)
        assert one.call_seconds == pytest.approx(LINEAR + 0.01 + ALL_REDUCE, abs=1e-6)


def test_a_gpu_spins_for_cycles_that_it_learnt_once(world):
    timer = TIMERS["gpu"]()
    rounds(timer, world, late=0.01, calls=1, count=1)
    rounds(timer, world, late=0.01, calls=1, count=1)
    spent = world.done.count("spin")
    assert spent == 2 + 2 * 2, "two to learn the rate, then one for each of two calls in two rounds"
    assert CALIBRATION_CYCLES / CYCLES_PER_SECOND > 1e-3


def test_a_graph_is_captured_once_and_its_events_are_recorded_by_every_replay(world):
    captured = []

    def capture(play):
        captured.append(play)
        return play

    timer = CudaInStepTimer(capture)
    first, second = rounds(timer, world), rounds(timer, world)
    assert len(captured) == 1
    assert first[0].all_reduces == pytest.approx(second[0].all_reduces)
    _, events = timer._captured[2]
    assert all(event.external for one in events for event in one), "else a capture keeps no time of theirs"


# Results: this rank is rank 0 of two, and the fake library adds the other rank's part

TOKENS, HIDDEN, K = 3, 16, 32


class TwoRanks(Communicator):
    """Rank 0; `other` is what the library adds, `wrong_at` are calls after which an element is changed."""

    def __init__(self, other, wrong_at=(), adds=True):
        super().__init__(World(0, 2, 0, 2, "cpu"))
        self.other, self.calls, self._wrong_at, self._adds = other, 0, wrong_at, adds
        self.messages = []

    def barrier(self):
        pass

    def all_reduce(self, message, out):
        self.messages.append(message.clone())
        if self._adds:
            out.copy_(message + self.other.to(message.dtype))
        if self.calls in self._wrong_at:
            out[-1] += 100
        self.calls += 1


def case(communicator, in_place=False, gather=None, late=0.0, dtype="bf16"):
    backend = Backend("fake", frozenset({"all_reduce"}), lambda world: None, lambda world: communicator,
                      in_place=frozenset({"all_reduce"}) if in_place else frozenset())  # fmt: skip
    task = CollectiveTask("all_reduce", "fake", dtype, TOKENS * HIDDEN, HIDDEN, "eager", 0.0, k=K, late_seconds=late)
    inputs = LinearInputs(device.Device("cpu", "cpu", 2**10, device.SAMPLING_LIMITS["cpu"]), communicator.world)
    label = {"name": "a case", "question": "late_ranks", "number": 0}
    other = communicator.other
    return LinearAllReduceCase(
        task, backend, communicator, inputs, HostInStepTimer(), label, gather or (lambda own: [own, other])
    )


@pytest.fixture
def other():
    return torch.randn(TOKENS * HIDDEN, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("in_place", [True, False])
def test_the_sum_of_both_ranks_products_is_right(other, in_place):
    communicator = TwoRanks(other)
    assert 0 < case(communicator, in_place).check(0) <= RTOL["bf16"] * math.sqrt(2)
    assert communicator.calls == 2


@pytest.mark.parametrize("call", [0, 1], ids=["the first weight", "the last weight"])
def test_a_result_that_is_wrong_in_one_of_two_calls_is_found(other, call):
    assert case(TwoRanks(other, wrong_at=(call,))).check(0) > 0.1


def test_a_sum_without_the_other_ranks_part_is_found(other):
    assert case(TwoRanks(torch.zeros_like(other)), gather=lambda own: [own, other]).check(0) > 0.05


def test_a_result_that_is_not_written_is_found(other):
    assert math.isnan(case(TwoRanks(other, adds=False)).check(0))


def test_a_linear_that_writes_nothing_is_found(other):
    made = case(TwoRanks(other))
    made.check(0)
    made._linears = [lambda: None for _ in made._linears]
    assert math.isnan(made.check(0)), "not the message of the call before"


def test_a_linear_that_reads_another_calls_weight_is_found(other):
    made = case(TwoRanks(other))
    made._linears[-1] = made._linears[0]
    assert made.check(0) > 0.1


def test_the_linear_writes_the_message_of_every_call_from_the_next_weight(other):
    communicator = TwoRanks(other)
    made = case(communicator, in_place=True, dtype="fp32")
    assert made.copies == math.ceil(device.COLD_FACTOR * 2**10 // 2 / (HIDDEN * K * 4)) == 8
    made.sample(8, 1)
    products = [TORCH_LINEAR.reference(one["x"], one["weight"]).flatten() for one in made._inputs]
    assert len(communicator.messages) == 9 == made.call_count(8, 1)
    for message, right in zip(communicator.messages, [*products, products[0]], strict=True):
        assert torch.allclose(message.double(), right, rtol=1e-4, atol=1e-4), "not of an earlier call's sum"


def test_the_last_rank_alone_is_late(other):
    communicator = TwoRanks(other)
    assert case(communicator, late=1.0).late_seconds == 0.0
    communicator.world = World(1, 2, 1, 2, "cpu")
    assert case(communicator, late=1.0).late_seconds == 1.0


def test_a_wider_weight_gets_memory_of_its_own_and_a_narrower_one_does_not(other):
    inputs = LinearInputs(device.Device("cpu", "cpu", 2**10, device.SAMPLING_LIMITS["cpu"]), World(0, 2, 0, 2, "cpu"))
    narrow = inputs.draw(TORCH_LINEAR, tokens=1, n=HIDDEN, k=K, dtype="bf16")
    wide = inputs.draw(TORCH_LINEAR, tokens=1, n=2**10, k=2**7, dtype="bf16")
    assert {tuple(one["weight"].shape) for one in wide} == {(2**10, 2**7)}
    begin = wide[0]["weight"].data_ptr()
    again = inputs.draw(TORCH_LINEAR, tokens=1, n=HIDDEN, k=K, dtype="bf16")
    assert again[0]["weight"].data_ptr() == begin != narrow[0]["weight"].data_ptr()

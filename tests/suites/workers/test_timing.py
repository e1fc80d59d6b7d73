"""What a rank times and what it leaves out, on clocks that only planted work moves on."""

import pytest
import torch

from suites.workers import worker
from suites.workers.worker import CudaCallTimer, HostCallTimer

CALL, FRESH, BARRIER, START = 1e-3, 50.0, 7.0, 0.4


class FakeTimeline:
    """Time that passes by what is called, and what was called."""

    def __init__(self):
        self.now, self.done = 0.0, []

    def calls(self, count):
        self.done.append(count)
        self.now += START + count * CALL

    def fresh(self):
        self.done.append("fresh")
        self.now += FRESH

    def barrier(self):
        self.done.append("barrier")
        self.now += BARRIER

    def sleep(self, seconds):
        self.done.append("sleep")
        self.now += seconds

    def tick(self):
        self.now += 1e-9  # so that spinning ends
        return self.now


def made(world):
    """Calls so far."""
    return sum(step for step in world.done if isinstance(step, int))


@pytest.fixture
def world(monkeypatch):
    world = FakeTimeline()
    monkeypatch.setattr(worker.time, "perf_counter", world.tick)
    monkeypatch.setattr(worker.time, "sleep", world.sleep)

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = world.now

        def elapsed_time(self, other):
            return (other.at - self.at) * 1000  # milliseconds, as CUDA's

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: world.done.append("synchronize"))
    return world


def test_on_a_cpu_a_sample_is_the_span_over_its_calls_without_values_and_barrier(world):
    found = HostCallTimer().seconds_per_call(world.calls, world.fresh, world.barrier, 4, 2)
    assert found == pytest.approx([(START + 4 * CALL) / 4] * 2, abs=1e-6)
    assert world.done == ["fresh", "barrier", 4] * 2
    assert HostCallTimer().call_count(4, 2) == made(world) == 8


def test_on_a_gpu_what_starting_costs_is_subtracted(world):
    found = CudaCallTimer(graph=False).seconds_per_call(world.calls, world.fresh, world.barrier, 4, 2)
    assert found == pytest.approx([CALL] * 2)
    assert world.done == ["fresh", "barrier", 4, "fresh", "barrier", 8] * 2 + ["synchronize"]
    assert CudaCallTimer(graph=False).call_count(4, 2) == made(world) == 24


def test_a_graph_is_captured_once_for_each_length_and_replayed(world, monkeypatch):
    captured = []

    class Graph:
        def replay(self):
            world.calls(self.count)

    class Capture:
        def __init__(self, graph, capture_error_mode):
            captured.append(graph)

        def __enter__(self):
            self.before = len(world.done)

        def __exit__(self, *_):
            captured[-1].count = world.done[self.before]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    clock = CudaCallTimer(graph=True)
    found = clock.seconds_per_call(world.calls, world.fresh, world.barrier, 4, 2)
    assert found == pytest.approx([CALL] * 2)
    assert clock.call_count(4, 2) == made(world) - (4 + 8) == 36, "less what was captured and not run"
    clock.seconds_per_call(world.calls, world.fresh, world.barrier, 4, 1)
    assert [graph.count for graph in captured] == [4, 8]


@pytest.mark.parametrize("clock", [HostCallTimer(), CudaCallTimer(graph=False)], ids=["cpu", "gpu"])
def test_after_a_gap_one_call_is_timed_and_the_gap_is_not(world, clock):
    found = clock.seconds_after_gap(world.calls, world.fresh, world.barrier, 0.01, 2)
    assert found == pytest.approx([START + CALL] * 2, abs=1e-6)
    assert [step for step in world.done if step != "synchronize"] == ["fresh", "barrier", "sleep", 1] * 2


def test_a_gap_is_idle_for_as_long_as_it_says(world):
    before = world.now
    worker.wait_until(before + 0.01)
    assert world.done == ["sleep"]
    assert world.now - before == pytest.approx(0.01, abs=1e-6)

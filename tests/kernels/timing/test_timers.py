"""The arithmetic of a sample, on clocks that tell exactly what was planted."""

import gc
from contextlib import contextmanager

import pytest

from kernels.timing import cuda as cuda_timing
from kernels.timing import host as timing
from kernels.timing.cuda import CudaTimer, QuickTiming
from kernels.timing.device import Device, SamplingLimits
from kernels.timing.host import HostTimer
from tests.kernels.timing.fake_gpu import FakeGpu, install, ramp

CPU = Device("cpu", "cpu", 2**20, SamplingLimits(10e-3, 60e-3, 0.05, 90.0))
GPU = Device("cuda", "sm_90", 2**20, SamplingLimits(1e-3, 30e-3, 0.005, 90.0))


@pytest.fixture
def machine(monkeypatch):
    """A warm GPU whose clock stands still, and a host whose clock is the GPU's."""
    machine = FakeGpu()
    install(monkeypatch, machine)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: machine.now)
    return machine


def calls_of(machine, seconds, copies=3):
    return [lambda name=name: machine.work(name, seconds) for name in range(copies)]


def test_a_host_sample_is_seconds_a_call_over_at_least_the_span(machine):
    timer = HostTimer(CPU)
    timer.warm_up(calls_of(machine, 3e-3), None)
    before = machine.now
    sampled = timer.sample(1.0)
    assert sampled.seconds == pytest.approx([3e-3] * 5)  # 60 ms a visit / (4 calls x 3 ms)
    assert (sampled.calls, sampled.calls_made) == (4, 20)  # 4 x 3 ms is the first multiple past 10 ms
    assert machine.now - before == pytest.approx(5 * 4 * 3e-3)


def test_a_call_longer_than_the_visit_gives_one_sample(machine):
    timer = HostTimer(CPU)
    timer.warm_up(calls_of(machine, 0.5), None)
    assert timer.sample(0.5).seconds == pytest.approx([0.5])


def test_a_call_that_outlasts_a_visit_is_warmed_up_once(machine):
    timer = HostTimer(CPU)
    timer.warm_up(calls_of(machine, 0.5), None)
    assert len(machine.calls) == 1
    timer.warm_up(calls_of(machine, 0.5), 0.5)
    assert len(machine.calls) == 1


def test_what_a_pass_before_has_shown_is_not_learned_again(machine):
    timer = CudaTimer(GPU, "graph")
    timer.warm_up(calls_of(machine, 3e-6), 3e-6)
    assert timer.sample(1.0).calls == 336  # 1 ms / 3 us = 333.3 calls: 112 whole turns of 3 copies
    assert machine.calls[:3] == [0, 1, 2]


def test_copies_are_taken_in_turn_across_samples(machine):
    timer = HostTimer(CPU)
    timer.warm_up(calls_of(machine, 4e-3), None)
    timer.sample(1.0)
    assert machine.calls == [number % 3 for number in range(len(machine.calls))]


@pytest.mark.parametrize("expected", [3e-3, None])
@pytest.mark.parametrize("timed", ["host", "graph", "eager"])
def test_a_timer_tells_which_copy_was_read_last(machine, timed, expected):
    """By the calls it made: the next visit goes on behind that copy."""
    timer = HostTimer(CPU) if timed == "host" else CudaTimer(GPU, timed)
    timer.warm_up(calls_of(machine, 3e-3, copies=7), expected)
    timer.sample(1.0)
    assert machine.calls[-1] == (timer.calls_made - 1) % 7


@pytest.mark.parametrize("launch", ["graph", "eager"])
def test_a_device_sample_is_free_of_what_starting_a_graph_costs(machine, launch):
    apart = []

    @contextmanager
    def between():
        before = len(machine.calls)
        yield
        apart.append(len(machine.calls) - before)

    timer = CudaTimer(GPU, launch, between)
    timer.warm_up(calls_of(machine, 3e-6), None)
    machine.calls.clear()
    sampled = timer.sample(1.0)
    assert sampled.calls_made == len(machine.calls) - sum(apart)
    assert len(apart) == 2, "before the samples and behind them"
    assert sampled.seconds == pytest.approx([3e-6] * len(sampled.seconds), rel=1e-6)
    assert sampled.calls * 3e-6 >= 1e-3 * 0.8  # sized by a probe that still held the graph's start
    assert 3 <= len(sampled.seconds) <= 10
    clocks = {"sm_mhz": 1980.0, "sm_mhz_before": 1980.0, "sm_mhz_after": 1980.0}
    assert (sampled.throttled, sampled.telemetry, sampled.moved) == (False, clocks, False)


def test_a_graph_walks_every_copy_before_it_meets_one_again(machine):
    timer = CudaTimer(GPU, "graph")
    timer.warm_up(calls_of(machine, 1e-3, copies=40), None)
    machine.calls.clear()
    assert timer.sample(1.0).calls == 40  # 1 ms would ask for a single call
    assert set(machine.calls[:40]) == set(range(40))


def test_a_hiccup_in_one_sample_is_left_out(machine):
    timer = CudaTimer(GPU, "eager")
    timer.warm_up(calls_of(machine, 3e-6), 3e-6)
    whole = len(timer.sample(1.0).seconds)
    long, short, longs = timer._long, timer._short, []

    def counted():
        longs.append(machine.now)
        long()

    def hiccup():
        """In the T(n) behind the second T(2n) that is timed; the first T(2n) of all settles the clock."""
        if len(longs) == 3:
            machine.now += 5e-3
            longs.append(machine.now)
        short()

    timer._long, timer._short = counted, hiccup
    seconds = timer.sample(1.0).seconds
    assert seconds == pytest.approx([3e-6] * (whole - 2)), "and the longest with it"


@pytest.mark.parametrize("launch", ["graph", "eager"])
def test_pythons_collector_is_held_off_while_a_device_is_timed(machine, launch):
    seen = []
    calls = [lambda: (seen.append(gc.isenabled()), machine.work(0, 3e-6))]
    timer = CudaTimer(GPU, launch)
    timer.warm_up(calls, None)
    if launch == "eager":
        assert seen[:3] == [True] * 3, "compiling and allocating are not timed"
        assert not any(seen[3:]), "what sizes the samples is"
    seen.clear()
    timer.sample(1.0)
    assert not any(seen)
    assert gc.isenabled()


def test_pythons_collector_is_held_off_while_a_cpu_is_warmed_up(machine):
    seen = []
    timer = HostTimer(CPU)
    timer.warm_up([lambda: (seen.append(gc.isenabled()), machine.work(0, 3e-3))], None)
    assert seen
    assert not any(seen)
    assert gc.isenabled()


def test_hiccups_on_either_side_leave_the_mean_alone():
    """Of 100 us a call with one hiccup of 50 us in T(n) and one in T(2n)."""
    assert cuda_timing._drop_hiccups([1e-4, 1.5e-4, 1e-4, -5e-5, 1e-4]) == (1e-4, 1e-4, 1e-4)


def test_samples_reach_the_span_though_the_pass_before_was_slow(machine):
    timer = HostTimer(CPU)
    timer.warm_up(calls_of(machine, 1e-3), 30e-3)
    assert timer.sample(1.0).calls == 10  # 10 ms of calls that take 1 ms now


def test_a_clock_that_does_not_move_is_an_error(machine):
    timer = CudaTimer(GPU, "graph")
    timer.warm_up(calls_of(machine, 1e-6), None)
    timer._long = timer._short
    with pytest.raises(RuntimeError, match="took no longer than"):
        timer.sample(1.0)


def test_the_graph_that_sizes_the_samples_is_replayed_once_before_it_is_timed(machine):
    CudaTimer(GPU, "graph").warm_up(calls_of(machine, 3e-6), None)
    assert [what for what in machine.order if what != "call"] == ["upload", "event", "replay", "event"]


def test_the_graph_of_a_look_is_replayed_once_before_it_is_timed(machine):
    QuickTiming(calls_of(machine, 3e-6)).seconds(2)
    given = [what for what in machine.order if what != "call"]
    assert given == ["upload", "event", "replay", "event", "replay", "event"]


def test_a_look_tells_fast_from_slow_at_a_clock_that_is_up(machine):
    for seconds in (3e-6, 3.3e-6):
        look = QuickTiming([lambda seconds=seconds: machine.work(0, seconds)] * 100)
        # 7 us of the graph's start over 32 calls
        assert look.seconds(2) == pytest.approx(seconds + 7e-6 / 32)


def test_a_first_look_at_an_idle_gpu_brings_its_clock_up(monkeypatch):
    machine = FakeGpu(ramp)
    install(monkeypatch, machine, warm=False)
    look = QuickTiming([lambda: machine.work(0, 3e-6)] * 32)
    assert look.seconds(2) == pytest.approx(3e-6 + 7e-6 / 32, rel=1e-2)
    assert machine.now >= 0.05
    before = machine.now
    look.seconds(2)
    assert machine.now - before == pytest.approx(2 * (32 * 3e-6 + 7e-6), rel=1e-2)


def test_a_look_holds_the_collector_off(machine):
    seen = []
    look = QuickTiming([lambda: machine.work(0, 3e-6)])
    replay = look._graph.replay
    look._graph.replay = lambda: (seen.append(gc.isenabled()), replay())
    look.seconds(2)
    assert seen == [False, False]

"""The SM clock of a visit: brought up before its samples, read under load at both ends, and never moving unseen."""

from contextlib import contextmanager

import pytest

from kernels.timing.cuda import CudaTimer
from kernels.timing.device import Device, SamplingLimits
from tests.kernels.timing.fake_gpu import FULL_MHZ, FakeGpu, install, ramp

GPU = Device("cuda", "sm_90", 2**20, SamplingLimits(1e-3, 30e-3, 0.005, 90.0))
TRUE_SECONDS = 3e-6
LAUNCHES = pytest.mark.parametrize("launch", ["graph", "eager"])


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that has been idle, with the clock given."""

    def gpu(clock=ramp, **how):
        install(monkeypatch, machine := FakeGpu(clock), **{"warm": False, **how})
        return machine

    return gpu


def ready(machine, launch="graph", expected=TRUE_SECONDS):
    timer = CudaTimer(GPU, launch)
    timer.warm_up([lambda: machine.work(0, TRUE_SECONDS)], expected)
    return timer


def load_of(machine, timer):
    """Seconds of load that a visit puts before its samples, and the visit."""
    before = machine.now
    sampled = timer.sample(1.0)
    timed = 3 * sampled.calls * len(sampled.seconds) * TRUE_SECONDS
    return machine.now - before - timed, sampled


@LAUNCHES
@pytest.mark.parametrize("expected", [TRUE_SECONDS, None])
def test_samples_of_a_gpu_that_was_idle_are_those_of_its_full_clock(gpu, launch, expected):
    sampled = ready(gpu(), launch, expected).sample(1.0)
    assert sampled.seconds == pytest.approx([TRUE_SECONDS] * len(sampled.seconds), rel=1e-3)
    assert sampled.calls * TRUE_SECONDS >= 1e-3 * 0.8, "sized at the full clock too"
    assert sampled.telemetry["sm_mhz_before"] == sampled.telemetry["sm_mhz_after"] == FULL_MHZ
    assert not sampled.moved


@LAUNCHES
def test_a_first_visit_is_under_load_for_50_to_100_ms_and_a_second_for_some_10(gpu, launch):
    machine = gpu()
    timer = ready(machine, launch)
    first, _ = load_of(machine, timer)
    second, _ = load_of(machine, timer)
    assert 0.05 <= first <= 0.12
    assert second <= 0.016


def test_after_a_rest_the_clock_is_brought_up_again(gpu):
    machine = gpu()
    timer = ready(machine)
    timer.sample(1.0)
    machine.rest(2.0)
    load, sampled = load_of(machine, timer)
    assert load >= 0.05
    assert sampled.seconds == pytest.approx([TRUE_SECONDS] * len(sampled.seconds), rel=1e-3)


@pytest.mark.parametrize(("seconds", "again"), [(0.1, False), (1.0, True)])
def test_without_nvml_a_rest_of_a_second_is_one_after_which_the_clock_is_brought_up(gpu, seconds, again):
    machine = gpu()
    machine.nvml = False
    timer = ready(machine)
    timer.sample(1.0)
    machine.rest(seconds)
    load, _ = load_of(machine, timer)
    assert (load >= 0.05) is again


def test_a_clock_below_the_best_that_was_seen_is_waited_for(gpu):
    """A power limit, or a rest that fell short of IDLE_SECONDS: two equal readings do not mean that it is up."""
    machine = gpu(lambda loaded: 1200.0, warm=True)
    load, sampled = load_of(machine, ready(machine))
    assert load >= 0.05
    assert sampled.telemetry["sm_mhz_before"] == 1200.0
    assert not sampled.moved


def test_a_clock_that_never_holds_still_is_waited_for_no_longer_than_100_ms(gpu):
    machine = gpu(lambda loaded: 1980.0 if int(loaded / 2e-3) % 2 else 1700.0)
    before = machine.now
    sampled = ready(machine).sample(1.0)
    assert machine.now - before < 2 * (0.1 + 0.06)
    assert sampled.moved in (True, False)


@LAUNCHES
def test_without_nvml_a_first_visit_is_loaded_for_50_ms_and_its_clock_is_unknown(gpu, launch):
    machine = gpu()
    machine.nvml = False
    timer = ready(machine, launch)
    first, sampled = load_of(machine, timer)
    second, _ = load_of(machine, timer)
    assert first >= 0.05
    assert second <= 0.016
    assert (sampled.telemetry, sampled.throttled, sampled.moved) == (None, None, False)
    assert sampled.seconds == pytest.approx([TRUE_SECONDS] * len(sampled.seconds), rel=1e-3)


def drop(at, until=float("inf"), to=1500.0):
    return lambda loaded: to if at <= loaded < until else FULL_MHZ


@LAUNCHES
def test_samples_in_which_the_clock_moved_are_taken_once_more(gpu, launch):
    """Down 20 ms after the GPU came under load, in the middle of the samples, and up again before the second try."""
    machine = gpu(drop(0.020, 0.055), warm=True)
    sampled = ready(machine, launch).sample(1.0)
    assert 1500.0 in machine.readings
    assert sampled.seconds == pytest.approx([TRUE_SECONDS] * len(sampled.seconds), rel=1e-3)
    assert not sampled.moved
    assert sampled.calls_made == 2 * 3 * sampled.calls * len(sampled.seconds), "those of both tries"


@LAUNCHES
def test_a_visit_whose_second_try_moves_too_says_so(gpu, launch):
    """A clock that drifts from one sample to the next, and never goes back."""
    machine = gpu(lambda loaded: FULL_MHZ if loaded < 0.010 else FULL_MHZ - 4000 * loaded, warm=True)
    sampled = ready(machine, launch).sample(1.0)
    assert sampled.moved
    ends = sampled.telemetry
    assert ends["sm_mhz_after"] < 0.99 * ends["sm_mhz_before"]
    assert ends["sm_mhz"] == ends["sm_mhz_after"]


def test_a_clock_that_is_held_back_and_moves_is_not_tried_again(gpu):
    machine = gpu(lambda loaded: FULL_MHZ if loaded < 0.010 else FULL_MHZ - 4000 * loaded, warm=True)
    machine.held_back = lambda loaded: True
    sampled = ready(machine).sample(1.0)
    assert (sampled.moved, sampled.throttled) == (True, True)
    assert sampled.calls_made == 3 * sampled.calls * len(sampled.seconds)


@LAUNCHES
@pytest.mark.parametrize(
    ("held_back", "ends"),
    [
        (lambda loaded: loaded < 0.011, [True, False]),
        (lambda loaded: loaded > 0.020, [False, True]),
        (lambda loaded: True, [True, True]),
        (lambda loaded: False, [False, False]),
    ],
    ids=["before", "from the middle on", "throughout", "never"],
)
def test_clocks_held_back_at_either_end_of_the_samples_label_the_visit(gpu, launch, held_back, ends):
    machine, told = gpu(lambda loaded: FULL_MHZ, warm=True), []
    machine.held_back = lambda loaded: told.append(held_back(loaded)) or told[-1]
    assert ready(machine, launch).sample(1.0).throttled is any(ends)
    assert told[-2:] == ends, "as planted: the last reading before the samples, and the one behind them"


def test_a_chunk_that_takes_no_time_ends_all_the_same(gpu):
    machine = gpu(warm=False)
    machine.spend = lambda seconds: setattr(machine, "now", machine.now + 1e-9)
    timer = ready(machine)
    timer.sample(1.0)
    assert len(machine.calls) < 10**6


def order_of(machine, timer):
    """The GPU notes what a visit gives it, in order. A replay of a graph stands for its calls."""
    machine.order.clear()
    sampled = timer.sample(1.0)
    given = [what for what in machine.order if what != "call" or timer._runner == timer._eager_runner]
    return given, len(sampled.seconds)


def test_eager_calls_have_a_waiting_kernel_behind_them_wherever_the_clock_is_read(gpu):
    """The host may be slower than the calls: without that kernel it would read the clock of an idle GPU."""
    machine = gpu(lambda loaded: FULL_MHZ, warm=True)
    given, samples = order_of(machine, ready(machine, "eager"))
    chunk = ["call", "hold", "event"]
    before = ["event", *chunk, *chunk, "read", *chunk, "read"]
    assert given[: len(before)] == before
    assert given[len(before) :] == ["event", *["call", "event"] * (2 * samples), "hold", "read"]


@pytest.mark.parametrize("nvml", [True, False])
@pytest.mark.parametrize("expected", [TRUE_SECONDS, 1.0])
def test_each_graph_is_replayed_once_before_it_is_timed(gpu, expected, nvml):
    """The first replay uploads a graph, which is no part of a call. Of calls of a second a chunk is one graph."""
    machine = gpu(lambda loaded: FULL_MHZ, warm=True)
    machine.nvml = nvml
    given, samples = order_of(machine, ready(machine, "graph", expected))
    timed = ["event", *["replay", "event"] * (2 * samples), "replay", "read"]
    before = given[: -len(timed)]
    assert given[-len(timed) :] == timed
    assert before[-1] == "read", "what is before the samples is the load that settles the clock"
    assert before.count("upload") == 2
    assert "hold" not in given, "the samples follow that load without a gap"


@pytest.mark.parametrize(("launch", "idle"), [("graph", False), ("eager", True)])
def test_graph_samples_follow_load_without_a_gap_and_eager_ones_begin_on_an_idle_stream(gpu, launch, idle):
    """Else the host would run ahead of the first eager sample, and of no other."""
    machine, seen = gpu(), []

    @contextmanager
    def between():
        yield
        seen.append(machine.seen == machine.now)

    timer = CudaTimer(GPU, launch, between)
    timer.warm_up([lambda: machine.work(0, TRUE_SECONDS)], TRUE_SECONDS)
    timer.sample(1.0)
    assert seen == [idle, False]

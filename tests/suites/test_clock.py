import pytest

from suites.clock import ReplayTimer, device_clock

SAMPLES = [3e-6, 4.2e-6, 5e-6]


class Pedantic:
    """Times like pytest-benchmark does: one round at a time, by the difference of two readings."""

    def __init__(self, clock):
        self.clock, self.recorded = clock, []

    def pedantic(self, target, setup, rounds, iterations):
        assert iterations == 1
        for _ in range(rounds):
            setup()
            start = self.clock()
            target()
            self.recorded.append(self.clock() - start)


def test_the_replay_hands_over_every_sample_to_the_last_digit():
    clock = ReplayTimer()
    benchmark = Pedantic(clock)
    clock.replay(benchmark, SAMPLES)
    assert benchmark.recorded == SAMPLES


def test_the_clock_tells_real_time_again_after_a_replay_and_after_a_failed_one():
    clock = ReplayTimer()
    clock.replay(Pedantic(clock), SAMPLES)
    assert clock() > 1e-3  # perf_counter of a running process, no sample
    with pytest.raises(AttributeError):
        clock.replay(object(), SAMPLES)
    first = clock()
    assert clock() > first


def test_pytest_benchmark_times_other_functions_as_ever(benchmark):
    benchmark(lambda: sum(range(1000)))
    if not benchmark.disabled:
        assert 1e-7 < benchmark.stats["median"] < 1e-1
    assert device_clock() > 0

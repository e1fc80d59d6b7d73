"""Latency and bandwidth: planted ones are found again, intervals hold them, and too little is not fitted."""

import pytest

from reports import results
from reports.communication import points
from reports.communication.points import NO_REFERENCES, fit_series
from reports.roofline import term_interval
from reports.show import case_metrics
from tests.reports import planted
from tests.reports.communication import planted_ranks
from tests.reports.communication.planted_ranks import sweep


def fitted(tmp_path, measurements):
    file = results.load(planted.write(tmp_path / "x.json", measurements))
    (found,) = points.collect_series(points.build_points(file, case_metrics(file), NO_REFERENCES))
    return fit_series(found)


def test_exact_times_give_their_latency_and_bandwidth(tmp_path):
    """2e9 bytes of the message a second over four ranks are 3e9 of busbw."""
    found = fitted(tmp_path, sweep(alpha=20e-6, rate=2e9))
    assert found.line.alpha == pytest.approx(20e-6, rel=1e-5)
    assert found.line.rate == pytest.approx(2e9, rel=1e-5)
    assert (found.bandwidth, found.kind) == (pytest.approx(3e9, rel=1e-5), "busbw")
    assert found.worst_residual < 1e-5
    assert found.source == "6 passes"


def test_a_ping_pong_moves_twice_what_its_message_says(tmp_path):
    assert fitted(tmp_path, sweep(rate=2e9, op="ping_pong")).bandwidth == pytest.approx(4e9, rel=1e-5)


def test_an_operation_without_busbw_says_what_its_bandwidth_is(tmp_path):
    found = fitted(tmp_path, sweep(rate=2e9, op="all_reduce_rmsnorm"))
    assert (found.bandwidth, found.kind) == (pytest.approx(2e9, rel=1e-5), "message/time")


def test_intervals_hold_what_was_planted_about_as_often_as_they_say(tmp_path):
    """Of 40 intervals of 95 % two are expected to miss, and over six next to never."""
    hits = {"alpha": 0, "rate": 0}
    for seed in range(40):
        found = fitted(tmp_path, planted_ranks.noisy_sweep(20e-6, 2e9, seed))
        hits["alpha"] += found.alpha[0] < 20e-6 < found.alpha[1]
        hits["rate"] += found.bandwidth_interval[0] < 3e9 < found.bandwidth_interval[1]
        assert found.alpha[1] / found.alpha[0] < 1.4
    assert min(hits.values()) >= 34


@pytest.mark.parametrize("sizes", [(1024, 2**20, 2**24), (1024, 2048, 4096, 8192)], ids=["three", "too near"])
def test_too_little_is_not_fitted(tmp_path, sizes):
    assert fitted(tmp_path, sweep(sizes=sizes)) is None


def test_four_sizes_over_a_factor_of_sixteen_are(tmp_path):
    assert fitted(tmp_path, sweep(sizes=(1024, 2048, 4096, 16384)))


def test_several_cases_of_one_size_are_not_told_apart_and_not_fitted(tmp_path):
    again = [planted.replace(one, case=planted.replace(one.case, name=f"{one.case.name} root 1")) for one in sweep()]
    assert fitted(tmp_path, [*sweep(), *again]) is None


def test_a_single_pass_gives_no_interval(tmp_path):
    found = fitted(tmp_path, [planted.replace(one, seconds=one.seconds[:1]) for one in sweep()])
    assert (found.alpha, found.rate, found.source) == (None, None, None)
    assert found.line.alpha == pytest.approx(20e-6, rel=1e-5)


def test_of_single_figures_the_range_over_leaving_one_out(tmp_path):
    """The outlier is 1.5 times what the line says; without it the others lie on the line exactly."""
    times = {size: 1e6 * (20e-6 + size / 2e9) for size in planted_ranks.SIZES}
    exact = fitted(tmp_path, planted_ranks.published(times))
    assert exact.source == "leaving out a size"
    assert exact.alpha == pytest.approx((20e-6, 20e-6), rel=1e-5)
    times[2**14] *= 1.5
    odd = fitted(tmp_path, planted_ranks.published(times))
    assert odd.alpha[0] == pytest.approx(20e-6, rel=1e-5)
    assert odd.alpha[1] > odd.line.alpha > 20.1e-6
    assert 0.3 < odd.worst_residual < 0.5


def test_a_term_that_the_times_do_not_show_is_left_out(tmp_path):
    flat = fitted(tmp_path, sweep(alpha=50e-6, rate=1e15))
    assert (flat.line.rate, flat.bandwidth, flat.rate) == (None, None, None)
    assert flat.line.alpha == pytest.approx(50e-6, rel=1e-3)
    steep = fitted(tmp_path, sweep(alpha=1e-12, rate=2e9))
    assert (steep.line.alpha, steep.alpha) == (None, None)
    assert steep.line.rate == pytest.approx(2e9, rel=1e-3)


def test_the_worst_residual_shows_a_bad_fit(tmp_path):
    steps = [
        planted.measured(planted_ranks.case(size), (1e-5 if size < 2**16 else 1e-3) + size / 2e9)
        for size in planted_ranks.SIZES
    ]
    assert fitted(tmp_path, steps).worst_residual > 0.5


def test_an_interval_that_spans_everything_is_left_out():
    # two passes that differ by a factor of 10: Student's t of 12.7 makes it 10^6 either way
    assert term_interval(1e-5, [1e-5, 1e-4], "2 passes") is None
    low, high = term_interval(1e-5, [1.0e-5, 1.01e-5], "2 passes")
    assert low < 1e-5 < high

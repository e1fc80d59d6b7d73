import random
from math import exp, inf

import pytest

from specs import statistics


def test_pooled_median_counts_every_sample():
    assert statistics.pooled_median([[1.0, 2.0, 9.0], [3.0, 4.0]]) == 3.0  # of 1, 2, 3, 4, 9


def test_mean_counts_every_sample():
    assert statistics.mean([[1.0, 2.0], [6.0]]) == 3.0  # 9 / 3


def test_half_width_of_two_passes():
    # logs 0 and 2·ln 1.1: sd of their mean is ln 1.1; t(0.975, 1) = 12.7062; 1.1^12.7062 − 1
    assert statistics.relative_half_width([[1.0], [1.21]]) == pytest.approx(1.1**12.7062 - 1, rel=1e-4)


def test_half_width_of_three_passes():
    # logs −0.01, 0, 0.01: variance 1e-4, of the mean 1e-4/3, sd 0.0057735; t(0.975, 2) = 4.302653; exp(0.0248414) − 1
    passes = [[exp(-0.01)], [1.0], [exp(0.01)]]
    assert statistics.relative_half_width(passes) == pytest.approx(0.0251525, abs=1e-7)
    # t(0.95, 2) = 2.919986: exp(0.0168586) − 1
    assert statistics.relative_half_width(passes, confidence=0.9) == pytest.approx(0.0170015, abs=1e-7)


def test_only_pass_medians_make_the_interval():
    quiet, noisy = [[1.0], [1.1], [1.2]], [[0.5, 1.0, 7.0], [0.2, 1.1, 1.4], [1.19, 1.2, 3.0]]
    assert statistics.relative_half_width(noisy) == pytest.approx(statistics.relative_half_width(quiet))


def test_interval_lies_around_the_pooled_median():
    low, high = statistics.median_interval([[exp(-0.01)], [1.0], [exp(0.01)]])
    assert (low, high) == pytest.approx((1 / 1.0251525, 1.0251525))


def test_a_single_pass_gives_no_interval():
    assert statistics.relative_half_width([[1.0, 1.1, 1.2]]) == inf
    assert statistics.median_interval([[1.0, 1.1, 1.2]]) is None
    assert statistics.ratio_interval([[1.0]], [[1.0], [1.1]]) is None
    assert statistics.ratio_interval([[1.0], [1.1]], [[1.0]]) is None


def test_ratio_of_two_sides_with_equal_spread():
    # variance of each mean 1e-4/3, of the ratio 2e-4/3, sd 0.00816497; Welch gives 4 degrees: t(0.975, 4) = 2.776445
    base = [[exp(-0.01)], [1.0], [exp(0.01)]]
    other = [[2 * one[0]] for one in base]
    factor = exp(0.00816497 * 2.776445)
    assert statistics.ratio_interval(base, other) == pytest.approx((2 / factor, 2 * factor), rel=1e-6)


def test_ratio_to_a_side_without_spread_has_the_degrees_of_the_other():
    # sd 0.0057735 from `other` alone, 2 degrees: t = 4.302653
    other = [[exp(-0.01)], [1.0], [exp(0.01)]]
    factor = exp(0.0057735 * 4.302653)
    assert statistics.ratio_interval([[1.0]] * 5, other) == pytest.approx((1 / factor, factor), rel=1e-6)


def test_no_spread_at_all_gives_a_point():
    assert statistics.ratio_interval([[2.0]] * 3, [[3.0]] * 3) == pytest.approx((1.5, 1.5))


def test_noise_is_the_spread_of_single_samples():
    # 0 … 10 in tenths above 1: 90th percentile 1.9, 10th 1.1, median 1.5
    assert statistics.noise([[1 + step / 10 for step in range(11)]]) == pytest.approx(0.8 / 1.5)


def _passes(random_: random.Random, between: float, within: float = 0.01, passes: int = 6, samples: int = 15):
    drawn = []
    for _ in range(passes):
        level = random_.gauss(0, between)
        drawn.append([exp(level + random_.gauss(0, within)) for _ in range(samples)])
    return drawn


def _differs(interval):
    low, high = interval
    return not low <= 1 <= high


def test_clustering_by_pass_keeps_false_calls_rare_where_pooled_samples_do_not():
    random_, trials, clustered, pooled = random.Random(7), 300, 0, 0
    for _ in range(trials):
        base, other = _passes(random_, between=0.05), _passes(random_, between=0.05)
        clustered += _differs(statistics.ratio_interval(base, other))
        alone = [[[sample] for one in side for sample in one] for side in (base, other)]
        pooled += _differs(statistics.ratio_interval(*alone))
    assert clustered / trials < 0.10  # 5 % promised
    assert pooled / trials > 0.40  # 15 samples a pass shrink the interval about fourfold


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    random_, trials = random.Random(11), 400
    covered = 0
    for _ in range(trials):
        low, high = statistics.median_interval(_passes(random_, between=0.05))
        covered += low <= 1 <= high
    assert 0.90 < covered / trials < 0.99


def test_a_real_difference_is_found():
    random_ = random.Random(3)
    base = _passes(random_, between=0.01)
    slower = [[1.2 * sample for sample in one] for one in _passes(random_, between=0.01)]
    low, high = statistics.ratio_interval(base, slower)
    assert 1.1 < low < 1.2 < high < 1.3


def test_interval_on_a_mean_may_reach_below_nought():
    # −1, 0 and 4: mean 1, variance 7, of the mean 7/3, sd 1.527525; t(0.975, 2) = 4.302653
    assert statistics.mean_interval([-1.0, 0.0, 4.0]) == pytest.approx((1 - 6.572411, 1 + 6.572411), rel=1e-6)
    assert statistics.mean_interval([1.0]) is None


def test_what_two_noisy_passes_do_not_know_stays_finite():
    low, high = statistics.ratio_interval([[1.0], [9.0]], [[1.0], [9.0]], 1 - 1e-9)
    assert 0 < low < 1e-20 < 1e20 < high < inf

"""Noise drawn together over cases: what it may raise, and what it must not lower."""

import random
from math import exp

import pytest

from reports.compare import comparison
from reports.compare.comparison import compare_files
from specs.statistics import LogRatio
from tests.reports import planted
from tests.reports.planted_sweeps import file


def of(error, freedom=10.0, passes=3.0):
    return LogRatio(0.0, error, freedom, passes)


def scattered(count, seed, sigma=0.01, freedom=10):
    """Errors of cases of equal noise: chi-square over its degrees of freedom."""
    rng = random.Random(seed)
    variances = (sum(rng.gauss(0, 1) ** 2 for _ in range(freedom)) / freedom for _ in range(count))
    return [of(sigma * variance**0.5, float(freedom)) for variance in variances]


def test_cases_of_equal_noise_come_near_to_each_other():
    before = scattered(200, 1)
    after = [one.error for one in comparison.shrink_variances(before)]
    low, high = sorted(after)[10], sorted(after)[180]
    assert 0.0085 < low < high < 0.013
    assert sorted(one.error for one in before)[10] < 0.0075
    assert {one.degrees_of_freedom for one in comparison.shrink_variances(before)} <= {
        10.0,
        30.0,
    }  # the common noise counts for twice their own


@pytest.mark.parametrize("error", [0.05, 0.02])
def test_a_noisier_case_keeps_its_own(error):
    noisy = of(error)
    assert comparison.shrink_variances([*scattered(200, 2, sigma=0.004), noisy])[-1] is noisy


def test_a_case_that_shows_no_noise_by_chance_gets_some():
    """Equal medians of passes come of a clock with coarse ticks."""
    assert comparison.shrink_variances([*scattered(50, 3), of(0.0)])[-1].error > 0.005


def test_cases_with_more_passes_are_surer():
    """The same variance of a pass over 2 and over 18: a third of the error."""
    few, many = comparison.shrink_variances([*scattered(100, 4), of(0.009, 2.0, 1.0), of(0.003, 34.0, 9.0)])[-2:]
    assert few.error > 2 * many.error


def test_few_cases_and_those_without_passes_stay():
    few = scattered(9, 5)
    assert comparison.shrink_variances(few) == few
    assert comparison.shrink_variances([None, *scattered(20, 6)])[0] is None


@pytest.mark.parametrize("passes", [3, 6])
def test_one_noisy_case_among_quiet_ones_is_not_called(passes):
    """Nothing changed in 20 comparisons; one case of 300 is ten times as noisy as the rest."""

    def run(seed):
        rng = random.Random(seed)
        made = []
        for number in range(300):
            noise = 0.04 if number == 7 else 0.004
            seconds = tuple((exp(rng.gauss(0, noise)),) * 3 for _ in range(passes))
            made.append(planted.measured(planted.case(f"s::c[{number}]", tokens=number + 1), seconds))
        return file(made)

    called = [
        pair.a.case.name
        for seed in range(20)
        for pair in compare_files(run(2 * seed), run(2 * seed + 1), 0.02).pairs
        if pair.verdict in ("faster", "slower")
    ]
    assert called.count("s::c[7]") == 0
    assert len(called) <= 1

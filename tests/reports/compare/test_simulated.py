"""Simulated runs in the manner of a real file: what is found, what is not, and how often it is wrong.

Each case has its samples a pass, and the size of its noise, from a committed file. That noise, 4 % between passes, is a
CPU's; a tenth of it stands for a GPU. Passes are as many as the suites make: six, and more until 0.5 % is reached or
eighteen are made. Every pass has a shock of its own that all cases share.
"""

import random
from math import exp, log
from pathlib import Path
from statistics import fmean, median, stdev

import pytest

from reports import results
from reports.compare.comparison import compare_files
from specs.statistics import relative_half_width
from tests.reports import planted

REAL = Path("reports/data/intel-xeon-2-threads-2026-11-25-d9c5406.json")
GPU, CPU = 0.1, 1.0
"""Noise, as multiples of that in the file."""
RUNS = 12
MOST_PASSES, PRECISION = 18, 0.005


@pytest.fixture(scope="module")
def real():
    return [one for one in results.load(REAL).measurements if one.case.question != "ceilings" and len(one.seconds) > 2]


def simulated(real, seed, noise, change=lambda number: 1.0):
    """A run like the real one; `change` gives the factor of a case by its number."""
    rng = random.Random(seed)
    shared = [noise * rng.gauss(0, 0.01) for _ in range(MOST_PASSES)]
    made = []
    for number, one in enumerate(real):
        logs = [log(median(samples)) for samples in one.seconds]
        between = noise * min(stdev(logs), 0.1)
        within = noise * min(fmean(max(samples) / min(samples) - 1 for samples in one.seconds), 0.3) / 3
        passes = []
        while len(passes) < 6 or (len(passes) < MOST_PASSES and relative_half_width(passes) > PRECISION):
            shock = shared[len(passes)] + rng.gauss(0, between)
            middle = exp(fmean(logs) + shock) * change(number)
            passes.append(tuple(middle * exp(rng.gauss(0, within)) for _ in one.seconds[0]))
        made.append(planted.replace(one, seconds=tuple(passes), ledgers=None, timeline=None))
    return planted_file(made)


def planted_file(measurements):
    return results.ResultFile(
        path=Path("simulated.json"), machine=planted.CPU, measurements=tuple(measurements), not_run={}, failed={},
        datetime="", commit={}, version="", options={}, schema=1,
    )  # fmt: skip


@pytest.mark.parametrize("noise", [GPU, CPU])
def test_of_equal_runs_less_than_one_case_in_a_hundred_is_called(real, noise):
    found = [compare_files(simulated(real, 2 * run, noise), simulated(real, 2 * run + 1, noise)) for run in range(RUNS)]
    calls = sum(one.counts["faster"] + one.counts["slower"] for one in found)
    assert calls < 0.01 * RUNS * len(real)


def test_a_slow_down_of_three_percent_is_found_and_one_of_half_a_percent_is_not(real):
    """A third of the cases is 3 % slower, a third 0.5 %, a third as before."""

    def change(number):
        return (1.03, 1.005, 1.0)[number % 3]

    found = [
        compare_files(simulated(real, 2 * run, GPU), simulated(real, 2 * run + 1, GPU, change)) for run in range(RUNS)
    ]
    slower, little, none = (
        [pair.verdict for one in found for number, pair in enumerate(one.pairs) if number % 3 == kind]
        for kind in range(3)
    )
    assert {one.threshold for one in found} == {0.015}
    assert slower.count("slower") > 0.9 * len(slower)
    assert slower.count("faster") == 0
    assert little.count("slower") + little.count("faster") < 0.01 * len(little)
    assert none.count("slower") + none.count("faster") < 0.01 * len(none)


def test_a_slow_down_of_three_percent_of_everything_shows_in_each_question(real):
    found = compare_files(simulated(real, 1, GPU), simulated(real, 2, GPU, lambda _: 1.03))
    groups = {group.name: group.verdict_at(found.threshold) for group in found.groups}
    assert groups.keys() == {"decode", "prefill", "attention", "communication", "split"}
    assert set(groups.values()) == {"slower"}

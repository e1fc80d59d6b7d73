"""Costs over sizes: tabulated, between, beyond; and how their doubts add up."""

import numpy as np
import pytest

from reports.plan.estimate import (
    UNKNOWN_COST,
    Cost,
    CostCurve,
    Origin,
    constant_origin,
    fastest,
    fastest_curve,
    first_known,
    measured_cost,
    sum_costs,
)
from tests.reports import planted


def planted_cost(seconds, half_width=0.0, high=None, provenance="published"):
    origin = constant_origin(provenance, (f"case {seconds}",))
    return Cost(seconds, seconds, seconds if high is None else high, half_width, origin)


POINTS = {10: planted_cost(1.0), 20: planted_cost(3.0, half_width=0.3, high=4.0)}


def test_a_tabulated_size_is_as_it_stands():
    found = CostCurve(POINTS).at(20)
    assert (found.seconds, found.low, found.high, found.half_width) == (3.0, 3.0, 4.0, 0.3)
    assert (found.provenance, found.cases) == ("published", ("case 3.0",))


def test_between_two_sizes_lies_a_straight_line_with_both_cases():
    found = CostCurve(POINTS).at(15)
    assert (found.seconds, found.low, found.high, found.half_width) == (2.0, 2.0, 2.5, 0.3)
    assert found.provenance == "interpolated"
    assert found.cases == ("case 1.0", "case 3.0")


def test_beyond_the_largest_the_last_slope_goes_on_and_is_assumed():
    found = CostCurve(POINTS).at(25)
    assert (found.seconds, found.provenance) == (4.0, "assumed")
    assert CostCurve(POINTS).within(25).unknown


def test_below_the_smallest_a_call_takes_as_long_as_that():
    found = CostCurve(POINTS).at(1)
    assert (found.seconds, found.provenance, found.cases) == (1.0, "interpolated", ("case 1.0",))
    assert CostCurve(POINTS).at(10 - 1e-9).half_width == 0.0


def test_an_array_of_sizes_has_at_each_what_the_size_alone_has():
    sizes = np.array([25, 1, 10, 15, 20, 17.5])
    curve = CostCurve({**POINTS, 16: planted_cost(2.5, half_width=0.1)})
    found, alone = curve.at(sizes), [curve.at(size) for size in sizes]
    for name in ("seconds", "low", "high", "half_width"):
        assert getattr(found, name).tolist() == [getattr(one, name) for one in alone]
    assert [found.origin_at(place) for place in range(6)] == [Origin(one.provenance, one.cases) for one in alone]
    assert curve.within(sizes).unknown.tolist() == [True, False, False, False, False, False]


def test_of_several_costs_each_size_has_the_first_known_or_the_fastest():
    short, long = CostCurve(POINTS), CostCurve({10: planted_cost(0.5), 40: planted_cost(9.5)})
    sizes = np.array([10, 20, 30, 50])
    costs = [short.within(sizes), long.within(sizes)]
    first = first_known(costs)
    assert first.seconds[:3].tolist() == [1.0, 3.0, 6.5]
    assert first.unknown.tolist() == [False, False, False, True]
    assert [first.origin_at(place).cases for place in range(3)] == [
        ("case 1.0",),
        ("case 3.0",),
        ("case 0.5", "case 9.5"),
    ]
    least = fastest(costs)
    assert least.seconds[:3].tolist() == [0.5, 3.0, 6.5]
    assert [least.origin_at(place).cases for place in range(2)] == [("case 0.5",), ("case 3.0",)]
    assert fastest(reversed(costs)).seconds[:3].tolist() == [0.5, 3.0, 6.5]
    assert first_known([]).unknown
    assert fastest([UNKNOWN_COST, planted_cost(1.0)]).seconds == 1.0


def test_a_sum_has_the_weakest_provenance_and_the_cases_of_its_parts_at_each_size():
    found = sum_costs([CostCurve(POINTS).at(np.array([10, 15])), planted_cost(7.0)])
    assert found.seconds.tolist() == [8.0, 9.0]
    assert found.origin_at(0) == Origin("published", ("case 1.0", "case 7.0"))
    assert found.origin_at(1) == Origin("interpolated", ("case 1.0", "case 3.0", "case 7.0"))
    assert found.scaled(2).weakened("modelled").origin_at(0).provenance == "modelled"


def test_a_single_point_goes_on_in_proportion():
    found = CostCurve({10: planted_cost(1.0)}).at(30)
    assert (found.seconds, found.provenance) == (3.0, "assumed")


def test_of_two_kernels_the_faster_counts_and_none_makes_no_curve():
    assert fastest_curve([(1, planted_cost(2.0)), (1, planted_cost(1.0)), (1, planted_cost(3.0))]).at(1).seconds == 1.0
    assert fastest_curve([]) is None


def test_no_size_costs_more_than_a_larger_one():
    found = fastest_curve((size, planted_cost(seconds)) for size, seconds in ((1, 2.0), (4, 5.0), (8, 3.0), (16, 4.0)))
    assert [found.at(size).seconds for size in (1, 4, 8, 16)] == [2.0, 3.0, 3.0, 4.0]
    assert found.at(4).cases == ("case 3.0",)


def test_a_measurement_counts_with_its_mean_and_the_interval_between_its_passes():
    # pass means 1 and 3: mean 2; t(0.975, 1) = 12.706, s = sqrt 2, half = 12.706 x sqrt(2) / sqrt(2)
    found = measured_cost(planted.measured(planted.case(), [(1.0, 1.0), (3.0, 3.0)]))
    assert (found.seconds, found.half_width) == (2.0, pytest.approx(12.706, rel=1e-4))
    half_way = measured_cost(planted.measured(planted.case(), [(1.0, 1.0), (3.0, 3.0)]), factor=0.5)
    assert (half_way.seconds, half_way.half_width) == (1.0, pytest.approx(6.353, rel=1e-4))


def test_errors_of_different_parts_are_independent_and_of_one_part_alike():
    # 3 and 4 make 5; a part that counts four times is four times as far off
    found = sum_costs([planted_cost(10.0, half_width=3.0), planted_cost(10.0, half_width=4.0)])
    assert (found.seconds, found.half_width) == (20.0, 5.0)
    assert planted_cost(10.0, half_width=3.0).scaled(4).half_width == 12.0


def test_bounds_hold_both_kinds_of_doubt_and_never_fall_below_nothing():
    assert planted_cost(3.0, half_width=0.5, high=4.0).bounds == (2.5, 4.5)
    assert planted_cost(1.0, half_width=2.0).bounds == (0.0, 3.0)


def test_a_pass_that_something_else_slowed_down_does_not_move_the_figure():
    slowed = [(1.0, 3.0)] * 5 + [(10.0, 30.0)]
    assert measured_cost(planted.measured(planted.case(), slowed)).seconds == 2.0

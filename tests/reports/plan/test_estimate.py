"""Costs over sizes: tabulated, between, beyond; and how their doubts add up."""

import pytest

from reports.plan.estimate import Cost, CostCurve, fastest_curve, measured_cost, sum_costs
from tests.reports import planted


def planted_cost(seconds, half_width=0.0, high=None, provenance="published"):
    return Cost(seconds, seconds, seconds if high is None else high, half_width, provenance, (f"case {seconds}",))


POINTS = {10: planted_cost(1.0), 20: planted_cost(3.0, half_width=0.3, high=4.0)}


def test_a_tabulated_size_is_as_it_stands():
    assert CostCurve(POINTS).at(20) is POINTS[20]


def test_between_two_sizes_lies_a_straight_line_with_both_cases():
    found = CostCurve(POINTS).at(15)
    assert (found.seconds, found.low, found.high, found.half_width) == (2.0, 2.0, 2.5, 0.3)
    assert found.provenance == "interpolated"
    assert found.cases == ("case 1.0", "case 3.0")


def test_beyond_the_largest_the_last_slope_goes_on_and_is_assumed():
    found = CostCurve(POINTS).at(25)
    assert (found.seconds, found.provenance) == (4.0, "assumed")
    assert not CostCurve(POINTS).covers(25)


def test_below_the_smallest_a_call_takes_as_long_as_that():
    assert CostCurve(POINTS).at(1).seconds == 1.0


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

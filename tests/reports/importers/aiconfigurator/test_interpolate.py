import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.importers.aiconfigurator.package import Interpolation, interpolate

SECONDS = st.floats(1e-7, 1e2)
POINTS = st.dictionaries(st.integers(1, 40), SECONDS, min_size=2, max_size=12)
swift = settings(deadline=None, derandomize=True, database=None)


def test_a_straight_line_is_met_without_error():
    line = {size: 2.0 + 3 * size for size in (1, 2, 4, 8, 16)}
    assert interpolate(line, 3) == Interpolation(11.0, 0.0, 2, 4)
    assert interpolate(line, 12) == Interpolation(38.0, 0.0, 8, 16)


@given(
    sizes=st.sets(st.integers(0, 2**16), min_size=3, max_size=12),
    start=SECONDS,
    slope=st.floats(0, 1e-3),
    data=st.data(),
)
@swift
def test_every_straight_line_is_met(sizes, start, slope, data):
    low, *_, high = sorted(sizes)
    at = data.draw(st.integers(low + 1, high))
    if at not in sizes:
        found = interpolate({size: start + slope * size for size in sizes}, at)
        assert found.seconds == pytest.approx(start + slope * at, rel=1e-9)
        assert found.error == pytest.approx(0, abs=1e-9)


def test_the_error_is_what_leaving_out_a_neighbour_misses_it_by():
    kinked = {1: 1.0, 2: 1.0, 4: 2.0, 8: 4.0, 16: 8.0}
    # without 2, the line from 1 to 4 says 4/3 there; without 4, that from 2 to 8 says 2, as it is
    assert interpolate(kinked, 3) == Interpolation(1.5, pytest.approx(1 / 3), 2, 4)
    assert interpolate(kinked, 6) == Interpolation(3.0, 0.0, 4, 8)


# without the spike its neighbours say 1, 75 % off; the other neighbour is then found on the spike's slope
@pytest.mark.parametrize(("spike", "slope"), [(20, 4 - 3 * 10 / 30), (30, 1 + 3 * 10 / 20)])
def test_the_larger_error_of_both_neighbours_counts(spike, slope):
    points = {10: 1.0, 20: 1.0, 30: 1.0, 50: 1.0} | {spike: 4.0}
    assert interpolate(points, 25).error == pytest.approx(slope - 1)
    assert slope - 1 > 0.75


def test_at_the_ends_only_one_neighbour_can_be_left_out():
    points = {10: 1.0, 20: 4.0, 30: 3.0}
    assert interpolate(points, 15) == Interpolation(2.5, 0.5, 10, 20)
    assert interpolate(points, 25) == Interpolation(3.5, 0.5, 20, 30)


@pytest.mark.parametrize("at", [0, 9, 41, 10**9])
def test_nothing_is_said_outside_the_points(at):
    assert interpolate({10: 1.0, 20: 2.0, 30: 3.0, 40: 4.0}, at) is None


@pytest.mark.parametrize("points", [{}, {10: 1.0}, {10: 1.0, 20: 2.0}])
def test_nothing_is_said_without_a_neighbour_to_leave_out(points):
    assert interpolate(points, 15) is None


@given(points=POINTS, at=st.integers(-5, 50))
@swift
def test_the_value_lies_between_the_next_neighbours(points, at):
    found = interpolate(points, at) if at not in points else None
    below, above = [size for size in points if size < at], [size for size in points if size > at]
    if at in points or not below or not above or len(points) < 3:
        assert found is None
    else:
        assert (found.low, found.high) == (max(below), min(above))
        ends = sorted((points[found.low], points[found.high]))
        assert ends[0] * (1 - 1e-12) <= found.seconds <= ends[1] * (1 + 1e-12)
        assert found.error >= 0

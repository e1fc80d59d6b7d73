"""The planted t(m) = max(a, c·m) + o has its knee at a / c tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.claims import tokens as claims_tokens
from reports.claims.tokens import Knee, LaunchOverhead
from tests.reports.planted_sweeps import TOKENS, roofline, seeded

LAUNCH = LaunchOverhead(1.5e-6, 1.5e-6, 1.5e-6)


def planted_times(time, tokens=TOKENS):
    return {count: time(count) for count in tokens}


@given(
    planted=st.floats(60, 700),
    flat=st.floats(3e-6, 1e-3),
    overhead=st.floats(0, 5e-6),
)
def test_a_planted_knee_is_recovered(planted, flat, overhead):
    """The ridge of the datasheet need not be the knee: it only says which points lie clear of the corner."""
    known = LaunchOverhead(overhead, overhead, overhead)
    found = claims_tokens.fit_knee(planted_times(roofline(planted, flat, overhead)), ridge=200, overhead=known)
    assert found.tokens == pytest.approx(planted, rel=0.01)
    assert found.low <= found.tokens <= found.high


@given(planted=st.floats(60, 700), seed=st.integers(0, 1000))
def test_noise_moves_the_knee_by_no_more_than_itself(planted, seed):
    rng, time = seeded(seed), roofline(planted, 50e-6, 1.5e-6)
    found = claims_tokens.fit_knee(planted_times(lambda tokens: time(tokens) * rng.uniform(0.98, 1.02)), 200, LAUNCH)
    assert found.tokens == pytest.approx(planted, rel=0.05)
    assert found.low <= found.tokens <= found.high


def test_the_range_covers_what_leaving_out_one_point_does():
    """Of three points on the flat side one is off by half; without a sound one the middle lies half way to it."""
    seconds = planted_times(roofline(200, 100e-6), (1, 16, 32, 1000, 2048, 4096)) | {1: 150e-6}
    assert claims_tokens.fit_knee(seconds, 200, LaunchOverhead(0, 0, 0)) == Knee(
        pytest.approx(200), pytest.approx(200), pytest.approx(250)
    )


@given(seed=st.integers(0, 1000), points=st.lists(st.integers(1, 4096), min_size=8, max_size=20, unique=True))
def test_the_range_is_that_of_leaving_out_each_point(seed, points):
    rng, time = seeded(seed), roofline(200, 50e-6, 1.5e-6)
    seconds = {tokens: time(tokens) * rng.uniform(0.5, 2) for tokens in sorted({1, 2, 2000, 3000, *points})}
    known = LaunchOverhead(0, 0, 0)
    knee = claims_tokens.fit_knee(seconds, 200, known)
    others = ({count: one for count, one in seconds.items() if count != tokens} for tokens in seconds)
    found = [knee.tokens, *(one.tokens for other in others if (one := claims_tokens.fit_knee(other, 200, known)))]
    assert (knee.low, knee.high) == (min(found), max(found))


@pytest.mark.parametrize("wrong", [0.5e-6, 2.5e-6])
def test_a_wrong_overhead_moves_the_knee_and_its_range_covers_the_planted_one(wrong):
    seconds = planted_times(roofline(200, 5e-6, 1.5e-6))
    sure = claims_tokens.fit_knee(seconds, 200, LaunchOverhead(wrong, wrong, wrong))
    assert abs(sure.tokens - 200) > 4
    assert not sure.low <= 200 <= sure.high
    unsure = claims_tokens.fit_knee(seconds, 200, LaunchOverhead(wrong, 0.5e-6, 2.5e-6))
    assert unsure.tokens == sure.tokens
    assert unsure.low <= 200 <= unsure.high


def test_too_little_taken_off_moves_the_knee_up():
    """o hides in a, so the flat side looks higher than it is."""
    seconds = planted_times(roofline(200, 5e-6, 1.5e-6))
    assert claims_tokens.fit_knee(seconds, 200, LaunchOverhead(0, 0, 0)).tokens > 210
    assert claims_tokens.fit_knee(seconds, 200, LaunchOverhead(3e-6, 3e-6, 3e-6)).tokens < 190


def test_an_overhead_that_may_be_all_of_the_time_leaves_the_knee_open_below():
    """Flat times of 2.2 us may be launches and nothing else, so a knee near zero is not ruled out."""
    found = claims_tokens.fit_knee(planted_times(roofline(200, 0.3e-6, 1.9e-6)), 200, claims_tokens.PUBLISHED_OVERHEAD)
    assert found is None or found.low <= 200 <= found.high


@pytest.mark.parametrize(
    ("tokens", "enough"),
    [
        ((1, 50, 800, 1600), True),
        ((1, 50, 799, 1600), False),  # one point from four times the ridge on
        ((1, 50, 400, 700), False),
        ((1, 51, 800, 1600), False),  # one point up to a quarter of it
        ((64, 128, 800, 1600), False),
        (TOKENS, True),
        (TOKENS[:-3], False),
        ((1,), False),
    ],
)
def test_points_clear_of_the_ridge_are_needed_on_both_sides(tokens, enough):
    found = claims_tokens.fit_knee(planted_times(roofline(200), tokens), 200, LaunchOverhead(0, 0, 0))
    assert (found is not None) == enough


def test_times_below_the_overhead_give_no_knee():
    assert claims_tokens.fit_knee(planted_times(roofline(200, 5e-6)), 200, LaunchOverhead(6e-6, 6e-6, 6e-6)) is None


@given(st.floats(2, 3000), st.floats(1e-6, 1))
def test_grown_is_where_the_time_has_grown_by_a_quarter(planted, flat):
    """A straight line from the points on both sides of the corner lies at or above the curve."""
    exact = 1.25 * planted
    found = claims_tokens.find_growth_point(planted_times(roofline(planted, flat)))
    before = max(count for count in TOKENS if count <= exact)
    after = min(count for count in TOKENS if count > exact)
    assert (found.below, found.above) == (before, after)
    assert before <= found.tokens <= after
    if before >= planted:
        assert found.tokens == pytest.approx(exact)


@pytest.mark.parametrize(
    ("seconds", "tokens"),
    [
        ({1: 1.0, 100: 1.0, 200: 1.5}, 150),
        ({200: 1.5, 1: 1.0, 100: 1.0}, 150),  # in no order
        ({1: 1.0, 100: 1.25, 200: 1.75}, 100),
        ({1: 1.0, 2: 2.0, 3: 1.0, 5: 1.5}, 4),  # a peak that is passed again does not count
        ({1: 1.0, 2: 2.0, 3: 3.0}, 1.25),
        ({1: 1.0, 100: 1.0, 200: 1.25}, None),  # reached, not passed
        ({1: 1.0, 100: 3.0, 200: 1.0}, None),  # grown on the way, not for good
        ({1: 1.0}, None),
    ],
)
def test_grown_takes_the_last_crossing(seconds, tokens):
    found = claims_tokens.find_growth_point(seconds)
    assert (found and found.tokens) == (tokens if tokens is None else pytest.approx(tokens))
    assert found is None or found.below <= tokens <= found.above


def test_grown_by_another_factor():
    assert claims_tokens.find_growth_point({1: 1.0, 100: 1.0, 200: 3.0}, factor=2) == pytest.approx((150, 100, 200))


@pytest.mark.parametrize(
    ("step", "listed"), [(1.05, False), (1.0999, False), (1.1001, True), (1.8, True), (0.5, False)]
)
def test_a_token_that_costs_over_a_tenth_is_a_cliff(step, listed):
    found = claims_tokens.find_cliffs({127: 1.0, 128: 1.0, 129: step, 256: step * 5})
    assert found == ({128: pytest.approx(step)} if listed else {})


def test_a_cliff_is_between_neighbours_and_each_is_listed():
    """What 64 tokens cost over 32 says nothing about tiles."""
    assert claims_tokens.find_cliffs({32: 1.0, 64: 2.0}) == {}
    assert claims_tokens.find_cliffs(planted_times(lambda tokens: -(-tokens // 128))) == {128: 2.0, 256: 1.5}


def test_merged_takes_the_middle_and_the_whole_range():
    assert claims_tokens.merge_knees([Knee(200, 190, 210), Knee(300, 250, 500), Knee(100, 80, 120)]) == Knee(
        200, 80, 500
    )

from dataclasses import replace

import pytest

from reports.importers.aiconfigurator import points
from specs.gpus import GPUS, MIB

H200 = GPUS["h200_sxm"]  # 60 MiB of L2, 4.8 TB/s
LARGE = 8192 * 8192 * 2  # 134 MB
FLOOR = LARGE / 4.8e12  # 28 us


def test_weights_of_the_design_on_l40s():
    # 6 x 16 MiB < 4 x 96 MiB
    assert points.maybe_hot(8192 * 1024 * 2, GPUS["l40s"])


def test_equal_is_not_less():
    assert H200.l2_bytes == 60 * MIB
    edge = 2560 * 8192 * 2  # 6 x 40 MiB = 4 x 60 MiB
    assert not points.maybe_hot(edge, H200)
    assert points.maybe_hot(edge - 1, H200)


def test_a_single_copy_has_to_be_six_times_as_large():
    assert not points.maybe_hot(4 * 60 * MIB, H200, copies=1)
    assert points.maybe_hot(4 * 60 * MIB - 1, H200, copies=1)


@pytest.mark.parametrize(
    ("arch", "largest"),
    [
        ("sm_90", 60 * MIB),  # H200's, not H100's 50
        ("sm_100", 132_644_864),
        ("sm_103", 132_644_864),
        ("sm_120", 128 * MIB),
        ("sm_70", 6 * MIB),
        ("sm_300", 256 * MIB),  # of a generation that nothing is known of: the largest of all
    ],
)
def test_an_unknown_l2_is_taken_as_the_largest_of_the_generation(arch, largest):
    assert points.l2_bytes(replace(H200, arch=arch, l2_bytes=None)) == largest
    assert points.l2_bytes(replace(H200, arch=arch, l2_bytes=7)) == 7


def test_slow_enough_points_stay_as_they_are():
    seconds = {1: FLOOR / 0.94, 64: FLOOR * 1.1, 256: FLOOR * 2}
    assert points.lint_linear(seconds, LARGE, H200) == points.LintedSeries(seconds, False, {}, {})


def test_a_rate_that_no_memory_reaches_is_kept_and_hot():
    seconds = {1: FLOOR / 0.96, 64: FLOOR * 1.1}  # 96 % of the datasheet
    assert points.lint_linear(seconds, LARGE, H200) == points.LintedSeries(seconds, True, {}, {})


def test_what_streams_by_faster_than_memory_is_refused_unless_a_cache_holds_it():
    assert points.lint_stream(FLOOR / 1.5, LARGE, H200) == (True, "reads 134 MB at 1.50 times the memory's bandwidth")
    assert points.lint_stream(1e-6, 30 * MIB, H200) == (True, "")  # 30 MiB fit the L2 of 60
    assert points.lint_stream(FLOOR * 1.2, LARGE, H200) == (False, "")


def test_a_point_between_odd_ones_is_odd():
    doubts = {1024: ("1.34 times the time of 1025 tokens",)}
    assert points.inherited_doubts(doubts, 769, 1024) == ("at 1024 tokens 1.34 times the time of 1025 tokens",)
    assert points.inherited_doubts(doubts, 113, 128) == ()


def test_a_point_over_the_memorys_bandwidth_is_refused_and_its_series_hot():
    found = points.lint_linear({1: FLOOR / 1.5, 64: FLOOR * 1.1, 256: FLOOR * 2}, LARGE, H200)
    assert found.refused == {1: "reads 134 MB of weights at 1.50 times the memory's bandwidth"}
    assert found.seconds == {64: FLOOR * 1.1, 256: FLOOR * 2}
    assert found.maybe_hot


@pytest.mark.parametrize("weight_bytes", [3072 * 8192 * 2, 3840 * 8192 * 2])
def test_weights_that_fit_the_l2_may_be_read_faster_but_are_hot(weight_bytes):
    # 48 and 60 MiB: neither is hot by its size alone
    assert not points.maybe_hot(weight_bytes, H200)
    floor = weight_bytes / 4.8e12
    seconds = {1: floor * 0.9, 64: floor * 1.1}
    assert points.lint_linear(seconds, weight_bytes, H200) == points.LintedSeries(seconds, True, {}, {})


def test_small_weights_are_hot_however_slow():
    assert points.lint_linear({1: 1.0, 64: 1.0}, MIB, H200).maybe_hot


def test_fewer_tokens_that_take_longer_are_doubted():
    found = points.lint_linear({1: 3.0, 8: 2.0, 64: 1.0, 256: 4.0}, LARGE, H200)
    assert found.doubts == {1: ("3.00 times the time of 64 tokens",), 8: ("2.00 times the time of 64 tokens",)}
    assert found.seconds == {1: 3.0, 8: 2.0, 64: 1.0, 256: 4.0}


def test_a_dip_is_more_than_a_quarter_and_seen_from_all_later_points():
    assert points.find_dips({1: 1.25, 2: 1.0}) == {}
    assert points.find_dips({1: 1.26, 2: 1.0}) == {1: ("1.26 times the time of 2 tokens",)}
    assert points.find_dips({4: 1.0, 1: 1.2, 2: 1.1}) == {}
    assert points.find_dips({1: 1.0, 2: 1.2, 4: 0.9, 8: 5.0}) == {2: ("1.33 times the time of 4 tokens",)}
    assert points.find_dips({}) == {}


def test_a_refused_point_casts_no_doubt_on_others():
    found = points.lint_linear({1: FLOOR * 1.2, 64: FLOOR / 2, 256: FLOOR * 1.2}, LARGE, H200)
    assert (list(found.refused), found.doubts) == ([64], {})

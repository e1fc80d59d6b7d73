"""The ledger of planted layers, each share worked out by hand."""

import random

import pytest

from tests.reports import planted
from tests.reports.ledger.planted_layers import PLAIN, case, latency, ledgers, parts, timed, whole

GPU = planted.H200


def shares(one):
    return {item.name: item.share.mean for item in one.items}


def milliseconds(one):
    return {item.name: 1e3 * item.seconds.mean for item in one.items}


def test_a_cpu_shows_its_launches_apart_from_the_parts(tmp_path):
    """Nine calls of 0.01 ms: four linears, attention, and four that are elementwise."""
    one = ledgers(tmp_path, [*parts(), whole(14.5), latency(us=10)])["torch"]
    expected = {
        "linears": 11.96,  # 12 - 4 x 0.01
        "attention": 1.49,  # 1.5 - 0.01
        "norms": 0.46,  # 2 x 0.1 + 0.1 + 0.2 - 4 x 0.01
        "launch gaps": 0.09,  # 9 x 0.01
        "fusion gain": 0.0,
        "cache effect": 0.5,  # 14.5 - 14
    }
    assert list(milliseconds(one)) == list(expected)
    assert milliseconds(one) == pytest.approx(expected)
    assert shares(one) == pytest.approx({name: ms / 14.5 for name, ms in expected.items()})
    assert one.seconds.mean == pytest.approx(14.5e-3)
    assert one.sum_of_parts.mean == pytest.approx(14e-3)
    assert one.ratio.mean == pytest.approx(14.5 / 14)
    assert one.missing == []


def test_without_a_launch_latency_the_parts_keep_their_launches_and_it_is_said(tmp_path):
    one = ledgers(tmp_path, [*parts(), whole(14.5)])["torch"]
    assert milliseconds(one) == pytest.approx(
        {"linears": 12, "attention": 1.5, "norms": 0.5, "fusion gain": 0, "cache effect": 0.5}
    )
    assert one.missing == ["the launch latency of suites/bench_ceilings.py: launches stay in the parts"]
    assert one.ratio.mean == pytest.approx(14.5 / 14)


def test_what_a_compiler_gains_is_its_layer_less_that_of_torch(tmp_path):
    compiled = whole(13.5, implementation="torch-compile")
    one = ledgers(tmp_path, [*parts(), whole(14.5), compiled, latency(us=10)])["torch-compile"]
    found = milliseconds(one)
    assert found["fusion gain"] == pytest.approx(-1.0)  # 13.5 - 14.5
    assert found["cache effect"] == pytest.approx(0.5)  # 13.5 - (14 - 1)
    assert found["linears"] == pytest.approx(11.96)
    assert (one.sum_of_parts, one.ratio, one.verdict) == (None, None, None), "nobody knows what its own parts take"


def test_on_a_gpu_launch_gaps_are_what_eager_takes_more_than_a_graph(tmp_path):
    how = {"implementation": "triton", "launch": "graph"}
    fused = timed(case("gate_up_swiglu", **how), 5.9)
    found = [*parts(**how), fused, whole(13.3, **how), whole(13.9, implementation="triton"), latency(us=10)]
    one = ledgers(tmp_path, found, GPU)["triton"]
    expected = {
        "linears": 12.0,
        "attention": 1.5,
        "norms": 0.5,
        "launch gaps": 0.6,  # 13.9 - 13.3
        "fusion gain": -0.3,  # 5.9 - 6 - 0.2
        "cache effect": -0.4,  # 13.3 - (14 - 0.3)
    }
    assert milliseconds(one) == pytest.approx(expected)
    assert shares(one) == pytest.approx({name: ms / 13.9 for name, ms in expected.items()})
    assert one.ratio.mean == pytest.approx(13.3 / 13.7)
    assert one.layer.case.launch == "eager"


def test_a_layer_in_a_graph_alone_has_no_launch_gaps_and_says_so(tmp_path):
    one = ledgers(tmp_path, [*parts(launch="graph"), whole(14.0, launch="graph")], GPU)["torch"]
    assert shares(one) == pytest.approx(
        {"linears": 12 / 14, "attention": 1.5 / 14, "norms": 0.5 / 14, "fusion gain": 0, "cache effect": 0}, abs=1e-9
    )
    assert one.missing == ["the layer launched eagerly: no launch gaps"]
    assert one.verdict == "within 5 %"


def test_a_gpu_without_graphs_cannot_tell_launch_gaps_from_device_time(tmp_path):
    one = ledgers(tmp_path, [*parts(launch="graph"), whole(15.0)], GPU)["torch"]
    assert "launch gaps" not in shares(one)
    assert shares(one)["unaccounted"] == pytest.approx(1 / 15)
    assert one.ratio is None
    assert one.missing == ["the layer in a graph"]


def test_a_missing_part_leaves_its_item_out_and_the_rest_unaccounted(tmp_path):
    without = {name: ms for name, ms in PLAIN.items() if name != "rotary"}
    one = ledgers(tmp_path, [*parts(without), whole(14.5), latency(us=10)])["torch"]
    assert milliseconds(one) == pytest.approx(
        {
            "linears": 11.96,
            "attention": 1.49,
            "launch gaps": 0.05,  # of the five calls that are known
            "fusion gain": 0.0,
            "unaccounted": 1.0,  # 14.5 - 12 - 1.5
        }
    )
    assert sum(shares(one).values()) == pytest.approx(1, abs=1e-12)
    assert (one.ratio, one.sum_of_parts, one.verdict) == (None, None, None)
    assert one.missing == ["rotary by torch, eager"]


def test_a_fused_part_that_is_missing_is_told_and_closes_no_ledger(tmp_path):
    how = {"implementation": "triton", "launch": "graph"}
    found = [*parts(**how), whole(13.3, **how), whole(13.9, implementation="triton")]
    one = ledgers(tmp_path, found, GPU)["triton"]
    assert one.missing == ["gate_up_swiglu by triton, graph"]
    assert one.ratio is None
    assert "fusion gain" not in shares(one)
    assert "cache effect" not in shares(one)


def test_parts_of_another_implementation_do_not_stand_in(tmp_path):
    """A triton layer beside the parts of torch, and a compiled one without the layer that it is held against."""
    found = [*parts(), whole(14.0, implementation="triton"), whole(13.0, implementation="torch-compile"), latency(10)]
    both = ledgers(tmp_path, found)
    assert shares(both["triton"]) == pytest.approx({"launch gaps": 0, "unaccounted": 1})
    assert both["triton"].missing == [f"{', '.join(PLAIN)}, gate_up_swiglu by triton, eager"]
    assert both["torch-compile"].missing == ["the layer by torch, eager"]
    assert set(shares(both["torch-compile"])) == {"linears", "attention", "norms", "launch gaps", "unaccounted"}


@pytest.mark.parametrize(
    "changes", [{"tokens": 2}, {"context": 1024}, {"tp": 2}, {"pp": 2}, {"model": "m"}, {"dtype": "fp32"}]
)
def test_parts_of_another_shape_do_not_stand_in(tmp_path, changes):
    assert ledgers(tmp_path, [*parts(**changes), whole(14.0)])["torch"].parts == {}


def test_parts_that_rotate_through_other_numbers_of_copies_are_cold_all_the_same_but_hot_ones_are_not(tmp_path):
    assert ledgers(tmp_path, [*parts(), whole(14.0, cache="rotated-6")])["torch"].layer.gaps == []
    hot = ledgers(tmp_path, [*parts(cache="hot"), whole(14.0)])["torch"]
    assert set(hot.parts) == {"norm", "rotary", "swiglu"}, "they stream nothing, so they are hot whatever was asked for"
    assert hot.layer.gaps == ["qkv, o, gate_up, down, attention by torch, eager"]


def test_intervals_come_from_what_passes_say_each(tmp_path):
    """Cache effect 0 of 14 and 2 of 16: mean 0.0625, sd of the mean 0.0625, t(0.975, 1) = 12.7062."""
    one = ledgers(tmp_path, [*parts(passes=2), whole([14.0, 16.0])])["torch"]
    cache = one.share("cache effect")
    assert cache.by_pass == pytest.approx([0, 0.125], abs=1e-9)
    assert cache.interval == pytest.approx((0.0625 - 0.794138, 0.0625 + 0.794138), abs=1e-5)
    assert one.share("linears").mean == pytest.approx((12 / 14 + 12 / 16) / 2)
    assert one.ratio.mean == pytest.approx((14 / 14 + 16 / 14) / 2)


def test_passes_that_some_cases_lack_are_left_out(tmp_path):
    """The last three passes of the layer have no parts beside them."""
    layer = whole([14.0, 15.0, 16.0, 50.0, 50.0, 50.0])
    one = ledgers(tmp_path, [*parts(passes=3), layer, latency(10, passes=6)])["torch"]
    assert one.passes == 3
    assert one.seconds.mean == pytest.approx(15e-3)
    assert one.share("cache effect").by_pass == pytest.approx([0, 1 / 15, 2 / 16], abs=1e-9)


def test_a_single_pass_has_no_interval_and_no_verdict(tmp_path):
    one = ledgers(tmp_path, [*parts(), whole(14.0, passes=1)])["torch"]
    assert (one.passes, one.verdict, one.ratio.interval) == (1, None, None)
    assert one.ratio.mean == pytest.approx(1)
    assert all(item.share.interval is None for item in one.items)


@pytest.mark.parametrize("seed", range(3))
def test_in_every_pass_the_items_add_up_to_all_of_it(tmp_path, seed):
    rng = random.Random(seed)

    def shaken(ms):
        return [ms * rng.uniform(0.5, 1.5) for _ in range(5)]

    how = {"implementation": "triton", "launch": "graph"}
    names = [*PLAIN, "gate_up_swiglu"]
    found = [timed(case(name, **how), shaken(PLAIN.get(name, 6.0))) for name in names]
    found += [timed(case(**how), shaken(14)), timed(case(implementation="triton"), shaken(15))]
    one = ledgers(tmp_path, found, GPU)["triton"]
    for turn in range(5):
        assert sum(item.share.by_pass[turn] for item in one.items) == pytest.approx(1, abs=1e-12)
    assert sum(shares(one).values()) == pytest.approx(1, abs=1e-9)
    assert sum(item.seconds.mean for item in one.items) == pytest.approx(one.seconds.mean, rel=1e-9)


@pytest.mark.parametrize(
    ("layer", "verdict"),
    [
        ([14.0] * 4, "within 5 %"),
        ([14.6, 14.61, 14.59, 14.6], "within 5 %"),  # 1.043 ± 0.001
        ([15.4, 15.41, 15.39, 15.4], "over"),  # 1.1
        ([12.6, 12.61, 12.59, 12.6], "under"),  # 0.9
        ([14.5, 14.9, 14.5, 14.9], "straddles"),  # 1.05 ± 0.026
        ([14.0, 16.0, 12.0, 14.0], "straddles"),  # 1 ± 0.19
    ],
)
def test_whether_a_layer_takes_as_long_as_its_parts(tmp_path, layer, verdict):
    assert ledgers(tmp_path, [*parts(passes=4), whole(layer)])["torch"].verdict == verdict


def test_the_floor_is_that_of_the_run(tmp_path):
    """1e9 bytes at 100 GB/s are 10 ms."""
    found = [*planted.ceilings(read=100e9, peak=1e12), *parts(), whole(14.0)]
    assert ledgers(tmp_path, found)["torch"].floor_share == pytest.approx(10 / 14)
    assert ledgers(tmp_path, [*parts(), whole(14.0)])["torch"].floor_share is None

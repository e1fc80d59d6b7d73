"""Planted ratios of t(1000) to t(125), and the verdict on "1000 tokens take as long as 125: within 1.25 times"."""

import re

import pytest

from reports.claims import tokens
from reports.claims.evidence import MAYBE_HOT, collect_evidence
from tests.reports import planted
from tests.reports.planted_sweeps import (
    LINEARS,
    PUBLISHED,
    by_frameworks,
    experts,
    file,
    findings,
    published,
    ratios_of,
    roofline,
    seeded,
    series,
    steps,
)


def judged(measurements, machine=planted.CPU):
    return findings(tokens.judge_token_ratio, measurements, machine, a=125, b=1000)


def run_of(ratio, seed=1, **how):
    return series(steps(one=1e-4, few=1e-4, many=ratio * 1e-4), (125, 1000), rng=seeded(seed), **how)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("ratio", "verdict"), [(3.0, "REFUTED"), (1.4, "REFUTED"), (1.0, "HOLDS"), (1.1, "HOLDS"), (1.25, "UNDERPOWERED")]
)
def test_measured_in_passes(ratio, verdict, seed):
    whole, rows = judged(run_of(ratio, seed))
    assert (whole.verdict, rows["o tp8"].verdict) == (verdict, verdict)
    assert whole.value == rows["o tp8"].value == pytest.approx(ratio, rel=0.05)
    assert (whole.unit, whole.provenance, whole.gpu, whole.dtype) == ("ratio", "measured", "Planted CPU 9000", "bf16")
    assert (whole.architecture, rows["o tp8"].model) == ("dense", "llama-3-70b")
    assert set(whole.cases) == {one.case.name for one in run_of(ratio, seed)}
    if verdict == "UNDERPOWERED":
        assert whole.condition == rows["o tp8"].condition == "the interval reaches across 1.25"
        assert (whole.low, whole.high) == (None, None)
        assert rows["o tp8"].low < 1.25 < rows["o tp8"].high
    else:
        assert whole.low <= whole.value <= whole.high
        assert (whole.low, whole.high) == (rows["o tp8"].low, rows["o tp8"].high)


@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_a_single_pass_decides_nothing(ratio):
    whole, rows = judged(run_of(ratio, passes=1))
    assert (whole.verdict, whole.low, whole.high) == ("UNDERPOWERED", None, None)
    assert "single pass gives no interval" in whole.condition
    assert rows["o tp8"].value == whole.value == pytest.approx(ratio, rel=0.05)


def test_a_wide_spread_between_passes_decides_nothing():
    """Of two passes, neither says which of 0.8 and 1.6 it is."""
    before, after = series(steps(one=1.0, few=1.0, many=1.0), (125, 1000))
    after = planted.replace(after, seconds=((0.8,) * 4, (1.6,) * 4))
    before = planted.replace(before, seconds=((1.0,) * 4,) * 2)
    assert judged([before, after])[0].verdict == "UNDERPOWERED"


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ((2.9, 3.5, 4.1), "REFUTED"),
        ((1.0, 1.1, 1.2), "HOLDS"),
        ((1.0, 3.0), "HOLDS_IF"),
        ((1.26, 3.0), "REFUTED"),
        ((3.0,), "UNDERPOWERED"),
        ((1.0,), "UNDERPOWERED"),
    ],
)
def test_published_intervals_are_those_over_frameworks(given, verdict):
    whole, rows = judged(ratios_of(*given), PUBLISHED)
    assert (whole.verdict, rows["o tp8"].verdict) == (verdict, verdict)
    assert (whole.gpu, whole.provenance) == ("h200_sxm", "published")
    assert rows["o tp8"].value == pytest.approx(sorted(given)[len(given) // 2] if len(given) % 2 else sum(given) / 2)
    if len(given) > 1:
        assert (whole.low, whole.high) == (pytest.approx(min(given)), pytest.approx(max(given)))
    else:
        assert (whole.low, whole.high) == (None, None)
        assert "single framework" in whole.condition


def test_a_framework_that_stays_within_is_named():
    whole, rows = judged(ratios_of(3.0, 1.0), PUBLISHED)
    assert rows["o tp8"].condition == "by trtllm"
    assert whole.condition.startswith("1 of 1 stay within 1.25 in a framework, 0 in all; llama-3-70b o tp8 by trtllm")


@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_weights_that_may_have_been_cached_support_no_verdict(ratio):
    whole, rows = judged(ratios_of(ratio, ratio, ratio, facts={"maybe_hot": True}), PUBLISHED)
    for finding in (whole, rows["o tp8"]):
        assert (finding.verdict, finding.condition) == ("UNDERPOWERED", MAYBE_HOT)
    assert (whole.low, whole.high) == (None, None)


def test_weights_that_may_have_been_cached_do_not_move_the_overall_range():
    cold = ratios_of(3.0, 3.2, layer="down")
    hot = ratios_of(1.0, 9.0, layer="o", facts={"maybe_hot": True})
    whole, rows = judged([*hot, *cold], PUBLISHED)
    assert (whole.verdict, whole.low, whole.high) == ("REFUTED", pytest.approx(3.0), pytest.approx(3.2))
    assert (rows["o tp8"].verdict, rows["down tp8"].verdict) == ("UNDERPOWERED", "REFUTED")
    assert not {one.case.name for one in hot} & set(whole.cases)


def test_tokens_that_are_not_compared_may_have_been_cached():
    hot = ratios_of(3.0, 3.2) + [
        planted.replace(one, maybe_hot=True) for one in by_frameworks([roofline(200)] * 2, (1, 2))
    ]
    assert judged(hot, PUBLISHED)[0].verdict == "REFUTED"


def test_what_is_left_out_is_counted_by_its_reason():
    """Besides two linears to go by: one maybe hot, one interpolated, two by a single framework."""
    found = [*ratios_of(3.0, 3.2, layer="qkv"), *ratios_of(3.0, 3.2, layer="down")]
    found += ratios_of(1.0, 9.0, layer="o", facts={"maybe_hot": True})
    found += ratios_of(2.0, 9.0, layer="lm_head", facts={"interpolated_over": "n 1–9", "provenance": "interpolated"})
    assert re.findall(r"\d+ \w+", judged(found, PUBLISHED)[0].condition) == ["2 linears", "1 maybe", "1 of"]
    found += [*ratios_of(3.0, tp=1), *ratios_of(3.0, tp=2)]
    assert "3 of" not in judged(found, PUBLISHED)[0].condition  # theirs are no interpolated shapes


def test_one_framework_with_cached_weights_is_left_out_beside_cold_ones():
    hot = published(steps(one=1e-4, few=1e-4, many=1e-4), "sglang", (125, 1000), facts={"maybe_hot": True})
    whole, _ = judged([*ratios_of(3.0, 3.2), *hot], PUBLISHED)
    assert (whole.verdict, whole.low) == ("REFUTED", pytest.approx(3.0))


@pytest.mark.parametrize(("over", "low"), [("n 16384–51200", 3.0), ("k 1024–4096", 3.0), ("tokens 96–128", 2.0)])
def test_shapes_that_nobody_measured_stay_out_of_the_overall_range(over, low):
    guessed = ratios_of(2.0, 9.0, layer="o", facts={"interpolated_over": over, "provenance": "interpolated"})
    whole, rows = judged([*guessed, *ratios_of(3.0, 3.2, layer="down")], PUBLISHED)
    assert whole.low == pytest.approx(low)
    assert whole.high == pytest.approx(3.2 if low == 3.0 else 9.0)
    assert whole.provenance == ("published" if low == 3.0 else "interpolated")
    assert (rows["o tp8"].verdict, rows["o tp8"].provenance) == ("REFUTED", "interpolated")


def test_shapes_that_nobody_measured_count_where_there_are_no_others():
    guessed = ratios_of(2.0, 4.0, facts={"interpolated_over": "n 1–9", "provenance": "interpolated"})
    whole, _ = judged(guessed, PUBLISHED)
    assert (whole.verdict, whole.low, whole.provenance) == ("REFUTED", pytest.approx(2.0), "interpolated")


def test_missing_tokens_are_named():
    whole, rows = judged(series(roofline(200), (1, 125, 512)))
    for finding in (whole, rows["o tp8"]):
        assert (finding.verdict, finding.value) == ("NOT_MEASURED", None)
        assert finding.condition == "no times of both 125 and 1000 tokens"


def test_an_open_overall_verdict_always_says_why():
    """What was measured lacks 1000 tokens; what was interpolated has them, but it is no ground for a verdict."""
    short = ratios_of(3.0, 3.0, layer="down")[::2]
    guessed = ratios_of(3.0, 3.2, layer="o", facts={"interpolated_over": "n 1–9", "provenance": "interpolated"})
    whole, _ = judged([*short, *guessed], PUBLISHED)
    assert whole.verdict != "HOLDS"
    assert whole.verdict == "REFUTED" or whole.condition


def test_experts_hold_on_a_condition_that_counts_by_distribution():
    """Balanced routing visits all experts from the first tokens on, so that more of them cost little."""
    balanced = experts("balanced", 1.0, 1.1)
    skewed = [*experts("power_law_1.2", 1.5, 1.6), *experts("power_law_1.2", 1.0, 1.1, tp=2)]
    whole, rows = judged([*balanced, *skewed], PUBLISHED)
    assert (whole.architecture, whole.verdict) == ("moe", "HOLDS_IF")
    assert whole.condition.startswith("2 of 3 stay within 1.25 in a framework, 2 in all")
    assert "(balanced 1 of 1, power_law_1.2 1 of 2)" in whole.condition
    assert {scope: row.verdict for scope, row in rows.items()} == {
        "experts tp1 balanced": "HOLDS",
        "experts tp1 power_law_1.2": "REFUTED",
        "experts tp2 power_law_1.2": "HOLDS",
    }


def test_experts_and_dense_linears_of_one_file_are_judged_apart():
    found = list(
        tokens.judge_token_ratio(
            collect_evidence([file([*ratios_of(3.0, 3.2), *experts("balanced", 1.0, 1.1)], PUBLISHED)]), 125, 1000
        )
    )
    wholes = {one.architecture: one.verdict for one in found if one.scope == "overall"}
    assert wholes == {"dense": "REFUTED", "moe": "HOLDS"}


def test_two_kernels_of_one_framework_are_no_two_frameworks():
    found = [*experts("balanced", 3.0), *experts("balanced", 3.2, kernel="another")]
    assert judged(found, PUBLISHED)[0].verdict == "UNDERPOWERED"


def test_a_layer_adds_the_means_of_its_linears():
    """Medians of 2 and 4 would say 2; every fourth sample is slow, and a sum of parts takes them all in."""
    found = []
    for linear in LINEARS:
        before, after = series(steps(one=1.0, few=1.0, many=2.0), (125, 1000), layer=linear)
        found += [before, planted.replace(after, seconds=((2.0, 2.0, 2.0, 6.0),) * 6)]
    whole, rows = judged(found)
    assert rows["layer tp8"].value == pytest.approx(3.0)
    assert {rows[f"{linear} tp8"].value for linear in LINEARS} == {2.0}
    assert len(rows["layer tp8"].cases) == 8
    assert whole.value == 2.0  # the overall figure is over linears; a layer would count them twice


def test_a_layer_weighs_its_linears_by_their_time():
    times = {"qkv": (1.0, 2.0), "o": (1.0, 1.0), "up": (6.0, 24.0), "down": (2.0, 3.0)}
    found = []
    for linear, (few, many) in times.items():
        found += series(steps(one=few, few=few, many=many), (125, 1000), layer=linear)
    assert judged(found)[1]["layer tp8"].value == pytest.approx(30 / 10)


def test_a_layer_with_a_linear_missing_is_none():
    found = [one for linear in LINEARS[:3] for one in run_of(3.0, layer=linear)]
    assert set(judged(found)[1]) == {"qkv tp8", "o tp8", "gate_up tp8"}


def test_a_model_adds_its_layers_and_one_head():
    found = [one for linear in LINEARS for one in series({125: 1.0, 1000: 2.0}.get, (125, 1000), layer=linear)]
    assert "model tp8" not in judged(found)[1]
    found += series({125: 40.0, 1000: 400.0}.get, (125, 1000), layer="lm_head")
    assert judged(found)[1]["model tp8"].value == pytest.approx((80 * 4 * 2 + 400) / (80 * 4 + 40))


def test_what_was_measured_from_warm_caches_is_no_evidence():
    assert collect_evidence([file(run_of(3.0, cache="hot"))]) == []
    whole, _ = judged([*run_of(3.0), *run_of(1.0, cache="hot")])
    assert whole.value == pytest.approx(3.0, rel=0.05)
    assert not any("hot" in name for name in whole.cases)


def test_launches_from_the_host_do_not_take_the_place_of_those_in_a_graph():
    """Eager, both times are the host's and their ratio is 1: that says nothing about the linear."""
    graph, eager = run_of(3.0, launch="graph"), run_of(1.0, launch="eager")
    assert {judged(runs)[0].verdict for runs in ([*graph, *eager], [*eager, *graph])} == {"REFUTED"}


def test_formats_are_judged_apart_in_one_file_and_in_two():
    slow, fast = ratios_of(3.0, 3.2), ratios_of(1.0, 1.1, dtype="fp8")
    for files in ([file([*slow, *fast], PUBLISHED)], [file(slow, PUBLISHED), file(fast, PUBLISHED)]):
        found = [one for one in tokens.judge_token_ratio(collect_evidence(files), 125, 1000) if one.scope == "overall"]
        assert {one.dtype: one.verdict for one in found} == {"bf16": "REFUTED", "fp8": "HOLDS"}

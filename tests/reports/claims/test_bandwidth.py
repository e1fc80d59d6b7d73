"""Planted shares of the memory bandwidth, and the verdict on "TP uses all of it in decode"."""

import pytest

from reports.claims import bandwidth
from reports.claims.evidence import MAYBE_HOT, collect_evidence
from tests.reports import planted
from tests.reports.planted_sweeps import PUBLISHED, file, findings, layers, published, seeded, series

BYTES = 500_000_000
"""Half of what the planted read ceiling reads."""
READ = 10e9
"""Bytes a second of that."""


def shard(share, *, question="decode", **how):
    """A linear that reaches this share of the ceiling."""
    return series(lambda _: BYTES / READ / share, (1,), question=question, hbm_bytes=BYTES, **how)


def judged(measurements, machine=planted.CPU):
    return findings(bandwidth.judge_bandwidth, [*measurements, *planted.ceilings(read=READ)], machine)


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.5, "REFUTED"), (0.85, "REFUTED"), (0.94, "REFUTED"), (0.96, "HOLDS"), (1.02, "HOLDS")]
)
def test_bytes_a_second_over_those_of_the_read(share, verdict):
    whole, rows = judged(shard(share))
    assert (whole.verdict, rows["o tp8"].verdict) == (verdict, verdict)
    assert whole.value == rows["o tp8"].value == pytest.approx(share)
    assert (whole.unit, whole.architecture, whole.provenance) == ("share", "dense", "measured")
    assert whole.condition == "over 1 shard"
    assert any("bench_read" in name for name in whole.cases)


def test_the_interval_covers_the_passes_of_both():
    """Log times of shard and read spread by 0.02 in two passes each: sd of each mean 0.01, of the ratio 0.0141421;
    Welch gives 2 degrees: t(0.975, 2) = 4.302653, a factor of exp(0.0608487) = 1.062738."""
    one, reading, _ = [*shard(0.8), *planted.ceilings(read=READ)]
    up, down = 1.01005017, 0.99004983  # exp(±0.01)
    passes = [planted.replace(m, seconds=((m.median * up,) * 3, (m.median * down,) * 3)) for m in (one, reading)]
    whole, _ = findings(bandwidth.judge_bandwidth, passes)
    assert (whole.low, whole.high) == pytest.approx((0.8 / 1.062738, 0.8 * 1.062738), rel=1e-4)
    assert whole.verdict == "REFUTED"


def test_an_interval_across_the_limit_decides_nothing():
    whole, rows = judged(shard(0.95, rng=seeded(1), between=0.05))
    assert rows["o tp8"].low < 0.95 < rows["o tp8"].high
    assert (whole.verdict, whole.low) == ("UNDERPOWERED", None)
    assert whole.condition == "the interval reaches across 95%"


def test_a_single_pass_decides_nothing():
    whole, _ = judged(shard(0.5, passes=1))
    assert whole.verdict == "UNDERPOWERED"
    assert "single pass" in whole.condition


def test_everywhere_means_every_shard_of_several_ranks():
    whole, rows = judged([*shard(0.97, layer="gate_up"), *shard(0.6, layer="o"), *shard(0.5, tp=1, layer="down")])
    assert {scope: row.verdict for scope, row in rows.items()} == {
        "gate_up tp8": "HOLDS",
        "o tp8": "REFUTED",
        "down tp1": "REFUTED",
    }
    assert whole.verdict == "HOLDS_IF"
    assert (whole.low, whole.high) == pytest.approx((0.6, 0.97))  # without that of tp 1
    assert whole.condition == "1 of 2 reach 95%: llama-3-70b gate_up tp8; over 2 shards"


def test_a_whole_linear_is_no_tensor_parallelism():
    whole, rows = judged(shard(0.5, tp=1))
    assert (whole.verdict, rows["o tp1"].verdict) == ("NOT_MEASURED", "REFUTED")
    assert "--tp 2" in whole.condition


def test_an_implementation_that_reaches_it_is_named():
    whole, rows = judged([*shard(0.6), *shard(0.97, implementation="triton")])
    assert (rows["o tp8"].verdict, rows["o tp8"].condition) == ("HOLDS_IF", "by triton")
    assert whole.verdict == "HOLDS_IF"


def test_what_is_faster_than_memory_came_from_a_cache():
    whole, rows = judged([*shard(3.0), *shard(0.97, layer="qkv")])
    assert (rows["o tp8"].verdict, rows["o tp8"].condition) == ("UNDERPOWERED", bandwidth.ABOVE_CEILING)
    assert (whole.verdict, whole.condition) == ("HOLDS", "over 1 shard; left out 1 undecided")


def test_graphs_then_decode_tables_count_first():
    found = [*shard(0.6, question="layer"), *shard(0.7, question="sweep"), *shard(0.8), *shard(0.9, launch="graph")]
    assert judged(found)[1]["o tp8"].value == pytest.approx(0.9)
    assert judged(found[:3])[1]["o tp8"].value == pytest.approx(0.8)
    assert judged(found[:1])[1]["o tp8"].value == pytest.approx(0.6)


def test_whole_layers_have_a_finding_of_their_own():
    layer = layers(lambda _: BYTES / READ / 0.7, (1,), tp=8, hbm_bytes=BYTES)
    found = [*shard(0.97), *layer, *planted.ceilings(read=READ)]
    rows = list(bandwidth.judge_bandwidth(collect_evidence([file(found)])))
    assert [(row.architecture, row.scope, row.verdict) for row in rows] == [
        ("dense", "overall", "HOLDS"),
        ("dense", "o tp8", "HOLDS"),
        ("whole", "overall", "REFUTED"),
        ("whole", "layer tp8 ctx512", "REFUTED"),
    ]
    assert rows[2].value == pytest.approx(0.7)


@pytest.mark.parametrize("changes", [{"cache": "hot"}, {"question": "prefill"}, {"op": "attention"}])
def test_other_cases_are_no_evidence(changes):
    assert list(bandwidth.judge_bandwidth(collect_evidence([file(shard(0.5, **changes))]))) == []


def test_more_tokens_than_one_are_no_evidence():
    assert list(bandwidth.judge_bandwidth(collect_evidence([file(series(lambda _: 0.2, (2, 64)))]))) == []


def test_without_a_read_ceiling_nothing_is_judged():
    whole, rows = findings(bandwidth.judge_bandwidth, shard(0.5))
    assert (whole.verdict, rows["o tp8"].verdict) == ("NOT_MEASURED", "NOT_MEASURED")
    assert "bench_ceilings" in whole.condition


def published_shares(*shares, **how):
    """Published times of a shard by framework: the H200's datasheet says 4.8e12 bytes a second."""
    found = []
    for share, framework in zip(shares, ("vllm", "trtllm", "sglang"), strict=False):
        found += published(lambda _, at=share: BYTES / 4.8e12 / at, framework, (1,), hbm_bytes=BYTES, **how)
    return found


def test_published_times_are_held_against_the_datasheet():
    whole, rows = findings(bandwidth.judge_bandwidth, published_shares(0.6, 0.7, 0.8), PUBLISHED)
    assert (whole.verdict, whole.provenance) == ("REFUTED", "published")
    assert (whole.low, whole.value, whole.high) == pytest.approx((0.6, 0.7, 0.8))
    assert "of the datasheet's bandwidth, which no memory reaches" in whole.condition
    assert rows["o tp8"].condition == "of the datasheet's bandwidth"


def test_published_times_that_may_be_hot_support_no_verdict():
    hot = published_shares(0.5, 0.6, facts={"maybe_hot": True})
    whole, rows = findings(bandwidth.judge_bandwidth, hot, PUBLISHED)
    assert (whole.verdict, rows["o tp8"].verdict) == ("UNDERPOWERED", "UNDERPOWERED")
    assert MAYBE_HOT in whole.condition
    whole, _ = findings(bandwidth.judge_bandwidth, [*hot, *published_shares(0.7, 0.8, layer="gate_up")], PUBLISHED)
    assert (whole.verdict, whole.low) == ("REFUTED", pytest.approx(0.7))
    assert "over 1 shard; left out 1 maybe hot" in whole.condition


def test_shapes_that_were_published_themselves_count_before_interpolated_ones():
    between = published_shares(
        0.3, 0.4, layer="down", facts={"provenance": "interpolated", "interpolated_over": "k 1–2"}
    )
    whole, _ = findings(bandwidth.judge_bandwidth, [*published_shares(0.7, 0.8), *between], PUBLISHED)
    assert (whole.low, whole.high) == pytest.approx((0.7, 0.8))
    assert "left out 1 of interpolated shape" in whole.condition


def test_a_gpu_without_a_datasheet_says_so():
    whole, _ = findings(bandwidth.judge_bandwidth, published_shares(0.7, 0.8), PUBLISHED | {"gpu": "NVIDIA H900"})
    assert (whole.verdict, whole.condition) == ("NOT_MEASURED", bandwidth.NO_DATASHEET)

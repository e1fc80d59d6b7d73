"""Planted knees in whole files. A bf16 linear has its ridge at peak over bandwidth: 200 tokens here, 206 on an H200."""

import pytest

from reports.claims import tokens
from reports.claims.evidence import MAYBE_HOT, collect_evidence
from tests.reports import planted
from tests.reports.planted_sweeps import (
    PUBLISHED,
    TOKENS,
    by_frameworks,
    ceilings,
    experts,
    file,
    findings,
    published,
    roofline,
    seeded,
    series,
)

LIMITS = ceilings(read=10e9, peak=2e12, launch=2e-6)


def knee_of(measurements, machine=planted.CPU):
    return findings(tokens.judge_knee, measurements, machine)


def throughput_of(measurements, machine=planted.CPU):
    return findings(tokens.judge_throughput, measurements, machine)


def run_of(knee, tokens=TOKENS, seed=1, overhead=2e-6, **how):
    return series(roofline(knee, 100e-6, overhead), tokens, rng=seeded(seed), between=0.005, **how)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("planted_at", "verdict"), [(230, "HOLDS"), (400, "HOLDS"), (90, "REFUTED")])
def test_a_measured_knee(planted_at, verdict, seed):
    whole, rows = knee_of([*run_of(planted_at, seed=seed), *LIMITS])
    row = rows["o tp8"]
    assert (whole.verdict, row.verdict) == (verdict, verdict)
    assert whole.value == row.value == pytest.approx(planted_at, rel=0.03)
    assert whole.low == row.low <= planted_at <= row.high == whole.high
    assert (whole.unit, whole.provenance, whole.gpu) == ("tokens", "measured", "Planted CPU 9000")
    assert whole.condition.endswith("; ridge at 200 tokens")
    assert set(whole.cases) == {one.case.name for one in run_of(planted_at)}


def test_a_knee_beyond_1000_tokens_refutes():
    limits = ceilings(read=10e9, peak=20e12, launch=2e-6)
    whole, _ = knee_of([*run_of(2000, (*TOKENS, 8192, 16384)), *limits])
    assert (whole.verdict, whole.value) == ("REFUTED", pytest.approx(2000, rel=0.03))


def test_a_knee_on_the_edge_is_neither_held_nor_refuted():
    whole, rows = knee_of([*run_of(125), *LIMITS])
    assert rows["o tp8"].low < 125 < rows["o tp8"].high
    assert {whole.verdict, rows["o tp8"].verdict} <= {"HOLDS_IF", "UNDERPOWERED"}
    assert whole.condition


def test_the_range_covers_every_pass():
    """In one pass of six the arithmetic took two thirds of the time: no median shows it."""
    usual, quick = roofline(200), roofline(300)
    found = [
        planted.replace(one, seconds=((usual(one.case.tokens),),) * 5 + ((quick(one.case.tokens),),))
        for one in series(usual)
    ]
    row = knee_of([*found, *ceilings(10e9, 2e12, launch=1e-9)])[1]["o tp8"]
    assert (row.value, row.low, row.high) == tuple(pytest.approx(tokens, rel=0.01) for tokens in (200, 200, 300))


def test_the_launch_latency_of_the_run_is_taken_off():
    """A launch of 50 us that is not taken off would put the knee of 200 tokens beyond 250."""
    found = run_of(200, overhead=50e-6)
    value = {launch: knee_of([*found, *ceilings(10e9, 2e12, launch)])[0].value for launch in (50e-6, 1e-9)}
    assert value[50e-6] == pytest.approx(200, rel=0.03)
    assert value[1e-9] > 250


@pytest.mark.parametrize("tokens", [TOKENS[:-3], TOKENS[6:]])
def test_a_short_sweep_is_underpowered_and_says_what_it_needs(tokens):
    whole, rows = knee_of([*run_of(230, tokens), *LIMITS])
    for finding in (whole, rows["o tp8"]):
        assert (finding.verdict, finding.value) == ("UNDERPOWERED", None)
        assert finding.condition == "a ridge at 200 tokens needs 2 points up to 50 and from 800 tokens on"


@pytest.mark.parametrize("limits", [[], ceilings(10e9, 2e12), LIMITS[2:], ceilings(10e9, 2e12, 2e-6, dtype="fp16")])
def test_without_ceilings_for_the_format_and_a_launch_latency_there_is_no_knee(limits):
    whole, rows = knee_of([*run_of(230), *limits])
    for finding in (whole, rows["o tp8"]):
        assert (finding.verdict, finding.value) == ("NOT_MEASURED", None)
        assert "bench_ceilings" in finding.condition


def test_the_condition_has_the_model_free_knee_and_the_tile_cliffs():
    """Between 192 tokens, still flat, and 256 at 1.28 times the time, a straight line passes 1.25 at 249."""

    def time(tokens):
        return roofline(200)(tokens) * (1.4 if tokens == 129 else 1.0)

    condition = knee_of([*series(time), *LIMITS])[1]["o tp8"].condition
    assert condition.split("; ") == ["1.25 t(1) at 249", "ridge at 200", "cliffs 128→129 +40%"]


def test_a_published_knee_has_the_datasheets_ridge_and_the_range_of_the_frameworks():
    times = [roofline(knee, 100e-6, 1.5e-6) for knee in (240, 250, 300)]
    whole, rows = knee_of(by_frameworks(times), PUBLISHED)
    assert (whole.verdict, whole.value) == ("HOLDS", pytest.approx(250, rel=0.01))
    assert whole.low <= 240 < 300 <= whole.high
    assert (whole.gpu, whole.provenance) == ("h200_sxm", "published")
    assert "ridge at 206" in rows["o tp8"].condition


@pytest.mark.parametrize("overhead", [0.5e-6, 2.5e-6])
def test_a_published_range_covers_what_a_launch_may_have_cost(overhead):
    row = knee_of(published(roofline(200, 10e-6, overhead), "vllm"), PUBLISHED)[1]["o tp8"]
    assert row.value != pytest.approx(200, rel=0.03)
    assert row.low <= 200 <= row.high


@pytest.mark.parametrize("dtype", ["bf16", "fp8", "fp8-block"])
def test_halved_weights_at_a_doubled_peak_have_the_same_ridge(dtype):
    [evidence] = collect_evidence([file(published(roofline(200), "vllm", dtype=dtype), PUBLISHED)])
    assert tokens.roofline_ridge(evidence) == pytest.approx(206, abs=0.5)


@pytest.mark.parametrize("other", [{"gpu": "NVIDIA H2000"}, {"gpu_memory_bytes": 18_000_000_000}, {"gpu": None}])
def test_a_gpu_without_a_datasheet_row_has_no_published_knee(other):
    found = published(roofline(250, overhead=1.5e-6), "vllm")
    assert knee_of(found, PUBLISHED)[0].verdict == "HOLDS"
    whole, rows = knee_of(found, PUBLISHED | other)
    assert (whole.verdict, rows["o tp8"].verdict, whole.value) == ("NOT_MEASURED", "NOT_MEASURED", None)


def test_a_format_of_unknown_width_has_no_knee():
    """The B200's row has a peak for fp4; how many bytes its weights take is not known here."""
    machine = PUBLISHED | {"gpu": "NVIDIA B200", "gpu_memory_bytes": 180_000_000_000}
    whole, _ = knee_of(published(roofline(250), "vllm", dtype="fp4"), machine)
    assert whole.verdict == "NOT_MEASURED"


@pytest.mark.parametrize("judge", [knee_of, throughput_of])
def test_weights_that_may_have_been_cached_support_no_verdict(judge):
    hot = by_frameworks([roofline(600, 100e-6, 1.5e-6)] * 2, facts={"maybe_hot": True})
    cold = by_frameworks([roofline(200, 100e-6, 1.5e-6)] * 2, layer="down")
    whole, rows = judge(hot, PUBLISHED)
    assert {(one.verdict, one.condition) for one in (whole, rows["o tp8"])} == {("UNDERPOWERED", MAYBE_HOT)}
    assert (whole.value, whole.low, whole.high) == (None, None, None)
    assert judge([*hot, *cold], PUBLISHED)[0].high < 300


def test_one_point_that_may_have_been_cached_spoils_its_series():
    found = by_frameworks([roofline(250, 100e-6, 1.5e-6)] * 2)
    assert knee_of(found, PUBLISHED)[0].verdict == "HOLDS"
    spoilt = [planted.replace(one, maybe_hot=one.case.tokens == 1) for one in found]
    assert knee_of(spoilt, PUBLISHED)[0].condition == MAYBE_HOT


@pytest.mark.parametrize("judge", [knee_of, throughput_of])
def test_shapes_that_nobody_measured_stay_out_of_the_overall_range(judge):
    facts = {"interpolated_over": "n 16384–51200", "provenance": "interpolated"}
    guessed = by_frameworks([roofline(600, 100e-6, 1.5e-6)] * 2, facts=facts)
    real = by_frameworks([roofline(200, 100e-6, 1.5e-6)] * 2, layer="down")
    assert judge([*guessed, *real], PUBLISHED)[0].high < 300
    assert judge(guessed, PUBLISHED)[0].provenance == "interpolated"


def test_experts_have_no_flat_part_to_judge():
    evidence = collect_evidence([file(experts("balanced", 1.0, 1.1), PUBLISHED)])
    for found in (*tokens.judge_knee(evidence), *tokens.judge_throughput(evidence)):
        assert (found.verdict, found.architecture, found.scope) == ("NOT_MEASURED", "moe", "overall")
        assert found.condition.startswith("experts have no flat part")


def test_throughput_grows_up_to_where_the_time_does():
    whole, rows = throughput_of(by_frameworks([roofline(knee) for knee in (210, 410, 820)]), PUBLISHED)
    assert (whole.verdict, rows["o tp8"].verdict) == ("HOLDS_IF", "HOLDS_IF")
    # 1.25 x 210 = 262 lies between the points at 257 and 512, 1.25 x 820 = 1025 between 1000 and 2048
    assert whole.value == pytest.approx(512, rel=0.01)
    assert (whole.low, whole.high) == (257, 2048)
    assert whole.condition == "up to 257 tokens; from 2048 on not"


def test_throughput_that_never_grows_is_refuted():
    assert throughput_of(series(lambda tokens: tokens * 1e-6))[0].verdict == "REFUTED"


def test_throughput_of_a_sweep_that_ends_on_the_flat_is_underpowered():
    whole, rows = throughput_of(run_of(5000))
    for finding in (whole, rows["o tp8"]):
        assert (finding.verdict, finding.value) == ("UNDERPOWERED", None)
        assert finding.condition == "the time is still flat where the sweep ends, at 4096 tokens"


def test_throughput_of_a_sweep_that_begins_beyond_the_knee_is_not_said_to_grow():
    """From 512 tokens on the time has grown by a quarter at 640, though the flat part ended at 100."""
    assert throughput_of(run_of(100, (512, 1000, 2048, 4096)))[0].verdict in ("UNDERPOWERED", "NOT_MEASURED")


def test_measured_throughput_has_an_interval_from_its_passes():
    whole, _ = throughput_of(run_of(200))
    assert whole.value == pytest.approx(250, rel=0.03)
    assert whole.low < whole.value < whole.high

"""Every figure here is worked out again from the constants below, not through specs."""

from math import isfinite

import pytest

from reports.claims import arithmetic
from reports.claims.arithmetic import (
    ARITHMETIC_CLAIMS,
    AS_PRINTED,
    NO_READING,
    OTHER_READINGS,
    PrintedSize,
    agrees,
    decimal_bytes,
    interpret_units,
)
from reports.claims.verdict import VERDICTS
from specs.gpus import GPUS

LAYERS, HIDDEN, INTERMEDIATE, KV_HEADS, HEAD_DIM, VOCAB = 80, 8192, 28672, 8, 128, 128256
PARAMETERS, LAYER, EMBEDDING = 70_553_706_496, 855_654_400, 1_050_673_152
CUT = 2 * PARAMETERS / 8 + 161 * HIDDEN * 2 * 7 / 8  # the 161 norms are whole on each rank: 17,640,734,720
TP_READS = CUT - 2 * EMBEDDING / 8  # a look-up reads no embedding: 17,378,066,432
STAGE = 10 * LAYER * 2
A_TOKEN = 2 * LAYERS * KV_HEADS * HEAD_DIM * 2

# id: verdict, value, unit, and what the condition has to say
EXPECTED = {
    "allreduce-count": ("REFUTED", 2 * LAYERS, "all-reduces", ["2 in each of 80 layers", "161"]),
    "tp-bytes-layer": ("HOLDS", 2 * 2 * 7 / 8 * HIDDEN * 2, "bytes a token", ["28,672"]),
    "tp-bytes-step": (
        "HOLDS_IF",
        LAYERS * 57_344 * 1024,  # 4,697,620,480
        "bytes",
        ["1,000 KiB", "4.588 MB", "4.375 MiB", "4.698 GB", "224,448"],  # logits: 7·128256/8·2
    ),
    "pp-bytes-stage": ("HOLDS_IF", 2 * 1024 * HIDDEN * 2, "bytes", ["MiB", "33.55 MB", "2 times"]),
    "tp-pp-ratio-128": ("HOLDS_IF", 4 * LAYERS, "ratio", ["32 layers", "112 and 280"]),
    "tp-pp-ratio-140": (
        "REFUTED",
        4 * LAYERS * 7 / 8,
        "ratio",
        ["45.88 GB", "163.8 MB", "320 by all", "receives, 327.7 MB"],
    ),
    "generic-tp-prefill": ("REFUTED", 4 * 32 * 7 / 8 * 32 * 1024 * 12288 * 2, "bytes", ["elements", "90.19 GB"]),
    "generic-tp-decode": ("REFUTED", 4 * 32 * 7 / 8 * 512 * 12288 * 2, "bytes", ["elements", "1.409 GB"]),
    "generic-pp-prefill": (
        "REFUTED",
        7 * 32 * 1024 * 12288 * 2,
        "bytes",
        ["elements", "5.637 GB", "112 times", "128 over all", "16 is one TP rank"],
    ),
    "generic-pp-decode": ("REFUTED", 7 * 512 * 12288 * 2, "bytes", ["no reading", "88.08 MB", "9.1 times"]),
    "pp-weight-transfer": ("REFUTED", 0, "bytes", [decimal_bytes(7 * STAGE), "119.8 GB"]),
    "tp-100-steps": (
        "REFUTED",
        100 * 4 * 32 * 7 / 8 * 1024 * 12288 * 2,
        "bytes",
        ["elements", "2.819 GB", "281.9 GB", "network"],
    ),
    "pp-microbatch-step": ("REFUTED", 7 * 128 * 12288 * 2, "bytes", ["elements", "22.02 MB", "176.2 MB for the 8"]),
    "weights-19.5": (
        "HOLDS_IF",
        CUT,
        "bytes",
        [decimal_bytes(CUT + 7 / 8 * 2 * EMBEDDING), "19.48 GB", "19.21 GB", "17.64 GB", "17.11 GB"],
    ),
    "kv-formula": (
        "REFUTED",
        A_TOKEN,
        "bytes a token",
        [f"{LAYERS * HIDDEN * 2 / A_TOKEN:g} times", "4 times", "TP16"],
    ),
    "kv-400MB": ("HOLDS_IF", 400e6 / (A_TOKEN / 8), "tokens", ["one token", "409.6 MB", "419.4 GB"]),
    "activations": ("HOLDS_IF", 8, "ratio", ["residual", "is 1 to 1"]),
    "memory-equal": (
        "REFUTED",
        8 * STAGE / TP_READS,
        "ratio",
        ["17.11 GB", "136.9 GB", "17.38 GB", decimal_bytes(8 * (STAGE + 2 * EMBEDDING)), "0.98"],
    ),
    "batch-10k-fits": ("HOLDS_IF", (80e9 - CUT) / (A_TOKEN / 8) // 10_000, "tokens", ["B=10,000", "TP8", "152 on"]),
}
FINDINGS = {row.id: row.predicate() for row in ARITHMETIC_CLAIMS}


def test_the_constants_belong_together():
    attention = HIDDEN * (64 + 2 * KV_HEADS) * HEAD_DIM + 64 * HEAD_DIM * HIDDEN
    assert attention + 3 * HIDDEN * INTERMEDIATE + 2 * HIDDEN == LAYER
    assert VOCAB * HIDDEN == EMBEDDING
    assert LAYERS * LAYER + 2 * EMBEDDING + HIDDEN == PARAMETERS


def test_every_claim_of_the_ledger_is_there_once():
    assert sorted(row.id for row in ARITHMETIC_CLAIMS) == sorted(EXPECTED)
    assert (
        len({row.statement for row in ARITHMETIC_CLAIMS})
        == len({row.predicate for row in ARITHMETIC_CLAIMS})
        == len(EXPECTED)
    )


@pytest.mark.parametrize("row", ARITHMETIC_CLAIMS, ids=lambda row: row.id)
def test_a_claim_is_one_sentence_with_its_source(row):
    assert row.statement.endswith(".")
    assert row.statement.count(". ") == 0
    assert row.source.startswith(("note, ", "https://"))


@pytest.mark.parametrize("claim", EXPECTED)
def test_verdict_and_figure(claim):
    finding, (verdict, value, unit, _) = FINDINGS[claim], EXPECTED[claim]
    assert finding.verdict == verdict
    assert finding.verdict in VERDICTS
    assert finding.value == pytest.approx(value, rel=1e-12)
    assert isfinite(finding.value)
    assert finding.unit == unit


@pytest.mark.parametrize("claim", EXPECTED)
def test_the_condition_says_what_was_found(claim):
    finding, (*_, words) = FINDINGS[claim], EXPECTED[claim]
    assert finding.condition or finding.verdict == "HOLDS"
    assert not [word for word in words if word not in finding.condition]


def test_only_the_claim_about_gpus_rests_on_datasheets():
    assert {claim for claim, finding in FINDINGS.items() if finding.provenance != "arithmetic"} == {"batch-10k-fits"}


@pytest.mark.parametrize("gpu", GPUS.values(), ids=str)
def test_each_gpu_has_the_context_that_fits(gpu):
    tokens = max(0, int((gpu.hbm_bytes - CUT) / (A_TOKEN / 8) / 10_000))
    groups = [group.split(" on ") for group in FINDINGS["batch-10k-fits"].condition.split(": ")[1].split("; ")]
    assert [int(fits) for fits, slugs in groups if gpu.slug in slugs.split(", ")] == [tokens]


@pytest.mark.parametrize(
    ("predicate", "module", "figures", "verdict"),
    [
        (arithmetic.all_reduce_count, arithmetic, {"ALL_REDUCES": 160}, "HOLDS"),
        (arithmetic.tp_bytes_layer, arithmetic, {"LAYER_BYTES_A_TOKEN": 57_345}, "REFUTED"),
        (arithmetic.tp_bytes_step, arithmetic, {"STEP_MB_A_TOKEN": 4.59, "STEP_GB": 4.70}, "HOLDS"),
        (arithmetic.tp_bytes_step, arithmetic, {"STEP_GB": 4.48 * 1.1}, "REFUTED"),
        (arithmetic.pp_bytes_stage, arithmetic, {"STAGE_MB": 33.6}, "HOLDS"),
        (arithmetic.pp_bytes_stage, arithmetic, {"HOP_BYTES_A_TOKEN": 8192}, "REFUTED"),
        (arithmetic.tp_pp_ratio_128, arithmetic, {"TIMES": 320}, "HOLDS"),
        (arithmetic.tp_pp_ratio_128, arithmetic, {"TIMES": 141}, "REFUTED"),
        (arithmetic.tp_pp_ratio_140, arithmetic, {"LARGE_TIMES": 280}, "HOLDS"),
        (arithmetic.tp_prefill, arithmetic, {"TP_PREFILL_GB": 90}, "HOLDS"),
        (arithmetic.tp_decode, arithmetic, {"TP_DECODE_GB": 1.41}, "HOLDS"),
        (arithmetic.pp_prefill, arithmetic, {"PP_PREFILL_GB": 5.6}, "REFUTED"),
        (arithmetic.pp_prefill, arithmetic, {"PP_PREFILL_GB": 5.6, "PREFILL_TIMES_LESS": 112}, "HOLDS"),
        (arithmetic.pp_decode, arithmetic, {"PP_DECODE_GB": 0.088}, "HOLDS"),
        (arithmetic.tp_hundred_steps, arithmetic, {"TP_STEP_GB": 2.82, "TP_STEPS_GB": 282}, "HOLDS"),
        (arithmetic.pp_micro_batch_step, arithmetic, {"PP_STEP_MB": 22}, "HOLDS"),
        (arithmetic.weights, arithmetic, {"WEIGHTS_GB": 19.5 * 1.1}, "REFUTED"),
        (arithmetic.cache_size, arithmetic, {"CACHE_MB": 419_400}, "HOLDS"),
        (arithmetic.cache_size, arithmetic, {"CACHE_MB": 450}, "REFUTED"),
        (arithmetic.activations, arithmetic, {"ACTIVATIONS_TIMES": 4}, "REFUTED"),
        (arithmetic.batch_fits, arithmetic, {"LARGE_BATCH": 100, "GPUS": {"h100_sxm": GPUS["h100_sxm"]}}, "HOLDS"),
        (arithmetic.batch_fits, arithmetic, {"LARGE_BATCH": 10**7}, "REFUTED"),
        (
            arithmetic.equal_memory,
            arithmetic,
            {"TIMES_READ": 7.88},
            "REFUTED",
        ),  # the stages' weights differ still
    ],
)
def test_another_figure_in_the_note_would_be_judged_otherwise(monkeypatch, predicate, module, figures, verdict):
    for name, figure in figures.items():
        monkeypatch.setattr(module, name, figure)
    assert predicate().verdict == verdict


def test_rounding_agrees_and_ten_percent_does_not():
    assert agrees(45, 45.1)
    assert agrees(97, 100)
    assert not agrees(90, 100)
    assert not agrees(110, 100)
    assert not agrees(1, 0)


@pytest.mark.parametrize(
    ("said", "found", "reading"),
    [
        (4.70, 4_697_620_480, AS_PRINTED),
        (4.375, 4_697_620_480, OTHER_READINGS[0]),
        (4.48, 4_697_620_480, OTHER_READINGS[1]),  # as GiB 2.4 % off and so within rounding too, but 4,480 MiB is exact
        (2.35, 4_697_620_480, OTHER_READINGS[2]),
        (5.17, 4_697_620_480, NO_READING),
    ],
)
def test_a_size_is_read_as_what_it_comes_closest_to(said, found, reading):
    assert interpret_units(PrintedSize(said, "GB", found)) is reading


def test_one_reading_has_to_fit_all_sizes():
    # 4.48 MB is within 3 % of 4,587,520 bytes, 4.48 GB is not of 4,697,620,480
    token, step = PrintedSize(4.48, "MB", 4_587_520), PrintedSize(4.48, "GB", 4_697_620_480)
    assert interpret_units(token) is AS_PRINTED
    assert interpret_units(token, step) is OTHER_READINGS[1]

"""Claims on prefill by plans; what the planted parts take stands in tests/reports/claims/test_planned_claims.py."""

import pytest

from reports import pipeline_model
from reports.claims.planned_prefill import PROMPT_COUNTS, prompts_needed_text
from tests.reports.claims.planted_prompts import L40S, prompt_attention, with_cheaper_all_reduces
from tests.reports.plan.planted_parts import US, all_parts, all_reduce


def test_prefill_under_tp(found):
    """1024 tokens: two all-reduces of 16 MiB, 1643.4 us each, beside 449.6 us of linears and 50 of attention."""
    whole, rows = found("prefill-comm-20-30")
    row = rows["tp8 1x1024"]
    assert (row.verdict, row.high) == ("REFUTED", pytest.approx(3286.8 / 3786.4, rel=1e-3))
    assert row.low < row.high
    # of one length alone no more is known than that, and longer prompts lack all-reduces or linears
    assert whole.verdict == "REFUTED"


def test_prefill_under_pp(found):
    """A stage takes 10 x 3996.8 us, the last 202 more, a hop 10 us and 16 MiB at 450 GB/s: 47.3 us.

    Seven stages and hops until the first prompt is at the last stage, which then has eight: 601,467 us.
    """
    _, rows = found("prefill-pp-comm-1")
    row = rows["pp8-async8 8x1024"]
    total = 7 * (39968 + 47.28) + 8 * 40170
    # of the variant without elementwise kernels the share is the larger one; a hop is 5 to 20 us
    assert row.high == pytest.approx(7 * 57.28 / (total + 70), rel=1e-3)
    assert (row.verdict, row.provenance) == ("HOLDS", "assumed")
    assert "fill and drain 47% beside it" in row.condition
    assert "hops of 5–20 us" in row.condition


def test_who_reads_eight_prompts_faster(found):
    """TP takes 8 x (80 x 3786.4 + 30.4) us for them, PP 601,467 us."""
    whole, rows = found("prefill-winner")
    row = rows["tp8/pp8 8x1024"]
    assert row.high == pytest.approx(8 * (80 * 3786.4 + 30.4) / 601_430, rel=2e-3)
    assert (row.verdict, row.unit) == ("HOLDS", "ratio")
    assert "first token after" in row.condition
    assert whole.verdict == "HOLDS"


def test_with_more_prompts_the_pipeline_fills_and_wins(found):
    """All-reduces at a twentieth: TP takes 80 x (499.6 + 164.3) + 25.5 us a prompt, PP 40,170 and 7 x 40,015.

    So 0.71 with 8 prompts, 0.92 with 16, 1.09 with 32 and 1.19 with 64; with elementwise kernels a little more.
    """
    whole, rows = found("prefill-winner", with_cheaper_all_reduces([*all_parts(), *prompt_attention()], 20))
    tp, fill, turn = 80 * 663.94 + 25.5, 7 * (39_968 + 47.28), 40_170
    for count, verdict in ((8, "REFUTED"), (16, "REFUTED"), (32, "HOLDS"), (64, "HOLDS")):
        row = rows[f"tp8/pp8 {count}x1024"]
        assert row.low == pytest.approx(count * tp / (fill + count * turn), rel=1e-3)
        assert row.verdict == verdict
        stages = [[39_968.0] * count] * 7 + [[float(turn)] * count]
        assert pipeline_model.simulate_prefill(stages, [[47.28] * count] * 8).step_seconds == pytest.approx(
            fill + count * turn
        )
    assert (whole.verdict, whole.condition.partition("; ")[0]) == (
        "HOLDS_IF",
        "from 32 prompts of 1024 to 8192 tokens on",  # beyond those 128 MiB is not enough
    )


def test_as_many_prompts_as_memory_holds(found):
    """An L40S of 48 GB keeps 19.5 GB of weights and 3.2 GB; 64 prompts of 16,384 tokens are 42.9 GB more, 32 half."""
    more = [all_reduce(8, 2**28, 1e5 * US), *prompt_attention(16384)]
    whole, rows = found("prefill-winner", [*all_parts(), *more], L40S)
    assert [name for name in rows if "x16384" in name] == [f"tp8/pp8 {count}x16384" for count in (8, 16, 32)]
    assert "tp8/pp8 64x8192" in rows
    assert whole.verdict == "HOLDS"


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ({1024: "HHHH", 2048: "HHHH"}, "from 8 prompts of 1024 and 2048 tokens on"),
        ({1024: "RHHH", 2048: "RUHH"}, "from 16 prompts of 1024 tokens on, from 16–32 of 2048 on"),
        ({1024: "RRRR", 2048: "RRRR", 4096: "RRRR"}, "not with up to 64 prompts of 1024 to 4096 tokens"),
        ({1024: "RRU"}, "not surely with up to 32 prompts of 1024 tokens, more of which memory does not hold"),
    ],
)
def test_from_how_many_prompts_on(verdicts, said):
    names = {"H": "HOLDS", "R": "REFUTED", "U": "UNDERPOWERED"}
    by_length = {
        tokens: dict(zip(PROMPT_COUNTS, (names[one] for one in row), strict=False)) for tokens, row in verdicts.items()
    }
    assert prompts_needed_text(by_length) == said

"""The question by plans; what the planted parts take stands in tests/reports/claims/test_planned_claims.py."""

import re

from reports.plan import planner
from reports.plan.answer import answer_sentence
from reports.results import load
from tests.reports import planted
from tests.reports.claims.planted_prompts import L40S, with_cheaper_all_reduces
from tests.reports.plan.planted_parts import US, all_parts, attention


def test_the_crossover(found):
    """4,030 + 320.26·B us of TP8 against 27,200 + 38·B of PP8: equal at 82, so from 88 on, and 88 with 11 layers."""
    whole, rows = found("decode-winner")
    assert (whole.verdict, whole.value, whole.unit) == ("HOLDS_IF", 88, "sequences")
    assert (whole.low, whole.high) == (88, 88)
    assert whole.condition.startswith("for good from a batch of 88 on; ")
    assert "hops of 5–20 us" in whole.condition
    assert list(rows) == ["tp8/pp8 custom ctx256", "tp8/pp8 nccl ctx256", "tp8/pp8 ctx2048"]
    # NCCL: 4,830 + 576·B us, equal at 41.6
    assert rows["tp8/pp8 nccl ctx256"].value == 48
    assert (rows["tp8/pp8 ctx2048"].verdict, rows["tp8/pp8 ctx2048"].value) == ("NOT_MEASURED", None)


def test_tp_that_always_leads_refutes_it_and_memory_ends_the_batches(found):
    """Without a price for all-reduces TP8 has 80 x (50 + 0.8·B) us, and PP8 8 x 10 x (320 + 3.6·B / 8) and more."""
    free = [
        planted.replace(one, seconds=((1e-9,),)) if one.case.op == "all_reduce" else one
        for one in all_parts(attending=0.01)
    ]
    whole, _ = found("decode-winner", free)
    assert (whole.verdict, whole.value, whole.low) == ("REFUTED", None, None)
    assert whole.condition.startswith("TP leads at every batch from 8 to ")


def test_below_a_thousand_sequences_tp_that_leads_refutes_nothing(found):
    """On an L40S 10 layers and the embedding, 19.2 GB, leave 25.6 GB, and a sequence of 2048 takes 83.9 MB: 304.

    The first of balanced stages has 11 layers, 20.9 GB, and 92.3 MB a sequence: 258.
    """
    long = [attention(tp, batch, 2048, batch * US / 10) for tp in (1, 2, 4, 8) for batch in (1, 512)]
    whole, rows = found("decode-winner", with_cheaper_all_reduces([*all_parts(attending=0.01), *long], 1e4), L40S)
    row = rows["tp8/pp8 ctx2048"]
    assert (whole.verdict, row.verdict, row.value) == ("REFUTED", "UNDERPOWERED", None)
    assert row.condition.startswith(
        "TP leads at every batch from 8 to 256; no batch of 1000 or more was looked at; memory ends at 258 sequences "
        "of context 2048 under PP 8 with balanced stages (301 under TP 8, 304 under PP 8 with even stages)"
    )


def test_a_third_way_is_told_of_at_the_batch_that_the_plan_names(found, tmp_path):
    whole, _ = found("decode-winner")
    plan = planner.plan_for_file(load(tmp_path / "x.json"))
    (third,) = re.findall(r"at a batch of (\d+), ([^;]+) more than both", answer_sentence(plan))
    ((what, batch),) = re.findall(r"; ([^;]+) more than both at (\d+) ", whole.condition)
    assert (batch, what) == third
    assert int(batch) in (64, 128)  # of those asked for the nearest to 88

"""What a rank computes by itself stands in a table of its own, and is no layer or linear of the whole machine."""

import pytest

from reports.claims.evidence import collect_evidence
from reports.ledger.ledger import collect_layers as layers_of
from reports.results import load
from tests.reports import planted
from tests.reports.planted import ceilings, measured
from tests.reports.test_show import figures, page, table

TITLE = "shares of a rank: a layer, and norm with LM head and sampling"


def share(part, tokens, tp, at_once, context=128):
    of_layer = part == "layer"
    return planted.case(
        f"suites/bench_shares.py::bench_share[{tokens}tok-tp{tp}-{at_once}atonce-ctx{context}-{part}]",
        question="shares", op="layer" if of_layer else "linear", layer=part, tokens=tokens, tp=tp, ranks=at_once,
        kernel=f"torch_{'layer' if of_layer else 'linear'}", batch=tokens if of_layer else None,
        context=context if of_layer else None, n=None if of_layer else 8192, k=None if of_layer else 1024,
        cache="unknown",
    )  # fmt: skip


WAYS = [(16, 2, 2), (1, 2, 2), (16, 1, 1), (8, 1, 2)]
ALL = [measured(share(part, *way), 1e-3) for way in WAYS for part in ("layer", "lm_head")]


def test_layers_stand_before_heads_each_by_its_tokens(tmp_path):
    text = page(tmp_path, ALL)
    rows = [row[:4] for row in table(text.replace("\n\nlm_head", "\nlm_head"), TITLE)]
    by_tokens = [["1", "2", "2"], ["8", "1", "2"], ["16", "2", "2"], ["16", "1", "1"]]
    assert rows == [[part, *way] for part in ("layer", "lm_head") for way in by_tokens]
    assert "\nlayer    tokens  tp  at once  " in text
    caption = text.split(f"\n{TITLE}  ")[1].split("ranks")[0]
    assert " ".join(caption.split()) == "llama-3-70b · bf16 · torch · unknown · eager · context 128"


def test_several_contexts_tell_layers_apart(tmp_path):
    text = page(tmp_path, [measured(share("layer", 16, 2, 2, context), 1e-3) for context in (128, 2048)])
    assert [row[0] for row in table(text, TITLE)] == ["128", "2048"]


def test_the_whole_machines_ceilings_are_no_floor_of_a_rank(tmp_path):
    found = figures(tmp_path, [*ALL, measured(planted.case("other"), 0.2), *ceilings()])
    assert found["other"].floor_share == pytest.approx(0.5)
    assert {one.floor_share for one in found.values() if one.measurement.case.question == "shares"} == {None}
    assert "bound" not in page(tmp_path, [*ALL, *ceilings()]).split(TITLE)[1].split("ceilings")[0]


def test_no_claim_or_ledger_takes_them_for_its_own(tmp_path):
    file = load(planted.write(tmp_path / "x.json", ALL))
    assert collect_evidence([file]) == []
    assert layers_of(file) == []

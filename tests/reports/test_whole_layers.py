"""Claims on whole layers: judged like a linear, and never mixed with the linears."""

import json

import pytest

from reports.__main__ import main
from reports.claims import tokens
from reports.claims.evidence import collect_evidence
from reports.claims.registry import judge_claims
from reports.html.report import tokens_answer
from tests.reports import planted
from tests.reports.planted_sweeps import ceilings, file, layers, roofline, seeded, series, steps

RATIO = "tokens-125-vs-1000"


def run_of(ratio, *, context=512, seed=1, **how):
    return layers(steps(one=1e-4, few=1e-4, many=ratio * 1e-4), (125, 1000), context=context, rng=seeded(seed), **how)


def linears_of(ratio):
    return series(steps(one=1e-4, few=1e-4, many=ratio * 1e-4), (125, 1000), rng=seeded(2))


def judged(measurements):
    """Overall findings by kind of layer, and the others by scope."""
    rows = list(tokens.judge_token_ratio(collect_evidence([file(measurements)]), 125, 1000))
    whole = {row.architecture: row for row in rows if row.scope == "overall"}
    return whole, {row.scope: row for row in rows if row.scope != "overall"}


@pytest.mark.parametrize(("ratio", "verdict"), [(3.0, "REFUTED"), (1.0, "HOLDS"), (1.25, "UNDERPOWERED")])
def test_a_whole_layer_is_judged_as_a_linear_is(ratio, verdict):
    whole, rows = judged(run_of(ratio))
    assert (whole["whole"].verdict, rows["layer tp1 ctx512"].verdict) == (verdict, verdict)
    assert whole["whole"].value == pytest.approx(ratio, rel=0.05)
    assert set(whole) == {"whole"}


def test_layers_and_linears_have_an_overall_finding_each():
    whole, rows = judged([*linears_of(4.0), *run_of(1.0)])
    assert {name: row.verdict for name, row in whole.items()} == {"dense": "REFUTED", "whole": "HOLDS"}
    assert whole["dense"].condition == "over 1 linear"
    assert whole["whole"].condition == "over 1 layer"
    assert not any("layer" in name for name in whole["dense"].cases)
    assert list(rows) == ["o tp8", "layer tp1 ctx512"]


def test_contexts_are_series_of_their_own():
    """A long context makes the layer's time grow with every sequence."""
    whole, rows = judged([*run_of(1.0), *run_of(6.0, context=8192)])
    assert rows["layer tp1 ctx512"].verdict == "HOLDS"
    assert rows["layer tp1 ctx8192"].verdict == "REFUTED"
    assert whole["whole"].verdict == "HOLDS_IF"
    assert "(ctx512 1 of 1, ctx8192 0 of 1)" in whole["whole"].condition


def test_graphs_count_where_there_are_any():
    found = [*run_of(1.0, launch="graph"), *run_of(3.0, launch="eager")]
    assert judged(found)[0]["whole"].verdict == "HOLDS"


@pytest.mark.parametrize("changes", [{"batch": 1}, {"layer": "qkv", "op": "linear"}, {"cache": "hot"}])
def test_prompts_parts_and_warm_layers_are_no_whole_layers_of_decode(changes):
    found = [planted.replace(one, case=planted.replace(one.case, **changes)) for one in run_of(3.0)]
    assert judged(found) == ({}, {})


def test_whole_layers_have_no_knee_and_do_not_move_that_of_the_linears():
    found = [*series(roofline(230, 100e-6, 2e-6), rng=seeded(1), between=0.005), *ceilings(10e9, 2e12, launch=2e-6)]
    alone = [row for row in judge_claims(collect_evidence([file(found)])) if row.id in ("knee", "linear-throughput")]
    beside = judge_claims(collect_evidence([file([*found, *layers(roofline(20), rng=seeded(3))])]))
    assert [row for row in beside if row.id in ("knee", "linear-throughput")] == alone


def test_a_gate_asks_for_whole_layers_by_name(tmp_path, capsys):
    path = planted.write(tmp_path / "x.json", [*linears_of(4.0), *run_of(1.0)])

    def gate(text):
        with pytest.raises(SystemExit) as ended:
            main(["claims", str(path), "--gate", text, "--format", "json"])
        return ended.value.code or 0

    assert gate(f"{RATIO}/whole=HOLDS,{RATIO}") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["architecture"] for row in rows if row["id"] == RATIO} == {"dense", "whole"}
    assert gate(f"{RATIO}/whole=REFUTED") == 1
    assert "HOLDS, not REFUTED, on Planted CPU 9000, whole layers in bf16" in capsys.readouterr().err
    assert gate(f"{RATIO}/whole") == 2


def test_the_answer_says_it_of_whole_layers_too():
    said = tokens_answer(judge_claims(collect_evidence([file([*linears_of(4.0), *run_of(2.0)])])))
    assert "1000 tokens take a whole layer, with attention, 2.0" in " ".join(said.details)
    alone = tokens_answer(judge_claims(collect_evidence([file(run_of(2.0))])))
    assert alone.headline.startswith("Not measured")
    assert "on Planted CPU 9000." in alone.details[0]

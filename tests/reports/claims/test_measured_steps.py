"""The claims on whole models: each verdict from planted steps, its figures worked out by hand."""

import json

import pytest

from reports.__main__ import main
from reports.claims import registry
from reports.results import load
from specs.parallel import Deployment
from tests.reports import planted
from tests.reports.tp_vs_pp.planted_steps import ASYNC, ASYNC4, SYNC, TP2, TWO_REPLICAS, busy_shares, step

BALANCED = Deployment(pp=2, schedule="sync", partition="balanced")
NOISY_MS = [9.0, 11.0, 9.0, 11.0]


@pytest.fixture
def found(tmp_path):
    """The overall finding on a claim, and the others by what they are on."""

    def found(slug, *steps):
        file = load(planted.write(tmp_path / "x.json", steps))
        whole, *rows = [one.finding for one in registry.judge_files([file]) if one.id == slug]
        return whole, {row.scope: row for row in rows}

    return found


def test_one_request_uses_a_stage_at_a_time(found):
    """Each stage computes 0.47 of the step: within 1.05 / 2 = 0.525."""
    whole, rows = found("pp-one-of-p", step(SYNC, shares=busy_shares(0.47, 0.5)), step(TP2))
    assert (whole.verdict, whole.value, whole.unit, whole.condition) == ("HOLDS", 0.47, "share", "at a batch of 1")
    assert (whole.architecture, whole.gpu, whole.dtype) == ("whole", "Planted CPU 9000", "bf16")
    row = rows["pp2-sync B=1"]
    assert (row.low, row.high, row.condition) == (pytest.approx(0.47), pytest.approx(0.47), "1/2 is 50%")
    assert row.cases == ("suites/bench_tp_vs_pp.py::bench_step[pp2-sync-b1-p1-ctx128]",)


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ([busy_shares(0.515)] * 4, "HOLDS"),
        ([busy_shares(0.535)] * 4, "REFUTED"),
        ([busy_shares(0.50), busy_shares(0.55)] * 2, "UNDERPOWERED"),  # 0.525 in the middle
        ([busy_shares(0.45), busy_shares(0.46)] * 2, "HOLDS"),  # 0.455 ± 0.009
    ],
)
def test_more_than_that_refutes_and_what_straddles_is_open(found, shares, verdict):
    assert found("pp-one-of-p", step(SYNC, [10.0] * 4, shares=shares))[0].verdict == verdict


def test_layers_that_are_shared_as_well_are_another_question(found):
    """Under TP 2 x PP 2 a rank computes less than half of its half, for all-reduces."""
    one = Deployment(tp=2, pp=2, schedule="sync")
    whole, rows = found("pp-one-of-p", step(one, shares=busy_shares(0.1, 0.5)))
    assert (whole.verdict, rows) == ("NOT_MEASURED", {})


def test_ranks_that_share_cores_say_nothing_of_tp_against_pp(tmp_path):
    steps = [
        step(TP2, 40.0, 1),
        step(SYNC, 10.0, 1, shares=busy_shares(0.1)),
        step(ASYNC, 10.0, 64),
        step(TP2, 40.0, 64),
    ]
    for cores, verdict in ((2, "REFUTED"), (1, "UNDERPOWERED")):
        file = load(planted.write(tmp_path / f"{cores}.json", steps, machine=planted.CPU | {"cores": cores}))
        (whole, *rows) = [one.finding for one in registry.judge_files([file]) if one.id == "tp-lower-latency"]
        assert (whole.verdict, {row.verdict for row in rows}) == (verdict, {verdict})
    assert whole.condition == "2 ranks share 1 core and take turns"
    two_hosts = planted.CPU | {"cores": 1, "hosts": 2}
    file = load(planted.write(tmp_path / "hosts.json", steps, machine=two_hosts))
    (whole, *_) = [one.finding for one in registry.judge_files([file]) if one.id == "tp-lower-latency"]
    assert whole.verdict == "REFUTED"


def test_a_batch_is_no_single_request(found):
    whole, rows = found("pp-one-of-p", step(SYNC, batch=2, shares=busy_shares(0.45)), step(TP2))
    assert (whole.verdict, rows) == ("NOT_MEASURED", {})
    assert whole.condition == "no decode of one sequence in stages: run suites/bench_tp_vs_pp.py with --batch 1"


def test_micro_batches_are_of_no_use_at_small_batches_alone(found):
    """10 / 9 = 1.11 and 10 / 5 = 2; of two kinds of async the faster counts, and m = P is named."""
    steps = [step(SYNC, 10.0, batch) for batch in (4, 64)]
    steps += [step(ASYNC, 9.0, 4), step(ASYNC4, 9.5, 4), step(ASYNC, 8.0, 64), step(ASYNC4, 5.0, 64)]
    whole, rows = found("microbatch-useless", *steps)
    assert (whole.verdict, whole.condition) == ("HOLDS_IF", "at a batch of 4")
    assert (whole.value, whole.low, whole.high) == pytest.approx(((10 / 9 + 2) / 2, 10 / 9, 2))
    few, many = rows["pp2 B=4"], rows["pp2 B=64"]
    assert (few.verdict, few.value, few.condition) == ("HOLDS", pytest.approx(10 / 9), "m = 2")
    assert (many.verdict, many.value, many.condition) == ("REFUTED", 2.0, "m = 4; 1.25 with m = 2")


def test_a_slower_async_is_not_the_same_either(found):
    """10 / 13 = 0.77, below 1 / 1.25."""
    whole, _ = found("microbatch-useless", step(SYNC, 10.0, 4), step(ASYNC, 13.0, 4))
    assert (whole.verdict, whole.value, whole.condition) == ("REFUTED", pytest.approx(10 / 13), "at a batch of 4")


def test_partitions_are_compared_with_themselves(found):
    balanced = Deployment(pp=2, schedule="async", micro_batches=2, partition="balanced")
    steps = [step(SYNC, 10.0, 4), step(BALANCED, 20.0, 4), step(ASYNC, 10.0, 4), step(balanced, 8.0, 4)]
    whole, rows = found("microbatch-useless", *steps)
    assert {scope: row.value for scope, row in rows.items()} == {"pp2 B=4": 1.0, "pp2-balanced B=4": 2.5}
    assert whole.condition == "pp2: at a batch of 4; pp2-balanced: nowhere"


def test_without_both_schedules_nothing_is_said_of_micro_batches(found):
    whole, rows = found("microbatch-useless", step(SYNC, 10.0, 4))
    assert (whole.verdict, rows) == ("NOT_MEASURED", {})
    assert "no batch with both sync and async PP" in whole.condition


def test_stages_are_busy_whenever_they_neither_wait_nor_skew(found):
    """1 - 0.02 = 0.98 at 64; 1 - 0.2 - 0.05 = 0.75 at 256."""
    skewed = {"linears": 0.7, "hop": 0.05, "idle": 0.2, "skew": 0.05}
    steps = [step(ASYNC, batch=64, shares=busy_shares(0.9, 0.02)), step(ASYNC, batch=256, shares=skewed)]
    whole, rows = found("pp-utilisation", *steps)
    assert (whole.verdict, whole.condition) == ("HOLDS_IF", "at a batch of 64")
    assert [row.value for row in rows.values()] == pytest.approx([0.98, 0.75])
    assert [row.verdict for row in rows.values()] == ["HOLDS", "REFUTED"]


def test_fill_and_drain_of_prefill_decide_nothing_of_utilisation(found):
    steps = [
        step(ASYNC, batch=64, shares=busy_shares(0.9, 0.02)),
        step(ASYNC, batch=4, prompt=512, shares=busy_shares(0.6, 0.3)),
    ]
    whole, rows = found("pp-utilisation", *steps)
    assert (whole.verdict, whole.value) == ("HOLDS", pytest.approx(0.98))
    prefill = rows["pp2-async2 4x512"]
    assert (prefill.verdict, prefill.value, prefill.condition) == (
        "REFUTED",
        pytest.approx(0.7),
        "computing 60%; fill and drain in it",
    )


def test_fewer_micro_batches_than_stages_cannot_fill_them(found):
    one = Deployment(pp=2, schedule="async", micro_batches=1)
    whole, _ = found("pp-utilisation", step(one, batch=64, shares=busy_shares(0.5, 0.5)))
    assert (whole.verdict, whole.value) == ("NOT_MEASURED", None)


@pytest.mark.parametrize(
    ("times", "verdict", "condition"),
    [
        ({1: 18.0, 64: 12.0}, "HOLDS", "at every batch from 1 to 64"),
        ({1: 9.0, 64: 5.0}, "REFUTED", "at every batch from 1 to 64"),
        ({1: 18.0, 16: 15.0, 64: 5.0}, "HOLDS_IF", "up to a batch of 16"),
        ({1: 18.0, 64: NOISY_MS}, "HOLDS_IF", "at a batch of 1; cannot be told at a batch of 64"),
        ({1: NOISY_MS, 64: 5.0}, "REFUTED", "at a batch of 64; cannot be told at a batch of 1"),
        ({1: NOISY_MS, 64: NOISY_MS}, "UNDERPOWERED", "cannot be told at any batch from 1 to 64"),
    ],
)
def test_who_has_the_lower_latency(found, times, verdict, condition):
    steps = [one for batch, ms in times.items() for one in (step(TP2, 10.0, batch, 4), step(SYNC, ms, batch, 4))]
    whole, rows = found("tp-lower-latency", *steps)
    assert (whole.verdict, whole.condition) == (verdict, condition)
    assert len(rows) == len(times)


def test_latency_is_held_against_the_best_of_pp(found):
    """Sync 20 ms and async 15 ms against the 10 of TP: 1.5, by the async one; replicas are no PP."""
    steps = [step(TP2, 10.0, 4), step(SYNC, 20.0, 4), step(ASYNC, 15.0, 4), step(TWO_REPLICAS, 5.0, 4)]
    _, rows = found("tp-lower-latency", *steps)
    row = rows["tp2/pp2 B=4"]
    assert (row.value, row.condition) == (1.5, "the best of PP is async PP 2 with 2 micro-batches")


def test_who_reads_prompts_faster(found):
    """25 / 20 = 1.25 with four prompts, 10 / 20 = 0.5 with one."""
    steps = [step(TP2, 25.0, 4, prompt=512), step(ASYNC4, 20.0, 4, prompt=512)]
    steps += [step(TP2, 10.0, 1, prompt=512), step(SYNC, 20.0, 1, prompt=512), step(TP2, 1.0, 4), step(SYNC, 9.0, 4)]
    whole, rows = found("prefill-winner", *steps)
    assert (whole.verdict, whole.condition) == ("HOLDS_IF", "for 4 prompts of 512")
    row = rows["tp2/pp2 4x512"]
    assert (row.verdict, row.value) == ("HOLDS", pytest.approx(1.25))
    assert row.condition == "time to first token 20.0 ms with async PP 2 with 4 micro-batches, 25.0 ms with TP 2"
    assert (rows["tp2/pp2 1x512"].verdict, rows["tp2/pp2 1x512"].value) == ("REFUTED", pytest.approx(0.5))


@pytest.mark.parametrize("slug", ["pp-one-of-p", "microbatch-useless", "pp-utilisation", "tp-lower-latency"])
def test_a_single_pass_decides_nothing(found, slug):
    steps = [step(of, ms, 1, 1) for of, ms in ((TP2, 10.0), (SYNC, 20.0))]
    steps += [step(of, ms, 64, 1) for of, ms in ((TP2, 10.0), (SYNC, 20.0), (ASYNC, 15.0))]
    whole, rows = found(slug, *steps)
    assert (whole.verdict, whole.condition) == ("UNDERPOWERED", "a single pass gives no interval")
    assert {(row.verdict, row.low, row.high) for row in rows.values()} == {("UNDERPOWERED", None, None)}


def test_contexts_are_told_apart_in_the_condition(found):
    steps = [step(of, ms, context=context) for context in (128, 4096) for of, ms in ((TP2, 10.0), (SYNC, 20.0))]
    whole, rows = found("tp-lower-latency", *steps[:3], step(SYNC, 5.0, context=4096))
    assert list(rows) == ["tp2/pp2 B=1 ctx128", "tp2/pp2 B=1 ctx4096"]
    assert whole.condition == "tp2/pp2 ctx128: at a batch of 1; tp2/pp2 ctx4096: nowhere"


def test_what_else_differs_is_told_too(found):
    """Torch on 2 layers beside triton on 4."""
    other = {"implementation": "triton", "layers": 4}
    steps = [step(TP2, 10.0), step(SYNC, 20.0), step(TP2, 10.0, **other), step(SYNC, 20.0, **other)]
    whole, rows = found("tp-lower-latency", *steps)
    assert list(rows) == ["tp2/pp2 B=1 2 layers torch", "tp2/pp2 B=1 4 layers triton"]
    assert (whole.verdict, whole.condition) == ("HOLDS", "at a batch of 1")


def test_steps_say_nothing_of_single_linears_nor_those_of_steps(found):
    assert found("tokens-125-vs-1000", step(TP2))[0].verdict == "NOT_MEASURED"
    assert found("tp-utilisation", step(TP2))[0].verdict == "NOT_MEASURED"
    linears = planted.measured(planted.case(), 1.0)
    assert "run suites/bench_tp_vs_pp.py" in found("tp-lower-latency", linears)[0].condition


def gated(path, *gates):
    with pytest.raises(SystemExit) as ended:
        main(["claims", str(path), "--format", "json", *(word for gate in gates for word in ("--gate", gate))])
    return ended.value.code or 0


def test_gates_on_whole_models_need_no_kind(tmp_path, capsys):
    path = planted.write(tmp_path / "x.json", [step(SYNC, shares=busy_shares(0.47, 0.5)), step(TP2, 5.0)])
    assert gated(path, "pp-one-of-p", "tp-lower-latency=HOLDS", "tp-lower-latency/whole=HOLDS") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["id"]: row["verdict"] for row in rows if row["architecture"] == "whole"} == {
        "pp-one-of-p": "HOLDS",
        "tp-lower-latency": "HOLDS",
        "microbatch-useless": "NOT_MEASURED",
        "pp-utilisation": "NOT_MEASURED",
        "prefill-winner": "NOT_MEASURED",
        "decode-winner": "UNDERPOWERED",
        "allreduce-30": "HOLDS",
        "allreduce-38": "NOT_MEASURED",
        "prefill-comm-20-30": "NOT_MEASURED",
        "prefill-pp-comm-1": "NOT_MEASURED",
    }
    assert gated(path, "tp-lower-latency=REFUTED") == 1
    assert "tp-lower-latency: HOLDS, not REFUTED, on Planted CPU 9000, whole layers in bf16" in capsys.readouterr().err
    assert gated(path, "pp-one-of-p/dense=HOLDS") == 1

"""Communication and the question, by planted steps that ran on a CPU."""

import pytest

from reports.claims import registry
from reports.results import load
from specs.parallel import Deployment
from tests.reports import planted
from tests.reports.tp_vs_pp.planted_steps import ASYNC, ASYNC4, SYNC, TP2, step


@pytest.fixture
def found(tmp_path):
    """The overall finding on a claim, and the others by what they are on."""

    def found(slug, *steps, machine=planted.CPU):
        file = load(planted.write(tmp_path / "x.json", steps, machine=machine))
        whole, *rows = [one.finding for one in registry.judge_files([file]) if one.id == slug]
        return whole, {row.scope: row for row in rows}

    return found


def tp_shares(share, skew=0.0):
    return {"linears": 1 - share - skew, "all-reduce": share, "skew": skew}


def pp_shares(share, idle=0.0):
    return {"linears": 1 - share - idle, "hop": share, "idle": idle}


def test_all_reduces_by_the_ledger_of_tp(found):
    """0.1 at 1 and 0.4 at 64; what waits for the last rank is not among them; stages have none."""
    steps = [step(TP2, 10.0, 1, shares=tp_shares(0.1, 0.3)), step(TP2, 10.0, 64, shares=tp_shares(0.4))]
    whole, rows = found("allreduce-30", *steps, step(SYNC, 10.0, 1, shares=pp_shares(0.1)))
    assert (whole.verdict, whole.condition, whole.provenance) == ("HOLDS_IF", "at a batch of 1", "measured")
    assert {scope: row.value for scope, row in rows.items()} == pytest.approx({"tp2 B=1": 0.1, "tp2 B=64": 0.4})
    assert rows["tp2 B=1"].condition == "waiting for the last rank 30% beside it"
    assert rows["tp2 B=1"].cases == ("suites/bench_tp_vs_pp.py::bench_step[tp2-b1-p1-ctx128]",)


@pytest.mark.parametrize(("share", "verdict"), [(0.25, "HOLDS"), (0.15, "REFUTED"), (0.35, "REFUTED")])
def test_all_reduces_of_prefill(found, share, verdict):
    whole, rows = found(
        "prefill-comm-20-30", step(TP2, 10.0, 4, prompt=512, shares=tp_shares(share)), step(TP2, 1.0, 4)
    )
    assert (whole.verdict, whole.value, len(rows)) == (verdict, pytest.approx(share), 1)


def test_hops_of_prefill_are_counted_without_the_bubble(found):
    steps = [step(ASYNC, 10.0, 4, prompt=512, shares=pp_shares(0.005, 0.4)), step(SYNC, 9.0, 4, shares=pp_shares(0.5))]
    whole, rows = found("prefill-pp-comm-1", *steps)
    assert (whole.verdict, whole.value) == ("HOLDS", pytest.approx(0.005))
    assert rows["pp2-async2 4x512"].condition == "fill and drain 40% beside it"
    assert found("prefill-pp-comm-1", step(ASYNC, prompt=512, batch=4, shares=pp_shares(0.02)))[0].verdict == "REFUTED"


def test_a_cpu_has_no_nvlink(found):
    whole, rows = found("allreduce-38", step(TP2))
    assert (whole.verdict, rows) == ("NOT_MEASURED", {})
    assert whole.condition == "no NVLink: its ranks are joined by gloo; import published tables of GPUs"


def tp_and_pp_steps(times, tp=10.0):
    return [one for batch, ms in times.items() for one in (step(TP2, tp, batch, 4), step(ASYNC, ms, batch, 4))]


def test_the_measured_crossover(found):
    """TP is ahead at 64, PP at 256 by four microbatches: from a batch between the two on."""
    steps = tp_and_pp_steps({4: 18.0, 64: 12.0, 1024: 5.0})
    steps += [step(TP2, 10.0, 256, 4), step(ASYNC, 9.0, 256, 4), step(ASYNC4, 8.0, 256, 4)]
    whole, rows = found("decode-winner", *steps)
    assert (whole.verdict, whole.value, whole.low, whole.high) == ("HOLDS_IF", 256, 64, 256)
    assert whole.condition == "from a batch between 64 and 256 on; by async PP 2 with 4 micro-batches"
    assert (whole.unit, whole.provenance, len(whole.cases)) == ("sequences", "measured", 8)
    assert list(rows) == ["tp2/pp2"]


NOISY_MS = [9.0, 11.0, 9.0, 11.0]


@pytest.mark.parametrize(
    ("times", "verdict", "condition"),
    [
        ({4: 18.0, 1024: 12.0}, "REFUTED", "TP is ahead at every batch from 4 to 1024"),
        ({4: 9.0, 1024: 5.0}, "HOLDS", "PP is ahead at every batch from 4 to 1024"),
        ({4: 18.0, 64: 12.0}, "UNDERPOWERED", "TP is ahead at every batch from 4 to 64; no batch of 1000 or more ran"),
        ({4: 18.0, 1024: NOISY_MS}, "UNDERPOWERED", "TP is ahead at a batch of 4; cannot be told at a batch of 1024"),
        ({4: NOISY_MS, 1024: 5.0}, "HOLDS_IF", "PP is ahead at a batch of 1024; cannot be told at a batch of 4"),
    ],
)
def test_without_a_crossover_the_largest_batch_decides(found, times, verdict, condition):
    whole, _ = found("decode-winner", *tp_and_pp_steps(times))
    assert (whole.verdict, whole.condition, whole.value) == (verdict, condition, None)


def test_ranks_that_take_turns_decide_nothing(found):
    whole, _ = found("decode-winner", *tp_and_pp_steps({4: 18.0, 1024: 5.0}), machine=planted.CPU | {"cores": 1})
    assert (whole.verdict, whole.condition) == ("UNDERPOWERED", "2 ranks share 1 core and take turns")


def test_series_of_several_contexts_are_told_apart(found):
    other = [
        planted.replace(one, case=planted.replace(one.case, context=4096, name=f"{one.case.name}x"))
        for one in tp_and_pp_steps({4: 18.0, 1024: 12.0})
    ]
    whole, rows = found("decode-winner", *tp_and_pp_steps({64: 18.0, 1024: 5.0}), *other)
    assert list(rows) == ["tp2/pp2 ctx128", "tp2/pp2 ctx4096"]
    assert whole.verdict == "HOLDS_IF"
    assert whole.condition == (
        "tp2/pp2 ctx128: from a batch between 64 and 1024 on; by async PP 2 with 2 micro-batches; "
        "tp2/pp2 ctx4096: TP is ahead at every batch from 4 to 1024"
    )


def test_layers_that_are_shared_and_staged_are_another_question(found):
    """Under TP 2 x PP 2, or in replicas, neither all-reduces nor hops are all the communication that there is."""
    mixed = Deployment(tp=2, pp=2, schedule="sync")
    for slug, how in (("allreduce-30", {"batch": 4}), ("prefill-pp-comm-1", {"batch": 4, "prompt": 512})):
        whole, rows = found(slug, step(mixed, shares=tp_shares(0.1), **how), step(Deployment(tp=2, replicas=2), **how))
        assert (whole.verdict, rows) == ("NOT_MEASURED", {})


def test_lengths_of_prompts_are_said_in_one_where_they_are_many(found):
    def steps(*lengths):
        tp = [step(TP2, 10.0, 4, prompt=one) for one in lengths]
        return tp + [step(ASYNC, 20.0 if one > 32 else 5.0, 4, prompt=one) for one in lengths]

    assert found("prefill-winner", *steps(64, 128))[0].condition == "for 4 prompts of 64 and 4 prompts of 128"
    assert found("prefill-winner", *steps(64, 128, 256))[0].condition == "for 4 prompts of 64 to 256"
    assert found("prefill-winner", *steps(32, 64, 128))[0].condition == "for 4 prompts of 32"

"""A step in an engine is the step of its kernels, waits for late ranks and the host's time, worked out by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from reports.plan import serving_constants
from reports.plan.engine_step import EngineSteps
from reports.plan.serving import ServedLoad, ServingConstants, step_features, tpot_seconds
from reports.plan.step import PromptChunk, estimate_step
from specs.parallel import Deployment
from tests.reports.plan import planted_parts
from tests.reports.plan.planted_parts import US
from tests.reports.run_reports import run_reports

HERE = {"host": 1e-3, "host_per_sequence": 10e-6, "skew": 4e-6}
OTHER = {"host": 3e-3, "host_per_sequence": 0.0, "skew": 0.0}


@pytest.fixture(autouse=True)
def fitted(monkeypatch):
    """Constants of one engine on two GPUs."""
    groups = [
        {"engine": "vllm", "gpu": gpu, "dtype": "bf16", "models": ["llama-3-70b"], "runs": 40, "most_sequences": 64,
         "constants": constants, "tpot_range": 0.1, "ttft_range": 0.3}
        for gpu, constants in (("h200_sxm", HERE), ("h100_sxm", OTHER))
    ]  # fmt: skip
    record = {"groups": groups, "elsewhere": {"tpot_range": 0.25, "ttft_range": 0.6}}
    monkeypatch.setattr(serving_constants, "read_fitted", lambda: record)


@pytest.fixture
def engine_step(parts):
    """Make the step of an engine and the step without its terms."""

    def made(deployment, batch):
        bare = parts()
        split = deployment.split(bare.query.truncated_model)
        without = estimate_step(bare, deployment, split, batch)
        return without, EngineSteps.estimate(bare.in_engine, deployment, split, [batch]).at(0, without)

    return made


def test_under_tp_every_term_is_added_once(engine_step):
    without, step = engine_step(Deployment(8), 64)
    terms = {one.name: one for one in step.terms}
    assert terms["host"].seconds == pytest.approx(1e-3 + 64 * 10e-6)
    assert terms["late ranks"].seconds == pytest.approx(160 * 7 / 8 * 4e-6)
    # two a layer of 107.4 us, and the gather of the head: 8 x 64 x 8 bytes are 4 KiB, 5.4 us
    gather = terms["all-reduces"].seconds - 160 * 107.4 * US
    assert gather == pytest.approx(5.4 * US)
    assert step.seconds == pytest.approx(without.seconds + terms["host"].seconds + terms["late ranks"].seconds)
    assert sum(one.seconds for one in step.terms) == pytest.approx(step.seconds)
    assert (step.low, step.high) == (pytest.approx(0.9 * step.seconds), pytest.approx(1.1 * step.seconds))


def test_a_term_ranges_over_the_engine_s_fits_and_names_its_runs(engine_step):
    _, step = engine_step(Deployment(8), 64)
    terms = {one.name: one for one in step.terms}
    assert (terms["host"].low, terms["host"].high) == (pytest.approx(1.64e-3), pytest.approx(3e-3))
    assert terms["late ranks"].low == 0
    assert terms["host"].source == "fitted on 40 served runs of vllm on h200_sxm in bf16"
    assert all(one.low <= one.seconds * (1 + 1e-9) and one.seconds <= one.high * (1 + 1e-9) for one in step.terms)


def test_under_pp_the_host_counts_once_a_microbatch(engine_step):
    without, step = engine_step(Deployment(1, 8, 1, "async", 8), 64)
    terms = {one.name: one.seconds for one in step.terms}
    assert terms["host"] == pytest.approx(8 * (1e-3 + 8 * 10e-6) / 8)  # on one of eight stages
    # the first stage is as long as the others but for the last, which has the LM head: the host makes it the slowest
    assert without.seconds < step.seconds <= without.seconds + 8 * terms["host"]
    assert sum(terms.values()) == pytest.approx(step.seconds)
    assert terms["bubble"] > 0


def test_under_sync_pp_kernels_are_those_of_the_step_without_an_engine(engine_step):
    without, step = engine_step(Deployment(4, 2), 64)
    terms = {one.name: one.seconds for one in step.terms}
    late = 160 * 3 / 4 * 4e-6
    assert step.seconds == pytest.approx(without.seconds + 1e-3 + 64 * 10e-6 + late)
    # terms are means over two stages, of which one waits at any time
    assert terms["late ranks"] == pytest.approx(late / 2)
    assert terms["host"] == pytest.approx((1e-3 + 64 * 10e-6) / 2)
    reduces = without.among.shares.all_reduce[0] * without.seconds
    assert terms["all-reduces"] == pytest.approx(reduces)
    assert terms["kernels"] + terms["all-reduces"] < without.seconds / 2
    assert sum(terms.values()) == pytest.approx(step.seconds)


def test_more_sequences_than_any_run_had_are_marked(engine_step):
    assert not engine_step(Deployment(8), 64)[1].extrapolated
    assert engine_step(Deployment(8), 128)[1].extrapolated


def test_an_all_reduce_that_holds_the_wait_adds_no_late_ranks(parts):
    behind = [
        replace(one, case=replace(one.case, name=f"behind-{layer}", layer=layer, late_seconds=0.0))
        for layer in ("o", "down")
        for one in [planted_parts.all_reduce(8, 64 * 8192 * 2, 100 * US)]
    ]
    one = parts([*planted_parts.all_parts(), *behind]).in_engine
    found = one.layer_parts(8, np.array([64, 128]), PromptChunk(), 8)["late ranks"]
    assert found.seconds == pytest.approx([0.0, 2 * 7 / 8 * 4e-6])


def test_a_step_that_takes_prompts_along_is_none_of_an_engine(parts):
    assert parts(prefill_chunk=512).in_engine is None


def test_the_step_is_the_tpot_of_a_load_without_prompts(parts, engine_step):
    _, step = engine_step(Deployment(8), 64)
    prompts = [planted_parts.attention(8, 1, n, n * US, phase="prefill") for n in (256, 1024)]
    features = step_features(parts([*planted_parts.all_parts(), *prompts]), Deployment(8), ServedLoad(256, 512, 64))
    without_prompts = features._replace(prompts=0.0)
    assert tpot_seconds(without_prompts, ServingConstants(**HERE)) == pytest.approx(step.seconds)


def test_an_implementation_without_served_runs_has_no_engine(parts):
    theirs = planted_parts.all_parts("torch")
    assert parts(theirs, implementation="torch").in_engine is None


def test_plan_prints_the_step_in_an_engine_and_names_its_all_reduces(tmp_path, capsys):
    asked = ("plan", planted_parts.write(tmp_path / "planted.json"), "--context", 256, "--batch", 64)
    assert run_reports(*asked) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "in engines the host's time and waits for late ranks added, fitted on 40 served runs" in printed
    assert "All-reduces by custom kernels of vllm." in printed
    assert run_reports(*asked, "--format", "json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["all_reduces"] == ["custom kernels of vllm"]
    point = next(one for one in record["points"] if one["tp"] == 8)
    assert [one["name"] for one in point["engine"]["terms"]] == ["kernels", "all-reduces", "late ranks", "host"]
    assert point["engine"]["extrapolated"] is False
    assert point["engine"]["step_seconds"] > point["step_seconds"]

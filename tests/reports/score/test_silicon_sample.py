"""The planner on the served runs of the installed package: what is answered, and what README says of it."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from reports.importers.aiconfigurator.package import find_package
from reports.plan.serving import tpot_seconds
from reports.plan.serving_constants import NO_CONSTANTS, read_fitted
from reports.score.fit import fit_constants
from reports.score.report import errors_of, rank_deployments, score_runs, tpot_errors, ttft_errors
from reports.score.runs import SAMPLE, compute_runs, read_runs

pytest.importorskip("aiconfigurator_core")
README = re.sub(r"\s+", " ", (Path(__file__).parents[3] / "README.md").read_text())
RULES = ("mode disagg", "mixture of experts", "not implemented", "attention_dp_size 0")


@pytest.fixture(scope="module")
def computed():
    return compute_runs(read_runs(None))


def test_every_run_is_answered_or_refused_by_a_rule(computed):
    assert len(computed) == 5221
    for one in computed:
        assert one.features or any(rule in one.refused for rule in RULES), one.refused
    assert sum(1 for one in computed if one.features) >= 1040


def test_the_file_of_constants_is_what_the_fit_gives(computed):
    fit = fit_constants(computed)
    kept = {(one["engine"], one["gpu"], one["dtype"]): one for one in read_fitted()["groups"]}
    assert set(kept) == set(fit.constants)
    assert read_fitted()["values"] == fit.values
    for group, constants in fit.constants.items():
        assert kept[group]["constants"] == pytest.approx(vars(constants), rel=0.02, abs=1e-6)
        used = [one for one in computed if one.features and one.run.calibrates and one.run.group == group]
        assert kept[group]["runs"] == len(used)


def test_readme_states_what_the_score_is(computed):
    scored = score_runs(computed)
    held = [one for one in scored if not one.run.calibrates]
    tpot, ttft, ranking = tpot_errors(held), ttft_errors(held), rank_deployments(scored)
    answered = sum(1 for one in scored if one.tpot)
    assert f"It answers {answered:,} runs of dense models" in README
    assert f"TPOT of {tpot.runs} held-out runs is off by {tpot.median:.1%}".replace("%", " %") in README
    assert f"and by {tpot.mean:.1%}".replace("%", " %") + " in the mean" in README
    assert f"{100 * tpot.in_range:.0f} % lie in the stated range of ±{100 * tpot.width:.0f} %" in README
    assert f"TTFT is off by {100 * ttft.median:.0f} %" in README
    bare = [
        (one.run.tpot_ms, 1e3 * tpot_seconds(one.features, NO_CONSTANTS))
        for one in computed
        if one.features and not one.run.calibrates
    ]
    assert f"Without constants the median is {100 * errors_of(bare).median:.1f} %" in README
    assert f"a range of ±{100 * read_fitted()['elsewhere']['tpot_range']:.0f} %" in README
    assert f"Of {ranking.pairs} pairs of deployments" in README
    assert f"{100 * ranking.share_right:.0f} % are ordered right" in README


def test_a_run_of_one_width_alone_is_computed_as_among_all(computed, tmp_path):
    one = next(one for one in computed if one.features and (one.run.gpu, one.run.tp) == ("h100_sxm", 1))
    with (find_package().data.parent / SAMPLE).open(newline="") as stream:
        row = next(row for row in csv.DictReader(stream) if row["id"] == one.run.id)
    with (path := tmp_path / "one.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, row)
        writer.writeheader()
        writer.writerow(row | {"system": "NVIDIA H100 80GB HBM3"})
    (alone,) = compute_runs(read_runs(path))
    assert alone == replace(one, run=replace(one.run, may_calibrate=False))


def test_an_engine_without_tables_is_named(tmp_path):
    (path := tmp_path / "runs.csv").write_text(
        "id,backend,model_path,system,isl,osl,batch_size,tp_size,silicon_ttft_ms,silicon_tpot_ms\n"
        "a,tgi,llama-3-8b,h100_sxm,2048,512,32,1,400,20\n"
    )
    (found,) = compute_runs(read_runs(path))
    assert found.refused == "backend 'tgi': no tables of it on h100_sxm; there are those of sglang, trtllm, vllm"

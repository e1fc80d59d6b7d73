"""`score` on planted runs: tables, JSON, a rival, and the gate."""

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import pytest

from reports.importers.aiconfigurator import package
from reports.output import Format
from reports.plan import serving_constants
from reports.score import report
from reports.score.fit import fitted_record
from reports.score.report import (
    ScoredRun,
    ScoreGateError,
    calibrate_rival,
    errors_of,
    rank_deployments,
    read_rival,
    score,
    score_runs,
)
from reports.score.runs import ComputedRun
from specs.errors import UserError
from tests.reports.run_reports import run_reports
from tests.reports.score import planted_runs


@pytest.fixture
def computed(monkeypatch):
    """Planted runs in the place of the package's, with constants fitted on them."""
    found = planted_runs.computed_runs()
    record = fitted_record(found, "planted runs")
    monkeypatch.setattr(serving_constants, "read_fitted", lambda: record)
    monkeypatch.setattr(report, "read_runs", lambda _, **__: [one.run for one in found])
    monkeypatch.setattr(report, "compute_runs", lambda _: found)
    return found


def test_json_has_every_run_with_its_use_and_its_range(computed, tmp_path):
    score(None, None, Format.JSON, tmp_path / "score.json")
    data = json.loads((tmp_path / "score.json").read_text())
    assert [one["id"] for one in data["runs"]] == [one.run.id for one in computed]
    for row, one in zip(data["runs"], computed, strict=True):
        assert row["used_for"] == ("calibration" if one.run.load.isl == 1024 else "held-out")
        assert row["tpot_low_ms"] < row["predicted_tpot_ms"] < row["tpot_high_ms"]
        assert row["measured_tpot_ms"] == one.run.tpot_ms
        assert row["refused"] is None
    everything = {row["used_for"]: row for row in data["summary"] if row["group"] == "all"}
    assert everything["held-out"]["runs"] == 24
    assert everything["held-out"]["tpot"]["median"] < 0.03


def test_a_refused_run_stays_with_its_reason(computed, tmp_path):
    computed.append(
        type(computed[0])(planted_runs.run(("vllm", "h100_sxm", "bf16"), 2, 2048, 8, 8), refused="no tables")
    )
    score(None, None, Format.JSON, tmp_path / "score.json")
    row = json.loads((tmp_path / "score.json").read_text())["runs"][-1]
    assert (row["refused"], row["predicted_tpot_ms"], row["predicted_ttft_ms"]) == ("no tables", None, None)
    score(None, None, Format.MARKDOWN, tmp_path / "score.md")
    assert "| no tables |" in (tmp_path / "score.md").read_text()


def test_a_table_without_a_run_is_left_out(computed, tmp_path):
    computed[:] = [one for one in computed if not one.run.calibrates]
    score(None, None, Format.MARKDOWN, tmp_path / "score.md")
    text = (tmp_path / "score.md").read_text()
    assert "### TPOT, held-out" in text
    assert "calibration |" not in text
    assert "### TPOT, calibration" not in text


def test_the_gate_is_on_held_out_runs_alone(computed, tmp_path):
    score(None, None, Format.JSON, tmp_path / "a.json", fail_above=0.06)
    with pytest.raises(ScoreGateError, match=r"median TPOT error of held-out runs is \d+\.\d%, above 0\.0%"):
        score(None, None, Format.JSON, tmp_path / "a.json", fail_above=1e-6)


def test_a_fitted_rival_loses_a_factor_and_a_constant(computed, tmp_path):
    scored = score_runs(computed)
    path = tmp_path / "rival.csv"
    lines = [f"{one.run.id},{2 * one.run.tpot_ms + 3},{one.run.ttft_ms}" for one in scored]
    path.write_text("\n".join(["id,aic_tpot_ms,aic_ttft_ms", *lines]) + "\n")
    rival = read_rival(path)
    fitted = calibrate_rival(scored, rival, 4)
    for one in scored:
        assert rival[one.run.id][0] > 2 * one.run.tpot_ms
        assert fitted[one.run.id][0] == pytest.approx(one.run.tpot_ms, rel=1e-3)
    score(None, path, Format.MARKDOWN, tmp_path / "score.md")
    assert "rival, 4 constants a group" in (tmp_path / "score.md").read_text()


def test_errors_of_a_rival_stand_by_group(computed, tmp_path):
    path = tmp_path / "rival.csv"
    mine = [one for one in computed if one.run.engine == "vllm"]
    lines = [f"{one.run.id},{2 * one.run.tpot_ms + 3},{one.run.ttft_ms}" for one in mine]
    path.write_text("\n".join(["id,aic_tpot_ms,aic_ttft_ms", *lines]) + "\n")
    score(None, path, Format.MARKDOWN, tmp_path / "score.md")
    text = (tmp_path / "score.md").read_text()
    table = text[text.index("### rival's TPOT, all runs") : text.index("### rival's TTFT")]
    (row,) = [line for line in table.splitlines() if "h100_sxm" in line or "b200_sxm" in line]
    errors = [1 + 3 / one.run.tpot_ms for one in mine]
    said = [f"{100 * median(errors):.1f}", f"{100 * mean(errors):.1f}", f"{100 * median(errors):+.1f}"]
    cells = [cell.strip() for cell in row.strip("| ").split("|")]
    assert cells[:8] == ["vllm", "h100_sxm", "llama-3-70b", "bf16", str(len(mine)), *said]


def test_a_rival_is_scored_in_json_on_the_runs_that_it_has(computed, tmp_path):
    path = tmp_path / "rival.csv"
    some = computed[::5]
    refused = ComputedRun(replace(computed[1].run, id="refused"), refused="no tables")
    computed.append(refused)
    lines = [f"{one.run.id},{1.1 * one.run.tpot_ms},{0.5 * one.run.ttft_ms}" for one in [*some, refused]]
    path.write_text("\n".join(["id,aic_tpot_ms,aic_ttft_ms", *lines]) + "\n")
    score(None, path, Format.JSON, tmp_path / "score.json")
    whole, *groups = json.loads((tmp_path / "score.json").read_text())["rival"]
    assert (whole["group"], whole["tpot"]["runs"]) == ("all", len(some))
    assert whole["tpot"]["median"] == pytest.approx(0.1)
    assert whole["ttft"]["bias"] == pytest.approx(-0.5)
    assert sum(one["tpot"]["runs"] for one in groups) == len(some)
    assert {one["group"] for one in groups} == {"vllm h100_sxm llama-3-70b bf16", "trtllm b200_sxm llama-3-70b nvfp4"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,aic_tpot_ms\na,1\n", "lacks the columns aic_ttft_ms; it needs id, aic_tpot_ms, aic_ttft_ms"),
        ("id,aic_tpot_ms,aic_ttft_ms\na,x,1\n", r"rival\.csv:2: aic_tpot_ms x: no finite time above 0; leave out runs"),
        ("id,aic_tpot_ms,aic_ttft_ms\na,1\n", r"rival\.csv:2: aic_ttft_ms absent: no finite time above 0"),
        ("id,aic_tpot_ms,aic_ttft_ms\na,1,1\nb,nan,1\n", r"rival\.csv:3: aic_tpot_ms nan: no finite time above 0"),
        ("id,aic_tpot_ms,aic_ttft_ms\na,0,1\n", "aic_tpot_ms 0: no finite time above 0"),
        ("id,aic_tpot_ms,aic_ttft_ms\na,1,-5\n", "aic_ttft_ms -5: no finite time above 0"),
        ("id,aic_tpot_ms,aic_ttft_ms\na,1,inf\n", "aic_ttft_ms inf: no finite time above 0"),
        ("id,aic_tpot_ms,aic_ttft_ms\na,1,1\na,2,2\n", r"rival\.csv:3: id a stands in it twice"),
        ("id,aic_tpot_ms,aic_ttft_ms\n", "holds no prediction; give a CSV with one row for each run"),
        ("id,aic_tpot_ms,aic_ttft_ms\n" + 200_000 * "a", "cannot be read as predictions .field larger than"),
    ],
)
def test_a_rival_without_times_is_refused_in_one_line(tmp_path, text, said):
    (path := tmp_path / "rival.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read_rival(path)
    with pytest.raises(UserError, match="cannot be read as predictions"):
        read_rival(Path("/nowhere/rival.csv"))


def test_a_rival_of_other_runs_is_refused_before_anything_is_computed(computed, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "compute_runs", lambda _: pytest.fail("computed"))
    (path := tmp_path / "rival.csv").write_text("id,aic_tpot_ms,aic_ttft_ms\nanother,1,1\n")
    with pytest.raises(UserError, match="none of its 1 ids is that of a run; take them from the column id"):
        score(None, path, Format.JSON, tmp_path / "a.json")


def test_without_the_package_a_score_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(package.util, "find_spec", lambda _: None)
    (path := tmp_path / "runs.csv").write_text(
        "id,backend,model_path,system,isl,osl,batch_size,tp_size,silicon_ttft_ms,silicon_tpot_ms\n"
        "a,vllm,llama-3-8b,H100,1024,512,32,1,400,20\n"
    )
    for given in ([], [path]):
        assert run_reports("score", *given) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert "aiconfigurator-core is not installed; pip install" in said.err


def test_errors_by_hand():
    found = errors_of([(10.0, 11.0), (10.0, 9.5), (20.0, 14.0)], [(9.9, 12.1), (8.55, 10.45), (12.6, 15.4)])
    assert found.median == pytest.approx(0.1)
    assert found.mean == pytest.approx((0.1 + 0.05 + 0.3) / 3)
    assert found.bias == pytest.approx(-0.05)
    assert found.within_20 == pytest.approx(2 / 3)
    assert found.in_range == pytest.approx(2 / 3)
    assert found.width == pytest.approx(0.1)
    assert errors_of([]) is None


def test_deployments_are_ranked_at_one_total_concurrency():
    def scored(tp, concurrency, measured, predicted):
        run = planted_runs.run(("vllm", "h100_sxm", "bf16"), tp, 1024, 1024, concurrency)
        return ScoredRun(type(run)(**{**vars(run), "tpot_ms": measured}), tpot=(predicted, predicted, predicted))

    # 64 sequences over 8 GPUs: TP 8 at 64, two of TP 4 at 32, four of TP 2 at 16
    found = rank_deployments([
        scored(8, 64, 10.0, 12.0), scored(4, 32, 11.0, 11.0), scored(2, 16, 20.0, 19.0), scored(8, 8, 5.0, 5.0),
    ])  # fmt: skip
    assert (found.loads, found.pairs, found.right) == (1, 3, 2)
    assert found.losses == pytest.approx([0.1])  # TP 4 is planned, and TP 8 was faster
    assert found.loss_quantile(1.0) == pytest.approx(0.1)
    assert math.isnan(rank_deployments([]).share_right)


def test_nothing_to_predict_is_one_line(computed, tmp_path):
    computed[:] = [ComputedRun(one.run, refused="no tables of this GPU") for one in computed[:2]]
    with pytest.raises(UserError, match="score: none of 2 runs can be predicted: no tables of this GPU"):
        score(None, None, Format.JSON, tmp_path / "a.json")

"""A profile beside the result file of its run, and where a profile may not go."""

import json

import pytest

from reports import results
from reports.ledger import ledger
from tests.reports import planted
from tests.reports.importers.profiler.planted_trace import CASE, Trace
from tests.reports.importers.profiler.test_nsys import eager
from tests.reports.importers.profiler.test_parts import shown, timed
from tests.reports.run_reports import run_reports

H100 = planted.H200 | {"gpu": "NVIDIA H100 80GB HBM3", "driver": "580.1", "node": "gpu-node-17.example"}


@pytest.fixture
def run(tmp_path):
    """The file of the traced run: 18.9 us by our clock."""
    return planted.write(tmp_path / "out.json", [planted.measured(planted.case(CASE), 18.9e-6)], machine=H100)


@pytest.fixture
def trace(tmp_path):
    return eager(marked=False).write(tmp_path / "trace.sqlite")


def test_the_run_lends_what_the_trace_does_not_hold(imported, run, trace):
    cases, notes, file = imported(trace, "--run", run)
    (one,) = file.measurements
    assert one.case == planted.case(CASE)
    assert (one.clock, one.provenance) == ("nsys", "measured")
    assert cases[CASE]["clock_seconds"] == pytest.approx(18.9e-6)
    assert cases[CASE]["ratio"] == pytest.approx(18.9 / 18)
    assert (file.machine["driver"], file.machine["sms"], file.machine["torch"]) == ("580.1", 132, H100["torch"])
    assert "node" not in file.machine
    assert not [note for note in notes if "--run" in note]


def test_compare_matches_the_profile_with_the_run(imported, run, trace, capsys):
    _, _, file = imported(trace, "--run", run)
    assert run_reports("compare", run, file.path, "--format", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["case"] for one in told["cases"]] == [CASE]
    assert any("clock differs in 1 case, as in perf_counter → nsys" in one for one in told["warnings"])


def test_a_run_on_another_gpu_is_refused(refused, tmp_path, trace):
    other = planted.write(tmp_path / "other.json", [planted.measured(planted.case(CASE), 1e-5)], machine=planted.H200)
    said = refused(trace, "--run", other)
    assert "other.json: a run on NVIDIA H200, and the profile is of NVIDIA H100 80GB HBM3; give --run the file" in said


def test_a_run_that_is_a_profile_itself_is_refused(imported, tmp_path, trace, capsys):
    _, _, file = imported(trace)
    (tmp_path / "first.json").write_text(file.path.read_text())
    assert run_reports("import", "nsys", trace, "-o", tmp_path / "second.json", "--run", tmp_path / "first.json") == 2
    assert "first.json: a profile by Nsight Systems 2024.6.2.225; give --run the file that" in capsys.readouterr().err


def test_published_figures_are_no_run(tmp_path, trace, capsys):
    machine = H100 | {"source": "https://example.com/figures"}
    run = planted.write(tmp_path / "theirs.json", [planted.measured(planted.case(CASE), 1e-5)], machine=machine)
    assert run_reports("import", "nsys", trace, "-o", tmp_path / "profile.json", "--run", run) == 2
    assert "theirs.json: published figures, no run; give --run the file that" in capsys.readouterr().err


def test_cases_that_the_run_lacks_are_said(imported, tmp_path, trace):
    other = planted.write(tmp_path / "o.json", [planted.measured(planted.case("another"), 1e-5)], machine=H100)
    _, notes, file = imported(trace, "--run", other)
    assert file.measurements[0].case.op == "unknown"
    assert f"not in o.json: 1 case, as {CASE}" in notes


@pytest.mark.parametrize("command", ["claims", "html", "kernels", "ledger", "plan"])
def test_a_profile_is_no_witness_beside_times_without_a_profiler(imported, run, trace, capsys, command):
    _, _, file = imported(trace, "--run", run)
    assert run_reports(command, file.path) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {file.path}: a profile by Nsight Systems 2024.6.2.225, no witness")
    assert said.count("\n") == 1


def test_show_shows_a_profile_and_says_what_took_it_but_closes_no_ledger_with_it(imported, tmp_path, capsys):
    shape = {"layer": "layer", "n": None, "k": None, "tokens": 2, "batch": 2, "context": 16, "launch": "graph"}
    whole = planted.measured(planted.case(CASE, question="layer", op="layer", **shape), 3e-5)
    run = planted.write(tmp_path / "out.json", [whole], machine=H100)
    _, _, file = imported(timed(shown(Trace())).write(tmp_path / "layer.sqlite"), "--run", run)
    assert ledger.collect_layers(results.load(run))
    assert not ledger.collect_layers(file)
    assert run_reports("show", file.path) == 0
    said = capsys.readouterr().out
    assert "Nsight Systems 2024.6.2.225: device time as it saw it, attached to the run" in said
    assert "attention" in said


def test_the_table_names_the_case_its_times_and_its_parts(tmp_path, capsys):
    source = timed(shown(Trace())).write(tmp_path / "layer.sqlite")
    assert run_reports("import", "nsys", source, "-o", tmp_path / "p.json") == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("bench_decode[planted]"))
    assert row.split()[1:10] == ["graph", "1", "3", "5", "1", "25.0", "29.7", "30.0", "1.200"]
    assert next(line for line in said.splitlines() if line.startswith("qkv")).split()[1:5] == ["1", "1", "10.00", "40%"]
    assert results.load(tmp_path / "p.json").notes


def test_a_step_of_a_whole_model_does_not_pass_for_one_that_was_run(imported, tmp_path, trace):
    deployment = {"replicas": 1, "schedule": "tp", "micro_batches": 1, "partition": "even", "layers": 2, "vocab": 512}
    step = planted.case(CASE, question="tp_vs_pp", op="step", batch=1, ranks=1, **{**deployment, "tp": 1, "n": None})
    run = planted.write(tmp_path / "out.json", [planted.measured(step, 1e-4)], machine=H100)
    cases, _, file = imported(trace, "--run", run)
    assert (file.measurements[0].case.op, file.measurements[0].case.dtype) == ("unknown", "bf16")
    assert cases[CASE]["clock_seconds"] == pytest.approx(1e-4)

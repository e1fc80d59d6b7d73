"""The command: which steps, what is missing, the last table, and `make gpu` where there is no GPU."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from itertools import pairwise

import pytest
import torch

from suites.gate import command, layers, suite, table, tune
from suites.gate.by_counts import by_counts
from suites.gate.machine import Machine, look_around
from suites.gate.step import Result
from suites.gate.steps import STEPS
from suites.gate.terminal import shouts, show_results
from tests.suites.conftest import ROOT
from tests.suites.gate.fakes import EVERYTHING, place, step
from tests.suites.world.runs import SPARED

FAILED = "1 failed, 3 passed in 2.00s"
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def run(*arguments, **variables):
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **variables})


def named_with_reasons(output):
    lines = output.splitlines()
    reasoned = [line.split()[0] for line, below in pairwise(lines) if below.strip().startswith("cannot run: ")]
    return {one.name for one in STEPS} & set(reasoned)


@WITHOUT_GPU
@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_gpu_without_a_gpu_names_every_step_and_its_reason_and_is_content(tmp_path):
    result = run("make", "--no-print-directory", "gpu", f"PYTHON={sys.executable}", f"OUT={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"make gpu: torch {torch.__version__} sees no CUDA GPU")
    assert named_with_reasons(result.stdout) == {one.name for one in STEPS}
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_gpu_on_a_bare_interpreter_says_what_is_not_installed(tmp_path):
    venv.create(tmp_path / "bare", symlinks=True)
    result = run("make", "--no-print-directory", "gpu", f"PYTHON={tmp_path / 'bare/bin/python'}", PYTHONPATH="")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("make gpu: torch is not installed")
    assert named_with_reasons(result.stdout) == {one.name for one in STEPS}
    assert "not installed: triton, psutil, pytest, pytest_benchmark, nvtx" in result.stdout


@WITHOUT_GPU
def test_the_same_command_stands_among_those_of_the_suites():
    result = run(sys.executable, "-m", "suites", "gate", "--list", "--only", "clock,table")
    assert result.returncode == 0, result.stderr
    assert named_with_reasons(result.stdout) == {"clock", "table"}
    wrong = run(sys.executable, "-m", "suites", "gate", "--only", "clocks")
    assert wrong.returncode == 2
    assert "unknown step 'clocks'; choose from correctness" in " ".join(wrong.stderr.split())


@pytest.mark.parametrize("arguments", [["--only", "suites"], ["--budget", "0"], ["--budget", "nan"]])
def test_what_makes_no_sense_is_refused_in_a_line(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        command.main(arguments)
    assert left.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_steps_come_in_their_own_order_whatever_was_asked_for():
    assert [one.name for one in command.choose("table, dram,correctness")] == ["correctness", "dram", "table"]
    assert command.choose(None) == STEPS


def test_all_steps_can_be_kept_within_the_budget():
    kept = sum(one.kept_seconds for one in STEPS)
    assert kept < command.BUDGET_SECONDS
    assert all(one.least_seconds <= one.kept_seconds for one in STEPS if one.name != "tune")
    assert command.BUDGET_SECONDS <= 9 * 60 - 20


def test_an_interpreter_that_does_not_answer_is_named():
    assert "/nowhere/python does not answer" in look_around("/nowhere/python", ["torch"]).no_gpu


def test_the_interpreter_is_asked_what_it_has():
    found = look_around(sys.executable, ["pytest", "no_such_package", "no.such.module"]).packages
    assert found == {"pytest": True, "no_such_package": False, "no.such.module": False}


def gate(monkeypatch, tmp_path, *steps, listed=False):
    monkeypatch.setattr(command, "STEPS", steps)
    monkeypatch.setattr(command, "look_around", lambda python, packages: EVERYTHING)
    return command.gate(None, 60, tmp_path / "out", sys.executable, listed=listed)


def test_the_exit_status_is_that_of_the_worst_step(monkeypatch, tmp_path, capsys):
    assert gate(monkeypatch, tmp_path, step("good", "print('fine')"), step("none", packages=("absent",))) == 0
    assert gate(monkeypatch, tmp_path, step("bad", "raise SystemExit('oh')"), step("good", "print('fine')")) == 1
    shown = capsys.readouterr().out
    assert "exit status 1: oh" in shown
    assert "not run" in shown
    steps = json.loads((tmp_path / "out/gate.json").read_text())["steps"]
    assert [one["outcome"] for one in steps] == ["failed", "passed"]


def test_listing_runs_nothing(monkeypatch, tmp_path, capsys):
    assert gate(monkeypatch, tmp_path, step("good", "print('fine')"), listed=True) == 0
    assert "can run" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_wrong_results_are_shouted(capsys):
    results = [Result("correctness", "failed", 1.0, "3 failed"), Result("suite", "passed", 1.0, "a.json")]
    assert shouts(results) == ["!!! WRONG RESULTS: the correctness step failed, so no time measured here counts !!!"]
    assert not shouts(results[1:])
    show_results(results)
    assert "WRONG RESULTS" in capsys.readouterr().out


def test_the_table_needs_no_rich(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    show_results([Result("correctness", "failed", 1.0, "3 failed")])
    shown = capsys.readouterr().out
    assert "correctness  FAILED" in shown
    assert "WRONG RESULTS" in shown


@pytest.mark.parametrize(
    ("status", "output", "outcome", "detail"),
    [
        (0, "....\n312 passed, 4 skipped in 40.12s\n", "passed", "312 passed, 4 skipped in 40.12s"),
        (0, "ssss\n4 skipped in 1.00s\n", "not_run", "no test ran: 4 skipped in 1.00s"),
        (
            1,
            f"FAILED a.py::b - assert 1\n{FAILED}\n",
            "failed",
            f"exit status 1: {FAILED}; first: FAILED a.py::b - assert 1",
        ),
    ],
)
def test_pytest_is_judged_by_its_last_line(status, output, outcome, detail):
    verdict = by_counts(status, output)
    assert (verdict.outcome, verdict.detail) == (outcome, detail)


def test_the_table_is_made_of_the_latest_results_and_of_no_other_file(tmp_path):
    names = ("old-layers.json", "old.json", "new.json", "new-layers.json", "gate.json", "nvbench.json")
    for written, name in enumerate(names):
        (tmp_path / name).write_text("{}")
        os.utime(tmp_path / name, (written, written))
    assert [path.name for path in table.newest_results(tmp_path)] == ["new.json", "new-layers.json"]
    assert table.newest_results(tmp_path / "absent") == []


def test_without_a_result_there_is_no_table_and_no_failure(tmp_path):
    told = table.command(place(tmp_path), 30.0)
    result = run(*told)
    assert table.by_table(result.returncode, result.stdout + result.stderr).outcome == "not_run"
    assert table.by_table(2, "error: other.json: no such file").outcome == "failed"


def test_the_tuner_gets_what_is_left_less_a_margin(tmp_path):
    told = tune.command(place(tmp_path), 65.0)
    assert told[told.index("--budget") + 1] == "55"
    assert told[told.index("--into") + 1] == str(tmp_path / "out/tuned")


def test_the_suite_measures_the_80_points_and_the_ceilings(tmp_path):
    told = suite.command(tmp_path / "a.json", 180.0, suite.CASES, suite.AXES)
    assert told[told.index("--tp") + 1] == "1,2,4,8"
    assert told[told.index("--tokens") + 1] == "1,8,16,32,64"
    assert told[told.index("--layer") + 1] == "qkv,o,gate_up,down"
    assert told[told.index("--budget") + 1] == "180"
    assert told[told.index("-k") + 1] == "bench_decode or ceilings"


def test_the_layers_are_a_decode_layer_its_parts_attention_and_the_gemm(tmp_path):
    listing = [sys.executable, "-m", "pytest", *layers.CASES, "--list", "-p", "no:cacheprovider", *SPARED]
    axes = [word for option, values in layers.AXES.items() for word in (option, ",".join(map(str, values)))]
    done = subprocess.run([*listing, *axes], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = re.findall(r"^suites/\w+\.py::(bench_\w+)\[(.*?)\]: ", done.stdout, re.MULTILINE)
    tokens = {}
    for function, name in cases:
        tokens.setdefault(function, set()).update(re.findall(r"-(\d+)tok-", name))
    assert tokens["bench_layer"] == tokens["bench_part"] == tokens["bench_decode_attention"] == {"1", "32"}
    assert tokens["bench_prefill"] == {"512", "2048"}
    assert {"bench_read", "bench_matmul", "bench_launch", "bench_copy"} < set(tokens)
    assert not {"bench_prompt", "bench_decode", "bench_prefill_attention"} & set(tokens)
    parts = {name.split("ctx8192-")[1].split("-bf16")[0] for function, name in cases if function == "bench_part"}
    assert "gate_up_swiglu" in parts
    target = "llama-3-70b-tp1-pp1-attention-32tok-8192ctx"
    assert any(name.startswith(target) for _, name in cases), "the point that a target is set for"
    assert all("-tp8-" in name for function, name in cases if function in ("bench_layer", "bench_part"))


@pytest.mark.parametrize(
    ("status", "there", "outcome"),
    [(0, True, "passed"), (1, True, "failed"), (None, True, "failed"), (0, False, "failed")],
)
def test_a_suite_is_passed_only_with_its_file_and_a_content_pytest(tmp_path, status, there, outcome):
    path = tmp_path / "h200-2026-01-01-abc.json"
    if there:
        path.write_text("{}")
    verdict = suite.judge(status, path)
    assert verdict.outcome == outcome
    assert verdict.figures == ({"file": path.name} if there else {})


def test_lacking_torch_is_said_once():
    machine = Machine(None, "torch is not installed", {"torch": False, "triton": False})
    assert machine.why_not(step("a", packages=("torch", "triton"))) == "torch is not installed; not installed: triton"

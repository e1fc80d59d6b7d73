"""The command: which steps, what is missing, the last table, and `make gpu` where there is no GPU."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from specs.errors import UserError
from suites.gate import command, runner, suite
from suites.gate.command import PROFILES, show_results, wrong_result_alerts
from suites.gate.machine import Machine, inspect_machine
from suites.gate.step import GateContext, Profile, StepResult, judge_pytest, planned_seconds
from tests.suites.conftest import ROOT
from tests.suites.gate.fakes import EVERYTHING, place, step
from tests.suites.workers.runs import SPARED_PLUGINS

STEPS = {name: tuple(step.name for step in profile.steps) for name, profile in PROFILES.items()}
FAILED = "1 failed, 3 passed in 2.00s"
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def run(*arguments, **variables):
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **variables})


def named_with_reasons(output):
    lines = output.splitlines()
    reasoned = [line.split()[0] for line, below in pairwise(lines) if below.strip().startswith("cannot run: ")]
    return {name for steps in STEPS.values() for name in steps} & set(reasoned)


@WITHOUT_GPU
@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_gpu_without_a_gpu_names_every_step_and_its_reason_and_is_content(tmp_path):
    result = run("make", "--no-print-directory", "gpu", f"PYTHON={sys.executable}", f"OUT={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    assert f"make gpu: torch {torch.__version__} sees no CUDA GPU" in result.stdout
    assert named_with_reasons(result.stdout) == set(STEPS["evidence"])
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_gpu_on_a_bare_interpreter_says_what_is_not_installed(tmp_path):
    venv.create(tmp_path / "bare", symlinks=True)
    result = run("make", "--no-print-directory", "gpu", f"PYTHON={tmp_path / 'bare/bin/python'}", PYTHONPATH="")
    assert result.returncode == 0, result.stderr
    assert "make gpu: torch is not installed" in result.stdout
    assert named_with_reasons(result.stdout) == set(STEPS["evidence"])
    assert "not installed: triton, numpy, psutil, pytest, pytest_benchmark, cpuinfo, scipy" in result.stdout


@WITHOUT_GPU
def test_the_same_command_stands_among_those_of_the_suites():
    result = run(sys.executable, "-m", "suites", "gate", "--list", "--only", "clock,table")
    assert result.returncode == 0, result.stderr
    assert named_with_reasons(result.stdout) == {"clock", "table"}
    wrong = run(sys.executable, "-m", "suites", "gate", "--only", "clocks")
    assert wrong.returncode == 2
    said = " ".join(wrong.stderr.split())
    assert "unknown step 'clocks'; choose from " in said
    assert all(name in said.split("choose from ")[1] for steps in STEPS.values() for name in steps)


@pytest.mark.parametrize(
    "arguments",
    [["--only", "suites"], ["--budget", "0"], ["--budget", "-1"], ["--budget", "nan"], ["--profile", "safe"]],
)
def test_what_makes_no_sense_is_refused_in_a_line(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        command.main(arguments)
    assert left.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_that_is_a_file_or_cannot_be_written_is_refused_in_a_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "taken").write_text("")

    def full(**_):
        raise OSError(28, "No space left on device")

    for out, reason in (("taken", "is a file; name a folder"), ("taken/in", "is a file; name a folder")):
        with pytest.raises(SystemExit):
            command.main(["--out", str(tmp_path / out)])
        assert reason in capsys.readouterr().err
    monkeypatch.setattr(command.tempfile, "TemporaryFile", full)
    with pytest.raises(SystemExit) as left:
        command.main(["--out", str(tmp_path / "new")])
    assert left.value.code == 2
    assert "cannot be written (No space left on device); name a folder that can" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_of_the_same_name_as_ours_is_somebody_elses(tmp_path, capsys):
    (tmp_path / "work").mkdir()
    (tmp_path / "work/thesis.txt").write_text("mine")
    with pytest.raises(SystemExit) as left:
        command.main(["--out", str(tmp_path)])
    assert left.value.code == 2
    assert "no run of the gate made it, so that it is not deleted; name another folder" in capsys.readouterr().err
    with pytest.raises(UserError, match="not deleted"):
        runner.prepare_folders(GateContext("python3", tmp_path, tmp_path, tmp_path / "work"))
    assert (tmp_path / "work/thesis.txt").read_text() == "mine"


def test_what_a_killed_run_left_makes_room(tmp_path):
    place = GateContext("python3", tmp_path / "out", tmp_path, tmp_path / "out/work")
    runner.prepare_folders(place)
    (place.work / "half.json").write_text("{")
    runner.prepare_folders(place)
    assert not (place.work / "half.json").exists()


def test_an_out_that_is_empty_is_refused(capsys):
    with pytest.raises(SystemExit) as left:
        command.main(["--out", ""])
    assert left.value.code == 2
    assert "--out: is empty; name a folder" in capsys.readouterr().err


def test_steps_of_any_profile_come_in_their_own_order_whatever_was_asked_for():
    chosen = command.choose_profile("evidence", "table, memcheck,dram,correctness")
    assert [one.name for one in chosen.steps] == ["correctness", "dram", "table", "memcheck"]
    assert chosen.budget_seconds == sum(one.seconds for one in chosen.steps)
    assert command.choose_profile("safety", None) is PROFILES["safety"]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_step_of_a_profile_gets_its_seconds_within_the_budget(profile):
    seconds = planned_seconds(profile)
    assert sum(one.seconds for one in profile.steps) <= profile.budget_seconds
    assert sum(seconds.values()) <= profile.budget_seconds
    assert all(seconds[one.name] >= one.seconds >= one.least_seconds for one in profile.steps)


def test_all_three_calls_leave_time_for_another_try_within_their_limits():
    """A command on a lent GPU takes 10 minutes at most; evidence is to be had in 400 s, so that a rerun fits."""
    assert PROFILES["evidence"].budget_seconds <= 400
    assert all(one.budget_seconds <= 9 * 60 for one in PROFILES.values())
    assert set(command.COMMANDS) >= set(PROFILES)


def test_the_interpreter_is_asked_what_it_has():
    found = inspect_machine(sys.executable, ["pytest", "no_such_package", "no.such.module"]).packages
    assert found == {"pytest": True, "no_such_package": False, "no.such.module": False}


def gate(monkeypatch, tmp_path, *steps, listed=False):
    monkeypatch.setattr(command, "inspect_machine", lambda python, packages: EVERYTHING)
    profile = Profile("evidence", "fakes", 60.0, steps)
    return command.run_gate(profile, None, tmp_path / "out", sys.executable, listed=listed)


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


def test_wrong_results_are_shouted_and_nothing_else_is(capsys):
    wrong = StepResult("correctness", "failed", 1.0, "3 failed", {"wrong": 3})
    sound = [
        StepResult("correctness", "failed", 1.0, "1 failed: out of memory", {"wrong": 0}),
        StepResult("arrival", "unfinished", 1.0, "ended at its limit of 45 s", {"wrong": 0}),
        StepResult("ranks", "failed", 1.0, "cannot be started"),
    ]
    assert wrong_result_alerts([wrong, *sound]) == [
        "!!! WRONG RESULTS: 3 wrong in the correctness step, so no time measured here counts !!!"
    ]
    assert not wrong_result_alerts(sound)
    show_results([wrong, *sound])
    assert "WRONG RESULTS" in capsys.readouterr().out


def test_the_table_needs_no_rich(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    show_results([StepResult("correctness", "failed", 1.0, "3 failed", {"wrong": 3})])
    shown = capsys.readouterr().out
    assert re.search(r"correctness +FAILED", shown)
    assert "WRONG RESULTS" in shown


COMPARED = "FAILED a.py::b - assert 0.1 <= 0.004"
CRASHED = "FAILED a.py::c - torch.AcceleratorError: CUDA error: an illegal memory access was encountered"


@pytest.mark.parametrize(
    ("status", "output", "outcome", "wrong", "detail"),
    [
        (0, "....\n312 passed, 4 skipped in 40.12s\n", "passed", 0, "312 passed, 4 skipped in 40.12s"),
        (0, "ssss\n4 skipped in 1.00s\n", "not_run", 0, "no test ran: 4 skipped in 1.00s"),
        (1, f"{COMPARED}\n{FAILED}\n", "failed", 1, f"exit status 1: {FAILED}; first: {COMPARED}"),
        (1, f"{CRASHED}\n{FAILED}\n", "failed", 0, f"exit status 1: {FAILED}; first: {CRASHED}"),
        (None, "....\n3 passed in 9.00s\n", "unfinished", 0, "3 passed in 9.00s"),
        (None, f"{COMPARED}\n{FAILED}\n", "failed", 1, f"{FAILED}; first: {COMPARED}"),
        (None, ".....", "unfinished", 0, "....."),
        (4, "ERROR: no such file\n", "failed", 0, "exit status 4: ERROR: no such file; first: ERROR: no such file"),
    ],
)
def test_pytest_is_judged_by_its_counts_and_only_a_comparison_is_a_wrong_result(status, output, outcome, wrong, detail):
    verdict = judge_pytest(status, output)
    assert (verdict.outcome, verdict.detail) == (outcome, detail)
    assert verdict.figures["wrong"] == wrong


def test_the_table_is_made_of_the_latest_results_and_of_no_other_file(tmp_path):
    names = ("old-layers.json", "old.json", "new.json", "new-layers.json", "gate.json", "nvbench.json")
    for written, name in enumerate(names):
        (tmp_path / name).write_text("{}")
        os.utime(tmp_path / name, (written, written))
    assert [path.name for path in suite.newest_results(tmp_path)] == ["new.json", "new-layers.json"]
    assert suite.newest_results(tmp_path / "absent") == []


def test_without_a_result_there_is_no_table_and_no_failure(tmp_path):
    told = suite.table_command(place(tmp_path), 30.0)
    result = run(*told)
    assert suite.judge_table(result.returncode, result.stdout + result.stderr).outcome == "not_run"
    assert suite.judge_table(2, "error: other.json: no such file").outcome == "failed"


def test_the_suite_measures_the_80_points_and_the_ceilings(tmp_path):
    told = suite.pytest_command(tmp_path / "a.json", 180.0, suite.SUITE_CASES, suite.SUITE_AXES)
    assert told[told.index("--tp") + 1] == "1,2,4,8"
    assert told[told.index("--tokens") + 1] == "1,8,16,32,64"
    assert told[told.index("--layer") + 1] == "qkv,o,gate_up,down"
    assert told[told.index("--budget") + 1] == "180"
    assert told[told.index("-k") + 1] == "bench_decode or ceilings"


def test_the_layers_are_a_decode_layer_its_parts_attention_and_the_gemm(tmp_path):
    listing = [sys.executable, "-m", "pytest", *suite.LAYERS_CASES, "--list", "-p", "no:cacheprovider", *SPARED_PLUGINS]
    axes = [word for option, values in suite.LAYERS_AXES.items() for word in (option, ",".join(map(str, values)))]
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
    [
        (0, True, "passed"),
        (1, True, "failed"),
        (None, True, "unfinished"),
        (0, False, "failed"),
        (None, False, "unfinished"),
    ],
)
def test_a_suite_is_passed_only_with_its_file_and_a_content_pytest(tmp_path, status, there, outcome):
    path = tmp_path / "h200-2026-01-01-abc.json"
    if there:
        path.write_text("{}")
    verdict = suite.judge_suite(status, path)
    assert verdict.outcome == outcome
    assert verdict.figures.get("file") == (path.name if there else None)


def test_few_passes_and_wrong_results_are_counted(tmp_path):
    path = tmp_path / "h200-2026-01-01-abc.json"
    cases = [{"extra_info": {"passes": passes}} for passes in (2, 3, 6, 1)]
    failed = [{"case": "a", "reason": "wrong result: relative error 1 is over 0.1; not timed"}]
    path.write_text(json.dumps({"benchmarks": cases, "shardbench": {"failed": failed, "ended": []}}))
    verdict = suite.judge_suite(1, path)
    assert verdict.figures == {"file": path.name, "wrong": 1, "cases": 4, "least_passes": 1, "few_passes": 2}
    assert "intervals need more passes: 2 cases have fewer than 3" in verdict.detail


FAULTY = """
import json, pathlib, sys
path = pathlib.Path({path!r})
journal = path.with_name(path.name + ".journal.jsonl")
runs = len(journal.read_text().splitlines()) if journal.exists() else 0
with journal.open("a") as file:
    file.write(" ".join(sys.argv[1:]) + chr(10))
reason = "not reached: the GPU is lost; start a new process and go on with --resume"
ended = [dict(case="a", reason=reason)] if runs < {faults} else []
path.write_text(json.dumps(dict(benchmarks=[], shardbench=dict(failed=[], ended=ended))))
raise SystemExit(int(bool(ended)))
"""


@pytest.mark.parametrize(("faults", "status", "runs"), [(0, 0, 1), (2, 0, 3), (99, 1, suite.MAX_TRIES)])
def test_the_suite_goes_on_where_a_fault_of_the_gpu_ended_it(tmp_path, monkeypatch, faults, status, runs):
    path = tmp_path / "h200-2026-01-01-abc.json"

    def command(path, budget, cases, axes, resume=False):
        return [sys.executable, "-c", FAULTY.format(path=str(path), faults=faults), "resume" if resume else "fresh"]

    monkeypatch.setattr(suite, "pytest_command", command)
    asked = SimpleNamespace(seconds=600.0)
    verdict = suite.run_suites(asked, time.monotonic(), path, (), {})
    assert verdict.outcome == ("failed" if status else "passed")
    tried = path.with_name(f"{path.name}.journal.jsonl").read_text().split()
    assert tried == ["fresh", *["resume"] * (runs - 1)]


def test_lacking_torch_is_said_once():
    machine = Machine(None, "torch is not installed", {"torch": False, "triton": False})
    assert machine.why_not(step("a", packages=("torch", "triton"))) == "torch is not installed; not installed: triton"

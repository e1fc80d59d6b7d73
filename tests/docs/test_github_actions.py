"""docs/github-actions.yml: its steps run, as GitHub would run them, on a CPU and with little to measure."""

import subprocess
import sys
from pathlib import Path

import pytest

from reports.files import load
from tests.docs.tree import ROOT, copy, environment
from tests.reports import planted

yaml = pytest.importorskip("yaml", reason="needs PyYAML, which comes with the extra `silicon`")
JOB = yaml.safe_load((ROOT / "docs" / "github-actions.yml").read_text())["jobs"]["compare"]
RUN = {step["name"]: step["run"] for step in JOB["steps"] if "run" in step}
LITTLE = {
    "SUITES": "suites/bench_linears.py",
    "OPTIONS": "--model tiny --tp 1 --layer o --tokens 1 --dtype fp32 --impl torch --cache hot",
    "TURNS": "1 2",
    "PASSES": "1",
}
NAMES = [f"suites/bench_linears.py::bench_decode[case{number}]" for number in range(4)]


@pytest.fixture
def workspace(tmp_path):
    """What the steps before have made: two checkouts and an environment with everything in it."""
    copy(tmp_path / "base")
    copy(tmp_path / "head")
    (tmp_path / "venv").symlink_to(sys.prefix)
    return tmp_path


def step(name: str, workspace: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    """One step by GitHub's own shell, with the job's variables."""
    variables = {**JOB["env"], **changed, "GITHUB_STEP_SUMMARY": str(workspace / "summary.md")}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", RUN[name]],
        cwd=workspace, env=environment(workspace) | {one: str(value) for one, value in variables.items()},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_both_sides_are_measured_in_turns_by_processes_of_their_own(workspace):
    (workspace / "results").mkdir()
    (workspace / "results" / "base.json.journal.jsonl").write_text("left by another job")
    done = step("Measure in turns", workspace, **LITTLE)
    assert done.returncode == 0, done.stdout + done.stderr
    for side in ("base", "head"):
        (one,) = load(workspace / "results" / f"{side}.json").measurements
        assert len(one.seconds) == 2, "a pass of each turn"
    assert done.stdout.count("nothing to resume") == done.stdout.count("resumed: 1 cases") == 2
    assert done.stdout.index("resumed") > done.stdout.rindex("nothing to resume"), "base, head, base, head"


def gated(workspace: Path, slower: float) -> tuple[int, str]:
    """Exit code of the comparison and what it wrote, where one of four cases takes so many times as long."""
    results = workspace / "results"
    results.mkdir()
    # passes of a side differ by a few parts in a thousand, as on a quiet machine
    passes = [(1e-3 * (1 + 0.001 * shift),) * 4 for shift in (-2, -1, 0, 0, 1, 2)]
    cases = [planted.case(name, tokens=1 + number) for number, name in enumerate(NAMES)]
    planted.write(results / "base.json", [planted.measured(one, passes) for one in cases])
    late = [tuple(second * slower for second in one) for one in passes]
    times = [late, passes, passes, passes]
    head = [planted.measured(one, each) for one, each in zip(cases, times, strict=True)]
    planted.write(results / "head.json", head)
    done = step("Compare", workspace)
    summary = workspace / "summary.md"
    return done.returncode, done.stderr + (summary.read_text() if summary.exists() else "")


def test_a_pull_request_that_changes_nothing_passes(workspace):
    code, told = gated(workspace, 1.0)
    assert code == 0, told
    assert "| " in told, "a table in Markdown"


def test_one_that_is_slower_fails_and_its_summary_is_written_all_the_same(workspace):
    code, told = gated(workspace, 1.2)
    assert code == 1, told
    assert "gate: " in told
    assert NAMES[0] in told
    assert "slower" in told


def test_one_within_the_gate_passes(workspace):
    code, told = gated(workspace, 1.03)
    assert code == 0, told


@pytest.mark.parametrize("name", RUN)
def test_a_step_is_sound_shell(name):
    assert subprocess.run(["bash", "-n", "-c", RUN[name]], capture_output=True, check=False).returncode == 0


def test_the_base_is_what_is_merged_into_and_the_head_what_is_asked_for():
    checked_out = [
        (step["with"]["path"], step["with"]["ref"]) for step in JOB["steps"] if "checkout" in step.get("uses", "")
    ]
    assert checked_out == [(side, f"${{{{ github.event.pull_request.{side}.sha }}}}") for side in ("base", "head")]


def test_what_it_measures_is_uploaded_also_when_the_gate_closes():
    last = JOB["steps"][-1]
    assert (last["if"], last["with"]["path"]) == ("always()", "results/*.json")
    assert last["uses"].startswith("actions/upload-artifact@")
    assert JOB["runs-on"] == ["self-hosted", "gpu"]

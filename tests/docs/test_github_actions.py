"""docs/github-actions.yml: its steps run, as GitHub would run them, on a CPU and with little to measure."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from reports.results import load
from tests.docs.tree import ROOT, copy, environment
from tests.reports import planted

yaml = pytest.importorskip("yaml", reason="needs PyYAML, which comes with the extra `silicon`")
JOBS = yaml.safe_load((ROOT / "docs" / "github-actions.yml").read_text())["jobs"]
JOB = JOBS["compare"]
RUN = {step["name"]: step["run"] for step in JOB["steps"] if "run" in step}
LITTLE = {
    "SUITES": "suites/bench_linears.py",
    "OPTIONS": "--model tiny --tp 1 --layer o --tokens 1 --dtype fp32 --impl torch --cache hot",
    "TURNS": "1 2",  # base head head base
    "PASSES": "1",
}
NAMES = [f"suites/bench_linears.py::bench_decode[case{number}]" for number in range(4)]


@pytest.fixture
def workspace(tmp_path):
    """What the steps before have made: two checkouts and an environment for each with everything in it."""
    copy(tmp_path / "base")
    copy(tmp_path / "head")
    for side in ("base", "head"):
        (tmp_path / f"venv-{side}").symlink_to(sys.prefix)
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
    assert done.stdout.index("resumed") > done.stdout.rindex("nothing to resume")
    assert re.findall(r"^turn (.*)$", done.stdout, re.MULTILINE) == ["1: base", "1: head", "2: head", "2: base"]


PYTEST = """#!/usr/bin/env bash
echo "$0 $*" >> ../called
case "$PWD" in */base) exit "$OF_BASE";; esac
"""


@pytest.mark.parametrize(("code", "calls", "passed"), [(1, 4, True), (0, 4, True), (2, 1, False), (4, 1, False)])
def test_a_case_that_fails_does_not_end_the_turns_and_what_stops_pytest_does(tmp_path, code, calls, passed):
    """1 is pytest's status where a case failed, 2 where it was interrupted, 4 where it was called wrongly."""
    for side in ("base", "head"):
        (tmp_path / side).mkdir()
        python = tmp_path / f"venv-{side}" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PYTEST)
        python.chmod(0o755)
    done = step("Measure in turns", tmp_path, **LITTLE, OF_BASE=str(code))
    assert (done.returncode == 0) is passed
    called = (tmp_path / "called").read_text().splitlines()
    assert len(called) == calls
    sides = [re.match(r"\.\./venv-(\w+)/bin/python .*/results/(\w+)\.json$", one).groups() for one in called]
    assert sides == [("base", "base"), ("head", "head"), ("head", "head"), ("base", "base")][:calls]


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


def test_head_and_base_differ_by_the_pull_request_alone(tmp_path):
    """A branch that was cut before `main` went on: neither side lacks what `main` has got since."""
    checkout = next(one["with"] for one in JOB["steps"] if "checkout" in one.get("uses", ""))
    assert (checkout["ref"], checkout["path"], checkout["fetch-depth"]) == ("${{ github.sha }}", "head", 2)
    assert checkout["persist-credentials"] is False
    head = tmp_path / "head"

    def git(*arguments):
        who = ("-c", "user.name=planted", "-c", "user.email=planted@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *arguments], cwd=head, check=True, capture_output=True)

    def commit(name):
        (head / name).write_text(name)
        git("add", name)
        git("commit", "-m", name)

    head.mkdir()
    git("init", "--initial-branch", "main")
    commit("both")
    git("checkout", "-b", "asked")
    commit("asked-for")
    git("checkout", "main")
    commit("since")
    git("merge", "--no-ff", "-m", "as GitHub does", "asked")
    git("checkout", "--detach")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "left-by-another-job").touch()
    for _ in range(2):  # a runner of one's own has both from the job before
        done = step("Put the base beside it", tmp_path)
        assert done.returncode == 0, done.stderr
    files = {side: {one.name for one in (tmp_path / side).iterdir()} - {".git"} for side in ("base", "head")}
    assert files == {"base": {"both", "since"}, "head": {"both", "since", "asked-for"}}


def test_each_side_is_set_up_with_its_own_dependencies(tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").write_text(
        """#!/usr/bin/env bash
mkdir -p "$4/bin"
printf '#!/usr/bin/env bash\necho "$0 $*" >> called\n' > "$4/bin/pip"
chmod +x "$4/bin/pip"
"""
    )
    (programs / "python3").chmod(0o755)
    done = step("Set up", tmp_path, PATH=f"{programs}:/usr/bin:/bin", EXTRA="cu13")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "called").read_text().splitlines() == [
        f"venv-{side}/bin/pip install --quiet --constraint {side}/constraints.txt ./{side}[cu13]"
        for side in ("base", "head")
    ]


@pytest.mark.parametrize("result", ["success", "failure", "skipped", "cancelled"])
def test_what_was_not_measured_does_not_pass_the_gate(tmp_path, result):
    """A skipped job, as a fork's, counts as passed where it is required itself."""
    gate = JOBS["gate"]
    assert (gate["needs"], gate["if"]) == ("compare", "always()")
    (only,) = gate["steps"]
    assert only["env"] == {"RESULT": "${{ needs.compare.result }}"}
    done = subprocess.run(["bash", "-e", "-c", only["run"]], env={"RESULT": result}, check=False)
    assert (done.returncode == 0) is (result == "success")


def test_what_it_measures_is_uploaded_also_when_the_gate_closes():
    last = JOB["steps"][-1]
    assert (last["if"], last["with"]["path"]) == ("always()", "results/*.json")
    assert last["uses"].startswith("actions/upload-artifact@")
    assert JOB["runs-on"] == ["self-hosted", "gpu"]

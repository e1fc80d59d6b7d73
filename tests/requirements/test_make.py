"""The set-up that `make` would do, as `make -n` prints it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INDEX = "--extra-index-url https://download.pytorch.org/whl/"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not there: apt-get install make")


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Prints what `make bench` would run; the driver answers, or nvidia-smi fails."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def run(*variables, driver=False):
        stub = tmp_path / "nvidia-smi"
        stub.write_text(f"#!/bin/sh\nexit {0 if driver else 9}\n", "utf-8")
        stub.chmod(0o755)
        command = ["make", "-n", "-B", "bench", *variables]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    return run


def test_without_torch_the_package_index_decides(commands):
    assert "index-url" not in commands()
    assert "'.[silicon]'" in commands()
    assert "'.[silicon,cu13]'" in commands(driver=True)


@pytest.mark.parametrize(("target", "most"), [("help", 0), ("clean", 0), ("gpu", 0), ("bench", 1)])
def test_the_driver_is_asked_by_set_up_alone_and_with_a_limit(tmp_path, monkeypatch, target, most):
    """A hanging nvidia-smi ends with its limit, and does not hold up what has no use for it."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA", "12.4")  # as a cluster's modules may set it: make would export ours under that name
    asked = tmp_path / "asked"
    for name, line in (("timeout", 'echo "$@" >> "$ASKED"; exit 124'), ("nvidia-smi", 'echo no limit >> "$ASKED"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n", "utf-8")
        (tmp_path / name).chmod(0o755)
    command = ["make", "-n", "-B", target]
    told = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, "ASKED": str(asked)}
    ).stdout
    lines = asked.read_text().splitlines() if asked.exists() else []
    assert len(lines) == most
    assert all(line.endswith(" 20 nvidia-smi") for line in lines)
    assert "silicon,cu" not in told


def test_the_cpu_wheels_come_from_one_index_and_no_cuda_with_them(commands):
    told = commands("TORCH=cpu", driver=True)
    assert f"{INDEX}cpu " in told
    assert "'.[silicon]'" in told
    assert "--extra-index-url file:///mirror/cpu " in commands("TORCH=cpu", "TORCH_INDEX=file:///mirror")


def test_wheels_for_an_older_driver_bring_the_extra_of_their_cuda(commands):
    told = commands("TORCH=cu126", driver=True)
    assert f"{INDEX}cu126 " in told
    assert "'.[silicon,cu12]'" in told


@pytest.mark.parametrize("option", ["--device cpu", "--device=cpu"])
def test_the_name_of_the_file_is_that_of_what_is_measured(commands, option):
    assert "-m suites name --device cpu)" in commands(f"BENCH_OPTIONS=--tokens 1 {option}")
    assert "-m suites name )" in commands("BENCH_OPTIONS=--tokens 1")


def test_a_machine_without_published_times_is_told_what_is_lost(commands):
    assert "has no wheel for this machine: the report goes without published times" in commands()


def test_a_commit_is_checked_with_the_versions_that_are_pinned():
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    pinned = set((ROOT / "constraints.txt").read_text().split("\n"))
    named = re.findall(r"additional_dependencies: \[(\S+)\]", config)
    assert len(named) == config.count("- id: ")
    assert set(named) <= pinned

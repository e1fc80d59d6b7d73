"""The commit that a figure belongs to, where a copy of the tree has no history."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from suites import commit as module
from tests.suites.conftest import ROOT

HASH = "7d7495a0c4b9d2e1f6a8b3c5d7e9f1a2b4c6d8e0"


@pytest.fixture
def asked(monkeypatch, tmp_path):
    module.commit_hash.cache_clear()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    yield module.commit_hash
    module.commit_hash.cache_clear()


def test_without_git_the_variable_says_it(asked, monkeypatch):
    monkeypatch.setenv(module.COMMIT_VARIABLE, HASH)
    assert asked() == HASH
    assert module.short_commit() == "7d7495a"


def test_without_git_and_variable_it_is_unknown(asked, monkeypatch):
    monkeypatch.delenv(module.COMMIT_VARIABLE, raising=False)
    assert asked() is None
    assert module.short_commit() == "nogit"


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_where_there_is_a_history_it_counts(asked, monkeypatch, tmp_path):
    monkeypatch.setenv(module.COMMIT_VARIABLE, HASH)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], [*who, "commit", "--quiet", "--allow-empty", "--message", "one"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert asked() not in (None, HASH)


def test_a_result_file_of_a_copied_tree_names_its_commit(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tree)
    for name in ("specs", "kernels", "comm", "suites"):
        (tree / name).symlink_to(ROOT / name)
    (tree / "suites").unlink()
    shutil.copytree(ROOT / "suites", tree / "suites", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pytest", "suites/bench_ceilings.py", "-k", "launch", "--passes", "1", "-q"]
    command += [f"--benchmark-json={tmp_path / 'a.json'}", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=tree, env={**os.environ, module.COMMIT_VARIABLE: HASH}, capture_output=True, text=True
    )
    assert (tmp_path / "a.json").exists(), done.stdout + done.stderr
    assert json.loads((tmp_path / "a.json").read_text())["commit_info"]["id"] == HASH

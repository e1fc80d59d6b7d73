"""The README shows what a committed result file holds, and nothing else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reports.results import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DATA = sorted((ROOT / "reports" / "data").glob("*.json"))


def test_the_sample_is_what_show_prints():
    path, *lines = (
        re.search(r"```\n(reports/data/\S+\.json)\n(.*?)…\n```", README, re.DOTALL).expand(r"\1\n\2").splitlines()
    )
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "reports", "show", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=True)
    printed = {line.rstrip() for line in done.stdout.splitlines()}
    assert len(lines) > 10
    assert not [line for line in lines if line not in printed]


def test_the_kernel_table_is_what_the_command_writes():
    """To renew it, paste what the command in the README prints between the markers."""
    shown = re.search(r"<!-- kernels: begin -->\n(.*)<!-- kernels: end -->", README, re.DOTALL).group(1)
    paths = [str(path.relative_to(ROOT)) for path in DATA]
    command = [sys.executable, "-m", "reports", "kernels", *paths, "--grid", "--format", "markdown"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.count("|") > 100
    assert shown.strip() == done.stdout.strip()


@pytest.mark.parametrize("path", DATA, ids=[path.name for path in DATA])
def test_a_committed_result_file_reads_and_names_no_host(path):
    file = load(path)
    assert file.measurements
    assert "node" not in file.machine
    assert f"({path.relative_to(ROOT)})" in README

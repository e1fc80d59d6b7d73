"""Without Triton (macOS, Windows) the CPU is measured, and each Triton kernel says what it lacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.skinny import TRITON_SKINNY

ROOT = Path(__file__).parents[2]

BLOCK = """
import sys

class NoTriton:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "triton":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTriton())
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Runs Python where no process that it starts can import triton."""
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(BLOCK, "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*arguments):
        command = [sys.executable, "-W", "ignore", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)

    assert "No module named 'triton'" in run("-c", "import triton").stderr
    return run


def test_a_cpu_is_measured_and_its_page_written(python, tmp_path):
    result, page = tmp_path / "out.json", tmp_path / "report.html"
    options = ("--model", "llama-3.2-1b", "--layer", "o", "--tp", "1", "--tokens", "1", "--dtype", "fp32")
    files = ("suites/bench_linears.py", "suites/bench_ceilings.py")
    done = python("-m", "pytest", *files, *options, "--passes", "1", "-q", f"--benchmark-json={result}")
    assert done.returncode == 0, done.stdout + done.stderr
    measured = {one["extra_info"]["op"] for one in json.loads(result.read_text("utf-8"))["benchmarks"]}
    assert measured >= {"linear", "read"}
    done = python("-m", "reports", "html", result, "-o", page)
    assert done.returncode == 0, done.stdout + done.stderr
    assert page.stat().st_size > 10_000


def test_every_suite_lists_its_cases(python):
    done = python("-m", "pytest", "suites/", "--list", "-q")
    assert done.returncode == 0, done.stdout + done.stderr


def test_doctor_goes_on(python):
    done = python("-m", "suites", "doctor")
    assert "kernel triton_skinny" in done.stdout, done.stdout + done.stderr


def test_a_triton_kernel_says_how_to_get_it(python):
    code = "from kernels.registry import TRITON_SKINNY as kernel; print(kernel.why_not('sm_90', 'bf16'))"
    done = python("-c", code)
    assert done.stdout.startswith("Triton is not here; it has wheels for Linux: pip install"), done.stderr


def test_compiling_is_refused_in_one_line(python):
    done = python("-m", "kernels", "inspect", "--arch", "sm_90")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Triton is not here"), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_launch_is_refused_in_one_line(python):
    code = """
import torch
from kernels.ceilings import run_triton_read
run_triton_read(torch.zeros(8), torch.zeros(1))
"""
    assert "UserError: Triton is not here" in python("-c", code).stderr.splitlines()[-1]


def test_a_gpu_host_without_a_c_compiler_is_told_what_the_launcher_takes(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    reason = TRITON_SKINNY.why_not("sm_90", "bf16")
    assert reason.startswith("Triton builds its launcher with a C compiler, and there is none: apt-get install gcc")
    monkeypatch.setenv("CC", "/opt/bin/cc")
    assert TRITON_SKINNY.why_not("sm_90", "bf16") is None

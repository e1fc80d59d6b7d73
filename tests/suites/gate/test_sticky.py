"""A CUDA error that stays, planted in one of several tests: it is named, and all the others run."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from suites.gate.correctness import pytest_command, worker_count
from suites.gate.step import QUIET_PYTEST, WIDE_TERMINAL, judge_pytest
from tests.suites.conftest import ROOT

CONFTEST = """
import sys
from types import ModuleType, SimpleNamespace
from tests.gpu.cuda_fault_plugin import pytest_configure, pytest_handlecrashitem, pytest_runtest_makereport

BROKEN = []

def synchronize(device=None):
    if BROKEN:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\\nCUDA kernel errors might be")

sys.modules["torch"] = ModuleType("torch")  # which takes seconds to import
sys.modules["torch"].cuda = SimpleNamespace(
    is_available=lambda: True, is_initialized=lambda: True, synchronize=synchronize
)
"""
TESTS = """
import pytest
from conftest import BROKEN

@pytest.mark.parametrize("number", range(12))
def test_sound(number):
    assert not BROKEN

def test_that_fails_by_itself():
    assert 0.1 <= 0.004

def test_that_breaks_and_raises():
    BROKEN.append(1)
    raise RuntimeError("CUDA error: an illegal memory access was encountered")

def test_that_breaks_and_passes():
    BROKEN.append(1)

@pytest.mark.parametrize("number", range(12))
def test_sound_too(number):
    assert not BROKEN
"""


def run(tmp_path, *more):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    environment = {**os.environ, **WIDE_TERMINAL, "PYTHONPATH": str(ROOT), "SHARDBENCH_GPU_FAULTS": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(tmp_path),
        *QUIET_PYTEST,
        "-p",
        "no:benchmark",
        "-p",
        "no:hypothesispytest",
        *more,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=200)
    return done, judge_pytest(done.returncode, done.stdout)


@pytest.mark.skipif(find_spec("xdist") is None, reason="needs pytest-xdist")
def test_a_worker_that_lost_the_gpu_ends_and_all_other_tests_run(tmp_path):
    done, verdict = run(tmp_path, *pytest_command(2)[-4:])
    assert verdict.figures == {"passed": 24, "failed": 3, "error": 0, "skipped": 0, "wrong": 1}, done.stdout
    reason = "CUDA error: an illegal memory access was encountered"
    for name in ("raises", "passes"):
        assert f"FAILED test_it.py::test_that_breaks_and_{name} - {reason}" in done.stdout
    assert "FAILED test_it.py::test_that_fails_by_itself - assert 0.1 <= 0.004" in done.stdout
    assert "E       RuntimeError: CUDA error: an illegal memory access was encountered" in done.stdout


def test_one_process_stops_at_the_fault_and_says_so(tmp_path):
    done, verdict = run(tmp_path, "-p", "no:xdist")
    assert verdict.figures["passed"] == 12
    assert verdict.figures["failed"] == 2
    assert "the GPU context is lost (CUDA error: an illegal memory access was encountered)" in done.stdout
    assert "FAILED test_it.py::test_that_breaks_and_raises - CUDA error: an illegal" in done.stdout


@pytest.mark.parametrize(
    ("cores", "free_gib", "count"),
    [(16, 139.0, 8), (4, 139.0, 4), (16, 20.0, 2), (16, 1.0, 1), (1, None, 1), (16, None, 8)],
)
def test_there_are_as_many_workers_as_cores_and_memory_allow(cores, free_gib, count):
    assert worker_count(cores, free_gib) == count
    assert ("-n" in pytest_command(count)) == (count > 1)

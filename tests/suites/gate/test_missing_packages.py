"""The first machine with a GPU has not every package that ours has: what the gate needs must not miss them."""

import os
import subprocess
import sys

import pytest

from suites import nvtx
from suites.gate.step import MEASURING_PACKAGES, PYTEST_PACKAGES
from tests.suites.conftest import ROOT

ABSENT = ("nvtx", "altair", "nvmath", "cuda.bench", "vl_convert", "cuda.core", "aiconfigurator_core")
PROGRAM = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if any(name == one or name.startswith(one + ".") for one in {absent!r}):
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Absent())
import pytest
raise SystemExit(pytest.main({arguments!r}))
"""


def run_without(absent, *arguments):
    program = PROGRAM.format(absent=absent, arguments=[*arguments, "-p", "no:cacheprovider", "-q"])
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})


def test_the_gpu_tests_import_nothing_that_the_machine_lacks():
    done = run_without(ABSENT, "tests/gpu", "--collect-only")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_a_case_is_measured_without_nvtx(tmp_path):
    asked = ["suites/bench_ceilings.py", "-k", "launch", "--passes", "1", f"--benchmark-json={tmp_path / 'a.json'}"]
    done = run_without(ABSENT, *asked)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "a.json").exists()


def test_what_no_program_misses_is_no_reason_to_run_nothing():
    assert not set(ABSENT) & {*PYTEST_PACKAGES, *MEASURING_PACKAGES}


def test_without_nvtx_ranges_are_opened_and_closed_in_vain(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvtx", None)
    monkeypatch.setattr(nvtx, "_domain", nvtx.open_domain())
    with nvtx.annotate_case({"name": "a", "question": "decode", "number": 1}, "timed"):
        nvtx.mark_timing("decode", 3, [1e-6])
    with pytest.raises(ZeroDivisionError), nvtx.annotate("a", "decode", 1):
        raise ZeroDivisionError

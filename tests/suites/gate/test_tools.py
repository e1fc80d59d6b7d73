"""The steps that run NVIDIA's tools, with scripts in the tools' place."""

import json
import sys

import pytest

from suites.gate import dram
from suites.gate.cases import PROFILED
from suites.gate.sanitizer import main_of
from suites.gate.steps import PROFILES
from tests.suites.gate.fakes import place
from tests.suites.gate.test_dram import kernel, table
from tests.suites.gate.test_sanitizer import CLEAN, OUT_OF_BOUNDS, UNSUPPORTED

NCU = """#!{python}
import sys
told = sys.argv[1:]
assert told[-2:] == ["-m", "suites.gate.profiled_calls"], told
open(told[told.index("--log-file") + 1], "w").write({table!r})
raise SystemExit({status})
"""
SANITIZER = """#!{python}
import os, sys
assert os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"
print({fault!r} if "suites.gate.faults" in sys.argv else {clean!r})
"""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def write(name, text, **values):
        path = tmp_path / "bin" / name
        path.write_text(text.format(python=sys.executable, **values))
        path.chmod(0o755)

    return write


def verdict(tmp_path, main, *arguments):
    (tmp_path / "out").mkdir(exist_ok=True)
    path = tmp_path / "verdict.json"
    status = main(*arguments, ["--out", str(tmp_path / "out"), "--verdict", str(path)])
    found = json.loads(path.read_text())
    assert status == (found["outcome"] == "failed")
    return found


def profile(share):
    """Two calls of one kernel each: ours, and cuBLAS, which reads all of its weights."""
    cublas = next(number for number, case in enumerate(PROFILED) if case.implementation == "torch")
    kernels = []
    for number, read in ((0, share), (cublas, 1.0)):
        kernels.append(kernel(len(kernels), "_gate_mark", f"({number + 1}, 1, 1)", "0", "1"))
        read_bytes = f"{read * PROFILED[number].weight_bytes:,.0f}"
        kernels.append(kernel(len(kernels), "_skinny", "(264, 1, 1)", read_bytes, "5,000"))
    return table(*kernels)


@pytest.mark.parametrize(
    ("share", "status", "outcome"), [(0.98, 0, "passed"), (0.96, 0, "failed"), (0.98, 1, "failed")]
)
def test_dram_goes_from_ncu_to_a_verdict(tmp_path, tool, share, status, outcome):
    tool("ncu", NCU, table=profile(share), status=status)
    found = verdict(tmp_path, dram.main)
    assert found["outcome"] == outcome
    assert found["figures"]["o-tp8-m1-triton"]["least_share_read"] == pytest.approx(share, abs=1e-6)
    assert (tmp_path / "out/ncu.csv").exists()


def test_a_table_of_an_earlier_run_is_not_judged_again(tmp_path, tool):
    tool("ncu", "#!/bin/sh\nexit 1\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/ncu.csv").write_text(profile(1.0))
    assert verdict(tmp_path, dram.main)["detail"] == "ncu wrote no table of kernels"


@pytest.mark.parametrize(
    ("fault", "clean", "outcome"),
    [
        (OUT_OF_BOUNDS, CLEAN, "passed"),
        (OUT_OF_BOUNDS, OUT_OF_BOUNDS, "failed"),
        (CLEAN, CLEAN, "failed"),
        (UNSUPPORTED, UNSUPPORTED, "not_run"),
    ],
)
def test_memcheck_goes_from_the_sanitizer_to_a_verdict(tmp_path, tool, fault, clean, outcome):
    tool("compute-sanitizer", SANITIZER, fault=fault, clean=clean)
    assert verdict(tmp_path, main_of, "memcheck", "out_of_bounds", __doc__)["outcome"] == outcome


def test_every_step_is_a_program_of_the_chosen_interpreter(tmp_path):
    steps = [step for profile in PROFILES.values() for step in profile.steps]
    assert all(one.command(place(tmp_path), one.seconds)[:2] == [sys.executable, "-m"] for one in steps)

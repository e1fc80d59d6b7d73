"""The steps that run NVIDIA's tools, with scripts in the tools' place."""

import json
import re
import sys

import pytest

from suites.gate import dram, sanitizer
from suites.gate.command import PROFILES
from suites.gate.dram import PROFILED_CASES
from suites.gate.sanitizer import parse_run
from tests.suites.gate.fakes import place
from tests.suites.gate.test_dram import kernel, table
from tests.suites.gate.test_runner import gone
from tests.suites.gate.test_sanitizer import CALLS, CLEAN, HAZARDS, NO_RACE, OUT_OF_BOUNDS, RACE, UNSUPPORTED

NCU = """#!{python}
import sys
told = sys.argv[1:]
assert told[-3:] == ["-m", "suites.gate.watched_calls", "ncu"], told
open(told[told.index("--log-file") + 1], "w").write({table!r})
if {status} is None:
    import time
    time.sleep(60)
raise SystemExit({status})
"""
SANITIZER = """#!{python}
import os, subprocess, sys, time
told = sys.argv[1:]
assert os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"
planted = "--fault" in told
if not planted:
    print({calls!r}, flush=True)
with open(told[told.index("--log-file") + 1], "w") as log:
    log.write({fault!r} if planted else {clean!r})
if {hangs!r} == ("fault" if planted else "exercise"):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print("started", child.pid, flush=True)
    time.sleep(60)
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


def verdict(tmp_path, main, *arguments, seconds=None):
    (tmp_path / "out").mkdir(exist_ok=True)
    path = tmp_path / "verdict.json"
    limit = ["--seconds", str(seconds)] if seconds else []
    status = main(*arguments, ["--out", str(tmp_path / "out"), "--verdict", str(path), *limit])
    found = json.loads(path.read_text())
    assert status == (found["outcome"] == "failed")
    return found


def profile(share, again=False):
    """Two calls of one kernel each: ours, and cuBLAS, which reads all of its weights; and ours once more."""
    cublas = next(number for number, case in enumerate(PROFILED_CASES) if case.implementation == "torch")
    kernels = []
    for number, part in ((0, share), (cublas, 1.0), *([(0, 0.1)] if again else [])):
        kernels.append(kernel(len(kernels), "_gate_mark", f"({number + 1}, 1, 1)", "0", "1"))
        read_bytes = f"{part * PROFILED_CASES[number].weight_bytes:,.0f}"
        kernels.append(kernel(len(kernels), "_skinny", "(264, 1, 1)", read_bytes, "5,000"))
    return table(*kernels)


@pytest.mark.parametrize(
    ("share", "status", "outcome"), [(0.98, 0, "passed"), (0.96, 0, "failed"), (0.98, 1, "failed")]
)
def test_dram_goes_from_ncu_to_a_verdict(tmp_path, tool, share, status, outcome):
    tool("ncu", NCU, table=profile(share), status=status)
    found = verdict(tmp_path, dram.main_dram, seconds=60)
    assert found["outcome"] == outcome
    assert found["figures"]["o-tp8-m1-triton"]["least_share_read"] == pytest.approx(share, abs=1e-6)
    assert (tmp_path / "out/ncu.csv").exists()


@pytest.mark.parametrize(("share", "outcome"), [(0.98, "unfinished"), (0.96, "failed")])
def test_an_ncu_that_hangs_is_ended_and_what_it_wrote_is_judged(tmp_path, tool, monkeypatch, share, outcome):
    monkeypatch.setattr(dram, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(dram, "READ_SECONDS", 0.0)
    tool("ncu", NCU, table=profile(share, again=True), status=None)
    found = verdict(tmp_path, dram.main_dram, seconds=3)
    assert found["outcome"] == outcome
    assert re.match(r"ncu did not end within [23] s; the calls before that: ", found["detail"])
    assert found["figures"]["o-tp8-m1-triton"]["least_share_read"] == pytest.approx(share, abs=1e-6)


def test_a_table_of_an_earlier_run_is_not_judged_again(tmp_path, tool):
    tool("ncu", "#!/bin/sh\nexit 1\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/ncu.csv").write_text(profile(1.0))
    assert verdict(tmp_path, dram.main_dram, seconds=60)["detail"] == "ncu wrote no table of kernels"


def sanitizer_stub(tool, fault, clean, hangs="nowhere", calls=CALLS):
    tool("compute-sanitizer", SANITIZER, fault=fault, clean=clean, hangs=hangs, calls=calls)


@pytest.mark.parametrize(
    ("check", "fault", "clean", "outcome"),
    [
        (sanitizer.MEMCHECK, OUT_OF_BOUNDS, CLEAN, "passed"),
        (sanitizer.MEMCHECK, OUT_OF_BOUNDS, OUT_OF_BOUNDS, "failed"),
        (sanitizer.MEMCHECK, CLEAN, CLEAN, "failed"),
        (sanitizer.MEMCHECK, UNSUPPORTED, UNSUPPORTED, "not_run"),
        (sanitizer.RACECHECK, RACE, HAZARDS, "passed"),
        (sanitizer.RACECHECK, NO_RACE, HAZARDS, "not_run"),
    ],
)
def test_a_check_goes_from_the_sanitizer_to_a_verdict_and_keeps_its_logs(tmp_path, tool, check, fault, clean, outcome):
    sanitizer_stub(tool, fault, clean)
    assert verdict(tmp_path, check.main, seconds=60)["outcome"] == outcome
    assert (tmp_path / f"out/logs/{check.tool}-faults.log").read_text() == fault
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"logs"}


@pytest.fixture
def short(monkeypatch):
    """Waits of a second for what takes seconds on a GPU."""
    monkeypatch.setattr(sanitizer, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(sanitizer, "READ_SECONDS", 0.0)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("check", "fault"), [(sanitizer.MEMCHECK, OUT_OF_BOUNDS), (sanitizer.RACECHECK, RACE)])
def test_a_sanitizer_that_hangs_in_our_kernels_is_ended_and_what_it_saw_is_told(tmp_path, tool, check, fault):
    sanitizer_stub(tool, fault, "", "exercise", CALLS[: CALLS.index("right: triton_gemm")])
    found = verdict(tmp_path, check.main, seconds=8)
    assert (found["outcome"], found["figures"]["wrong"]) == ("unfinished", 0)
    assert re.match(rf"{check.tool} did not end within \d+ s: ", found["detail"])
    assert "1 of 2 calls ended" in found["detail"]
    assert "the planted" in found["detail"]
    output = (tmp_path / f"out/logs/{check.tool}-exercise.out").read_text()
    assert gone(int(output.split("started ")[1].split()[0]))


@pytest.mark.usefixtures("short")
def test_a_sanitizer_that_hangs_at_the_planted_fault_is_unfinished(tmp_path, tool):
    sanitizer_stub(tool, "", CLEAN, "fault")
    found = verdict(tmp_path, sanitizer.MEMCHECK.main, seconds=6)
    assert found["outcome"] == "unfinished"
    assert re.match(r"memcheck did not end within \d+ s, at the planted fault", found["detail"])


def test_a_verdict_stands_from_the_planted_fault_on(tmp_path, monkeypatch):
    seen, path = [], tmp_path / "verdict.json"

    def run(tool, logs, seconds, fault=None):
        seen.append(json.loads(path.read_text()) if path.exists() else None)
        assert seconds > 0
        return parse_run(OUT_OF_BOUNDS if fault else CLEAN, CALLS, 0)

    monkeypatch.setattr(sanitizer, "run_sanitizer", run)
    assert verdict(tmp_path, sanitizer.MEMCHECK.main, seconds=60)["outcome"] == "passed"
    assert seen[0] is None
    assert seen[1]["outcome"] == "unfinished"
    assert seen[1]["detail"].startswith("memcheck saw the planted fault")
    assert seen[1]["figures"] == {"planted_errors": 1, "wrong": 0}


def test_every_step_is_a_program_of_the_chosen_interpreter(tmp_path):
    steps = [step for profile in PROFILES.values() for step in profile.steps]
    assert all(one.command(place(tmp_path), one.seconds)[:2] == [sys.executable, "-m"] for one in steps)

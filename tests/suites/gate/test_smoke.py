"""The first call on a GPU: each line stands alone, whatever one of them does."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from kernels.kernel import Kernel
from kernels.linear import TORCH_LINEAR
from kernels.timing import cuda, device
from kernels.timing.device import current_device
from kernels.timing.pool import TensorPool
from specs.layer import LINEAR_IMPLEMENTATIONS
from suites.gate import correctness, dram, machine, sanitizer
from suites.gate.dram import PROFILED_CASES
from suites.gate.sanitizer import parse_run
from tests.suites.gate.test_dram import kernel, table
from tests.suites.gate.test_sanitizer import CLEAN, OUT_OF_BOUNDS, UNSUPPORTED

NAMES = ("a", "b", "c", "d")
TRIES = """
import json, os, sys
first, into, faults = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
for name in {names!r}[first:]:
    fault = faults.get(name, "right")
    if fault == "dies":
        os.abort()
    outcome = "failed" if fault == "lost" else fault
    with open(into, "a") as file:
        file.write(json.dumps(dict(kernel=name, outcome=outcome, detail=fault)) + chr(10))
    if fault == "lost":
        break
"""


@pytest.fixture
def clock(monkeypatch):
    """A clock that needs no GPU, and calls each call once."""

    class Timer:
        def __init__(self, device, launch):
            assert launch == "graph"

        def warm_up(self, calls, expected):
            for call in calls:
                call()

        def sample(self, share):
            return SimpleNamespace(seconds=(2e-6, 4e-6))

    monkeypatch.setattr(cuda, "CudaTimer", Timer)


@pytest.fixture(scope="module")
def pool():
    return TensorPool(current_device(), {correctness.DTYPE: 2**27})


CASES = correctness.implementation_cases()


@pytest.mark.parametrize(("kernel", "shape"), CASES, ids=[kernel.name for kernel, _ in CASES])
def test_every_case_is_checked_and_timed_or_says_why_not(clock, pool, kernel, shape):
    told = correctness.try_case(kernel, shape, current_device(), pool)
    assert isinstance(kernel, Kernel)
    assert told["outcome"] == ("right" if kernel.why_not(current_device().arch, "bf16") is None else "not_run"), told
    json.dumps(told)


def test_every_implementation_of_a_linear_and_every_kind_of_piece_is_tried():
    assert {kernel.implementation for kernel, _ in CASES} >= set(LINEAR_IMPLEMENTATIONS)
    ops = {"linear", "gate_up_swiglu", "attention", "rmsnorm", "rotary", "swiglu", "read", "copy", "launch"}
    assert {kernel.op for kernel, _ in CASES} >= ops


def test_a_wrong_result_and_an_exception_are_lines(clock, pool):
    def broken(**_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be")

    shape = {"tokens": 1, "n": 64, "k": 64}
    silent = replace(TORCH_LINEAR, run=lambda x, weight, out: None)
    assert correctness.try_case(silent, shape, current_device(), pool)["outcome"] == "wrong"
    told = correctness.try_case(replace(TORCH_LINEAR, run=broken), shape, current_device(), pool)
    assert told["outcome"] == "failed"
    assert told["detail"] == "RuntimeError: CUDA error: an illegal memory access was encountered"


@pytest.mark.parametrize(
    ("faults", "outcomes"),
    [
        ({}, ["right"] * 4),
        ({"b": "dies", "d": "dies"}, ["right", "failed", "right", "failed"]),
        ({"a": "lost", "c": "wrong"}, ["failed", "right", "wrong", "right"]),
    ],
)
def test_a_case_that_takes_its_process_with_it_ends_no_other(tmp_path, faults, outcomes):
    into = tmp_path / "lines.jsonl"

    def command(at):
        return [sys.executable, "-c", TRIES.format(names=NAMES), str(at), str(into), json.dumps(faults)]

    lines = correctness.run_with_restarts(command, NAMES, into, 120.0)
    assert [(one["kernel"], one["outcome"]) for one in lines] == list(zip(NAMES, outcomes, strict=True))
    verdict = correctness.judge_implementations(lines, NAMES)
    assert verdict.outcome == ("failed" if faults else "passed")
    assert verdict.figures["wrong"] == outcomes.count("wrong")


def test_what_there_was_no_time_for_is_named():
    line = {"kernel": "a", "outcome": "right", "detail": "2.00 us"}
    verdict = correctness.judge_implementations([line], NAMES)
    assert (verdict.outcome, verdict.detail) == ("unfinished", "1 of 4 right and timed; no time for b, c, d")


def ncu(read):
    number = f"({1}, 1, 1)"
    return table(kernel(0, "_gate_mark", number, "0", "1"), kernel(1, "_skinny", "(264, 1, 1)", read, "5,000"))


@pytest.mark.parametrize(
    ("text", "status", "outcome"),
    [
        (ncu(f"{PROFILED_CASES[0].weight_bytes}"), 0, "passed"),
        (ncu("0"), 0, "failed"),
        ("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission", 1, "not_run"),
        ("", None, "unfinished"),
        ("", 1, "failed"),
    ],
)
def test_one_call_under_ncu_says_whether_counters_can_be_read(text, status, outcome):
    assert dram.judge_counters(text, status).outcome == outcome


def test_ncu_is_run_as_the_dram_step_runs_it_on_one_case(tmp_path):
    assert dram.counters_command(tmp_path / "a.csv")[-4:] == ["suites.gate.watched_calls", "ncu", "--cases", "1"]
    assert "--profile-from-start" in dram.counters_command(tmp_path / "a.csv")


@pytest.mark.parametrize(("text", "outcome"), [(OUT_OF_BOUNDS, "passed"), (CLEAN, "failed"), (UNSUPPORTED, "not_run")])
def test_a_sanitizer_that_sees_no_fault_fails(text, outcome):
    assert sanitizer.judge_planted(parse_run(text, "", 0)).outcome == outcome


def test_facts_are_told_in_a_line_with_what_makes_them_doubtful():
    found = {
        "gpu": "NVIDIA H200", "driver": "580.65", "torch": "2.11.0+cu130", "cuda": "13.0", "triton": "3.6.0",
        "python": "3.12.3", "free_bytes": 2**30, "total_bytes": 140 * 2**30, "load": None, "throttled": True,
        "mig": True, "processes": 3, "missing": ["nvtx"],
    }  # fmt: skip
    told = machine.judge_facts(found).detail
    for word in (
        "580.65",
        "1.0 of 140.0 GiB free",
        "NVML is silent",
        "held back",
        "MIG is on",
        "other processes",
        "nvtx",
    ):
        assert word in told
    assert "held back" not in machine.judge_facts({**found, "throttled": None}).detail


@pytest.mark.parametrize("there", [True, False], ids=["refuses", "lacks it"])
def test_facts_go_without_the_processes_that_nvml_does_not_tell(monkeypatch, there):
    class NVMLError(Exception):
        pass

    def refuses(_):
        raise NVMLError("Not Supported")

    nvml = SimpleNamespace(NVMLError=NVMLError)
    if there:
        nvml.nvmlDeviceGetComputeRunningProcesses = refuses
    monkeypatch.setattr(device, "nvml_handle", lambda: (nvml, "handle"))
    monkeypatch.setattr(device, "read_load", lambda: (None, None))
    found = machine.read_facts()
    assert found["processes"] is None
    assert machine.judge_facts(found).outcome == "passed"


def test_facts_can_be_read_on_any_machine():
    found = machine.read_facts()
    assert machine.judge_facts(found).outcome == "passed"
    json.dumps(found)

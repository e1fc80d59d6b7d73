import json
import platform
import subprocess
import sys
from dataclasses import replace

import pytest

from kernels.cublaslt import CUBLASLT_LINEAR
from kernels.registry import DECODE_ATTENTION, LINEARS, PREFILL_ATTENTION
from kernels.timing.device import SAMPLING_LIMITS, Device, current_device
from suites import environment
from suites.doctor import _kernel_capabilities, find_capabilities
from suites.environment import result_name
from suites.workers.launcher import RankPlan
from tests.suites.conftest import ROOT


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "suites", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_every_kernel_is_listed_and_what_is_missing_has_a_remedy():
    lines = {line.subject: line for line in find_capabilities(current_device())}
    assert {f"kernel {kernel.name}" for kernel in (*LINEARS, *DECODE_ATTENTION, *PREFILL_ATTENTION)} <= set(lines)
    assert {"torch", "cold weights", "cupy", "nvmath-python", "cuda-bench"} <= set(lines)
    assert lines["kernel torch_linear"].works
    assert all(line.remedy for line in lines.values() if not line.works)


def test_a_package_that_is_there_is_named_with_its_version(monkeypatch):
    there = {"nvmath-python": "1.0.0", "cupy-cuda12x": "14.0.1"}
    monkeypatch.setattr("suites.doctor.package_version", there.get)
    lines = {line.subject: line for line in find_capabilities(current_device())}
    assert lines["nvmath-python"][:3] == (True, "nvmath-python", "1.0.0: cuBLASLt's heuristics")
    assert lines["cupy"].found.startswith("14.0.1: ")
    assert lines["cuda-bench"][:3] == (False, "cuda-bench", "not installed: NVBench, to cross-check the clock")
    assert ",clock]" in lines["cuda-bench"].remedy


def test_a_kernel_whose_package_is_missing_says_so_where_it_would_run(monkeypatch):
    gpu = Device("cuda", "sm_90", 50 * 2**20, SAMPLING_LIMITS["cuda"])
    absent = replace(CUBLASLT_LINEAR, missing=lambda: "needs a package: pip install it")
    monkeypatch.setattr("suites.doctor.LINEARS", (absent,))
    line = next(_kernel_capabilities(gpu))
    assert line[1:] == ("kernel cublaslt_linear", "cannot run here", "needs a package: pip install it")


def test_the_experiment_says_in_which_ways_it_can_run_here_or_why_not(monkeypatch):
    lines = {line.subject: line for line in find_capabilities(current_device())}
    assert lines["TP against PP"][:3] == (
        True, "TP against PP", "a whole model on 2 ranks: tp2, pp2-sync, pp2-async2, tp1x2",
    )  # fmt: skip
    assert lines["shares"][:3] == (
        True, "shares", "what a rank computes of it, with so many at once: tp2 on 2 of 2, tp1 on 2 of 2, tp1 on 1 of 2",
    )  # fmt: skip
    monkeypatch.setattr("suites.doctor.plan_ranks", lambda asked, kind: RankPlan(1, "cpu"))
    (alone,) = [line for line in find_capabilities(current_device()) if line.subject == "TP against PP"]
    assert not alone.works
    assert "one GPU is one rank" in alone.remedy


def test_memory_too_short_for_cold_weights_is_said(monkeypatch):
    monkeypatch.setattr("kernels.timing.device.Device.free_bytes", lambda self: 2**20)
    (line,) = [line for line in find_capabilities(current_device()) if line.subject == "cold weights"]
    assert not line.works
    assert "rotated-N" in line.remedy


def test_the_command_prints_a_table_and_json():
    table = run("doctor")
    assert table.returncode == 0, table.stderr
    assert "kernel torch_linear" in table.stdout
    lines = json.loads(run("doctor", "--format", "json").stdout)
    assert {"works", "subject", "found", "remedy"} == set(lines[0])


def test_an_unknown_format_is_refused_in_a_line():
    result = run("doctor", "--format", "yaml")
    assert result.returncode == 2
    assert "'yaml' is unknown; choose table or json" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_a_result_is_named_by_machine_and_date_not_by_host():
    name = result_name(current_device())
    assert name[-10:].count("-") == 2
    assert platform.node().lower() not in name


@pytest.mark.parametrize(
    ("brand", "named"),
    [
        ("Intel(R) Xeon(R) Processor", "intel-xeon"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "intel-xeon-platinum-8481c"),
        ("Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz", "intel-core-i7-8550u"),
        ("AMD EPYC 7763 64-Core Processor", "amd-epyc-7763-64-core"),
    ],
)
def test_a_result_is_named_without_what_tells_nothing_of_a_processor(monkeypatch, brand, named):
    monkeypatch.setattr(environment, "cpu_name", lambda: brand)
    monkeypatch.setattr(environment.psutil, "cpu_count", lambda: 2)
    device = Device(kind="cpu", arch="cpu", llc_bytes=2**25, limits=SAMPLING_LIMITS["cpu"])
    assert result_name(device)[: -len("-2026-11-25")] == f"{named}-2-threads"

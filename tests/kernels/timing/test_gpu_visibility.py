"""A GPU that the driver lists and torch cannot use, by a stand-in of nvidia-smi on the PATH."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels.timing import nvidia_smi
from kernels.timing.device import why_gpu_unseen
from kernels.timing.nvidia_smi import Driver, find_driver, other_gpu_processes

ROOT = Path(__file__).parents[3]


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Puts an nvidia-smi on the PATH that tells this driver and CUDA version."""
    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def write(driver, cuda, before=""):
        script = f"""#!/bin/sh
{before}
case "$1" in
    *compute-apps*) echo 4711 ;;
    --query-gpu=*) echo "NVIDIA H100 80GB HBM3, {driver}" ;;
    *) echo "| NVIDIA-SMI {driver}     Driver Version: {driver}     CUDA Version: {cuda}     |" ;;
esac
"""
        path = tmp_path / "nvidia-smi"
        path.write_text(script, "utf-8")
        path.chmod(0o755)

    return write


def run(*command):
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, timeout=300)


def test_the_driver_is_read(smi):
    smi("535.104.05", "12.2")
    assert find_driver() == Driver("NVIDIA H100 80GB HBM3", "535.104.05", "12.2")
    assert other_gpu_processes() == [4711]


@pytest.mark.parametrize("before", ["exit 9", "echo 'NVIDIA-SMI has failed'; exit 0", "sleep 30"])
def test_a_driver_that_does_not_answer_is_none(smi, before, monkeypatch):
    monkeypatch.setattr(nvidia_smi, "TIMEOUT_SECONDS", 1)
    smi("535.104.05", "12.2", before)
    assert find_driver() is None
    assert why_gpu_unseen() is None


@pytest.mark.parametrize(
    ("built", "driver", "told"),
    [
        ("13.0", "535.104.05", ("needs CUDA 13.0, driver 580 or newer", "make bench TORCH=cu126")),
        ("13.0", "470.57.02", ("needs CUDA 13.0, driver 580 or newer", "install driver 580 or newer")),
        (None, "580.65.06", ("a build without CUDA", "make clean, then make bench")),
        (None, "550.54.15", ("a build without CUDA", "make bench TORCH=cu126")),
        ("13.0", "580.65.06", ("for CUDA 13.0 cannot open it",)),
    ],
)
def test_the_build_that_fits_the_driver_is_named(smi, monkeypatch, built, driver, told):
    monkeypatch.setattr(torch.version, "cuda", built)
    smi(driver, "12.2")
    reason = why_gpu_unseen()
    assert reason.startswith(
        f"nvidia-smi lists NVIDIA H100 80GB HBM3 with driver {driver}, which runs CUDA up to 12.2; "
    )
    assert all(part in reason for part in told), reason
    assert "\n" not in reason


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_a_gpu_that_is_hidden_on_purpose_is_no_fault(smi, monkeypatch, value):
    smi("535.104.05", "12.2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert why_gpu_unseen() is None


def test_a_number_that_names_no_gpu_is_told(smi, monkeypatch):
    smi("580.65.06", "13.0")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert "CUDA_VISIBLE_DEVICES=7 names no GPU" in why_gpu_unseen()


@pytest.mark.parametrize(
    "command",
    [("pytest", "suites/bench_linears.py", "--list", "-q"), ("suites", "name"), ("kernels", "tune", "--budget", "0")],
    ids=lambda command: command[0],
)
def test_the_cpu_is_not_measured_unasked(smi, command):
    smi("535.104.05", "12.2")
    done = run(*command)
    assert done.returncode in (2, 4), done.stdout
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "nvidia-smi lists" in line]
    assert line.lower().startswith("error: nvidia-smi lists NVIDIA H100".lower())
    assert line.endswith("or measure the CPU: --device cpu, or CUDA_VISIBLE_DEVICES=")
    assert "Traceback" not in done.stdout + done.stderr


def test_the_cpu_is_measured_where_it_is_asked_for(smi, tmp_path):
    smi("535.104.05", "12.2")
    options = ("--layer", "o", "--tp", "1", "--tokens", "1", "--dtype", "fp32", "--passes", "1")
    result = tmp_path / "out.json"
    done = run("pytest", "suites/bench_linears.py", "--device", "cpu", *options, f"--benchmark-json={result}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the GPU is hidden (--device cpu, or CUDA_VISIBLE_DEVICES is empty): the CPU is measured" in done.stdout
    assert json.loads(result.read_text("utf-8"))["shardbench"]["options"]["device"] == "cpu"


def test_doctor_says_it_and_goes_on(smi):
    smi("535.104.05", "12.2")
    done = run("suites", "doctor", "--format", "json")
    lines = {line["subject"]: line for line in json.loads(done.stdout)}
    assert lines["GPU"]["found"].startswith("torch cannot use it")
    assert "driver 535.104.05" in lines["GPU"]["remedy"]
    assert lines["CPU"]["works"]


def test_a_gpu_where_there_is_none_is_refused(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here")
    done = run("pytest", "suites/bench_linears.py", "--list", "-q", "--device", "cuda")
    assert done.returncode == 4
    assert "--device cuda: torch sees no GPU" in done.stdout + done.stderr

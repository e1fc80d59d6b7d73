"""Reader of nvidia-smi, and reasons why torch cannot use a listed GPU.

This module does not import torch.
"""

import os
import re
import shutil
import subprocess
from typing import NamedTuple

HIDING_VALUES = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES that hide every GPU; the last is Slurm's."""

OLDER_CUDA_BUILD = "cu126"
"""PyTorch's build for drivers of CUDA 12.

Drivers from 525 on run it, in any minor version.
"""

MIN_DRIVER = {12: 525, 13: 580}
"""First driver branch that runs a major version of CUDA.

Source: NVIDIA's CUDA compatibility guide.
"""

TIMEOUT_SECONDS = 20.0

_unresponsive = set[str]()
"""Paths of nvidia-smi that timed out; they are not asked again in this process."""


class Driver(NamedTuple):
    """Name of the first GPU, driver version, and newest CUDA that the driver runs.

    An unknown CUDA is "".
    """

    gpu: str
    version: str
    cuda: str

    def __str__(self) -> str:
        runs = f", which runs CUDA up to {self.cuda}" if self.cuda else ""
        return f"nvidia-smi lists {self.gpu} with driver {self.version}{runs}"


class TorchBuild(NamedTuple):
    """A torch that sees no GPU: version, CUDA and HIP of its build, and its reason."""

    version: str
    cuda: str | None
    hip: str | None
    error: str


def are_gpus_hidden() -> bool:
    """Return whether CUDA_VISIBLE_DEVICES hides every GPU.

    The user or a scheduler sets it.
    """
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in HIDING_VALUES


def find_driver() -> Driver | None:
    """Return the driver that nvidia-smi reports; None where it does not answer."""
    listed = _query("--query-gpu=name,driver_version", "--format=csv,noheader")
    first = listed.splitlines()[0].rpartition(",") if listed else ("", "", "")
    if not first[0] or not re.match(r"\s*\d+\.", first[2]):
        return None
    found = re.search(r"CUDA Version:\s*(\d+\.\d+)", _query())
    return Driver(first[0].strip(), first[2].strip(), found[1] if found else "")


def other_gpu_processes() -> list[int]:
    """Return ids of other processes that compute on this machine's NVIDIA GPUs.

    Empty without nvidia-smi.
    """
    listed = _query("--query-compute-apps=pid", "--format=csv,noheader").split()
    return [int(word) for word in listed if word.isdecimal() and int(word) != os.getpid()]


def timeout_message() -> str | None:
    """Return one line where nvidia-smi timed out in this process; None elsewhere."""
    hangs = shutil.which("nvidia-smi") in _unresponsive
    return f"nvidia-smi did not answer within {TIMEOUT_SECONDS:g} s" if hangs else None


def why_unusable(driver: Driver, torch: TorchBuild) -> str:
    """Return one line on why `torch` cannot use the driver's GPU, with the remedy."""
    return f"{driver}; {_unusable_reason(driver, torch)}"


def _unusable_reason(driver: Driver, torch: TorchBuild) -> str:
    newest, branch = max(MIN_DRIVER), int(driver.version.split(".")[0])
    fitting = next((major for major in sorted(MIN_DRIVER, reverse=True) if branch >= MIN_DRIVER[major]), None)
    if fitting is None:
        get = f"no build fits it: install driver {MIN_DRIVER[newest]} or newer"
    elif fitting < newest:
        get = f"install PyTorch's {OLDER_CUDA_BUILD} build: make bench TORCH={OLDER_CUDA_BUILD}"
    else:
        get = "install the CUDA build: make clean, then make bench"
    if torch.hip:
        return f"torch {torch.version} is a build for AMD GPUs: {get}"
    if torch.cuda is None:
        return f"torch {torch.version} is a build without CUDA: {get}"
    needed = MIN_DRIVER.get(int(torch.cuda.split(".")[0]), 0)
    if branch < needed:
        return f"torch {torch.version} needs CUDA {torch.cuda}, driver {needed} or newer: {get}"
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return f"CUDA_VISIBLE_DEVICES={chosen} names no GPU that is there: unset it"
    return f"torch {torch.version} for CUDA {torch.cuda} cannot open it: {torch.error}"


def _query(*arguments: str) -> str:
    """Return nvidia-smi's output; empty where it is missing, fails or hangs."""
    path = shutil.which("nvidia-smi")
    if path is None or path in _unresponsive:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - the driver's own tool
            [path, *arguments], check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        _unresponsive.add(path)
        return ""
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()

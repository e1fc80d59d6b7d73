"""What there is to run the gate with: the GPU, packages of the chosen interpreter, a C compiler, NVIDIA's tools."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suites.gate.step import Step

_ASK = """
import importlib.util, json, sys
def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
found = {"packages": {name: there(name) for name in sys.argv[1:]}, "gpu": None, "no_gpu": "torch is not installed"}
if there("torch"):
    try:
        import torch
        found |= {"torch": torch.__version__, "cuda": torch.version.cuda}
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name(0)
            found["free_bytes"], found["memory_bytes"] = torch.cuda.mem_get_info(0)
        else:
            found["no_gpu"] = f"torch {torch.__version__} sees no CUDA GPU"
    except Exception as error:
        found["no_gpu"] = f"torch cannot be imported or cannot use the GPU: {str(error).splitlines()[0]}"
print(json.dumps(found))
"""
"""Run in a process of its own: the gate holds no CUDA context while others measure."""

PROBE_SECONDS = 60
GIB = 2**30
OWN_GIB = 1.5
"""Memory in use beyond this cannot be the probe's own context."""
LEAST_DRIVER = {11: (450, "450.80"), 12: (525, "525.60"), 13: (580, "580.65")}
"""Oldest driver for each major version of CUDA, as its release notes say: first part, and as it is written."""


@dataclass(frozen=True)
class Machine:
    """What was found.

    Attributes:
        gpu: the GPU's name; None without one.
        no_gpu: why there is none.
        packages: those that were asked for, and whether they can be found.
        free_gib: GPU memory that is free; None where nobody said.
        notes: what makes figures of this machine doubtful, one line each.
    """

    gpu: str | None
    no_gpu: str
    packages: dict[str, bool]
    free_gib: float | None = None
    notes: tuple[str, ...] = ()

    def why_not(self, step: Step) -> str | None:
        """All that `step` lacks here, in one line; None when it can run."""
        lacks = [] if self.gpu else [self.no_gpu]
        if absent := self.absent(step.packages):
            lacks.append(f"not installed: {', '.join(absent)}")
        if absent := [name for name in step.tools if find_tool(name) is None]:
            lacks.append(f"not on the PATH nor below CUDA_HOME: {', '.join(absent)}")
        if step.launches and not c_compiler():
            lacks.append("Triton needs a C compiler for its first launch: install gcc, or name one in CC")
        if self.free_gib is not None and self.free_gib < step.memory_gib:
            lacks.append(f"it needs {step.memory_gib:g} GiB of GPU memory, {self.free_gib:.1f} are free")
        return "; ".join(lacks) or None

    def absent(self, packages: Iterable[str]) -> list[str]:
        """Those of `packages` that are not installed; of torch, the reason for having no GPU speaks already."""
        told = () if self.gpu else ("torch",)
        return [name for name in packages if name not in told and not self.packages.get(name, False)]


def look_around(python: str, packages: Iterable[str]) -> Machine:
    """Ask the interpreter that the steps will use, and the driver."""
    others = _others()  # before the probe holds memory itself
    try:
        command = [python, "-c", _ASK, *sorted(set(packages))]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS)  # noqa: S603 - the interpreter that was asked for
        found = json.loads(asked.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError) as error:
        return Machine(None, f"{python} does not answer ({type(error).__name__})", {})
    if found["gpu"] is None:
        return Machine(None, _why_no_gpu(found), found["packages"])
    free, whole = found["free_bytes"] / GIB, found["memory_bytes"] / GIB
    return Machine(found["gpu"], "", found["packages"], free, tuple(_notes(found["gpu"], free, whole, others)))


def _why_no_gpu(found: dict[str, Any]) -> str:
    """The reason that lies nearest: hidden on purpose, a torch without CUDA, a driver too old for it."""
    if "torch" not in found:
        return str(found["no_gpu"])
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU: unset it, or set it to 0"
    driver = ask_driver("driver_version")
    if not driver:
        return str(found["no_gpu"])
    if found["cuda"] is None:
        return f"torch {found['torch']} is built without CUDA, and there is a GPU with driver {driver[0]}"
    least, written = LEAST_DRIVER.get(int(found["cuda"].split(".")[0]), (0, ""))
    if int(driver[0].split(".")[0]) < least:
        return (
            f"driver {driver[0]} is older than CUDA {found['cuda']} of torch {found['torch']} needs: "
            f"update it to {written} or newer, or install a torch for an older CUDA"
        )
    return f"{found['no_gpu']}, but nvidia-smi does, with driver {driver[0]}"


def _notes(gpu: str, free_gib: float, whole_gib: float, others: list[str]) -> Iterable[str]:
    if " MIG " in gpu:
        yield f"{gpu} is a MIG slice: its figures are not those of a whole GPU"
    if others:
        yield f"{len(others)} other processes use the GPU (process {', '.join(others)}): times will be theirs too"
    elif whole_gib - free_gib > OWN_GIB + 0.02 * whole_gib:
        yield f"{whole_gib - free_gib:.1f} of {whole_gib:.1f} GiB of GPU memory are in use by others"


def _others() -> list[str]:
    return ask_driver("pid", of="compute-apps")


def ask_driver(fact: str, of: str = "gpu") -> list[str]:
    """What nvidia-smi says, a line for each GPU or process; nothing where it is silent."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        command = [tool, f"--query-{of}={fact}", "--format=csv,noheader,nounits"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=20)  # noqa: S603 - NVIDIA's tool
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in told.stdout.splitlines() if line.strip()] if told.returncode == 0 else []


def c_compiler() -> str | None:
    """The compiler that Triton takes for its launcher."""
    if named := os.environ.get("CC"):
        return shutil.which(named)
    return shutil.which("gcc") or shutil.which("clang")


def find_tool(name: str) -> str | None:
    """Where a program of the CUDA toolkit is: on the PATH, or where toolkits are installed."""
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    return shutil.which(name) or shutil.which(name, path=str(Path(home, "bin")))

"""Machine of the gate: GPU, Python packages, C compiler, NVIDIA's tools.

The facts step reports versions, clocks, power, memory, and other processes on the GPU.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels.timing.nvidia_smi import (
    TorchBuild,
    are_gpus_hidden,
    find_driver,
    other_gpu_processes,
    timeout_message,
    why_unusable,
)
from specs.errors import UserError
from suites.gate.step import (
    MEASURING_PACKAGES,
    RECOVERY_PACKAGES,
    Step,
    Verdict,
    last_line,
    parse_options,
    run_step,
    write_verdict,
)

_PROBE_SOURCE = """
import importlib.util, json, sys
def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
def first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]
def why_unseen(torch):
    try:
        torch.cuda.init()
    except Exception as error:
        return first_line(error)
    return "it gives no reason"
found = {"packages": {name: there(name) for name in sys.argv[1:]}, "gpu": None, "no_gpu": "torch is not installed"}
if there("torch"):
    try:
        import torch
        if torch.cuda.is_available():
            free_bytes, memory_bytes = torch.cuda.mem_get_info(0)
            found |= {"free_bytes": free_bytes, "memory_bytes": memory_bytes, "gpu": torch.cuda.get_device_name(0)}
        else:
            found["no_gpu"] = f"torch {torch.__version__} sees no CUDA GPU"
            found["torch"] = [torch.__version__, torch.version.cuda, torch.version.hip, why_unseen(torch)]
    except Exception as error:
        found["no_gpu"] = f"torch cannot be imported or cannot use the GPU: {first_line(error)}"
print(json.dumps(found))
"""
"""Program of the probe.

A process of its own runs it: the gate holds no CUDA context while other processes measure.
"""

PROBE_SECONDS = 60
GIB = 2**30
PROBE_GIB = 1.5
"""Memory in use, in GiB, beyond which it cannot be the probe's own context."""


@dataclass(frozen=True)
class Machine:
    """Resources that the probe found.

    Attributes:
        gpu: name of the GPU; None without one.
        no_gpu: reason why there is no GPU.
        packages: requested packages, and whether each can be found.
        free_gib: free GPU memory; None where unknown.
        notes: reasons to doubt figures of this machine, one line each.
    """

    gpu: str | None
    no_gpu: str
    packages: dict[str, bool]
    free_gib: float | None = None
    notes: tuple[str, ...] = ()

    def why_not(self, step: Step) -> str | None:
        """Everything that `step` lacks here, in one line; None where it can run."""
        lacks = [] if self.gpu else [self.no_gpu]
        if absent := self.missing_packages(step.packages):
            lacks.append(f"not installed: {', '.join(absent)}")
        if absent := [name for name in step.tools if find_tool(name) is None]:
            lacks.append(f"not on the PATH nor below CUDA_HOME: {', '.join(absent)}")
        if step.launches and (reason := _why_no_c_compiler()):
            lacks.append(f"Triton needs a C compiler for its first launch: {reason}")
        if self.free_gib is not None and self.free_gib < step.memory_gib:
            lacks.append(f"it needs {step.memory_gib:g} GiB of GPU memory, {self.free_gib:.1f} are free")
        return "; ".join(lacks) or None

    def missing_packages(self, packages: Iterable[str]) -> list[str]:
        """Packages that are not installed.

        Without a GPU torch is left out: the reason for having no GPU covers it.
        """
        told = () if self.gpu else ("torch",)
        return [name for name in packages if name not in told and not self.packages.get(name, False)]


def inspect_machine(python: str, packages: Iterable[str]) -> Machine:
    """Query the driver and the interpreter that the steps will use.

    Raises:
        UserError: the interpreter does not answer.
    """
    others = other_gpu_processes()  # before the probe holds memory itself
    found = _run_probe(python, packages)
    if found["gpu"] is None:
        return Machine(None, _why_no_gpu(found), found["packages"])
    free, whole = found["free_bytes"] / GIB, found["memory_bytes"] / GIB
    return Machine(found["gpu"], "", found["packages"], free, tuple(_machine_notes(found["gpu"], free, whole, others)))


def _run_probe(python: str, packages: Iterable[str]) -> dict[str, Any]:
    """Run `_PROBE_SOURCE` in the interpreter and return its answer."""
    command = [python, "-c", _PROBE_SOURCE, *sorted(set(packages))]
    try:
        asked = subprocess.run(  # noqa: S603 - the interpreter that was asked for
            command, capture_output=True, text=True, errors="replace", timeout=PROBE_SECONDS
        )
    except OSError as error:
        raise UserError(f"--python {python}: cannot be run ({error.strerror})") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"--python {python}: does not answer within {PROBE_SECONDS} s") from error
    try:
        found = json.loads(asked.stdout.strip().rpartition("\n")[2])
    except ValueError:
        found = None
    if isinstance(found, dict) and {"packages", "gpu", "no_gpu"} <= found.keys():
        return found
    told = f": {last_line(asked.stderr)}" if asked.stderr.strip() else ""
    raise UserError(f"--python {python}: does not answer as Python does (exit status {asked.returncode}{told})")


def _why_no_gpu(found: dict[str, Any]) -> str:
    """Most likely reason: hidden GPUs, or a torch that does not fit the driver."""
    if "torch" not in found:
        return str(found["no_gpu"])
    if are_gpus_hidden():
        return "CUDA_VISIBLE_DEVICES hides every GPU: unset it, or set it to 0"
    if driver := find_driver():
        return why_unusable(driver, TorchBuild(*found["torch"]))
    return f"{found['no_gpu']}, and {reason}" if (reason := timeout_message()) else str(found["no_gpu"])


def _machine_notes(gpu: str, free_gib: float, whole_gib: float, others: list[int]) -> Iterable[str]:
    if " MIG " in gpu:
        yield f"{gpu} is a MIG slice: its figures are not those of a whole GPU"
    if others:
        listed = ", ".join(map(str, others))
        yield f"{len(others)} other processes use the GPU (process {listed}): times will be theirs too"
    elif whole_gib - free_gib > PROBE_GIB + 0.02 * whole_gib:
        yield f"{whole_gib - free_gib:.1f} of {whole_gib:.1f} GiB of GPU memory are in use by others"
    if reason := timeout_message():
        yield f"{reason}: whether other processes use the GPU is not known"


def _why_no_c_compiler() -> str | None:
    """Advice where Triton finds no C compiler for its launcher; None where it does."""
    if named := os.environ.get("CC"):
        return None if shutil.which(named) else f"CC={named!r} is no program; name one without options, or unset CC"
    return None if shutil.which("gcc") or shutil.which("clang") else "install gcc, or name one in CC"


def find_tool(name: str) -> str | None:
    """Path of a CUDA toolkit program, on the PATH or where toolkits are installed."""
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    return shutil.which(name) or shutil.which(name, path=str(Path(home, "bin")))


# Facts step: versions, clocks, power, memory, and other processes on the GPU.

WANTED_PACKAGES = (
    "nvidia-ml-py",
    "nvtx",
    "nvmath-python",
    "cuda-bench",
    "pytest-xdist",
    "altair",
    "flash-attn",
    "flashinfer-python",
)
"""Distributions without which something is not measured or not reported."""

FACTS_STEP = Step(
    name="facts",
    purpose="versions, and what NVML says: clocks, power, throttling, memory, other processes",
    seconds=15,
    least_seconds=5,
    command=lambda context, _: context.program("facts", module_name="machine"),
    packages=MEASURING_PACKAGES,
    optional=RECOVERY_PACKAGES,
    launches=False,
    memory_gib=0.5,
)


def read_facts() -> dict[str, Any]:
    """Read all facts; None for facts that cannot be read."""
    from kernels.timing.device import current_device, nvml_handle, read_load
    from suites.environment import machine_info, package_version

    device = current_device()
    throttled, load = read_load()
    found = {**machine_info(device), "python": platform.python_version(), "throttled": throttled, "load": load}
    found |= {"free_bytes": device.free_bytes(), "total_bytes": device.total_bytes()}
    found["missing"] = [name for name in WANTED_PACKAGES if package_version(name) is None]
    found["processes"] = _process_count(nvml_handle())
    return found


def _process_count(handle: tuple[Any, Any] | None) -> int | None:
    """Number of compute processes; None where NVML is silent, as on a virtual GPU."""
    if handle is None:
        return None
    nvml, gpu = handle
    try:
        return len(nvml.nvmlDeviceGetComputeRunningProcesses(gpu))
    except (nvml.NVMLError, AttributeError):  # an older binding may lack the function
        return None


def judge_facts(found: Mapping[str, Any]) -> Verdict:
    """Pass in one line, with reasons to doubt figures of this machine."""
    told = [
        f"{found['gpu']}, driver {found.get('driver')}, torch {found['torch']}, CUDA {found['cuda']}, "
        f"triton {found['triton']}, Python {found['python']}",
        f"{found['free_bytes'] / GIB:.1f} of {found['total_bytes'] / GIB:.1f} GiB free",
    ]
    if load := found["load"]:
        told.append(f"SM {load['sm_mhz']:.0f} MHz, {load['power_watts']:.0f} W, {load['temperature_celsius']:.0f} C")
    else:
        told.append("NVML is silent: no clocks, power or throttling")
    doubts = {
        "it is held back": found["throttled"],
        "MIG is on": found.get("mig"),
        "other processes use it": (found["processes"] or 0) > 1,
    }
    told += [doubt for doubt, holds in doubts.items() if holds]
    told += [f"missing: {', '.join(found['missing'])}"] if found["missing"] else []
    return Verdict("passed", "; ".join(told), dict(found))


def main(argv: Sequence[str] | None = None) -> int:
    """Read the facts and write the verdict."""
    asked = parse_options(__doc__, argv)
    return write_verdict(judge_facts(read_facts()), asked.verdict)


if __name__ == "__main__":
    sys.exit(run_step({"facts": main}))

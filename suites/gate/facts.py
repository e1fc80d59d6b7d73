"""What this machine is: versions, clocks, power, memory, and who else uses the GPU."""

import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from suites.gate.machine import GIB
from suites.gate.step import MEASURING, RECOVER, Step, Verdict, leave, options

WANTED = (
    "nvidia-ml-py",
    "nvtx",
    "nvmath-python",
    "cuda-bench",
    "pytest-xdist",
    "altair",
    "flash-attn",
    "flashinfer-python",
)
"""Packages without which something is not measured or not said, as they are installed."""

STEP = Step(
    name="facts",
    purpose="versions, and what NVML says: clocks, power, throttling, memory, other processes",
    seconds=15,
    least_seconds=5,
    command=lambda place, _: place.module("facts"),
    packages=MEASURING,
    optional=RECOVER,
    launches=False,
    memory_gib=0.5,
)


def facts() -> dict[str, Any]:
    """Everything that can be read; None for what cannot."""
    from kernels.timing.device import current_device, nvml_handle, read_load
    from suites.environment import machine_info, package_version

    device = current_device()
    throttled, load = read_load()
    found = {**machine_info(device), "python": platform.python_version(), "throttled": throttled, "load": load}
    found |= {"free_bytes": device.free_bytes(), "total_bytes": device.total_bytes()}
    found["missing"] = [name for name in WANTED if package_version(name) is None]
    found["processes"] = _processes(nvml_handle())
    return found


def _processes(handle: tuple[Any, Any] | None) -> int | None:
    """How many compute on the GPU; None where NVML does not tell, as on a virtual GPU."""
    if handle is None:
        return None
    nvml, gpu = handle
    try:
        return len(nvml.nvmlDeviceGetComputeRunningProcesses(gpu))
    except (nvml.NVMLError, AttributeError):  # an older binding may lack the function
        return None


def judge(found: Mapping[str, Any]) -> Verdict:
    """One line; nothing here is wrong, but it says what makes figures doubtful."""
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
    """Read, and say."""
    asked = options(__doc__, argv)
    return leave(judge(facts()), asked.verdict)


if __name__ == "__main__":
    sys.exit(main())

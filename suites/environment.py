"""Environment of a result, recorded in `machine_info` of every result file.

It has no host name and no user name, because result files are shared.
"""

import os
import platform
import re
from collections.abc import Iterator
from datetime import date
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cpuinfo
import psutil
import torch

from kernels.timing.device import Device, format_gib, nvml_handle
from kernels.timing.nvidia_smi import other_gpu_processes
from specs.measurement import SCHEMA

VARIABLE_PREFIXES = (
    "NCCL_",
    "RCCL_",
    "UCCL_",
    "GLOO_",
    "FI_",
    "UCX_",
    "OMPI_MCA_",
    "CUDA_VISIBLE",
    "CUBLAS",
    "OMP_",
    "MKL_",
    "ONEDNN_",
    "TORCH_",
    "TRITON_",
    "KMP_",
    "GOMP_",
)
"""Prefixes of variables that change a kernel or a collective."""
PACKAGES = (
    *("torch", "triton", "cupy-cuda13x", "cupy-cuda12x", "nvmath-python", "nvidia-cublas", "nvidia-cublas-cu12"),
    *("numpy", "nvtx", "cuda-bench", "pytest", "pytest-benchmark"),
)


CPU_NAME_NOISE = re.compile(r"\((?:R|TM)\)|\b(?:Processor|CPU)\b|@ *[\d.]+ *[GM]Hz", re.IGNORECASE)
"""Words in every processor's name, and nominal clocks that do not hold."""


def machine_info(device: Device) -> dict[str, Any]:
    """Facts of machine, driver and libraries; None if unreadable, never guessed."""
    packages = {name: package_version(name) for name in PACKAGES}
    return {
        "shardbench_schema": SCHEMA,
        "device": device.kind,
        "arch": device.arch,
        "llc_bytes": device.llc_bytes,
        "memory_bytes": psutil.virtual_memory().total,
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "triton": packages["triton"],
        "cupy": packages["cupy-cuda13x"] or packages["cupy-cuda12x"],
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "nccl": nccl_version(),
        "packages": packages,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "numa_nodes": len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or None,
        "variables": {name: value for name, value in os.environ.items() if name.startswith(VARIABLE_PREFIXES)},
        **(gpu_info() if device.kind == "cuda" else {"gpu": None}),
    }


def gpu_info() -> dict[str, Any]:
    """Facts of the first GPU, from torch and, if available, NVML."""
    properties = torch.cuda.get_device_properties(0)
    facts: dict[str, Any] = {
        "gpu": properties.name,
        "gpus": torch.cuda.device_count(),
        "sms": properties.multi_processor_count,
        "l2_bytes": properties.L2_cache_size,
        "gpu_memory_bytes": properties.total_memory,
        "links": gpu_links(torch.cuda.device_count()),
        "peer_access": torch.cuda.device_count() > 1 and torch.cuda.can_device_access_peer(0, 1),
    }
    if (found := nvml_handle()) is None:
        return facts | {"driver": None, "nvml": "not present: install nvidia-ml-py for clocks, power and throttling"}
    nvml, handle = found
    asked = {
        "driver": nvml.nvmlSystemGetDriverVersion,
        "sm_mhz_default": lambda: nvml.nvmlDeviceGetDefaultApplicationsClock(handle, nvml.NVML_CLOCK_SM),
        "sm_mhz_most": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        "sm_mhz_now": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "memory_mhz_now": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "power_limit_watts": lambda: nvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000,
        "ecc": lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0]),
        "mig": lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0]),
        "nvlinks_active": lambda: _active_nvlinks(nvml, handle),
        "pcie_generation": lambda: nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle),
        "pcie_width": lambda: nvml.nvmlDeviceGetCurrPcieLinkWidth(handle),
    }
    for name, ask in asked.items():
        try:
            facts[name] = ask()
        except (nvml.NVMLError, AttributeError):  # newer bindings drop functions that NVML deprecates
            facts[name] = None
    return facts


@cache
def gpu_links(gpus: int) -> dict[str, str]:
    """Link of each GPU pair, {"0-1": "nvlink"} or pcie; empty without NVML."""
    found = [handle for index in range(gpus) if (handle := nvml_handle(index))]
    if len(found) < gpus or not found:
        return {}
    nvml, handles = found[0][0], [handle for _, handle in found]
    try:
        return {
            f"{a}-{b}": "nvlink" if _has_nvlink(nvml, handles[a], handles[b]) else "pcie"
            for a in range(gpus)
            for b in range(a + 1, gpus)
        }
    except (nvml.NVMLError, AttributeError):
        return {}


def _has_nvlink(nvml: Any, a: Any, b: Any) -> bool:
    status = nvml.nvmlDeviceGetP2PStatus(a, b, nvml.NVML_P2P_CAPS_INDEX_NVLINK)
    return bool(status == nvml.NVML_P2P_STATUS_OK)


def _active_nvlinks(nvml: Any, handle: Any) -> int:
    active = 0
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        try:
            active += nvml.nvmlDeviceGetNvLinkState(handle, link)
        except nvml.NVMLError:
            break
    return active


def nccl_version() -> str | None:
    """NCCL version of torch's build; None on a build without NCCL."""
    if not torch.cuda.is_available() or not torch.distributed.is_nccl_available():
        return None
    return ".".join(map(str, torch.cuda.nccl.version()))


def package_version(name: str) -> str | None:
    """Installed version; None if the package is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def cpu_name() -> str:
    """Processor's own name."""
    return str(cpuinfo.get_cpu_info().get("brand_raw") or platform.processor() or platform.machine())


def result_name(device: Device) -> str:
    """Name of a result file, <machine>-<date>, without the host's name."""
    if device.kind == "cuda":
        name = torch.cuda.get_device_name(0).removeprefix("NVIDIA ")
    else:
        name = CPU_NAME_NOISE.sub(" ", cpu_name())
    cores = "" if device.kind == "cuda" else f" {psutil.cpu_count()} threads"
    return "-".join(re.findall(r"[a-z0-9]+", f"{name}{cores} {date.today().isoformat()}".lower()))


# Notes on a shared GPU: a MIG slice, other processes, or little free memory

LOW_MEMORY_SHARE = 0.25
"""Share of free memory below which large shapes and cold copies often do not fit."""


def gpu_sharing_notes(device: Device, mig: bool | None) -> Iterator[str]:
    """Notes on a shared GPU, each `finding; remedy`."""
    if device.kind != "cuda":
        return
    if mig:
        yield "MIG is on: a slice is measured, and datasheet peaks are of the whole GPU; turn MIG off to measure it all"
    if others := other_gpu_processes():
        yield f"other processes compute on the GPU (pid {', '.join(map(str, others))}): expect noise; end them first"
    free, total = device.free_bytes(), device.total_bytes()
    if free < LOW_MEMORY_SHARE * total:
        yield (
            f"{format_gib(free)} of {format_gib(total)} are free: cases that need more are left out; free the GPU's "
            "memory"
        )

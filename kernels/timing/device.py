"""The device under test: architecture, memory, sampling limits, and telemetry."""

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from kernels.timing.nvidia_smi import TorchBuild, are_gpus_hidden, find_driver, why_unusable
from specs.errors import UserError
from specs.gpus import recognise_gpu

# GPUs that torch does not see: hidden on purpose, or listed by a driver that this torch cannot use.


def hide_gpus() -> None:
    """Hide every GPU from this process and its children.

    torch must not have used CUDA yet.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def why_gpu_unseen() -> str | None:
    """Return one line on a GPU that the driver lists and torch cannot use.

    None elsewhere, and where GPUs are hidden on purpose.
    """
    if torch.cuda.is_available() or are_gpus_hidden() or (driver := find_driver()) is None:
        return None
    return why_unusable(driver, TorchBuild(torch.__version__, torch.version.cuda, torch.version.hip, _torch_error()))


def _torch_error() -> str:
    try:
        torch.cuda.init()
    except (AssertionError, RuntimeError) as error:
        return str(error).strip().split("\n")[0]
    return "it gives no reason"


COLD_FACTOR = 32
"""Factor of the last-level cache that weights rotate through.

4x still leaves 25 % hits where the cache keeps old lines.
"""

MAX_COPIES = 4096


class SamplingLimits(NamedTuple):
    """Time limits of a measurement.

    Attributes:
        span_seconds: least time that one sample spans.
        visit_seconds: time given to one case in one pass.
        precision: relative half-width of the interval at which a case is known well enough.
        budget_seconds: default time for all passes together.
    """

    span_seconds: float
    visit_seconds: float
    precision: float
    budget_seconds: float


SAMPLING_LIMITS = {"cpu": SamplingLimits(5e-3, 25e-3, 0.05, 105.0), "cuda": SamplingLimits(1e-3, 30e-3, 0.005, 240.0)}
"""Limits by kind of device.

A CPU's samples span more than a scheduler's tick, and visits are short so that a busy machine grants many.
"""


@dataclass(frozen=True)
class Device:
    """A device under test.

    Attributes:
        kind: torch's device name, cpu or cuda.
        arch: cpu, sm_90, gfx942, …
        llc_bytes: last-level cache (L2 on a GPU, L3 on most CPUs).
        limits: time limits of a measurement on it.
    """

    kind: str
    arch: str
    llc_bytes: int
    limits: SamplingLimits

    @cached_property
    def cold_bytes(self) -> int:
        """Bytes that cold inputs rotate through.

        They are fewer where memory is short, and the case is then labelled.
        """
        eighth = self.free_bytes() // 8
        return min(COLD_FACTOR * self.llc_bytes, 1 << max(0, eighth.bit_length() - 1))

    def cold_copies(self, weight_bytes: int) -> int:
        """Return how many copies of a weight cold calls rotate through; 1 without weight.

        Together they have at least cold_bytes.
        """
        return max(1, min(MAX_COPIES, ceil(self.cold_bytes / weight_bytes))) if weight_bytes else 1

    def lost(self) -> str:
        """Return why this process can no longer use the device; empty while it can.

        A CUDA fault spoils all later work.
        """
        if self.kind == "cuda":
            try:
                torch.cuda.synchronize()
            except RuntimeError as error:
                return f"the GPU is lost to this process ({str(error).splitlines()[0]})"
        return ""

    def total_bytes(self) -> int:
        """Return the bytes of memory that the device has, used or not.

        The total is the same in every process, unlike the free memory.
        """
        if self.kind == "cuda":
            return int(torch.cuda.mem_get_info()[1])
        return int(psutil.virtual_memory().total)

    def free_bytes(self) -> int:
        """Return the bytes that can be allocated now."""
        if self.kind == "cuda":
            return int(torch.cuda.mem_get_info()[0])
        return min(psutil.virtual_memory().available, _cgroup_free_bytes())


@cache
def current_device() -> Device:
    """Return the first CUDA (or ROCm) GPU that torch sees, else the CPU.

    Raises:
        UserError: the driver lists a GPU that torch cannot use: the CPU is not measured in its place unasked.
    """
    if not torch.cuda.is_available():
        if reason := why_gpu_unseen():
            raise UserError(f"{reason}; or measure the CPU: --device cpu, or CUDA_VISIBLE_DEVICES=")
        return cpu_device()
    properties = torch.cuda.get_device_properties(0)
    nvidia_arch = f"sm_{properties.major}{properties.minor}"
    arch = properties.gcnArchName.split(":")[0] if torch.version.hip else nvidia_arch
    known = recognise_gpu(properties.name, properties.total_memory)
    # An MI300X reports the L2 of one chiplet; a cold run has to outgrow the cache behind all chiplets.
    llc_bytes = max(properties.L2_cache_size, (known.l2_bytes or 0) if known else 0)
    return Device("cuda", arch, llc_bytes, SAMPLING_LIMITS["cuda"])


def cpu_device() -> Device:
    """Return the CPU of this machine."""
    return Device("cpu", "cpu", _cpu_llc_bytes(), SAMPLING_LIMITS["cpu"])


def _cpu_llc_bytes(root: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return the bytes of all last-level caches of this process's cores.

    Linux reports them; 32 MiB elsewhere.
    """
    caches: dict[tuple[int, str], int] = {}
    for cpu in psutil.Process().cpu_affinity() if hasattr(psutil.Process, "cpu_affinity") else ():
        for index in (root / f"cpu{cpu}" / "cache").glob("index*"):
            level, shared, size = ((index / name).read_text().strip() for name in ("level", "shared_cpu_list", "size"))
            caches[int(level), shared] = int(size.rstrip("K")) * 1024
    last = max((level for level, _ in caches), default=0)
    return sum(size for (level, _), size in caches.items() if level == last) or 32 * 2**20


def _cgroup_free_bytes() -> int:
    """Return the bytes that a container may still take.

    The machine's free memory does not include the container's own limit.
    """
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text().strip(), (group / "memory.current").read_text()
    except OSError:
        return 2**63
    return 2**63 if limit == "max" else int(limit) - int(used)


def format_gib(count: int) -> str:
    """Return bytes in GiB as text: memory is sold and limited in powers of two."""
    return f"{count / 2**30:.2f} GiB"


# Clocks, power and throttling of an NVIDIA GPU, read through NVML under load.

THROTTLE_REASONS = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of NVML's clock event reasons for clocks slower than requested."""


@cache
def nvml_handle(index: int = 0) -> tuple[Any, Any] | None:
    """Return NVML and the handle of one of torch's GPUs, whatever masks there are.

    None without `nvidia-ml-py` or a driver.
    """
    try:
        import pynvml
        import torch

        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(index).uuid)
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
    except Exception:  # NVML has an error for each missing thing; each means that nothing can be read
        return None


def read_load() -> tuple[bool | None, dict[str, float] | None]:
    """Return (throttled, figures) of the GPU now; call it while work is in flight."""
    if (found := nvml_handle()) is None:
        return None, None
    nvml, handle = found
    try:
        if (reasons := _clock_event_reasons(nvml, handle)) is None:
            return None, None
        figures = {
            "sm_mhz": float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "memory_mhz": float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            "power_watts": nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "temperature_celsius": float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            "clock_event_reasons": float(reasons),
        }
    except nvml.NVMLError:
        return None, None
    return any(reasons & bit for bit in THROTTLE_REASONS), figures


def _clock_event_reasons(nvml: Any, handle: Any) -> int | None:
    """Return NVML's bits; None where NVML gives none.

    Bindings and drivers before 535 have an older name for them.
    """
    for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
        if ask := getattr(nvml, name, None):
            with suppress(nvml.NVMLError):
                return int(ask(handle))
    return None

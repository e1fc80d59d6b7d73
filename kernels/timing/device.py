"""The device under test, and how patient a measurement on it has to be."""

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

# A GPU that torch does not see: hidden on purpose, or listed by a driver that this torch cannot use.


def hide_gpus() -> None:
    """Hide every GPU from this process and those that it starts; torch must not have used CUDA yet."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def why_gpu_unseen() -> str | None:
    """One line where the driver lists a GPU that torch cannot use and that nobody hides; None elsewhere."""
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
"""Weights rotate through this many times the last-level cache: 4x still leaves 25 % hits where old lines are kept."""

MAX_COPIES = 4096


class SamplingLimits(NamedTuple):
    """How long to measure.

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
"""A CPU's samples span more than a scheduler's tick, and visits are short so that a busy machine grants many."""


@dataclass(frozen=True)
class Device:
    """A device under test.

    Attributes:
        kind: torch's device name, cpu or cuda.
        arch: cpu, sm_90, gfx942, …
        llc_bytes: last-level cache (L2 on a GPU, L3 on most CPUs).
        limits: how long to measure on it.
    """

    kind: str
    arch: str
    llc_bytes: int
    limits: SamplingLimits

    @cached_property
    def cold_bytes(self) -> int:
        """Bytes that cold inputs rotate through; less where memory is short, and the case is then labelled."""
        eighth = self.free_bytes() // 8
        return min(COLD_FACTOR * self.llc_bytes, 1 << max(0, eighth.bit_length() - 1))

    def cold_copies(self, weight_bytes: int) -> int:
        """Copies of a weight that cold calls rotate through, together no less than cold_bytes; one of no weight."""
        return max(1, min(MAX_COPIES, ceil(self.cold_bytes / weight_bytes))) if weight_bytes else 1

    def lost(self) -> str:
        """Why the device can do no more in this process; empty while it can. A CUDA fault spoils all that follows."""
        if self.kind == "cuda":
            try:
                torch.cuda.synchronize()
            except RuntimeError as error:
                return f"the GPU is lost to this process ({str(error).splitlines()[0]})"
        return ""

    def total_bytes(self) -> int:
        """Bytes that it has, whoever uses them: the same in every process, which what is free is not."""
        if self.kind == "cuda":
            return int(torch.cuda.mem_get_info()[1])
        return int(psutil.virtual_memory().total)

    def free_bytes(self) -> int:
        """Bytes that can be allocated now."""
        if self.kind == "cuda":
            return int(torch.cuda.mem_get_info()[0])
        return min(psutil.virtual_memory().available, _cgroup_free_bytes())


@cache
def current_device() -> Device:
    """The first CUDA (or ROCm) GPU where torch sees one, else the CPU.

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
    # An MI300X reports the L2 of one chiplet; what a cold run has to outgrow is the cache behind all of them.
    llc_bytes = max(properties.L2_cache_size, (known.l2_bytes or 0) if known else 0)
    return Device("cuda", arch, llc_bytes, SAMPLING_LIMITS["cuda"])


def cpu_device() -> Device:
    """The CPU of this machine."""
    return Device("cpu", "cpu", _cpu_llc_bytes(), SAMPLING_LIMITS["cpu"])


def _cpu_llc_bytes(root: Path = Path("/sys/devices/system/cpu")) -> int:
    """All last-level caches of the cores that this process may use, as Linux tells; 32 MiB where it does not."""
    caches: dict[tuple[int, str], int] = {}
    for cpu in psutil.Process().cpu_affinity() if hasattr(psutil.Process, "cpu_affinity") else ():
        for index in (root / f"cpu{cpu}" / "cache").glob("index*"):
            level, shared, size = ((index / name).read_text().strip() for name in ("level", "shared_cpu_list", "size"))
            caches[int(level), shared] = int(size.rstrip("K")) * 1024
    last = max((level for level, _ in caches), default=0)
    return sum(size for (level, _), size in caches.items() if level == last) or 32 * 2**20


def _cgroup_free_bytes() -> int:
    """What a container may still take: its own limit is not in the machine's free memory."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text().strip(), (group / "memory.current").read_text()
    except OSError:
        return 2**63
    return 2**63 if limit == "max" else int(limit) - int(used)


def format_gib(count: int) -> str:
    """Bytes in GiB: memory is sold and limited in powers of two."""
    return f"{count / 2**30:.2f} GiB"


# Clocks, power and throttling of an NVIDIA GPU, read through NVML while it is under load.

THROTTLE_REASONS = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of NVML's clock event reasons that mean: slower than the clocks that were asked for."""


@cache
def nvml_handle(index: int = 0) -> tuple[Any, Any] | None:
    """NVML and the handle of one of torch's GPUs, whatever masks there are; None without `nvidia-ml-py` or a driver."""
    try:
        import pynvml
        import torch

        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(index).uuid)
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
    except Exception:  # NVML raises its own errors for each thing that may be missing; each means: nothing to read
        return None


def read_load() -> tuple[bool | None, dict[str, float] | None]:
    """(throttled, figures) as the GPU is this moment: call it while work is in flight."""
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
    """NVML's bits, by their newer name or by that of bindings and drivers before 535; None where neither is told."""
    for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
        if ask := getattr(nvml, name, None):
            with suppress(nvml.NVMLError):
                return int(ask(handle))
    return None

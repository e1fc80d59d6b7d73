"""Clocks, power and throttling of an NVIDIA GPU, read through NVML while it is under load."""

from contextlib import suppress
from functools import cache
from typing import Any

HELD_BACK = {
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
    return any(reasons & bit for bit in HELD_BACK), figures


def _clock_event_reasons(nvml: Any, handle: Any) -> int | None:
    """NVML's bits, by their newer name or by that of bindings and drivers before 535; None where neither is told."""
    for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
        if ask := getattr(nvml, name, None):
            with suppress(nvml.NVMLError):
                return int(ask(handle))
    return None

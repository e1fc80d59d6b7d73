"""What `machine_info` says of a machine, in a line; and where two machines differ."""

from collections.abc import Mapping
from typing import Any

from specs.units import binary_bytes

Machine = Mapping[str, Any]

MATTERS = (
    "gpu", "gpus", "cpu", "arch", "cores", "threads", "torch_threads", "torch", "triton", "cuda", "hip", "nccl",
    "driver", "float32_matmul_precision", "sm_mhz_default", "power_limit_watts", "ecc", "mig", "variables", "system",
)  # fmt: skip
"""Facts that a time depends on, the weightiest first."""


def name(machine: Machine) -> str:
    """GPU or CPU alone."""
    return str(machine.get("gpu") or _cpu(machine) or "unknown machine")


def describe(machine: Machine) -> str:
    """GPU or CPU, its cores, its last cache."""
    if gpu := machine.get("gpu"):
        parts = [str(gpu), _count(machine, "sms", "SMs"), _capacity(machine, "l2_bytes", "L2")]
        return ", ".join(filter(None, [*parts, _capacity(machine, "gpu_memory_bytes", "memory")]))
    parts = [_cpu(machine) or "unknown CPU", _count(machine, "cores", "cores"), _capacity(machine, "llc_bytes", "LLC")]
    return ", ".join(filter(None, [*parts, _count(machine, "torch_threads", "threads")]))


def software(machine: Machine) -> str:
    """Versions of what a time depends on."""
    names = {"torch": "torch", "triton": "triton", "cuda": "CUDA", "hip": "HIP", "nccl": "NCCL", "driver": "driver"}
    return ", ".join(f"{title} {machine[name]}" for name, title in names.items() if machine.get(name))


def differences(a: Machine, b: Machine) -> list[tuple[str, str, str]]:
    """Each fact that matters and differs, with both values."""
    pairs = ((name, _text(a, name), _text(b, name)) for name in MATTERS)
    return [(name, left, right) for name, left, right in pairs if left != right]


def _text(machine: Machine, name: str) -> str:
    if name == "cpu":
        return _cpu(machine) or "unknown"
    value = machine.get(name)
    if isinstance(value, dict):
        return " ".join(f"{key}={value[key]}" for key in sorted(value)) or "none"
    return "none" if value is None else str(value)


def _cpu(machine: Machine) -> str:
    cpu = machine.get("cpu")
    name = cpu.get("brand_raw") if isinstance(cpu, dict) else cpu
    return str(name or machine.get("processor") or machine.get("machine") or "")


def _count(machine: Machine, name: str, unit: str) -> str:
    return f"{machine[name]} {unit}" if machine.get(name) else ""


def _capacity(machine: Machine, name: str, what: str) -> str:
    count = machine.get(name)
    return f"{binary_bytes(count)} {what}" if isinstance(count, int | float) and count else ""

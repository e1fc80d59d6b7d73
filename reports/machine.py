"""What `machine_info` says of a machine, in a line; and where two machines differ."""

import shlex
from collections.abc import Mapping
from typing import Any

from reports import roofline
from reports.results import ResultFile
from reports.roofline import AlphaBetaFit, fit_alpha_beta
from specs.gpus import Gpu, recognise_gpu
from specs.measurement import Measurement
from specs.roofline import Ceilings
from specs.statistics import Passes
from specs.units import BINARY_UNITS, format_bytes

# The ceilings that a file's cases are held against: what the same run measured, and what the datasheet promises.

EMPTY_KERNEL = "triton_empty"
MIN_SIZES = 4
"""Of reads that a line goes through."""


def measured_ceilings(file: ResultFile) -> Ceilings:
    """The best of the file's own ceilings: reads for memory, square products for arithmetic, the launch latency."""
    found = _ceiling_measurements(file)
    reading = fastest_read(file)
    launches = [one.median for one in found if _is_launch(one)]
    return Ceilings(
        read_bytes_per_second=reading.bytes_per_second if reading else None,
        flops_per_second={dtype: one.flops_per_second for dtype, one in fastest_matmuls(file).items()},
        launch_seconds=min(launches, default=None),
    )


def fastest_read(file: ResultFile) -> Measurement | None:
    """The fastest of the file's own reads; a hot one comes from a cache and is no ceiling of memory."""
    reads = [one for one in _ceiling_measurements(file) if one.case.op == "read" and one.case.cache != "hot"]
    return max(reads, key=lambda one: one.bytes_per_second, default=None)


def fastest_launch(file: ResultFile, how: str) -> Measurement | None:
    """The shortest launch latency that the file measured, in a graph or eager."""
    launches = [one for one in _ceiling_measurements(file) if _is_launch(one) and one.case.launch == how]
    return min(launches, key=lambda one: one.median, default=None)


def empty_kernel(file: ResultFile) -> Measurement | None:
    """The empty kernel of a file that measured it: less than the launch of a kernel that has anything to do."""
    return next((one for one in _ceiling_measurements(file) if one.case.kernel == EMPTY_KERNEL), None)


def fastest_copies(file: ResultFile) -> dict[str, Measurement]:
    """By how it was launched the fastest copy: in a graph another engine of the GPU may do it."""
    found: dict[str, Measurement] = {}
    for one in sorted(_ceiling_measurements(file), key=lambda one: one.bytes_per_second):
        if one.case.op == "copy" and one.case.cache != "hot":
            found[one.case.launch] = one
    return found


def fastest_matmuls(file: ResultFile) -> dict[str, Measurement]:
    """By number format the fastest square product."""
    found: dict[str, Measurement] = {}
    for one in _ceiling_measurements(file):
        best = found.setdefault(one.case.dtype, one) if one.case.op == "linear" else None
        if best and one.flops_per_second > best.flops_per_second:
            found[one.case.dtype] = one
    return found


def fit_reads(file: ResultFile) -> tuple[AlphaBetaFit, list[int]] | None:
    """A line through one kernel's reads in a graph over at least `LEAST_SIZES` sizes, and those; None without them."""
    by_kernel: dict[str, dict[int, Passes]] = {}
    for one in _ceiling_measurements(file):
        if one.case.op == "read" and one.case.launch == "graph" and one.case.cache != "hot":
            by_kernel.setdefault(one.case.kernel, {})[one.case.hbm_bytes] = one.seconds
    sizes = max(by_kernel.values(), key=len, default={})
    return (fit_alpha_beta(sizes), sorted(sizes)) if len(sizes) >= MIN_SIZES else None


def doubtful_ceilings(file: ResultFile) -> dict[str, list[str]]:
    """By ceiling that was throttled, or in which the clock moved, that in words: floors derive from it."""
    found: dict[str, Measurement | None] = {"read": fastest_read(file)}
    found |= {f"copy {how}": one for how, one in fastest_copies(file).items()}
    found |= {f"{dtype} matmul": one for dtype, one in fastest_matmuls(file).items()}
    found |= {f"launch {how}": fastest_launch(file, how) for how in ("graph", "eager")} | {
        "empty kernel": empty_kernel(file)
    }
    said = {name: roofline.clock_doubts(one) for name, one in found.items() if one}
    return {name: words for name, words in said.items() if words}


def known_gpu(file: ResultFile) -> Gpu | None:
    """The datasheet row of the GPU that the file names."""
    name, memory = file.machine.get("gpu"), file.machine.get("gpu_memory_bytes")
    return recognise_gpu(name, memory if isinstance(memory, int) else None) if isinstance(name, str) else None


def _ceiling_measurements(file: ResultFile) -> list[Measurement]:
    return [one for one in file.measurements if one.case.question == "ceilings"]


def _is_launch(one: Measurement) -> bool:
    """A launch that has something to do: the ceiling of files that have an empty kernel and of those that do not."""
    return one.case.op == "launch" and one.case.kernel != EMPTY_KERNEL


# How a run was started: as its file says, or put together again from its options.

DEFAULT_OPTIONS: Mapping[str, Any] = {"rank_timeout": 60.0}
"""Options that a file holds though nobody gave them."""
MAX_SUITES_NAMED = 3
"""Suites that are named one by one; those who ran more ran them all."""


def run_command(file: ResultFile) -> str:
    """The command; of a file that does not say it one that asks for the same, and that it is such a one.

    An import's is nowhere: its options do not say what was imported.
    """
    if file.command or file.published or file.profiler:
        return file.command
    return f"{command_from_options(file)} (by its options)" if file.options or file.measurements else ""


def command_from_options(file: ResultFile) -> str:
    """The suites that its cases are of, and its options."""
    names = [*(one.case.name for one in file.measurements), *file.not_run, *file.failed]
    suites = sorted({name.partition("::")[0] for name in names if "::" in name}) or ["suites/"]
    words = [
        f"--{name.replace('_', '-')} {_value(name, value)}".rstrip() for name, value in _given_options(file.options)
    ]
    return " ".join(["pytest", *(suites if len(suites) <= MAX_SUITES_NAMED else ["suites/"]), *words])


def _given_options(options: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in options.items() if DEFAULT_OPTIONS.get(name) != value]


def _value(name: str, value: Any) -> str:
    """As it is typed: bytes in their unit, milliseconds, prompts as 4x512, and nothing for a switch."""
    if value is True:
        return ""
    if not isinstance(value, list | tuple):
        return shlex.quote(f"{value:g}" if isinstance(value, float) else str(value))
    return shlex.quote(",".join(_format_item(name, one) for one in value))


def _format_item(name: str, one: Any) -> str:
    if name == "message" and isinstance(one, int):
        return next((f"{one // factor}{symbol}" for factor, symbol in BINARY_UNITS if one % factor == 0), str(one))
    if name == "gap" and isinstance(one, int | float):
        return f"{one * 1e3:g}"
    return "x".join(map(str, one)) if isinstance(one, list | tuple) else str(one)


MachineInfo = Mapping[str, Any]

RELEVANT_FACTS = (
    "gpu", "gpus", "cpu", "arch", "cores", "threads", "torch_threads", "torch", "triton", "cuda", "hip", "nccl",
    "driver", "float32_matmul_precision", "sm_mhz_default", "power_limit_watts", "ecc", "mig", "variables", "system",
)  # fmt: skip
"""Facts that a time depends on, the weightiest first."""


def device_name(machine: MachineInfo) -> str:
    """GPU or CPU alone."""
    return str(machine.get("gpu") or _cpu(machine) or "unknown machine")


def describe(machine: MachineInfo) -> str:
    """GPU or CPU, its cores, its last cache."""
    if gpu := machine.get("gpu"):
        parts = [str(gpu), _count(machine, "sms", "SMs"), _capacity(machine, "l2_bytes", "L2")]
        return ", ".join(filter(None, [*parts, _capacity(machine, "gpu_memory_bytes", "memory")]))
    parts = [_cpu(machine) or "unknown CPU", _count(machine, "cores", "cores"), _capacity(machine, "llc_bytes", "LLC")]
    return ", ".join(filter(None, [*parts, _count(machine, "torch_threads", "threads")]))


def software_versions(machine: MachineInfo) -> str:
    """Versions of what a time depends on."""
    names = {"torch": "torch", "triton": "triton", "cuda": "CUDA", "hip": "HIP", "nccl": "NCCL", "driver": "driver"}
    return ", ".join(f"{title} {machine[name]}" for name, title in names.items() if machine.get(name))


def differences(a: MachineInfo, b: MachineInfo) -> list[tuple[str, str, str]]:
    """Each fact that matters and differs, with both values."""
    pairs = ((name, _text(a, name), _text(b, name)) for name in RELEVANT_FACTS)
    return [(name, left, right) for name, left, right in pairs if left != right]


def _text(machine: MachineInfo, name: str) -> str:
    if name == "cpu":
        return _cpu(machine) or "unknown"
    value = machine.get(name)
    if isinstance(value, dict):
        return " ".join(f"{key}={value[key]}" for key in sorted(value)) or "none"
    return "none" if value is None else str(value)


def _cpu(machine: MachineInfo) -> str:
    cpu = machine.get("cpu")
    name = cpu.get("brand_raw") if isinstance(cpu, dict) else cpu
    return str(name or machine.get("processor") or machine.get("machine") or "")


def _count(machine: MachineInfo, name: str, unit: str) -> str:
    return f"{machine[name]} {unit}" if machine.get(name) else ""


def _capacity(machine: MachineInfo, name: str, what: str) -> str:
    count = machine.get(name)
    return f"{format_bytes(count)} {what}" if isinstance(count, int | float) and count else ""

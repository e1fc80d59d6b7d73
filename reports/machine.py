"""Describe and compare machines: facts, measured ceilings, command of a run."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from reports import roofline
from reports.results import ResultFile
from reports.roofline import AlphaBetaFit, fit_alpha_beta
from specs.gpus import Gpu, recognise_gpu
from specs.measurement import Measurement
from specs.roofline import Ceilings
from specs.statistics import Passes
from specs.units import BINARY_UNITS, format_bytes

# Ceilings: measured by the same run, and promised by the datasheet.

EMPTY_KERNEL = "triton_empty"
MIN_SIZES = 4
"""Minimum number of read sizes for a line fit."""


def measured_ceilings(file: ResultFile) -> Ceilings:
    """Best ceilings of the file.

    Reads give memory bandwidth, square products the arithmetic rate, launches the latency.
    """
    found = _ceiling_measurements(file)
    reading = fastest_read(file)
    launches = [one.median for one in found if _is_launch(one)]
    return Ceilings(
        read_bytes_per_second=reading.bytes_per_second if reading else None,
        flops_per_second={dtype: one.flops_per_second for dtype, one in fastest_matmuls(file).items()},
        launch_seconds=min(launches, default=None),
    )


def fastest_read(file: ResultFile) -> Measurement | None:
    """Fastest read that is not hot, or None.

    A hot read comes from a cache and is no ceiling of memory.
    """
    reads = [one for one in _ceiling_measurements(file) if one.case.op == "read" and one.case.cache != "hot"]
    return max(reads, key=lambda one: one.bytes_per_second, default=None)


def fastest_launch(file: ResultFile, how: str) -> Measurement | None:
    """Shortest launch latency of the file, in launch mode `how`: graph or eager."""
    launches = [one for one in _ceiling_measurements(file) if _is_launch(one) and one.case.launch == how]
    return min(launches, key=lambda one: one.median, default=None)


def empty_kernel(file: ResultFile) -> Measurement | None:
    """Measurement of the empty kernel, or None.

    An empty kernel takes less than the launch of a kernel that computes something.
    """
    return next((one for one in _ceiling_measurements(file) if one.case.kernel == EMPTY_KERNEL), None)


def fastest_copies(file: ResultFile) -> dict[str, Measurement]:
    """Fastest copy by launch mode.

    In a graph, another engine of the GPU may do the copy.
    """
    found: dict[str, Measurement] = {}
    for one in sorted(_ceiling_measurements(file), key=lambda one: one.bytes_per_second):
        if one.case.op == "copy" and one.case.cache != "hot":
            found[one.case.launch] = one
    return found


def fastest_matmuls(file: ResultFile) -> dict[str, Measurement]:
    """Fastest square product by number format."""
    found: dict[str, Measurement] = {}
    for one in _ceiling_measurements(file):
        best = found.setdefault(one.case.dtype, one) if one.case.op == "linear" else None
        if best and one.flops_per_second > best.flops_per_second:
            found[one.case.dtype] = one
    return found


def fit_reads(file: ResultFile) -> tuple[AlphaBetaFit, list[int]] | None:
    """Fit a line to one kernel's reads in a graph; None below `MIN_SIZES` sizes.

    Returns the fit, and the sizes in bytes.
    """
    by_kernel: dict[str, dict[int, Passes]] = {}
    for one in _ceiling_measurements(file):
        if one.case.op == "read" and one.case.launch == "graph" and one.case.cache != "hot":
            by_kernel.setdefault(one.case.kernel, {})[one.case.hbm_bytes] = one.seconds
    sizes = max(by_kernel.values(), key=len, default={})
    return (fit_alpha_beta(sizes), sorted(sizes)) if len(sizes) >= MIN_SIZES else None


def doubtful_ceilings(file: ResultFile) -> dict[str, list[str]]:
    """Clock warnings by ceiling; floors derive from these ceilings."""
    found: dict[str, Measurement | None] = {"read": fastest_read(file)}
    found |= {f"copy {how}": one for how, one in fastest_copies(file).items()}
    found |= {f"{dtype} matmul": one for dtype, one in fastest_matmuls(file).items()}
    found |= {f"launch {how}": fastest_launch(file, how) for how in ("graph", "eager")} | {
        "empty kernel": empty_kernel(file)
    }
    said = {name: roofline.clock_doubts(one) for name, one in found.items() if one}
    return {name: words for name, words in said.items() if words}


def known_gpu(file: ResultFile) -> Gpu | None:
    """Datasheet row of the GPU that the file names, or None."""
    name, memory = file.machine.get("gpu"), file.machine.get("gpu_memory_bytes")
    return recognise_gpu(name, memory if isinstance(memory, int) else None) if isinstance(name, str) else None


def _ceiling_measurements(file: ResultFile) -> list[Measurement]:
    return file.by_question.get("ceilings", [])


def _is_launch(one: Measurement) -> bool:
    """True for the launch of a kernel that computes something.

    This launch is the ceiling of files with and without an empty kernel.
    """
    return one.case.op == "launch" and one.case.kernel != EMPTY_KERNEL


# Command of a run: as its file states it, or reconstructed from its options.

DEFAULT_OPTIONS: Mapping[str, Any] = {"rank_timeout": 60.0}
"""Options that a file holds although the command did not give them."""
MAX_SUITES_NAMED = 3
"""Maximum number of suites that a command names; more become `suites/`."""


def run_command(file: ResultFile) -> str:
    """Return the command, or an equivalent one marked `(by its options)`.

    An import without a command gives an empty string: its options do not say what was imported.
    """
    if file.command or file.published or file.profiler:
        return file.command
    return f"{command_from_options(file)} (by its options)" if file.options or file.measurements else ""


def command_from_options(file: ResultFile) -> str:
    """Reconstruct the command from the suites of the cases and the options."""
    names = [*(one.case.name for one in file.measurements), *file.not_run, *file.failed]
    suites = sorted({name.partition("::")[0] for name in names if "::" in name}) or ["suites/"]
    words = [
        f"--{name.replace('_', '-')} {_value(name, value)}".rstrip() for name, value in _given_options(file.options)
    ]
    return " ".join(["pytest", *(suites if len(suites) <= MAX_SUITES_NAMED else ["suites/"]), *words])


def _given_options(options: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in options.items() if DEFAULT_OPTIONS.get(name) != value]


def _value(name: str, value: Any) -> str:
    """Format an option as typed; empty for a switch.

    Examples: bytes in their unit, milliseconds, prompts as 4x512.
    """
    if value is True:
        return ""
    if not isinstance(value, list | tuple):
        return shlex.quote(f"{value:g}" if isinstance(value, float) else str(value))
    return shlex.quote(",".join(_format_item(name, one) for one in value))


def _format_item(name: str, one: Any) -> str:
    if name == "message" and isinstance(one, int):
        return next((f"{one // factor}{symbol}" for factor, symbol in BINARY_UNITS if one % factor == 0), str(one))
    if name in ("gap", "late") and isinstance(one, int | float):
        return f"{one * 1e3:g}"
    return "x".join(map(str, one)) if isinstance(one, list | tuple) else str(one)


MachineInfo = Mapping[str, Any]

RELEVANT_FACTS = (
    "gpu", "gpus", "cpu", "arch", "cores", "threads", "torch_threads", "torch", "triton", "cuda", "hip", "nccl",
    "driver", "float32_matmul_precision", "sm_mhz_default", "power_limit_watts", "ecc", "mig", "variables", "system",
)  # fmt: skip
"""Facts that a time depends on, the most important first."""


def device_name(machine: MachineInfo) -> str:
    """Name of the GPU, or else of the CPU."""
    return str(machine.get("gpu") or _cpu(machine) or "unknown machine")


def gpu_name(file: ResultFile) -> str:
    """Slug of a file's GPU, else the device name in the file."""
    known = known_gpu(file)
    return known.slug if known else device_name(file.machine)


def distinct_gpu_name(file: ResultFile, files: Iterable[ResultFile]) -> str:
    """GPU name of a file, with the file's name where several files share a machine."""
    alike = [one for one in files if device_name(one.machine) == device_name(file.machine)]
    return f"{gpu_name(file)} ({file.path.stem})" if len(alike) > 1 else gpu_name(file)


def describe(machine: MachineInfo) -> str:
    """GPU with SMs, L2 and memory, or CPU with cores, last-level cache and threads."""
    if gpu := machine.get("gpu"):
        parts = [str(gpu), _count(machine, "sms", "SMs"), _capacity(machine, "l2_bytes", "L2")]
        return ", ".join(filter(None, [*parts, _capacity(machine, "gpu_memory_bytes", "memory")]))
    parts = [_cpu(machine) or "unknown CPU", _count(machine, "cores", "cores"), _capacity(machine, "llc_bytes", "LLC")]
    return ", ".join(filter(None, [*parts, _count(machine, "torch_threads", "threads")]))


def software_versions(machine: MachineInfo) -> str:
    """Versions of the software that a time depends on."""
    names = {"torch": "torch", "triton": "triton", "cuda": "CUDA", "hip": "HIP", "nccl": "NCCL", "driver": "driver"}
    return ", ".join(f"{title} {machine[name]}" for name, title in names.items() if machine.get(name))


def differences(a: MachineInfo, b: MachineInfo) -> list[tuple[str, str, str]]:
    """Relevant facts that differ, as (name, value in a, value in b)."""
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

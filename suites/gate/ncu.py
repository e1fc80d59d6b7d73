"""Reading what Nsight Compute writes with --csv: one row a kernel and metric, with units and thousands separators."""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

READ, DURATION = "dram__bytes_read.sum", "gpu__time_duration.sum"
MARK = "_gate_mark"
"""Name of the kernel that stands before every profiled call; its grid has as many programs as the call's number."""

BYTES = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9, "Tbyte": 1e12}
SECONDS = {
    **{"nsecond": 1e-9, "usecond": 1e-6, "msecond": 1e-3, "second": 1.0},  # before 2025
    **{"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0},
}
_SCALE = {READ: BYTES, DURATION: SECONDS}

CANNOT = ("ERR_NVGPUCTRPERM", "Failed to initialize the profiler", "Profiling is not supported", "LibraryNotLoaded")
"""What ncu says where a machine lets nobody read its counters."""


@dataclass(frozen=True)
class Profiled:
    """One kernel: its name, programs along the grid's first axis, DRAM bytes read and duration."""

    kernel: str
    programs: int
    read_bytes: float
    seconds: float


@dataclass(frozen=True)
class CallCounters:
    """All kernels of one call together."""

    read_bytes: float
    seconds: float
    kernels: int


def why_no_counters(text: str) -> str | None:
    """What ncu itself says where it could not measure at all."""
    lines = (line.strip() for line in text.splitlines() if line.startswith("==ERROR=="))
    return next((line for line in lines if any(word in line for word in CANNOT)), None)


def most_passes(text: str) -> int:
    """Times that ncu ran a kernel to read all metrics: with more than one, later runs may find warm caches."""
    return max((int(count) for count in re.findall(r"100% - (\d+) pass", text)), default=1)


def profiled(text: str) -> list[Profiled]:
    """The kernels in the order of their launches.

    Raises:
        ValueError: no table, a metric is missing, or its unit or value is none that is known.
    """
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith('"ID"')]
    if not starts:
        raise ValueError("ncu wrote no table of kernels")
    kernels: dict[int, dict[str, str]] = {}
    for row in csv.DictReader(line for line in lines[starts[0] :] if line.startswith('"')):
        if row["ID"].isdecimal():  # not so: the row of units of --page raw, or the header of a second table
            kernels.setdefault(int(row["ID"]), {}).update(_fields(row))
    return [_profiled(number, fields) for number, fields in sorted(kernels.items())]


def by_call(kernels: Iterable[Profiled]) -> dict[int, list[CallCounters]]:
    """Calls by number, counting from 1; what ran before the first mark is left out."""
    calls: dict[int, list[CallCounters]] = {}
    for number, members in _between_marks(kernels):
        read, seconds = (sum(getattr(one, name) for one in members) for name in ("read_bytes", "seconds"))
        calls.setdefault(number, []).append(CallCounters(read, seconds, len(members)))
    return calls


def _between_marks(kernels: Iterable[Profiled]) -> Iterator[tuple[int, list[Profiled]]]:
    number, members = 0, list[Profiled]()
    for one in kernels:
        if MARK in one.kernel:
            if members:
                yield number, members
            number, members = one.programs, []
        elif number:
            members.append(one)
    if members:
        yield number, members


def _fields(row: dict[str, str]) -> Iterator[tuple[str, str]]:
    yield "kernel", row["Kernel Name"]
    yield "grid", row["Grid Size"]
    if row.get("Metric Name") in _SCALE:
        yield row["Metric Name"], f"{row['Metric Value']} {row['Metric Unit']}"


def _profiled(number: int, fields: dict[str, str]) -> Profiled:
    read, seconds = (_quantity(number, fields, metric) for metric in (READ, DURATION))
    return Profiled(fields["kernel"], int(fields["grid"].strip("( ").split(",")[0]), read, seconds)


def _quantity(number: int, fields: dict[str, str], metric: str) -> float:
    told = fields.get(metric, "absent")
    value, _, unit = told.partition(" ")
    try:
        return float(value.replace(",", "")) * _SCALE[metric][unit]
    except (ValueError, KeyError):
        raise ValueError(f"kernel {number} ({fields['kernel']}): {metric} is {told!r}") from None

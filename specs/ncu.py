"""Reading what Nsight Compute writes with --csv, with units and thousands separators.

The details page has one row a kernel and metric; the raw page one row a kernel, a column a metric, and under the
header a row of units. With --nvtx a column holds the stack of ranges that a kernel was launched in, each one as
`"domain:name:…"`. Lines of the program and of ncu itself may stand around the table.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isinf

READ, DURATION = "dram__bytes_read.sum", "gpu__time_duration.sum"
BOTH = (READ, DURATION)
ALIASES = {"Duration": DURATION}
"""Names of sections of the details page."""

BYTES = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9, "Tbyte": 1e12}
SECONDS = {
    **{"nsecond": 1e-9, "usecond": 1e-6, "msecond": 1e-3, "second": 1.0},  # before 2025
    **{"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0},
}
_SCALE = {READ: BYTES, DURATION: SECONDS}
_STACK = "Push/Pop_Range"
_NAMED = re.compile(r'"([^":]+):([^":]+\.py::\w+(?:\[[^\]"]*\])?|[^":]+)')
"""A range of the stack: its domain, and its name, of which a pytest node id has colons of its own."""

_NUMBER = re.compile(r"(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d*)?(?:[eE][+-]?\d+)?")
"""As ncu prints it where the locale is English: commas between thousands, and none behind the point."""

Table = list[dict[str, str]]


@dataclass(frozen=True)
class Profiled:
    """One kernel.

    Attributes:
        kernel: its name.
        programs: along the grid's first axis.
        read_bytes: from DRAM; None where it was not counted.
        seconds: duration.
        ranges: domain and name of each NVTX range that it was launched in, the outermost first.
        process: id of the process.
        arch: compute capability, as 9.0; empty where the table has none.
        gpu: the device's name where the table has it.
    """

    kernel: str
    programs: int
    read_bytes: float | None
    seconds: float
    ranges: tuple[tuple[str, str], ...] = ()
    process: str = ""
    arch: str = ""
    gpu: str = ""


def profiled(text: str, needed: Sequence[str] = BOTH) -> list[Profiled]:
    """The kernels in the order of their launches.

    Args:
        text: what ncu printed.
        needed: metrics without which a kernel is an error.

    Raises:
        ValueError: no table, a metric is missing, or its unit or value is none that is known.
    """
    kernels: dict[tuple[int, int], dict[str, str]] = {}
    for number, rows in enumerate(_tables(text)):
        units = next((row for row in rows if not row["ID"]), {})
        for row in rows:
            if row["ID"].isdecimal():
                kernels.setdefault((number, int(row["ID"])), {}).update(_fields(row, units))
    if not kernels:
        raise ValueError("ncu wrote no table of kernels")
    return [_profiled(key[1], fields, needed) for key, fields in sorted(kernels.items())]


def _tables(text: str) -> Iterator[Table]:
    """Rows of each table by column."""
    header: list[str] = []
    rows: Table = []
    for cells in csv.reader(line for line in text.splitlines() if line.startswith('"')):
        if cells[0] == "ID":
            if rows:
                yield rows
            header, rows = cells, []
        elif header:
            rows.append(dict(zip(header, cells, strict=False)))
    if rows:
        yield rows


def _fields(row: Mapping[str, str], units: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield "kernel", row.get("Kernel Name", "")
    yield "grid", row.get("Grid Size", "")
    yield "process", row.get("Process ID", "")
    yield "arch", row.get("CC", "")
    yield "stack", next((cell for name, cell in row.items() if _STACK in name), "")
    if gpu := row.get("device__attribute_display_name"):
        yield "gpu", gpu
    if "Metric Name" not in row:
        yield from ((metric, f"{row[metric]} {units.get(metric, '')}") for metric in BOTH if row.get(metric))
        return
    metric = ALIASES.get(row["Metric Name"], row["Metric Name"])
    if metric in BOTH:
        yield metric, f"{row.get('Metric Value', '')} {row.get('Metric Unit', '')}"


def _profiled(number: int, fields: Mapping[str, str], needed: Sequence[str]) -> Profiled:
    read = _quantity(number, fields, READ) if READ in needed or _counted(fields, READ) else None
    return Profiled(
        kernel=fields["kernel"],
        programs=_programs(number, fields),
        read_bytes=read,
        seconds=_quantity(number, fields, DURATION),
        ranges=tuple((domain, name) for domain, name in _NAMED.findall(fields["stack"])),
        process=fields["process"],
        arch=fields["arch"],
        gpu=fields.get("gpu", ""),
    )


def _programs(number: int, fields: Mapping[str, str]) -> int:
    first = fields["grid"].strip("( ").split(",")[0] or "0"
    if not first.isdecimal():
        raise ValueError(
            f"kernel {number} ({fields['kernel']}): its grid is {fields['grid'][:40]!r}; cells are displaced"
        )
    return int(first)


def _counted(fields: Mapping[str, str], metric: str) -> bool:
    return metric in fields and not fields[metric].startswith("n/a")


def _quantity(number: int, fields: Mapping[str, str], metric: str) -> float:
    told = fields.get(metric, "absent")
    value, _, unit = told.partition(" ")
    found = float(value.replace(",", "")) if _NUMBER.fullmatch(value) else inf
    if isinf(found) or unit not in _SCALE[metric]:
        raise ValueError(f"kernel {number} ({fields['kernel']}): {metric} is {told!r}")
    return found * _SCALE[metric][unit]

"""Reader of the tables that Nsight Compute writes with --csv.

Cells have units and thousands separators. The details page has one row per kernel and metric. The raw page has one row
per kernel, one column per metric, and under the header a row of units. With --nvtx a column holds the stack of ranges
around a kernel's launch, each range as `"domain:name:…"`. Lines of the program and of ncu itself may stand around the
table.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isinf

READ_METRIC, DURATION_METRIC = "dram__bytes_read.sum", "gpu__time_duration.sum"
METRICS = (READ_METRIC, DURATION_METRIC)
METRIC_ALIASES = {"Duration": DURATION_METRIC}
"""Names that sections of the details page give to metrics."""

BYTE_UNITS = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9, "Tbyte": 1e12}
SECOND_UNITS = {
    **{"nsecond": 1e-9, "usecond": 1e-6, "msecond": 1e-3, "second": 1.0},  # before 2025
    **{"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0},
}
_UNITS_BY_METRIC = {READ_METRIC: BYTE_UNITS, DURATION_METRIC: SECOND_UNITS}
_RANGE_STACK_COLUMN = "Push/Pop_Range"
_RANGE_PATTERN = re.compile(r'"([^":]+):([^":]+\.py::\w+(?:\[[^\]"]*\])?|[^":]+)')
"""A range of the stack: domain and name; a pytest node id contains colons."""

_NUMBER_PATTERN = re.compile(r"(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d*)?(?:[eE][+-]?\d+)?")
"""A number as ncu prints it in an English locale.

Commas separate thousands before the point, and none stand after it.
"""

TableRows = list[dict[str, str]]


@dataclass(frozen=True)
class ProfiledKernel:
    """One kernel.

    Attributes:
        kernel: its name.
        programs: programs along the grid's first axis.
        read_bytes: bytes read from DRAM; None where they were not counted.
        seconds: duration.
        ranges: domain and name of each NVTX range around the launch, the outermost first.
        process: id of the process.
        arch: compute capability, as 9.0; empty where the table has none.
        gpu: the device's name; empty where the table has none.
    """

    kernel: str
    programs: int
    read_bytes: float | None
    seconds: float
    ranges: tuple[tuple[str, str], ...] = ()
    process: str = ""
    arch: str = ""
    gpu: str = ""


def parse_kernels(text: str, needed: Sequence[str] = METRICS) -> list[ProfiledKernel]:
    """Return the kernels in the order of their launches.

    Args:
        text: output of ncu.
        needed: metrics without which a kernel is an error.

    Raises:
        ValueError: no table, a missing metric, or an unknown unit or value.
    """
    kernels: dict[tuple[int, int], dict[str, str]] = {}
    for number, rows in enumerate(_parse_tables(text)):
        units = next((row for row in rows if not row["ID"]), {})
        for row in rows:
            if row["ID"].isdecimal():
                kernels.setdefault((number, int(row["ID"])), {}).update(_kernel_fields(row, units))
    if not kernels:
        raise ValueError("ncu wrote no table of kernels")
    return [_parse_kernel(key[1], fields, needed) for key, fields in sorted(kernels.items())]


def _parse_tables(text: str) -> Iterator[TableRows]:
    """Yield the rows of each table by column."""
    header: list[str] = []
    rows: TableRows = []
    for cells in csv.reader(line for line in text.splitlines() if line.startswith('"')):
        if cells[0] == "ID":
            if rows:
                yield rows
            header, rows = cells, []
        elif header:
            rows.append(dict(zip(header, cells, strict=False)))
    if rows:
        yield rows


def _kernel_fields(row: Mapping[str, str], units: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield "kernel", row.get("Kernel Name", "")
    yield "grid", row.get("Grid Size", "")
    yield "process", row.get("Process ID", "")
    yield "arch", row.get("CC", "")
    yield "stack", next((cell for name, cell in row.items() if _RANGE_STACK_COLUMN in name), "")
    if gpu := row.get("device__attribute_display_name"):
        yield "gpu", gpu
    if "Metric Name" not in row:
        yield from ((metric, f"{row[metric]} {units.get(metric, '')}") for metric in METRICS if row.get(metric))
        return
    metric = METRIC_ALIASES.get(row["Metric Name"], row["Metric Name"])
    if metric in METRICS:
        yield metric, f"{row.get('Metric Value', '')} {row.get('Metric Unit', '')}"


def _parse_kernel(number: int, fields: Mapping[str, str], needed: Sequence[str]) -> ProfiledKernel:
    read = (
        _parse_quantity(number, fields, READ_METRIC)
        if READ_METRIC in needed or _is_counted(fields, READ_METRIC)
        else None
    )
    return ProfiledKernel(
        kernel=fields["kernel"],
        programs=_parse_programs(number, fields),
        read_bytes=read,
        seconds=_parse_quantity(number, fields, DURATION_METRIC),
        ranges=tuple((domain, name) for domain, name in _RANGE_PATTERN.findall(fields["stack"])),
        process=fields["process"],
        arch=fields["arch"],
        gpu=fields.get("gpu", ""),
    )


def _parse_programs(number: int, fields: Mapping[str, str]) -> int:
    first = fields["grid"].strip("( ").split(",")[0] or "0"
    if not first.isdecimal():
        raise ValueError(
            f"kernel {number} ({fields['kernel']}): its grid is {fields['grid'][:40]!r}; cells are displaced"
        )
    return int(first)


def _is_counted(fields: Mapping[str, str], metric: str) -> bool:
    return metric in fields and not fields[metric].startswith("n/a")


def _parse_quantity(number: int, fields: Mapping[str, str], metric: str) -> float:
    told = fields.get(metric, "absent")
    value, _, unit = told.partition(" ")
    found = float(value.replace(",", "")) if _NUMBER_PATTERN.fullmatch(value) else inf
    if isinf(found) or unit not in _UNITS_BY_METRIC[metric]:
        raise ValueError(f"kernel {number} ({fields['kernel']}): {metric} is {told!r}")
    return found * _UNITS_BY_METRIC[metric][unit]

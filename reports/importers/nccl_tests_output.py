"""Parse output of nccl-tests: where it ran, how it timed, and its table's rows."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import PurePath
from typing import Any, NamedTuple, NoReturn

from specs.errors import UserError


class NcclTestsRow(NamedTuple):
    """One time of a table.

    Attributes:
        place: position in the source: line 17, result 3.
        size: bytes; elements: column `count`.
        type, redop, root: as printed.
        in_place: True for the columns of results written over the message.
        microseconds, algbw, busbw: with the printed digits, which state the precision; GB are 1e9 bytes.
        wrong: number of wrong elements; N/A where unchecked.
    """

    place: str
    size: int
    elements: int
    type: str
    redop: str
    root: int
    in_place: bool
    microseconds: Decimal
    algbw: Decimal
    busbw: Decimal
    wrong: str


class RankDevice(NamedTuple):
    """GPU of a rank, as listed under `Using devices`."""

    rank: int
    group: int
    host: str
    gpu: str


def parse_figure(text: str | Decimal) -> Decimal:
    """Parse a figure with its printed digits.

    Raises:
        ValueError: the text is no finite number.
    """
    found = Decimal(text)
    if not found.is_finite():
        raise ValueError(f"{text!r} is no figure")
    return found


def parse_wrong(text: object) -> str:
    """Parse the column of wrong elements, with a single spelling of 0.

    Raises:
        ValueError: the value is neither a number nor N/A.
    """
    return "N/A" if text in (None, "N/A") else f"{float(str(text).rstrip('*')):g}"


@dataclass
class NcclTestsRun:
    """Output of one start of a program.

    Attributes:
        library: nccl or rccl.
        program: all_reduce_perf, …; None where an old version did not say.
        version: of nccl-tests; library_version: of NCCL or RCCL. None where not printed.
        devices: one for each rank.
        settings_seen: True where the line of settings exists; versions without graphs print none for them.
        graph, iterations, aggregated: CUDA graph launches, calls per average time, and calls in a group.
        blocking: True where each call was waited for.
        rows, unread: rows of the table, and the reason by place for unreadable rows.
        out_of_bounds: count in the line under the table; None before this line.
        errors: True where `wrong` is the largest error of an old version, not a count of elements.
    """

    library: str = "nccl"
    program: str | None = None
    version: str | None = None
    library_version: str | None = None
    devices: list[RankDevice] = field(default_factory=list)
    settings_seen: bool = False
    graph: int = 0
    iterations: int = 1
    aggregated: int = 1
    blocking: bool = False
    rows: list[NcclTestsRow] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    out_of_bounds: int | None = None
    errors: bool = False

    @property
    def groups(self) -> int:
        """Number of groups of ranks that called at the same time, independently."""
        return len({one.group for one in self.devices})

    @property
    def ranks(self) -> int:
        """Number of ranks in a call."""
        return len(self.devices) // self.groups

    @property
    def hosts(self) -> int:
        """Number of hosts of rank 0's group."""
        return len({one.host for one in self.devices if one.group == self.devices[0].group})

    @property
    def gpus(self) -> Sequence[str]:
        """Names of the GPUs, each once."""
        return list(dict.fromkeys(one.gpu for one in self.devices))

    @property
    def launch(self) -> str:
        """Launch mode in the terms of cases: graph, eager or unknown."""
        if not self.settings_seen:
            return "unknown"
        return "graph" if self.graph else "eager"

    def check_devices(self) -> None:
        """Check that the list of devices is complete.

        Raises:
            UserError: the list is missing, cut, of unequal groups or GPUs, or of several independent programs.
        """
        ranks = [one.rank for one in self.devices]
        if not ranks:
            raise UserError("no list under `Using devices`, so that nothing says how many ranks; give the whole output")
        if len(set(ranks)) < len(ranks):
            raise UserError(
                f"rank {max(ranks, key=ranks.count)} is listed {max(map(ranks.count, ranks))} times: logs are mixed, "
                "or several programs ran, each alone; build nccl-tests with MPI=1, or give each one's output by itself"
            )
        if sorted(ranks) != list(range(len(ranks))):
            raise UserError(f"{len(ranks)} ranks are listed up to rank {max(ranks)}; the list is cut, give all of it")
        if len({sum(one.group == group for one in self.devices) for group in {one.group for one in self.devices}}) > 1:
            raise UserError("its groups of ranks are not of one size, and a row does not say of which it is")
        if len(self.gpus) > 1:
            raise UserError(f"ran on different GPUs: {', '.join(self.gpus)}; a result file is of one")


def format_version(code: int) -> str | None:
    """Format NCCL's version number: 22807 as 2.28.7; before 2.9, 2708 as 2.7.8."""
    if not code:
        return None
    major, rest = divmod(code, 10_000 if code >= 10_000 else 1_000)
    return f"{major}.{rest // 100}.{rest % 100}"


# Table of nccl-tests: columns by their names, units as the header gives them, never assumed.

COLUMN_UNITS = {
    "size": "(B)",
    "count": "(elements)",
    "time": "(us)",
    "algbw": "(GB/s)",
    "busbw": "(GB/s)",
    "i_min": "(us)",
    "i_max": "(us)",
    "i_p99": "(us)",
    "i_cv%": "(%)",
}
"""Unit in the header of each column that has a unit."""
NEEDED_COLUMNS = ("size", "count", "type", "time", "algbw", "busbw")
CPU_TIME_ERROR = "times are of the CPU (-C 1), which bandwidths are not made of; run it without -C"


class NcclTestsTable:
    """Columns of one table.

    Args:
        titles: line above the names, with out-of-place and in-place.
        names: line of names.

    Raises:
        UserError: a column is missing, or the times are CPU times.
    """

    def __init__(self, titles: str, names: str) -> None:
        self.names = names.lstrip("# ").split()
        if "cputime" in self.names:
            raise UserError(CPU_TIME_ERROR)
        if missing := [name for name in NEEDED_COLUMNS if name not in self.names]:
            raise UserError(f"a table without {', '.join(missing)}; give the output as nccl-tests printed it")
        halves = re.findall(r"(out-of|in)-place", titles) or ["out-of", "in"]
        self._in_place = [half == "in" for half in halves]
        if len(halves) != self.names.count("time"):
            raise UserError(f"{self.names.count('time')} columns of times under titles for {len(halves)}")
        self.errors = "error" in self.names
        self._columns = [part for name in self.names for part in ([name] * 2 if name == "timestamp" else [name])]

    def check_units(self, line: str) -> None:
        """Compare the line of units with the units that nccl-tests prints.

        Raises:
            UserError: a unit is missing or different.
        """
        wanted = [(name, COLUMN_UNITS[name]) for name in self.names if name in COLUMN_UNITS]
        found = re.findall(r"\([^)]*\)", line)
        if len(found) != len(wanted):
            raise UserError(f"{len(found)} units under {len(wanted)} columns that have one; give the header unchanged")
        for (name, unit), there in zip(wanted, found, strict=True):
            if there != unit:
                raise UserError(f"{name} is in {there}, and nccl-tests prints {unit}; import its own output")

    def rows(self, place: str, line: str) -> list[NcclTestsRow]:
        """Parse the times of a line, out of place and in place.

        Raises:
            UserError: the line does not fit the columns.
        """
        cells = line.split()
        if len(cells) == len(self._columns) - 1 and "redop" in self._columns:
            cells.insert(self._columns.index("redop"), "none")  # some versions print no redop without a reduction
        if len(cells) != len(self._columns):
            raise UserError(f"{len(cells)} values under {len(self._columns)} columns: {' '.join(line.split())[:60]!r}")
        try:
            return [self._row(place, cells, half) for half in range(len(self._in_place))]
        except (InvalidOperation, ValueError) as error:
            raise UserError(f"not a number where one belongs: {' '.join(cells)[:60]!r}") from error

    def _row(self, place: str, cells: Sequence[str], half: int) -> NcclTestsRow:
        def cell(name: str, *, nth: int = 0, missing: str = "") -> str:
            places = [at for at, column in enumerate(self._columns) if column == name]
            return cells[places[nth]] if places else missing

        return NcclTestsRow(
            place=place,
            size=int(cell("size")),
            elements=int(cell("count")),
            type=cell("type"),
            redop=cell("redop", missing="none"),
            root=int(cell("root", missing="-1")),
            in_place=self._in_place[half],
            microseconds=parse_figure(cell("time", nth=half)),
            algbw=parse_figure(cell("algbw", nth=half)),
            busbw=parse_figure(cell("busbw", nth=half)),
            wrong=parse_wrong(cell("error" if self.errors else "#wrong", nth=half, missing="N/A")),
        )


# JSON of `-J FILE`: times in microseconds, bandwidths in GB/s of 1e9 bytes.
#
# No key states the units; the source of nccl-tests does, and every row is checked against itself. The file also holds
# the environment and names of hosts, of which nothing is kept.

FOREIGN_JSON = "JSON, but not what nccl-tests' -J writes: no {}; give that, or the text that it prints"
PLACEMENTS = (("out_of_place", False), ("in_place", True))


def read_json(text: str) -> list[NcclTestsRun]:
    """Parse the run of a JSON file.

    Raises:
        UserError: the text is cut short, not JSON, or of another program.
    """
    try:
        content = json.loads(text, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"cut short or not JSON ({error}); run nccl-tests to its end") from error
    for key, kind in (("version", int), ("config", dict), ("results", list)):
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise UserError(FOREIGN_JSON.format(key))
    if "out_of_bounds" not in content:
        raise UserError("cut short: no out_of_bounds after its results; run nccl-tests to its end")
    try:
        run = _run(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(FOREIGN_JSON.format(f"usable config ({error})")) from error
    for number, result in enumerate(content["results"], start=1):
        place = f"result {number}"
        try:
            run.rows += _rows(place, result)
        except (AttributeError, InvalidOperation, KeyError, TypeError, ValueError) as error:
            run.unread[place] = f"its {error} cannot be read" if isinstance(error, KeyError) else f"not a row ({error})"
    if not run.rows and not run.unread:
        raise UserError("no results in it; the run ended before its first size, so run it again")
    run.check_devices()
    return [run]


def _refuse(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is no JSON number")


def _run(content: Mapping[str, Any]) -> NcclTestsRun:
    config, arguments = content["config"], content.get("args") or [""]
    return NcclTestsRun(
        program=PurePath(str(arguments[0])).name or None,
        library_version=format_version(int(content.get("nccl_version") or 0)),
        devices=_devices(config),
        settings_seen="graph" in config,
        graph=int(config.get("graph", 0)),
        iterations=int(config.get("iterations", 1)),
        aggregated=int(config.get("aggregated_iterations", 1)),
        blocking=config.get("blocking_collectives") in ("true", True),
        out_of_bounds=int(content["out_of_bounds"]["count"]),
    )


def _devices(config: Mapping[str, Any]) -> list[RankDevice]:
    """A device for each rank.

    nccl-tests lists only the first rank of each process, so the other ranks are filled in.
    """
    listed = [
        RankDevice(int(one["rank"]), int(one["group"]), str(one["hostname"]), str(one["device_info"]))
        for one in config.get("devices") or ()
    ]
    each = int(config["nthreads"]) * int(config["ngpus"])
    if [one.rank for one in listed] != [each * process for process in range(len(listed))]:
        return listed
    return [one._replace(rank=one.rank + more) for one in listed for more in range(each)]


def _rows(place: str, result: Mapping[str, Any]) -> list[NcclTestsRow]:
    found = []
    for key, in_place in PLACEMENTS:
        if (half := result[key]) is None:
            continue
        if "cpu_time" in half:
            raise UserError(f"{place}: {CPU_TIME_ERROR}")
        row = NcclTestsRow(
            place=place,
            size=_parse_int(result["size"]),
            elements=_parse_int(result["count"]),
            type=str(result["type"]),
            redop=str(result["redop"]),
            root=int(result["root"]),
            in_place=in_place,
            microseconds=parse_figure(half["time"]),
            algbw=parse_figure(half["alg_bw"]),
            busbw=parse_figure(half["bus_bw"]),
            wrong=parse_wrong(half["nwrong"]),
        )
        found.append(row)
    return found


def _parse_int(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


# Names of programs and number formats in nccl-tests, and our names.

PROGRAMS = {
    "all_reduce_perf": "all_reduce",
    "all_gather_perf": "all_gather",
    "reduce_scatter_perf": "reduce_scatter",
    "broadcast_perf": "broadcast",
    "sendrecv_perf": "ring_shift",  # each rank sends to the next and receives from the previous rank, at once
}
"""Operation of specs/traffic.py that each program times."""
COUNTED_BY_RANK = ("all_gather", "reduce_scatter")
"""Operations whose `count` is one rank's part, and whose `size` is all parts."""
DTYPE_NAMES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16"}
"""Our name of a format; a format without one keeps its name."""
ITEMSIZE = {
    "int8": 1,
    "char": 1,
    "uint8": 1,
    "f8e4m3": 1,
    "f8e5m2": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "half": 2,
    "bfloat16": 2,
    "int": 4,
    "int32": 4,
    "uint32": 4,
    "float": 4,
    "int64": 8,
    "uint64": 8,
    "double": 8,
}
"""Bytes per element."""


# Standard output of the programs; a log may hold several runs, and other lines between them.

LINE_TAG = re.compile(r"^(?:\[\d+,\d+\]<std(?:out|err)>: ?|\d+: (?=[# ]))")
"""Prefix of a line by mpirun --tag-output and srun --label."""
VERSION_LINE = re.compile(r"# (nccl|rccl)-tests version (\S+).*?-library=(\d+)")
START_LINE = re.compile(r"# Collective test starting: (\S+)")
SETTINGS_LINE = re.compile(r"# ?nThread \d+ nGpus \d+ ")
ITERATION_COUNTS = re.compile(r"warmup iters: \d+ iters: (\d+)(?: agg iters: (\d+))?(?:.* graph: (\d+))?")
DEVICE_LINE = re.compile(r"#\s+Rank\s+(\d+)(?:\s+Group\s+(\d+))?\s+Pid\s+\d+ on\s+(\S+) device\s+\d+ \[[^]]*\] (.+)")
LIBRARY_LINE = re.compile(r"(NCCL|RCCL) version\s*:?\s*(\d+\.\d+\.\d+)")
BOUNDS_LINE = re.compile(r"#\s*Out of bounds values\s*:\s*(\d+) (?:OK|FAILED)")
HEADER_LINE = re.compile(r"#\s+size\s+count\s")
ROW_LINE = re.compile(r"\s*\d+\s+\d+\s")


def read_log(text: str) -> list[NcclTestsRun]:
    """Parse every run of a log.

    Raises:
        UserError: there is no run, a run is cut short, or a header is not that of nccl-tests.
    """
    reader = _Reader()
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            reader.take(f"line {number}", LINE_TAG.sub("", line))
        except UserError as error:
            raise UserError(f"line {number}: {error}") from error
    return reader.runs()


class _Reader:
    """Parser that takes a log line by line."""

    def __init__(self) -> None:
        self._runs = [NcclTestsRun()]
        self._table: NcclTestsTable | None = None
        self._units_seen = False
        self._before = ""

    def runs(self) -> list[NcclTestsRun]:
        """Complete runs of the log, with checked devices."""
        if self._table is None and len(self._runs) == 1:
            raise UserError("no table of nccl-tests in it; give what all_reduce_perf and the like print, or their JSON")
        for run in self._runs:
            places = [*(row.place for row in run.rows), *run.unread]
            if run.out_of_bounds is None or not places:
                after = f"after {places[-1]}" if places else "before its first row"
                raise UserError(f"cut short {after}: a run has no `Out of bounds values` under its table; run it again")
            run.check_devices()
        return self._runs

    def take(self, place: str, line: str) -> None:
        """Process one line.

        Raises:
            UserError: a header is not that of nccl-tests.
        """
        if self._table and not self._units_seen:
            self._table.check_units(line)
            self._units_seen = True
        elif HEADER_LINE.match(line):
            if self._table and self._runs[-1].out_of_bounds is None:
                raise UserError("a second table before the first one's end; logs are mixed, give each run by itself")
            self._table, self._units_seen = NcclTestsTable(self._before, line), False
            self._runs[-1].errors = self._table.errors
        elif self._table and ROW_LINE.match(line):
            self._row(place, line, self._table)
        elif found := LIBRARY_LINE.search(line):
            self._runs[-1].library, self._runs[-1].library_version = found[1].lower(), found[2]
        elif line.startswith("#"):
            self._preamble(line)
        self._before = line

    def _row(self, place: str, line: str, table: NcclTestsTable) -> None:
        run = self._runs[-1]
        if run.out_of_bounds is not None:
            raise UserError("a row after the end of its table; logs are mixed, give each run by itself")
        try:
            run.rows += table.rows(place, line)
        except UserError as error:
            run.unread[place] = str(error)

    def _preamble(self, line: str) -> None:
        if bounds := BOUNDS_LINE.match(line):
            self._runs[-1].out_of_bounds = int(bounds[1])
        elif version := VERSION_LINE.match(line):
            run = self._next()
            run.library, run.version, run.library_version = version[1], version[2], format_version(int(version[3]))
        elif starting := START_LINE.match(line):
            self._next().program = starting[1]
        elif SETTINGS_LINE.match(line):
            run = self._next()
            run.settings_seen = True
            if counts := ITERATION_COUNTS.search(line):
                run.iterations, run.aggregated, run.graph = (
                    int(count or was) for count, was in zip(counts.groups(), (1, 1, 0), strict=True)
                )
        elif "Blocking Enabled" in line:
            self._runs[-1].blocking = True
        elif device := DEVICE_LINE.match(line):
            self._next().devices.append(RankDevice(int(device[1]), int(device[2] or 0), device[3], device[4].strip()))

    def _next(self) -> NcclTestsRun:
        """Run of a line before its table: a new run, if the last has its table."""
        if self._table is not None:
            self._runs.append(NcclTestsRun())
            self._table = None
        return self._runs[-1]

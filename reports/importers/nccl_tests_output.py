"""One start of a program of nccl-tests: where it ran, how it timed, and the rows of its table as they stand there."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import PurePath
from typing import Any, NamedTuple, NoReturn

from specs.errors import UserError


class NcclTestsRow(NamedTuple):
    """One time.

    Attributes:
        place: where it stands: line 17, result 3.
        size: bytes; elements: the column called count.
        type, redop, root: as printed.
        in_place: whether it is of the columns for results written over the message.
        microseconds, algbw, busbw: with the digits that are printed, which say how exact they are; GB are 1e9 bytes.
        wrong: elements that were wrong; N/A where nobody looked.
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
    """A rank's GPU, as listed under `Using devices`."""

    rank: int
    group: int
    host: str
    gpu: str


def parse_figure(text: str | Decimal) -> Decimal:
    """A figure with the digits that are printed.

    Raises:
        ValueError: it is none.
    """
    found = Decimal(text)
    if not found.is_finite():
        raise ValueError(f"{text!r} is no figure")
    return found


def parse_wrong(text: object) -> str:
    """What stands in the column of wrong elements, 0 in one way only.

    Raises:
        ValueError: it is neither a number nor N/A.
    """
    return "N/A" if text in (None, "N/A") else f"{float(str(text).rstrip('*')):g}"


@dataclass
class NcclTestsRun:
    """What one start printed.

    Attributes:
        library: nccl or rccl.
        program: all_reduce_perf, …; None where an old version did not say.
        version: of nccl-tests; library_version: of NCCL or RCCL. None where they are not printed.
        devices: one for each rank.
        settings_seen: whether the line of settings is there; versions that know no graphs leave those out of it.
        graph, iterations, aggregated: CUDA graph launches, calls that a time is the average of, and calls in a group.
        blocking: whether each call was waited for.
        rows, unread: the table, and by place why a row of it cannot be read.
        out_of_bounds: what the line under the table counts; None before it has come.
        errors: whether `wrong` is the largest error of an old version and no count of wrong elements.
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
        """Groups of ranks that called at the same time, each for itself."""
        return len({one.group for one in self.devices})

    @property
    def ranks(self) -> int:
        """Ranks that a call is between."""
        return len(self.devices) // self.groups

    @property
    def hosts(self) -> int:
        """Hosts that rank 0's group is on."""
        return len({one.host for one in self.devices if one.group == self.devices[0].group})

    @property
    def gpus(self) -> Sequence[str]:
        """Names of the GPUs, each once."""
        return list(dict.fromkeys(one.gpu for one in self.devices))

    @property
    def launch(self) -> str:
        """As cases call it."""
        if not self.settings_seen:
            return "unknown"
        return "graph" if self.graph else "eager"

    def check_devices(self) -> None:
        """See that the list of devices is whole.

        Raises:
            UserError: it is missing, cut, or that of several programs that knew nothing of each other.
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
    """NCCL's version number for people: 22807 -> 2.28.7, and before 2.9 2708 -> 2.7.8."""
    if not code:
        return None
    major, rest = divmod(code, 10_000 if code >= 10_000 else 1_000)
    return f"{major}.{rest // 100}.{rest % 100}"


# The table of nccl-tests: columns by their names, units as the header gives them, never assumed.

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
"""What stands under each column that has a unit."""
NEEDED_COLUMNS = ("size", "count", "type", "time", "algbw", "busbw")
CPU_TIME_ERROR = "times are of the CPU (-C 1), which bandwidths are not made of; run it without -C"


class NcclTestsTable:
    """The columns of one table.

    Args:
        titles: the line above the names, which says out-of-place and in-place.
        names: the line of names.

    Raises:
        UserError: a column is missing, or times are of something else than the operation.
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
        """Compare the line of units with what nccl-tests prints.

        Raises:
            UserError: a unit is missing or another one.
        """
        wanted = [(name, COLUMN_UNITS[name]) for name in self.names if name in COLUMN_UNITS]
        found = re.findall(r"\([^)]*\)", line)
        if len(found) != len(wanted):
            raise UserError(f"{len(found)} units under {len(wanted)} columns that have one; give the header unchanged")
        for (name, unit), there in zip(wanted, found, strict=True):
            if there != unit:
                raise UserError(f"{name} is in {there}, and nccl-tests prints {unit}; import its own output")

    def rows(self, place: str, line: str) -> list[NcclTestsRow]:
        """A line's times, out of place and in place.

        Raises:
            UserError: the line does not fit the columns.
        """
        cells = line.split()
        if len(cells) == len(self._columns) - 1 and "redop" in self._columns:
            cells.insert(self._columns.index("redop"), "none")  # some versions print nothing where nothing is reduced
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


# What `-J FILE` writes: JSON whose times are in microseconds and whose bandwidths are in GB/s of 1e9 bytes.
#
# No key says so; the program that writes it does, and every row is checked against itself. Of the environment and the
# names of hosts, which stand in it too, nothing is kept.

FOREIGN_JSON = "JSON, but not what nccl-tests' -J writes: no {}; give that, or the text that it prints"
PLACEMENTS = (("out_of_place", False), ("in_place", True))


def read_json(text: str) -> list[NcclTestsRun]:
    """The run of a file.

    Raises:
        UserError: it is cut short, not JSON, or of another program.
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
    """One for each rank. nccl-tests writes the first of each process alone, so the others are filled in."""
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


# Names that nccl-tests gives to programs and number formats, and ours for them.

PROGRAMS = {
    "all_reduce_perf": "all_reduce",
    "all_gather_perf": "all_gather",
    "reduce_scatter_perf": "reduce_scatter",
    "broadcast_perf": "broadcast",
    "sendrecv_perf": "ring_shift",  # each rank sends to the next and receives from the one before, at once
}
"""The operation of specs/traffic.py that each program times."""
COUNTED_BY_RANK = ("all_gather", "reduce_scatter")
"""Operations whose `count` is of one rank's part, and whose `size` is of all parts."""
DTYPE_NAMES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16"}
"""Our name of a format; those that we have none for keep theirs."""
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
"""Bytes an element."""


# What the programs print to standard output; one log may hold several runs, and other lines between theirs.

LINE_TAG = re.compile(r"^(?:\[\d+,\d+\]<std(?:out|err)>: ?|\d+: (?=[# ]))")
"""What mpirun --tag-output and srun --label put before each line."""
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
    """Every run of a log.

    Raises:
        UserError: there is none, one is cut short, or its header is not that of nccl-tests.
    """
    reader = _Reader()
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            reader.take(f"line {number}", LINE_TAG.sub("", line))
        except UserError as error:
            raise UserError(f"line {number}: {error}") from error
    return reader.runs()


class _Reader:
    """Takes line after line."""

    def __init__(self) -> None:
        self._runs = [NcclTestsRun()]
        self._table: NcclTestsTable | None = None
        self._units_seen = False
        self._before = ""

    def runs(self) -> list[NcclTestsRun]:
        """What came of it."""
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
        """One line.

        Raises:
            UserError: a header that is not that of nccl-tests.
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
        """The run that a line before its table belongs to: a new one, if the last has its table."""
        if self._table is not None:
            self._runs.append(NcclTestsRun())
            self._table = None
        return self._runs[-1]

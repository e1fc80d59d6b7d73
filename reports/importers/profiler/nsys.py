"""Read a trace of Nsight Systems, exported as SQLite, as visits to cases."""

import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from reports.formatting import pluralize
from reports.importers.profiler.profile import PART_RANGES, Activity, Profile, Visit
from specs.errors import UserError
from specs.journal import CALL_RANGE, NVTX_DOMAIN, SECONDS_MARK, TIMED_RANGE, UNTIMED_RANGE, WARM_UP_RANGE
from specs.journal import CALLS_MARK as JOURNAL_CALLS

# SQLite file of `nsys export`: tables are made on demand, and columns differ between versions.

SQLITE_MAGIC = b"SQLite format 3\0"
EXPORT_COMMAND = "`nsys export --type sqlite -o trace.sqlite trace.nsys-rep`"
TEXT_COLUMNS = ("name", "text", "value")
"""Columns that hold text; SQLite itself accepts text in any column."""
REPORT_SUFFIXES = (".nsys-rep", ".qdrep", ".qdstrm")


class TraceDatabase:
    """Read-only access to an export of nsys.

    Raises:
        UserError: the file is no SQLite file, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _check(path)
        try:
            self._open = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            self._open.text_factory = _text  # an invalid byte in a name must not cost the trace
            self._tables = {name for (name,) in self._open.execute("SELECT name FROM sqlite_master")}
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def __enter__(self) -> "TraceDatabase":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def has(self, *tables: str) -> bool:
        """True where all of these tables exist."""
        return self._tables.issuperset(tables)

    def count(self, table: str) -> int:
        """Number of rows of a table; 0 for a missing table.

        Raises:
            UserError: the file is damaged.
        """
        if table not in self._tables:
            return 0
        try:
            return int(self._open.execute(f'SELECT COUNT(*) FROM "{table}"').fetchone()[0])  # noqa: S608 - as below
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def rows(
        self, table: str, needed: Sequence[str], others: Sequence[str] = (), where: str = "TRUE"
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a table: columns `needed`, then `others`, None where missing.

        A missing table has no rows. `where`: SQL over needed columns.

        Raises:
            UserError: a needed column is missing, or the file is damaged.
        """
        if table not in self._tables:
            return
        try:
            there = {name for _, name, *_ in self._open.execute(f'PRAGMA table_info("{table}")')}
            if lacking := next((name for name in needed if name not in there), None):
                raise UserError(
                    f"{self._path}: {table} has no column {lacking}, which every documented export has; "
                    f"export it again with a newer Nsight Systems: {EXPORT_COMMAND}"
                )
            columns = [f'"{name}"' for name in needed] + [f'"{name}"' if name in there else "NULL" for name in others]
            query = f'SELECT {", ".join(columns)} FROM "{table}" WHERE {where}'  # noqa: S608 - the names are ours
            numbers = [index for index, name in enumerate((*needed, *others)) if name not in TEXT_COLUMNS]
            texts = [index for index, name in enumerate((*needed, *others)) if name in TEXT_COLUMNS]
            for row in self._open.execute(query):
                odd = next((row[index] for index in numbers if isinstance(row[index], str | bytes)), None)
                if odd is not None:
                    raise UserError(
                        f"{self._path}: {table} holds {str(odd)[:40]!r} for a number; export it again: {EXPORT_COMMAND}"
                    )
                if any(isinstance(row[index], bytes) for index in texts):
                    row = tuple(_text(one) if isinstance(one, bytes) else one for one in row)
                yield row
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def _damaged(self, error: sqlite3.Error) -> UserError:
        return UserError(f"{self._path}: cut short or damaged ({error}); export it again: {EXPORT_COMMAND}")


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _check(path: Path) -> None:
    """Check that the file is SQLite and has its full length."""
    if path.suffix in REPORT_SUFFIXES:
        raise UserError(f"{path}: a report of Nsight Systems; export it first: {EXPORT_COMMAND}")
    try:
        with path.open("rb") as stream:
            head = stream.read(100)
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}); give what this wrote: {EXPORT_COMMAND}") from error
    if not head:
        raise UserError(f"{path}: empty; give what this wrote: {EXPORT_COMMAND}")
    if not head.startswith(SQLITE_MAGIC):
        raise UserError(f"{path}: no SQLite file; give what this wrote: {EXPORT_COMMAND}")
    pages = int.from_bytes(head[28:32], "big")
    page_bytes = int.from_bytes(head[16:18], "big")
    whole = pages * (65536 if page_bytes == 1 else page_bytes)
    if len(head) < 100 or size < whole:
        raise UserError(f"{path}: cut short after {size} of {whole} bytes; export it again: {EXPORT_COMMAND}")


# NVTX ranges and marks of the suites: the range of a case that a moment on a thread lies in.

MARK, CATEGORY, PUSH_POP, DOMAIN_CREATED = 34, 33, 59, 75
"""Values of nsys's `eventType`."""
NVTX_COLUMNS = ("start", "eventType", "globalTid")
OPTIONAL_NVTX_COLUMNS = ("end", "category", "text", "textId", "domainId", "int64Value", "doubleValue")
NODE_ID_PART = ".py::"


@dataclass(eq=False)
class NvtxRange:
    """A push/pop range.

    `parent`: enclosing range. `whole`: True where the trace holds the range's end.
    """

    name: str
    category: str
    thread: int
    start: int
    end: int
    whole: bool = True
    parent: "NvtxRange | None" = None

    @property
    def path(self) -> list["NvtxRange"]:
        """Ranges from the outermost to this one."""
        return [*(self.parent.path if self.parent else ()), self]


class NvtxMark(NamedTuple):
    """A mark that carries a figure, finite or not."""

    name: str
    thread: int
    at: int
    value: float

    @property
    def usable(self) -> bool:
        """True where the figure is a possible number of calls, or of seconds."""
        return isfinite(self.value) and self.value >= (1 if self.name == JOURNAL_CALLS else 0)


@dataclass
class NvtxThread:
    """Ranges of a thread by start; each lies within its parent."""

    ranges: list[NvtxRange] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def innermost(self, at: int) -> NvtxRange | None:
        """Innermost range that contains a moment, or None."""
        index = bisect_right(self.starts, at) - 1
        found = self.ranges[index] if index >= 0 else None
        while found and found.end < at:
            found = found.parent
        return found


class NvtxRow(NamedTuple):
    """A row of NVTX_EVENTS with its text."""

    start: int
    kind: int
    thread: int
    end: int | None
    category: int | None
    text: str
    domain: int | None
    whole: int | None
    real: float | None

    @property
    def place(self) -> tuple[int, int | None]:
        """Process and domain of the row: each process numbers its domains itself."""
        return process_id(self.thread), self.domain


def process_id(global_id: int) -> int:
    """Common part of the ids of a process and its threads.

    The thread has the lowest 24 bits to itself.
    """
    return global_id >> 24


def read_nvtx(database: TraceDatabase, strings: Mapping[int, str]) -> tuple[dict[int, NvtxThread], list[NvtxMark]]:
    """Return the suites' ranges by thread, and the suites' marks.

    Raises:
        UserError: there are no ranges, or none of the suites.
    """
    rows = [
        _row(one, strings)
        for one in database.rows("NVTX_EVENTS", NVTX_COLUMNS, OPTIONAL_NVTX_COLUMNS)
        if None not in one[:3]
    ]
    pushed = [one for one in rows if one.kind == PUSH_POP]
    if not pushed:
        raise UserError("no NVTX ranges in it; trace with `nsys profile --trace=cuda,nvtx`")
    ours = _our_domains(rows)
    named = {(*one.place, one.category): one.text for one in rows if one.kind == CATEGORY}
    last = max(max(one.start, one.end or 0) for one in rows)
    threads: dict[int, NvtxThread] = {}
    for one in sorted(pushed, key=lambda one: (one.start, -(one.end or last))):
        if one.place in ours:
            category, end = named.get((*one.place, one.category), ""), last if one.end is None else one.end
            found = NvtxRange(one.text, category, one.thread, one.start, end, whole=one.end is not None)
            _insert_range(threads.setdefault(one.thread, NvtxThread()), found)
    if not threads:
        raise UserError(f"{len(pushed)} NVTX ranges, none of the domain {NVTX_DOMAIN}; trace a run of `pytest suites/`")
    return threads, list(_marks(one for one in rows if one.kind == MARK and one.place in ours))


def _row(values: tuple[Any, ...], strings: Mapping[int, str]) -> NvtxRow:
    start, kind, thread, end, category, text, text_id, domain, whole, real = values
    return NvtxRow(start, kind, thread, end, category, text or strings.get(text_id, ""), domain, whole, real)


def _our_domains(rows: Iterable[NvtxRow]) -> set[tuple[int, int | None]]:
    """Process and domain of the suites' ranges.

    A trace that began during a run may lack the row that names the domain. The names of the ranges tell in this case.
    """
    created = [one for one in rows if one.kind == DOMAIN_CREATED]
    if named := {one.place for one in created if one.text == NVTX_DOMAIN}:
        return named
    others = {one.place for one in created}
    found: dict[tuple[int, int | None], set[str]] = {}
    for one in rows:
        if one.kind == PUSH_POP and one.place not in others:
            found.setdefault(one.place, set()).add(one.text)
    return {
        place
        for place, names in found.items()
        if names & {TIMED_RANGE, WARM_UP_RANGE} and any(NODE_ID_PART in name for name in names)
    }


def _insert_range(thread: NvtxThread, one: NvtxRange) -> None:
    above = thread.ranges[-1] if thread.ranges else None
    while above and above.end <= one.start:
        above = above.parent
    one.parent = above
    thread.ranges.append(one)
    thread.starts.append(one.start)


def _marks(rows: Iterable[NvtxRow]) -> Iterator[NvtxMark]:
    """Yield the marks with their payload.

    A payload is in the column of its type; old exports write 0 into the other columns.
    """
    for one in rows:
        if value := one.real or one.whole:
            yield NvtxMark(one.text, one.thread, one.start, float(value))


# Activities on the devices of a trace, joined with the host's calls that launched them.
#
# A call of the CUDA API and its activities share a correlation id, which each process counts for itself. All kernels of
# a graph have the id of the graph's launch. Where nsys traced whole graphs, there is one row per launch instead.

KERNEL_TABLE, GRAPH_TABLE, CALL_TABLE = (
    "CUPTI_ACTIVITY_KIND_KERNEL",
    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE",
    "CUPTI_ACTIVITY_KIND_RUNTIME",
)
MEMORY_TABLES = {"memcpy": "CUPTI_ACTIVITY_KIND_MEMCPY", "memset": "CUPTI_ACTIVITY_KIND_MEMSET"}
UNENDED_NOTE = "{} kernels and copies without an end, or with one before the start: left out"
ACTIVITY_COLUMNS = ("start", "end", "deviceId", "streamId", "correlationId")

CALL_FILTER = (
    f"correlationId IN (SELECT correlationId FROM {CALL_TABLE} WHERE start BETWEEN {{}} AND {{}} "  # noqa: S608
    "OR typeof(start) IN ('text', 'blob'))"
)
"""SQL filter: correlation ids of calls within a time.

A start that is no number is kept, so that it is refused later.
"""

CorrelationKey = tuple[int, int]
"""Process and correlation id."""
ActivityRow = tuple[int | None, int, Activity]
"""Process, None where an export lacks it; correlation id; and activity."""


class LaunchedActivity(NamedTuple):
    """An activity and its launching thread, None where no call in the trace matches."""

    activity: Activity
    thread: int | None


class TraceActivities(NamedTuple):
    """Activities that were launched within a time.

    `launched`: by launch, then by start. `elsewhere`: number of other activities. `notes`: caveats.
    """

    launched: list[LaunchedActivity]
    elsewhere: int
    notes: list[str]


def read_activities(database: TraceDatabase, strings: Mapping[int, str], since: int, until: int) -> TraceActivities:
    """Read all activities that calls from `since` to `until` launched (nanoseconds).

    Raises:
        UserError: a very old trace of several processes does not say which process ran what.
    """
    among = CALL_FILTER.format(since, until) if database.has(CALL_TABLE) else "FALSE"
    calls = _calls(database, among)
    found = [*_activities(database, strings, among)]
    by_node = any(one.in_graph and one.kind != "graph" for *_, one in found)  # else graphs stand for their kernels
    tables = (KERNEL_TABLE, *MEMORY_TABLES.values(), *(() if by_node else (GRAPH_TABLE,)))
    elsewhere = sum(map(database.count, tables)) - len(found)
    whole = [one for one in found if one[2].end is not None and one[2].end >= one[2].start]
    notes = [UNENDED_NOTE.format(len(found) - len(whole))] if len(whole) < len(found) else []
    numbers = {number for _, number, _ in whole}
    processes = {owner for owner, number in calls if number in numbers}
    nameless = sum(owner is None for owner, *_ in whole)
    if nameless == len(whole) and len(processes) > 1:
        raise UserError(f"{len(processes)} processes, and no kernel says whose it is; trace one process at a time")
    only = next(iter(processes)) if len(processes) == 1 else -1
    launched = [
        _match_call(one, number, calls.get((only if owner is None else owner, number), ()))
        for owner, number, one in whole
    ]
    launched.sort(key=lambda one: (one.activity.launched, one.activity.start))
    return TraceActivities(launched, max(0, elsewhere), notes)


def _match_call(one: Activity, number: int, calls: Sequence[tuple[int, int]]) -> LaunchedActivity:
    """Match an activity with the latest call before its start, else the first call.

    Long runs reuse ids. The first call serves where clocks disagree.
    """
    if not calls:
        return LaunchedActivity(one._replace(launched=(one.start, number)), None)
    start, thread = calls[max(0, bisect_right(calls, (one.start, inf)) - 1)]
    return LaunchedActivity(one._replace(launched=(start, number)), thread)


def _activities(database: TraceDatabase, strings: Mapping[int, str], among: str) -> Iterator[ActivityRow]:
    by_node = set()
    others = ("globalPid", "graphNodeId", "shortName", "demangledName")
    for start, end, device, stream, number, pid, node, short, long in database.rows(
        KERNEL_TABLE, ACTIVITY_COLUMNS, others, among
    ):
        if None not in (start, number):
            owner = None if pid is None else process_id(pid)
            if node:
                by_node.add((owner, number))
            name = strings.get(long) or strings.get(short) or "unnamed"
            yield owner, number, Activity(start, end, name, (device or 0, stream or 0), "kernel", bool(node))
    for name, table in MEMORY_TABLES.items():
        for start, end, device, stream, number, pid, node in database.rows(table, ACTIVITY_COLUMNS, others[:2], among):
            if None not in (start, number):
                owner = None if pid is None else process_id(pid)
                yield owner, number, Activity(start, end, name, (device or 0, stream or 0), "memory", bool(node))
    for start, end, device, stream, number, pid in database.rows(GRAPH_TABLE, ACTIVITY_COLUMNS, others[:1], among):
        owner = None if pid is None else process_id(pid)
        if None not in (start, number) and (owner, number) not in by_node:
            yield owner, number, Activity(start, end, "graph", (device or 0, stream or 0), "graph", in_graph=True)


def _calls(database: TraceDatabase, among: str) -> dict[CorrelationKey, list[tuple[int, int]]]:
    """Start and thread of calls by correlation key, the earliest first.

    Calls at other times are included where they share an id.
    """
    found: dict[CorrelationKey, list[tuple[int, int]]] = {}
    for start, thread, number in database.rows(CALL_TABLE, ("start", "globalTid", "correlationId"), where=among):
        if None not in (start, thread, number):
            found.setdefault((process_id(thread), number), []).append((start, thread))
    for calls in found.values():
        calls.sort()
    return found


EXPORT_TABLES = ("StringIds", "META_DATA_EXPORT", "TARGET_INFO_SYSTEM_ENV")
"""Tables of which every export has at least one, whatever was traced."""
TRACING_NOTE = (
    "nsys was attached: tracing slows the host's launches and, where graphs are traced by node, their kernels"
)
GPU_COLUMNS = ("id", "name", "totalMemory", "smCount", "l2CacheSize", "computeMajor", "computeMinor", "cuDevice")


def read_trace(path: Path) -> Profile:
    """Read the visits to our cases from a trace.

    Raises:
        UserError: the trace cannot be used.
    """
    with TraceDatabase(path) as database:
        if not any(database.has(table) for table in EXPORT_TABLES):
            raise UserError(f"{path}: SQLite, but not of Nsight Systems; give what this wrote: {EXPORT_COMMAND}")
        try:
            if not database.has("StringIds"):
                raise UserError(f"no table StringIds, in which all names stand; export it again: {EXPORT_COMMAND}")
            strings = dict(database.rows("StringIds", ("id", "value")))
            threads, marks = read_nvtx(database, strings)
            outermost = [one for thread in threads.values() for one in thread.ranges if one.parent is None]
            since, until = min(one.start for one in outermost), max(one.end for one in outermost)
            launched, elsewhere, notes = read_activities(database, strings, since, until)
        except UserError as error:
            raise error if str(error).startswith(f"{path}:") else UserError(f"{path}: {error}") from error
        odd = [mark for mark in marks if not mark.usable]
        visits, outside = _visits(threads, marks, launched)
        outside += elsewhere
        if not visits:
            raise UserError(
                f"{path}: no range of a case in it, only what lies within or around one; trace whole cases, chosen "
                "with pytest's -k, and leave --capture-range out"
            )
        if outside == len(launched) + elsewhere:
            raise UserError(
                f"{path}: {_no_kernels_reason(visits, outside)}; trace a run on a GPU with --trace=cuda,nvtx"
            )
        devices = {one.activity.stream[0] for one in launched}
        notes = [TRACING_NOTE, *notes]
        notes += [f"{pluralize(len(odd), 'mark')} that cannot be, as of {odd[0].value:g}: left out"] if odd else []
        cut = [one for thread in threads.values() for one in thread.ranges if one.name == TIMED_RANGE and not one.whole]
        notes += [f"the trace ended inside of {pluralize(len(cut), 'visit')}: left out"] if cut else []
        notes += [f"{outside} kernels and copies were launched outside of our ranges: left out"] if outside else []
        return Profile(visits, f"Nsight Systems{_version(database)}", _gpu(database, devices), notes)


def _no_kernels_reason(visits: Sequence[Visit], outside: int) -> str:
    cases = len({one.case for one in visits})
    where = f"{outside} kernels and copies, none in them" if outside else "no CUDA kernels"
    return f"ranges of {pluralize(cases, 'case')}, but {where}"


def _visits(
    threads: Mapping[int, NvtxThread], marks: Iterable[NvtxMark], launched: Iterable[LaunchedActivity]
) -> tuple[list[Visit], int]:
    """Return the visits by start, and the number of activities outside of them."""
    found: dict[NvtxRange, Visit] = {}
    for thread in threads.values():
        for one in thread.ranges:
            if one.parent and not one.parent.parent and one.name in (WARM_UP_RANGE, TIMED_RANGE):
                case = one.parent
                process = process_id(case.thread)
                found.setdefault(case, Visit(case.name, case.category, process, case.start, case.end))
    for mark in (one for one in marks if one.usable):
        at = threads[mark.thread].innermost(mark.at) if mark.thread in threads else None
        if at and (visit := found.get(at.path[0])):
            if mark.name == JOURNAL_CALLS:
                visit.calls = int(mark.value)
            elif mark.name == SECONDS_MARK:
                visit.clock_seconds = mark.value
    outside = 0
    calls: dict[NvtxRange, NvtxRange] = {}
    parts: dict[NvtxRange, list[Activity]] = {}
    for activity, owner in launched:
        at = threads[owner].innermost(int(activity.launched[0])) if owner is not None and owner in threads else None
        visit = found.get(at.path[0]) if at else None
        if at is None or visit is None:
            outside += 1
        else:
            _assign_activity(visit, at, activity, calls, parts)
    return [found[case] for case in sorted(found, key=lambda case: case.start)], outside


def _assign_activity(
    visit: Visit,
    at: NvtxRange,
    one: Activity,
    calls: dict[NvtxRange, NvtxRange],
    parts: dict[NvtxRange, list[Activity]],
) -> None:
    """Add an activity to its visit; older runs show parts beside the call.

    Some runs checked a call twice. `calls` holds the first call of each case's range; only its kernels are kept.
    """
    path = at.path
    names = [step.name for step in path]
    if TIMED_RANGE in names[1:2]:
        if path[1].whole and UNTIMED_RANGE not in names[2:3]:  # a cut range lacks some of its calls
            visit.timed.append(one)
        return
    if CALL_RANGE in names[2:3]:
        if calls.setdefault(path[0], path[2]) is not path[2]:
            return
        visit.call.append(one)
    if shown := next((step for step in path[2:] if step.name in PART_RANGES), None):
        if shown not in parts:
            parts[shown] = []
            visit.parts.append((shown.name, parts[shown]))
        parts[shown].append(one)


def _version(database: TraceDatabase) -> str:
    told = dict(database.rows("META_DATA_EXPORT", ("name", "value")))
    version = str(told.get("EXPORT_PRODUCT_VERSION") or "")
    return f" {version}" if version and all(letter in "0123456789." for letter in version) else ""


def _gpu(database: TraceDatabase, devices: set[int]) -> dict[str, object]:
    """Facts of the GPU that ran the activities.

    The name of the host stands in the same file and is never read.
    """
    rows = [dict(zip(GPU_COLUMNS, one, strict=True)) for one in database.rows("TARGET_INFO_GPU", (), GPU_COLUMNS)]
    used = [one for one in rows if (one["id"] if one["cuDevice"] is None else one["cuDevice"]) in devices] or rows
    if not used:
        return {"gpu": None}
    return _facts(used[0])


def _facts(row: Mapping[str, Any]) -> dict[str, object]:
    arch = f"sm_{row['computeMajor']}{row['computeMinor']}" if row["computeMajor"] else None
    facts = {
        "gpu": row["name"],
        "arch": arch,
        "sms": row["smCount"],
        "l2_bytes": row["l2CacheSize"],
        "gpu_memory_bytes": row["totalMemory"],
    }
    return {name: value for name, value in facts.items() if value}

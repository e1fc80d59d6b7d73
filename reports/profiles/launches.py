"""What ran on the devices of a trace, joined to the host's calls that launched it.

A call of the CUDA API and what it starts have a correlation id in common, which each process counts for itself. The
kernels of a graph all have the one of its launch; where nsys traced whole graphs there is one row a launch instead.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import NamedTuple

from reports.profiles.activity import Activity
from reports.profiles.database import Database
from reports.profiles.nvtx import process
from specs.errors import UserError

KERNELS, GRAPHS, CALLS = "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_GRAPH_TRACE", "CUPTI_ACTIVITY_KIND_RUNTIME"
MEMORY = {"memcpy": "CUPTI_ACTIVITY_KIND_MEMCPY", "memset": "CUPTI_ACTIVITY_KIND_MEMSET"}
UNENDED = "{} kernels and copies without an end, or with one before the start: left out"
NEEDED = ("start", "end", "deviceId", "streamId", "correlationId")

AMONG = (
    f"correlationId IN (SELECT correlationId FROM {CALLS} WHERE start BETWEEN {{}} AND {{}} "  # noqa: S608 - numbers
    "OR typeof(start) IN ('text', 'blob'))"
)
"""Ids of calls within a time; a start that is no number is kept, so that it is refused."""

Key = tuple[int, int]
"""Process and correlation id."""
Row = tuple[int | None, int, Activity]
"""Process, where an export names it, correlation id, and what ran."""


class Launched(NamedTuple):
    """An activity and the thread that launched it, None where no call of a trace did."""

    activity: Activity
    thread: int | None


class Found(NamedTuple):
    """What was launched within a time, by launch and then by start, how many ran besides, and what to mind."""

    launched: list[Launched]
    elsewhere: int
    notes: list[str]


def read(database: Database, strings: Mapping[int, str], since: int, until: int) -> Found:
    """All activities of all devices that calls from `since` to `until` launched, in nanoseconds.

    Raises:
        UserError: very old, of several processes, and nothing says which of them ran what.
    """
    among = AMONG.format(since, until) if database.has(CALLS) else "FALSE"
    calls = _calls(database, among)
    found = [*_activities(database, strings, among)]
    by_node = any(one.in_graph and one.kind != "graph" for *_, one in found)  # else graphs stand for their kernels
    tables = (KERNELS, *MEMORY.values(), *(() if by_node else (GRAPHS,)))
    elsewhere = sum(map(database.count, tables)) - len(found)
    whole = [one for one in found if one[2].end is not None and one[2].end >= one[2].start]
    notes = [UNENDED.format(len(found) - len(whole))] if len(whole) < len(found) else []
    numbers = {number for _, number, _ in whole}
    processes = {owner for owner, number in calls if number in numbers}
    nameless = sum(owner is None for owner, *_ in whole)
    if nameless == len(whole) and len(processes) > 1:
        raise UserError(f"{len(processes)} processes, and no kernel says whose it is; trace one process at a time")
    only = next(iter(processes)) if len(processes) == 1 else -1
    launched = [
        _launched(one, number, calls.get((only if owner is None else owner, number), ()))
        for owner, number, one in whole
    ]
    launched.sort(key=lambda one: (one.activity.launched, one.activity.start))
    return Found(launched, max(0, elsewhere), notes)


def _launched(one: Activity, number: int, calls: Sequence[tuple[int, int]]) -> Launched:
    """Ids are used again in long runs: the call is the latest that began before it, or the first if clocks disagree."""
    if not calls:
        return Launched(one._replace(launched=(one.start, number)), None)
    start, thread = calls[max(0, bisect_right(calls, (one.start, inf)) - 1)]
    return Launched(one._replace(launched=(start, number)), thread)


def _activities(database: Database, strings: Mapping[int, str], among: str) -> Iterator[Row]:
    by_node = set()
    others = ("globalPid", "graphNodeId", "shortName", "demangledName")
    for start, end, device, stream, number, pid, node, short, long in database.rows(KERNELS, NEEDED, others, among):
        if None not in (start, number):
            owner = None if pid is None else process(pid)
            if node:
                by_node.add((owner, number))
            name = strings.get(long) or strings.get(short) or "unnamed"
            yield owner, number, Activity(start, end, name, (device or 0, stream or 0), "kernel", bool(node))
    for name, table in MEMORY.items():
        for start, end, device, stream, number, pid, node in database.rows(table, NEEDED, others[:2], among):
            if None not in (start, number):
                owner = None if pid is None else process(pid)
                yield owner, number, Activity(start, end, name, (device or 0, stream or 0), "memory", bool(node))
    for start, end, device, stream, number, pid in database.rows(GRAPHS, NEEDED, others[:1], among):
        owner = None if pid is None else process(pid)
        if None not in (start, number) and (owner, number) not in by_node:
            yield owner, number, Activity(start, end, "graph", (device or 0, stream or 0), "graph", in_graph=True)


def _calls(database: Database, among: str) -> dict[Key, list[tuple[int, int]]]:
    """Start and thread of calls, the earliest first: of those of other times too whose id is used again."""
    found: dict[Key, list[tuple[int, int]]] = {}
    for start, thread, number in database.rows(CALLS, ("start", "globalTid", "correlationId"), where=among):
        if None not in (start, thread, number):
            found.setdefault((process(thread), number), []).append((start, thread))
    for calls in found.values():
        calls.sort()
    return found

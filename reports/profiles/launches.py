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

Key = tuple[int, int]
"""Process and correlation id."""
Row = tuple[int | None, int, Activity]
"""Process, where an export names it, correlation id, and what ran."""


class Launched(NamedTuple):
    """An activity and the thread that launched it, None where no call of a trace did."""

    activity: Activity
    thread: int | None


def read(database: Database, strings: Mapping[int, str]) -> tuple[list[Launched], list[str]]:
    """All activities of all devices, by launch and then by start, and what to mind.

    Raises:
        UserError: very old, of several processes, and nothing says which of them ran what.
    """
    found = [*_activities(database, strings)]
    whole = [one for one in found if one[2].end is not None and one[2].end >= one[2].start]
    notes = [UNENDED.format(len(found) - len(whole))] if len(whole) < len(found) else []
    calls = _calls(database, {number for _, number, _ in whole})
    processes = {process for process, _ in calls}
    nameless = sum(process is None for process, *_ in whole)
    if nameless == len(whole) and len(processes) > 1:
        raise UserError(f"{len(processes)} processes, and no kernel says whose it is; trace one process at a time")
    only = next(iter(processes)) if len(processes) == 1 else -1
    launched = [
        _launched(one, number, calls.get((only if owner is None else owner, number), ()))
        for owner, number, one in whole
    ]
    launched.sort(key=lambda one: (one.activity.launched, one.activity.start))
    return launched, notes


def _launched(one: Activity, number: int, calls: Sequence[tuple[int, int]]) -> Launched:
    """Ids are used again in long runs: the call is the latest that began before it, or the first if clocks disagree."""
    if not calls:
        return Launched(one._replace(launched=(one.start, number)), None)
    start, thread = calls[max(0, bisect_right(calls, (one.start, inf)) - 1)]
    return Launched(one._replace(launched=(start, number)), thread)


def _activities(database: Database, strings: Mapping[int, str]) -> Iterator[Row]:
    by_node = set()
    others = ("globalPid", "graphNodeId", "shortName", "demangledName")
    for start, end, device, stream, number, pid, node, short, long in database.rows(KERNELS, NEEDED, others):
        if None not in (start, number):
            owner = None if pid is None else process(pid)
            if node:
                by_node.add((owner, number))
            name = strings.get(long) or strings.get(short) or "unnamed"
            yield owner, number, Activity(start, end, name, (device or 0, stream or 0), "kernel", bool(node))
    for name, table in MEMORY.items():
        for start, end, device, stream, number, pid, node in database.rows(table, NEEDED, others[:2]):
            if None not in (start, number):
                owner = None if pid is None else process(pid)
                yield owner, number, Activity(start, end, name, (device or 0, stream or 0), "memory", bool(node))
    for start, end, device, stream, number, pid in database.rows(GRAPHS, NEEDED, others[:1]):
        owner = None if pid is None else process(pid)
        if None not in (start, number) and (owner, number) not in by_node:
            yield owner, number, Activity(start, end, "graph", (device or 0, stream or 0), "graph", in_graph=True)


def _calls(database: Database, wanted: set[int]) -> dict[Key, list[tuple[int, int]]]:
    """Start and thread of the calls that launched something, the earliest first."""
    found: dict[Key, list[tuple[int, int]]] = {}
    for start, thread, number in database.rows(CALLS, ("start", "globalTid", "correlationId")):
        if number in wanted and None not in (start, thread):
            found.setdefault((process(thread), number), []).append((start, thread))
    for calls in found.values():
        calls.sort()
    return found

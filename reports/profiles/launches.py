"""What ran on the devices of a trace, joined to the host's calls that launched it.

A call of the CUDA API and what it starts have a correlation id in common, which each process counts for itself. The
kernels of a graph all have the one of its launch; where nsys traced whole graphs there is one row a launch instead.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from reports.profiles.activity import Activity
from reports.profiles.database import Database
from reports.profiles.nvtx import process

KERNELS, GRAPHS, CALLS = "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_GRAPH_TRACE", "CUPTI_ACTIVITY_KIND_RUNTIME"
MEMORY = {"memcpy": "CUPTI_ACTIVITY_KIND_MEMCPY", "memset": "CUPTI_ACTIVITY_KIND_MEMSET"}
NEEDED = ("start", "end", "deviceId", "streamId", "correlationId")

Key = tuple[int | None, int]
"""Process and correlation id."""


class Launched(NamedTuple):
    """An activity and the thread that launched it, None where no call of a trace did."""

    activity: Activity
    thread: int | None


def read(database: Database, strings: Mapping[int, str]) -> list[Launched]:
    """All activities of all devices, by launch and then by start."""
    found = [*_activities(database, strings)]
    known = all(key[0] is not None for key, _ in found)
    calls = _calls(database, {key for key, _ in found}, known=known)
    launched = []
    for key, one in found:
        start, thread = calls.get(key, (one.start, None))
        launched.append(Launched(one._replace(launched=(start, key[1])), thread))
    return sorted(launched, key=lambda one: (one.activity.launched, one.activity.start))


def _activities(database: Database, strings: Mapping[int, str]) -> Iterator[tuple[Key, Activity]]:
    by_node = set()
    others = ("globalPid", "graphNodeId", "shortName", "demangledName")
    for start, end, device, stream, number, pid, node, short, long in database.rows(KERNELS, NEEDED, others):
        if number is not None:
            key = None if pid is None else process(pid), number
            if node:
                by_node.add(key)
            name = strings.get(long) or strings.get(short) or "unnamed"
            yield key, Activity(start, end, name, (device, stream), "kernel", bool(node))
    for name, table in MEMORY.items():
        for start, end, device, stream, number, pid, node in database.rows(table, NEEDED, others[:2]):
            if number is not None:
                key = None if pid is None else process(pid), number
                yield key, Activity(start, end, name, (device, stream), "memory", bool(node))
    for start, end, device, stream, number, pid in database.rows(GRAPHS, NEEDED, others[:1]):
        key = None if pid is None else process(pid), number
        if number is not None and key not in by_node:
            yield key, Activity(start, end, "graph", (device, stream or 0), "graph", in_graph=True)


def _calls(database: Database, wanted: set[Key], *, known: bool) -> dict[Key, tuple[int, int]]:
    """Start and thread of the calls that launched something; very old exports name no process beside what ran."""
    found: dict[Key, tuple[int, int]] = {}
    for start, thread, number in database.rows(CALLS, ("start", "globalTid", "correlationId")):
        if None not in (start, thread, number):
            key = process(thread) if known else None, number
            if key in wanted:
                found[key] = start, thread
    return found

"""What a device did, and how long it was at it: the union of intervals, so that two streams at once count once."""

from collections.abc import Iterable
from typing import NamedTuple


class Activity(NamedTuple):
    """A kernel, a copy or a whole graph on a device.

    Attributes:
        start, end: nanoseconds on the profiler's clock.
        name: of the kernel; `memcpy`, `memset` or `graph` for what is none.
        stream: device and stream.
        kind: kernel, memory, or graph where graphs were traced as a whole.
        in_graph: whether a graph's launch started it.
        launched: when the host's call that launched it began, and that call's number; what one graph launch starts
            has it in common.
        read_bytes: from DRAM, where that was counted.
    """

    start: float
    end: float
    name: str
    stream: tuple[int, int]
    kind: str = "kernel"
    in_graph: bool = False
    launched: tuple[float, int] = (0, 0)
    read_bytes: float | None = None


def busy(activities: Iterable[Activity]) -> float:
    """Nanoseconds in which at least one of them ran."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted((one.start, one.end) for one in activities):
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total


def added(activities: Iterable[Activity]) -> float:
    """Nanoseconds of all of them, one after another."""
    return sum(one.end - one.start for one in activities)


def span(activities: Iterable[Activity]) -> float:
    """Nanoseconds from the first's start to the last's end: of each graph launch by itself, of all the rest together.

    Between two launches of a graph lies what starting one costs, which our own clock leaves out too.
    """
    ends: dict[tuple[float, int] | None, tuple[float, float]] = {}
    for one in activities:
        key = one.launched if one.in_graph else None
        first, last = ends.get(key, (one.start, one.end))
        ends[key] = min(first, one.start), max(last, one.end)
    return sum(last - first for first, last in ends.values())

"""What to choose among the batches asked for: of each latency the most tokens a second, and the front of both.

A batch that nobody asked for may do better, or worse than its neighbours where a tile ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.plan.point import Point


@dataclass(frozen=True)
class Target:
    """A latency that is promised, the point with the most tokens a second within it, and those not told from it."""

    latency_seconds: float
    best: Point | None
    tied: Sequence[Point] = ()


def targets(points: Sequence[Point], latencies: Sequence[float]) -> list[Target]:
    """One for each latency. A point is within it where its figure is; tied are those whose bounds reach the best's."""
    found = []
    for latency in sorted(latencies):
        within = [one for one in points if one.seconds <= latency]
        best = max(within, key=lambda one: one.tokens_per_second, default=None)
        tied = [one for one in within if best and one is not best and _reaches(one, best)]
        found.append(Target(latency, best, tied))
    return found


def front(points: Sequence[Point]) -> list[Point]:
    """By rising latency those with more tokens a second than any faster one."""
    found: list[Point] = []
    for one in sorted(points, key=lambda point: (point.seconds, -point.tokens_per_second)):
        if not found or one.tokens_per_second > found[-1].tokens_per_second:
            found.append(one)
    return found


def _reaches(one: Point, best: Point) -> bool:
    """Whether its tokens a second at best are as many as the best's at worst."""
    return one.batch / one.low >= best.batch / best.high

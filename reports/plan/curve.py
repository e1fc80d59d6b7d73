"""Times of one part over its size, and what they say of sizes in between and beyond."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import fmean, median

from reports.evidence import weakest
from reports.plan.cost import Cost
from specs import statistics
from specs.measurement import Measurement

BELOW, BEYOND = "interpolated", "assumed"
"""A call of less than the smallest size takes as long as that; beyond the largest the last slope goes on."""


class Curve:
    """Costs by size: tokens, sequences, bytes.

    Args:
        points: costs by size, at least one.
    """

    def __init__(self, points: Mapping[int, Cost]) -> None:
        self._points = dict(sorted(points.items()))
        self._sizes = tuple(self._points)
        self._known: dict[float, Cost] = {float(size): cost for size, cost in self._points.items()}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Those that are tabulated, rising."""
        return self._sizes

    def at(self, size: float) -> Cost:
        """The cost there: tabulated, on a straight line between its neighbours, or beyond the ends."""
        if size not in self._known:
            self._known[size] = self._between(size)
        return self._known[size]

    def within(self, size: float) -> bool:
        """Whether it is not beyond the largest."""
        return size <= self._sizes[-1]

    def _between(self, size: float) -> Cost:
        sizes, place = self._sizes, bisect_left(self._sizes, size)
        if place == 0:
            first = self._points[sizes[0]]
            return replace(first, provenance=weakest([first.provenance, BELOW]))
        if len(sizes) == 1:
            return replace(self._points[sizes[0]].times(size / sizes[0]), provenance=BEYOND)
        beyond = place == len(sizes)
        a, b = (sizes[-2], sizes[-1]) if beyond else (sizes[place - 1], sizes[place])
        share, low, high = (size - a) / (b - a), self._points[a], self._points[b]

        def line(left: float, right: float) -> float:
            return left + (right - left) * share

        how = weakest([low.provenance, high.provenance, BEYOND if beyond else "interpolated"])
        return Cost(
            line(low.seconds, high.seconds),
            line(low.low, high.low),
            line(low.high, high.high),
            max(low.half, high.half),
            how,
            tuple(dict.fromkeys((*low.cases, *high.cases))),
        )


def cost(one: Measurement, high: float = 0.0, factor: float = 1.0) -> Cost:
    """What a measurement says: the mean of a pass, and of passes the middle one; with the interval between them.

    Within a pass slow calls count, for a sum has them too. A whole pass that something else slowed down does not.

    Args:
        one: the record.
        high: seconds that it may take more, from a doubt about its caches.
        factor: of the time that counts, as half of a ping-pong.
    """
    means = [fmean(samples) for samples in one.seconds]
    seconds, interval = factor * median(means), statistics.mean_interval(means)
    half = factor * (interval[1] - interval[0]) / 2 if interval else 0.0
    return Cost(seconds, seconds, seconds + factor * high, half, one.provenance, (one.case.name,))


def curve(points: Iterable[tuple[int, Cost]]) -> Curve | None:
    """Of several costs at a size the least; None where there is no point."""
    found: dict[int, Cost] = {}
    for size, one in points:
        if size not in found or one.seconds < found[size].seconds:
            found[size] = one
    return Curve(found) if found else None

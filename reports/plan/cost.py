"""What a part of a step takes, and how far that can be trusted."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import hypot
from operator import attrgetter


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a part, or of several one after another.

    Attributes:
        seconds: a mean over calls: sums of medians would leave out the slow calls of every part.
        low, high: what it may be where a cache, or an assumption, leaves room; errors that all parts share add up.
        half: half-width of the 95 % interval from passes, in seconds; errors of different parts are independent.
        provenance: one of `reports.evidence.STRENGTH`; empty of a sum.
        cases: names of what it rests on; none of a sum.
    """

    seconds: float
    low: float
    high: float
    half: float = 0.0
    provenance: str = ""
    cases: tuple[str, ...] = ()

    def times(self, count: float) -> "Cost":
        """So many calls, all of them as far off as the one that was measured."""
        return Cost(
            count * self.seconds,
            count * self.low,
            count * self.high,
            count * self.half,
            self.provenance,
            self.cases,
        )

    @property
    def bounds(self) -> tuple[float, float]:
        """Both kinds of doubt together."""
        return max(0.0, self.low - self.half), self.high + self.half


Pick = Callable[[Cost], float]
FIGURES: tuple[Pick, ...] = tuple(attrgetter(name) for name in ("seconds", "low", "high"))
"""The figure, the least and the most that it may be."""


def total(costs: Iterable[Cost]) -> Cost:
    """One after another."""
    found = list(costs)
    return Cost(
        sum(one.seconds for one in found),
        sum(one.low for one in found),
        sum(one.high for one in found),
        hypot(*(one.half for one in found)),
    )


def fixed(seconds: float, provenance: str) -> Cost:
    """A figure without a range that comes from no case."""
    return Cost(seconds, seconds, seconds, 0.0, provenance)

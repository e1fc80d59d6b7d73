"""Latency and bandwidth of an operation: t = alpha + message / bandwidth, fitted to its times over messages."""

from dataclasses import dataclass
from typing import Any

from reports import line
from reports.communication.series import Series
from reports.line import Interval, Line
from specs import traffic as specs_traffic
from specs.statistics import Passes

LEAST_SIZES = 4
LEAST_SPAN = 16
"""The largest message over the smallest."""


@dataclass(frozen=True)
class Fit:
    """A line through a series.

    Attributes:
        series: what it goes through.
        line: its two terms, the rate in bytes of the message a second.
        alpha, rate: 95 % intervals, or ranges, of the terms.
        source: where the intervals come from: `6 passes`, or `leaving out a size` where there is one figure a size.
        worst: the largest |time / line − 1|: a large one says that the model does not hold.
    """

    series: Series
    line: Line
    alpha: Interval | None
    rate: Interval | None
    source: str | None
    worst: float

    @property
    def factor(self) -> float:
        """Busbw over bytes of the message a second; 1 for an operation that has no busbw."""
        case = self.series.case
        return specs_traffic.busbw(case.op, case.ranks, 1, 1.0) or 1.0

    @property
    def kind(self) -> str:
        """What the bandwidth is: busbw, or the message over the time."""
        traffic = specs_traffic.TRAFFIC[self.series.case.op]
        return "busbw" if traffic.bus_factor else "message/time"

    @property
    def bandwidth(self) -> float | None:
        """Bytes a second of that kind."""
        return self.line.rate * self.factor if self.line.rate else None

    @property
    def bandwidth_interval(self) -> Interval | None:
        """Its interval."""
        return (self.rate[0] * self.factor, self.rate[1] * self.factor) if self.rate else None

    @property
    def sizes(self) -> list[int]:
        """Messages that it goes through, in bytes."""
        return [one.case.message_bytes or 0 for one in self.series.points]

    def record(self) -> dict[str, Any]:
        """For a machine: SI units."""
        case = self.series.case
        shown = ("question", "op", "implementation", "kernel", "model", "layer", "launch", "gap_seconds", "pair")
        return {
            **{name: getattr(case, name) for name in (*shown, "ranks", "dtype")},
            "alpha_seconds": self.line.alpha,
            "alpha_interval_seconds": self.alpha,
            "bandwidth_bytes_per_second": self.bandwidth,
            "bandwidth_interval_bytes_per_second": self.bandwidth_interval,
            "bandwidth_is": self.kind,
            "interval_from": self.source,
            "message_bytes": self.sizes,
            "worst_relative_residual": self.worst,
        }


def fit(series: Series) -> Fit | None:
    """The line through a series; None for too few sizes, too near to each other, or with several cases of one."""
    passes: dict[int, Passes] = {}
    for one in series.points:
        passes[one.case.message_bytes or 0] = one.measurement.seconds
    if len(passes) < max(LEAST_SIZES, len(series.points)) or max(passes) < LEAST_SPAN * min(passes):
        return None
    found = line.through(passes)
    return Fit(series, found.line, found.alpha, found.rate, found.source, found.worst)

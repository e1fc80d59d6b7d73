"""One measured operation between ranks: its bandwidths, its share of the link, and what is normal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reports import machine, roofline
from reports.communication.published import Reference, References, over_fabric
from reports.results import ResultFile
from reports.roofline import Figures, Interval, Line
from specs import traffic as specs_traffic
from specs.gpus import Gpu
from specs.measurement import Case, Measurement
from specs.statistics import Passes


@dataclass(frozen=True)
class Point:
    """A measurement, the GPU that it ran on where that is known, and a published time to hold it against."""

    figures: Figures
    gpu: Gpu | None
    reference: Reference | None

    @property
    def measurement(self) -> Measurement:
        """The record."""
        return self.figures.measurement

    @property
    def case(self) -> Case:
        """What ran."""
        return self.measurement.case

    @property
    def algbw(self) -> float | None:
        """Bytes a second, as nccl-tests means them; None where the time holds more than a transfer."""
        if self.case.message_bytes is None:
            return None
        return specs_traffic.algbw(self.case.op, self.case.message_bytes, self.measurement.median)

    @property
    def busbw(self) -> float | None:
        """The same, to be held against one direction of a link."""
        if self.case.message_bytes is None:
            return None
        return specs_traffic.busbw(self.case.op, self.case.ranks, self.case.message_bytes, self.measurement.median)

    @property
    def hop_seconds(self) -> float | None:
        """One way of a ping-pong; None for anything else."""
        traffic = specs_traffic.TRAFFIC.get(self.case.op)
        return self.measurement.median / traffic.in_turn if traffic and traffic.in_turn > 1 else None

    @property
    def link_share(self) -> float | None:
        """Busbw over one direction of the GPU's fabric; None unless that, and nothing else, carried the message."""
        transport, busbw = self.measurement.transport, self.busbw
        if not self.gpu or not busbw or transport is None or not over_fabric(self.gpu, transport):
            return None
        return busbw / self.gpu.link_bytes_per_second

    @property
    def ratio(self) -> float | None:
        """How many times the published time it takes."""
        return self.measurement.median / self.reference.seconds if self.reference else None

    def record(self) -> dict[str, Any]:
        """What `Figures.record` lacks, for a machine."""
        return {
            "algbw_bytes_per_second": self.algbw,
            "busbw_bytes_per_second": self.busbw,
            "link_share": self.link_share,
            "skew_seconds": self.measurement.skew_seconds,
            "algorithm": self.measurement.algorithm,
            "transport": self.measurement.transport,
            "published_seconds": self.reference.seconds if self.reference else None,
            "published_source": self.reference.source if self.reference else None,
            "published_between": self.reference.between if self.reference else None,
        }


def between_ranks(case: Case) -> bool:
    """Whether a case is an operation between ranks of which a bandwidth can be said."""
    return case.op in specs_traffic.TRAFFIC and case.message_bytes is not None


def points(file: ResultFile, figures: Iterable[Figures], references: References) -> list[Point]:
    """Each figure of a file with what the links of its GPU, and others, say of it."""
    gpu = machine.known_gpu(file)
    one_host = file.machine.get("hosts", 1) == 1  # published figures are of ranks in one host
    return [Point(one, gpu, references.beside(gpu, one.measurement) if one_host else None) for one in figures]


def chosen(found: Sequence[Point], sizes: Sequence[int]) -> list[Point]:
    """Those at some sizes; all where there are none at these."""
    return [one for one in found if one.case.message_bytes in sizes] or list(found)


# Points that differ only in their message, by rising size.


@dataclass(frozen=True)
class Series:
    """One operation by one implementation over messages; `case` is what they share, without a message."""

    case: Case
    points: tuple[Point, ...]

    @property
    def label(self) -> str:
        """What tells it from the others of its operation on a plot."""
        case = self.case
        gap = f"gap {1e3 * case.gap_seconds:g} ms" if case.gap_seconds else ""
        ranks = f"{case.ranks} ranks"
        who = case.implementation if case.kernel == f"{case.implementation}_{case.op}" else case.kernel
        parts = (who, case.launch, gap, case.pair and f"pair {case.pair}", ranks, case.dtype)
        return " ".join(filter(None, parts))


def collect(points: Iterable[Point]) -> list[Series]:
    """Every series, in the order in which they come."""
    found: dict[tuple[Case, str | None, str | None], list[Point]] = {}
    for one in points:
        bare = replace(one.case, name="", tokens=None, message_bytes=None, wire_bytes_sent_per_rank=0)
        found.setdefault((bare, one.measurement.framework, one.measurement.version), []).append(one)
    return [Series(case, tuple(sorted(group, key=_size))) for (case, _, _), group in found.items()]


def _size(one: Point) -> tuple[int, int]:
    return one.case.message_bytes or 0, one.case.tokens or 0


# Latency and bandwidth of an operation: t = alpha + message / bandwidth, fitted to its times over messages.

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
    found = roofline.through(passes)
    return Fit(series, found.line, found.alpha, found.rate, found.source, found.worst)

"""Operations between ranks: bandwidths, link shares, references and fits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from reports import machine, roofline
from reports.compare import generations
from reports.formatting import DASH, microseconds
from reports.importers.aiconfigurator import package
from reports.machine import gpu_name
from reports.output import Column, Table
from reports.results import ResultFile
from reports.roofline import AlphaBeta, CaseMetrics, Interval
from specs import traffic as specs_traffic
from specs.errors import UserError
from specs.gpus import Gpu
from specs.measurement import Case, Measurement, key_without
from specs.statistics import Passes
from specs.units import format_bytes

# References: times that others published for the same operation on the same GPU.
#
# Only like is compared with like. GPU, operation, ranks and launch agree. NCCL is compared with NCCL, custom kernels
# with custom kernels, and back-to-back calls with back-to-back calls.

FAMILIES = {
    "nccl": "nccl",
    "cupy-nccl": "nccl",
    "rccl": "rccl",
    "custom": "custom",
    "symm-one-shot": "custom",
    "symm-two-shot": "custom",
    "symm-multimem": "custom",
    "triton-one-shot": "custom",
}
"""Kind of software of each implementation."""
SIXTEEN_BIT = {"bf16", "fp16"}
"""Formats with the same bytes per element.

NCCL is published in fp16 only; engines run bf16.
"""


class ReferenceKey(NamedTuple):
    """Fields that a measurement and a published figure share.

    Dtype and message size are matched separately.
    """

    gpu: str
    op: str
    family: str
    launch: str
    ranks: int


@dataclass(frozen=True)
class Reference:
    """A published time in seconds, and its source.

    `between` names the sizes that it was interpolated between; None for a tabulated time.
    """

    seconds: float
    source: str
    between: str | None = None


@dataclass(frozen=True)
class ReferenceCurve:
    """Published times of one kernel: seconds by message bytes."""

    dtype: str
    source: str
    seconds: Mapping[int, float]

    def at(self, message_bytes: int) -> Reference | None:
        """Return the time at this size, interpolated linearly where not tabulated."""
        if (exact := self.seconds.get(message_bytes)) is not None:
            return Reference(exact, self.source)
        found = package.interpolate(self.seconds, message_bytes)
        if not found:
            return None
        return Reference(found.seconds, self.source, f"{format_bytes(found.low)}–{format_bytes(found.high)}")


@dataclass(frozen=True)
class References:
    """All available published curves."""

    curves: Mapping[ReferenceKey, Sequence[ReferenceCurve]]

    def lookup(self, gpu: Gpu | None, one: Measurement) -> Reference | None:
        """Return the fastest published time of the same case.

        A tabulated size comes before an interpolated one.
        """
        key = _key(gpu, one)
        case = one.case
        if not gpu or not key or one.provenance != "measured" or not case.is_back_to_back or case.message_bytes is None:
            return None
        if one.transport is not None and not is_over_fabric(gpu, one.transport):
            return None
        curves = self.curves.get(key, ())
        same = [curve for curve in curves if curve.dtype == case.dtype]
        alike = same or [curve for curve in curves if {curve.dtype, case.dtype} <= SIXTEEN_BIT]
        found = [reference for curve in alike if (reference := curve.at(case.message_bytes))]
        return min(found, key=lambda one: (one.between is not None, one.seconds), default=None)


NO_REFERENCES = References({})


def is_over_fabric(gpu: Gpu, transport: str) -> bool:
    """Return whether this link is the fabric whose rate the GPU's row holds."""
    return gpu.link.lower().startswith(transport.lower())


def gather_references(files: Sequence[ResultFile]) -> References:
    """Gather the published figures of these files and of the installed tables.

    The tables serve GPUs that no file has figures of. A missing package is no error: there are then fewer references.
    """
    rows = [
        (known, one, file.path.name)
        for file in files
        if (known := machine.known_gpu(file))
        for one in _published_in(file)
    ]
    covered = {gpu.slug for gpu, _, _ in rows}
    for gpu in {gpu.slug: gpu for file in files for gpu in _gpus_to_look_up(file)}.values():
        if gpu.slug not in covered:
            rows += [(gpu, one, package.PACKAGE_NAME) for one in _tables(gpu)]
    return _curves(rows)


def _published_in(file: ResultFile) -> list[Measurement]:
    return [one for one in file.measurements if one.provenance == "published"]


def _gpus_to_look_up(file: ResultFile) -> list[Gpu]:
    """Return the file's GPU, if tables could have a figure for a measurement."""
    gpu = machine.known_gpu(file)
    asks = any(one.provenance == "measured" and _key(gpu, one) for one in file.measurements)
    return [gpu] if gpu and asks else []


def _tables(gpu: Gpu) -> list[Measurement]:
    try:
        folder, _ = package.find_package().system(gpu.slug)
        from reports.importers.aiconfigurator import readers  # pandas takes 1 s: only for a measured GPU

        return readers.read_collectives(folder).measurements
    except (UserError, ImportError):
        return []


def _key(gpu: Gpu | None, one: Measurement) -> ReferenceKey | None:
    case = one.case
    family = FAMILIES.get(case.implementation)
    if gpu is None or family is None or case.message_bytes is None or case.launch not in ("graph", "eager"):
        return None
    return ReferenceKey(gpu.slug, case.op, family, case.launch, case.ranks)


def _curves(rows: Iterable[tuple[Gpu, Measurement, str]]) -> References:
    found: dict[ReferenceKey, dict[tuple[str, str], dict[int, float]]] = {}
    for gpu, one, origin in rows:
        if key := _key(gpu, one):
            by_size = found.setdefault(key, {}).setdefault((one.case.dtype, _source(one, origin)), {})
            by_size[one.case.message_bytes or 0] = one.median
    return References(
        {key: [ReferenceCurve(*which, by) for which, by in group.items()] for key, group in found.items()}
    )


def _source(one: Measurement, origin: str) -> str:
    who = " ".join(filter(None, (one.framework, one.version, one.kernel_source)))
    return f"{who} {one.case.dtype} ({origin})"


# Published all-reduces side by side: NCCL and the custom kernels of serving engines, in a graph and eager.

SHOWN_SIZES = tuple(size * 2**10 for size in (16, 128, 1024, 16 * 1024))
"""Bytes of a token of hidden 8192 in 16 bits, and of prefill messages."""
PREFERRED_RANKS = 8
Variant = tuple[str, str]
VARIANT_LABELS: Mapping[Variant, str] = {
    ("nccl", "eager"): "NCCL eager",
    ("nccl", "graph"): "NCCL graph",
    ("custom", "eager"): "custom eager",
    ("custom", "graph"): "custom graph",
}
"""Kernel family and launch, which decide the time of a small message."""


@dataclass(frozen=True)
class PublishedAllReduces:
    """Fastest published 16-bit all-reduces of one GPU over `ranks` ranks.

    `variants` are by kernel family and launch, then by message bytes.
    """

    name: str
    gpu: Gpu | None
    ranks: int
    variants: Mapping[Variant, Mapping[int, Measurement]]

    def at(self, way: Variant, message_bytes: int) -> Measurement | None:
        """Return the measurement at this point, if any; nothing is interpolated."""
        return self.variants.get(way, {}).get(message_bytes)

    def sentence(self, message_bytes: int) -> str:
        """Return the times of this message size in words; empty where there are none."""
        who, how = {"nccl": "NCCL", "custom": "the fastest custom kernel"}, {"graph": "in a graph", "eager": "eager"}
        found = [(way, one) for way in VARIANT_LABELS if (one := self.at(way, message_bytes))]
        times = [f"{microseconds(one.median)} us with {who[family]} {how[launch]}" for (family, launch), one in found]
        if not times:
            return ""
        listed = ", ".join(times[:-1]) + (" and " if times[:-1] else "") + times[-1]
        return (
            f"At {format_bytes(message_bytes)} on {self.ranks} × {self.name} an all-reduce takes {listed} (published)."
        )


def collect_published(files: Sequence[ResultFile]) -> list[PublishedAllReduces]:
    """Return the published all-reduces of each file, the oldest GPU first."""
    found = [one for file in files if (one := _published_all_reduces(file, _name(file, files)))]
    return sorted(found, key=lambda one: (generations.generation_number(one.gpu) if one.gpu else 0, one.name))


def published_table(found: Sequence[PublishedAllReduces]) -> list[Table]:
    """Return a table with a row per size and GPU; no table without figures."""
    ways = [way for way in VARIANT_LABELS if any(way in one.variants for one in found)]
    groups = []
    for size in SHOWN_SIZES:
        rows = [one for one in found if any(one.at(way, size) for way in ways)]
        if rows:
            groups.append(tuple(_row(one, size, ways) for one in rows))
    if not groups:
        return []
    columns = (
        Column("message"),
        Column("GPU", number=False),
        Column("ranks"),
        *(Column(f"{VARIANT_LABELS[way]}\nus") for way in ways),
        Column("custom eager\nover graph"),
        Column("fastest custom kernel", number=False, prose=True),
    )
    drawn = Table(
        title="published all-reduces",
        columns=columns,
        groups=tuple(groups),
        caption=f"{_formats(found)}; of several kernels the fastest at each size",
    )
    return [drawn.without_empty(DASH)]


def _row(one: PublishedAllReduces, size: int, ways: Sequence[Variant]) -> tuple[str, ...]:
    points = [one.at(way, size) for way in ways]
    eager, graph = one.at(("custom", "eager"), size), one.at(("custom", "graph"), size)
    gained = f"{eager.median / graph.median:.1f}" if eager and graph else DASH
    custom = [(way, one.at(("custom", way), size)) for way in ("eager", "graph")]
    kernels = ", ".join(f"{way}: {point.framework} {point.version}" for way, point in custom if point)
    times = (microseconds(point.median) if point else DASH for point in points)
    return (format_bytes(size), one.name, f"{one.ranks}", *times, gained, kernels or DASH)


def _formats(found: Sequence[PublishedAllReduces]) -> str:
    """Return the formats by kernel family: `NCCL in fp16, custom in bf16`."""
    formats: dict[str, set[str]] = {}
    for one in found:
        for (family, _), by_size in one.variants.items():
            formats.setdefault(family, set()).update(point.case.dtype for point in by_size.values())
    names = {"nccl": "NCCL"}
    return ", ".join(f"{names.get(family, family)} in {' and '.join(sorted(of))}" for family, of in formats.items())


def _published_all_reduces(file: ResultFile, name: str) -> PublishedAllReduces | None:
    taken = [
        one
        for one in file.measurements
        if one.provenance == "published"
        and one.case.op == "all_reduce"
        and one.case.dtype in SIXTEEN_BIT
        and (one.case.implementation, one.case.launch) in VARIANT_LABELS
    ]
    if not taken:
        return None
    counts = {one.case.ranks for one in taken}
    ranks = PREFERRED_RANKS if PREFERRED_RANKS in counts else max(counts)
    ways: dict[Variant, dict[int, Measurement]] = {}
    for one in taken:
        size = one.case.message_bytes
        if one.case.ranks == ranks and size:
            by_size = ways.setdefault((one.case.implementation, one.case.launch), {})
            if size not in by_size or one.median < by_size[size].median:
                by_size[size] = one
    return PublishedAllReduces(
        name, machine.known_gpu(file), ranks, {way: dict(sorted(by.items())) for way, by in ways.items()}
    )


def _name(file: ResultFile, files: Sequence[ResultFile]) -> str:
    """Return the GPU's name, with the file where several files are of that GPU."""
    name = gpu_name(file)
    alike = [one for one in files if one.published and gpu_name(one) == name]
    return f"{name} ({file.path.stem})" if len(alike) > 1 else name


@dataclass(frozen=True)
class CommPoint:
    """A measurement, its GPU where known, and its published reference."""

    figures: CaseMetrics
    gpu: Gpu | None
    reference: Reference | None

    @property
    def measurement(self) -> Measurement:
        """Measurement record."""
        return self.figures.measurement

    @property
    def case(self) -> Case:
        """Case that ran."""
        return self.measurement.case

    @property
    def algbw(self) -> float | None:
        """Algorithm bandwidth in bytes/s, as in nccl-tests.

        None where the time holds more than a transfer.
        """
        if self.case.message_bytes is None or self.case.late_seconds is not None:
            return None
        return specs_traffic.algbw(self.case.op, self.case.message_bytes, self.measurement.median)

    @property
    def busbw(self) -> float | None:
        """Bus bandwidth in bytes/s, comparable to one direction of a link.

        None where the time holds more than a transfer.
        """
        if self.case.message_bytes is None or self.case.late_seconds is not None:
            return None
        return specs_traffic.busbw(self.case.op, self.case.ranks, self.case.message_bytes, self.measurement.median)

    @property
    def hop_seconds(self) -> float | None:
        """Seconds of one direction of a ping-pong; None for other operations."""
        traffic = specs_traffic.TRAFFIC.get(self.case.op)
        return (
            self.measurement.median / traffic.sequential_messages
            if traffic and traffic.sequential_messages > 1
            else None
        )

    @property
    def link_share(self) -> float | None:
        """Busbw over one direction of the GPU's fabric.

        None unless that fabric alone carried the message.
        """
        transport, busbw = self.measurement.transport, self.busbw
        if not self.gpu or not busbw or transport is None or not is_over_fabric(self.gpu, transport):
            return None
        return busbw / self.gpu.link_bytes_per_second

    @property
    def ratio(self) -> float | None:
        """Measured time over the published time."""
        return self.measurement.median / self.reference.seconds if self.reference else None

    def record(self) -> dict[str, Any]:
        """Return the JSON fields that `CaseMetrics.record` lacks."""
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


def is_between_ranks(case: Case) -> bool:
    """Return whether a case is an operation between ranks with a bandwidth."""
    return case.op in specs_traffic.TRAFFIC and case.message_bytes is not None


def build_points(file: ResultFile, figures: Iterable[CaseMetrics], references: References) -> list[CommPoint]:
    """Return each figure of a file with its GPU and its published reference."""
    gpu = machine.known_gpu(file)
    one_host = file.machine.get("hosts", 1) == 1  # published figures are of ranks in one host
    return [CommPoint(one, gpu, references.lookup(gpu, one.measurement) if one_host else None) for one in figures]


def at_sizes(found: Sequence[CommPoint], sizes: Sequence[int]) -> list[CommPoint]:
    """Return the points at some sizes; all points where there are none."""
    return [one for one in found if one.case.message_bytes in sizes] or list(found)


# Series: points that differ only in the message, by rising size.


@dataclass(frozen=True)
class MessageSeries:
    """One operation by one implementation over messages.

    `case` holds the shared fields, without a message.
    """

    case: Case
    points: tuple[CommPoint, ...]

    @property
    def label(self) -> str:
        """Label of the series among others of its operation on a plot."""
        case = self.case
        gap = f"gap {1e3 * case.gap_seconds:g} ms" if case.gap_seconds else ""
        ranks = f"{case.ranks} ranks"
        who = case.implementation if case.kernel == f"{case.implementation}_{case.op}" else case.kernel
        parts = (who, case.launch, gap, case.pair and f"pair {case.pair}", ranks, case.dtype)
        return " ".join(filter(None, parts))


SERIES_KEY = key_without("name", "tokens", "message_bytes", "wire_bytes_sent_per_rank")
"""Fields that the points of a series share."""


def collect_series(points: Iterable[CommPoint]) -> list[MessageSeries]:
    """Collect the series, in order of appearance."""
    found: dict[tuple[object, ...], list[CommPoint]] = {}
    for one in points:
        key = SERIES_KEY(one.case), one.measurement.framework, one.measurement.version
        found.setdefault(key, []).append(one)
    return [MessageSeries(_shared_case(group[0].case), tuple(sorted(group, key=_size))) for group in found.values()]


def _shared_case(case: Case) -> Case:
    return replace(case, name="", tokens=None, message_bytes=None, wire_bytes_sent_per_rank=0)


def _size(one: CommPoint) -> tuple[int, int]:
    return one.case.message_bytes or 0, one.case.tokens or 0


# Latency and bandwidth of an operation: t = alpha + message / bandwidth, fitted to its times over messages.

MIN_SIZES = 4
MIN_SIZE_RATIO = 16
"""Minimum ratio of the largest message to the smallest."""


@dataclass(frozen=True)
class SeriesFit:
    """Fitted line of a series.

    Attributes:
        series: the fitted series.
        line: its two terms, the rate in message bytes/s.
        alpha, rate: 95 % intervals, or ranges, of the terms.
        source: source of the intervals: `6 passes`, or `leaving out a size` with one figure per size.
        worst_residual: the largest |time / line − 1|; a large value shows that the model does not hold.
    """

    series: MessageSeries
    line: AlphaBeta
    alpha: Interval | None
    rate: Interval | None
    source: str | None
    worst_residual: float

    @property
    def factor(self) -> float:
        """Busbw over message bytes/s; 1 for an operation without a busbw."""
        case = self.series.case
        return specs_traffic.busbw(case.op, case.ranks, 1, 1.0) or 1.0

    @property
    def kind(self) -> str:
        """Kind of bandwidth: busbw, or the message over the time."""
        traffic = specs_traffic.TRAFFIC[self.series.case.op]
        return "busbw" if traffic.bus_factor else "message/time"

    @property
    def bandwidth(self) -> float | None:
        """Bandwidth of this kind, in bytes/s."""
        return self.line.rate * self.factor if self.line.rate else None

    @property
    def bandwidth_interval(self) -> Interval | None:
        """Interval of the bandwidth, in bytes/s."""
        return (self.rate[0] * self.factor, self.rate[1] * self.factor) if self.rate else None

    @property
    def sizes(self) -> list[int]:
        """Sizes of the fitted messages, in bytes."""
        return [one.case.message_bytes or 0 for one in self.series.points]

    def record(self) -> dict[str, Any]:
        """Return the JSON record, in SI units."""
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
            "worst_relative_residual": self.worst_residual,
        }


def fit_series(series: MessageSeries) -> SeriesFit | None:
    """Fit a line to a series.

    None for too few sizes, sizes too near to each other, or several cases of one size. None too for all-reduces behind
    a linear: their times hold the wait for the latest rank.
    """
    if series.case.late_seconds is not None:
        return None
    passes: dict[int, Passes] = {}
    for one in series.points:
        passes[one.case.message_bytes or 0] = one.measurement.seconds
    if len(passes) < max(MIN_SIZES, len(series.points)) or max(passes) < MIN_SIZE_RATIO * min(passes):
        return None
    found = roofline.fit_alpha_beta(passes)
    return SeriesFit(series, found.line, found.alpha, found.rate, found.source, found.worst_residual)

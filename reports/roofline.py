"""A measurement beside its floors: what one row of a report says."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from math import exp, isfinite, log
from statistics import median
from typing import Any, NamedTuple

from reports import formatting
from reports.formatting import is_launch, is_share, pluralize
from reports.results import ResultFile
from specs import roofline, statistics
from specs.measurement import Case, Measurement
from specs.roofline import Ceilings
from specs.statistics import Passes

# The SM clock that times were taken at: its range over a run, and cases in which it moved or was held back.

THROTTLED, MOVED = "throttled", "clock moved"


def clock_doubts(one: Measurement) -> list[str]:
    """What is to be minded about the clock of a case, in a word each."""
    said = {THROTTLED: bool(one.throttled), MOVED: bool((one.telemetry or {}).get("moved_visits"))}
    return [word for word, applies in said.items() if applies]


def clock_range(file: ResultFile) -> str:
    """`1965 to 1980 MHz`: the SM clock over the cases of a file; empty where it says none."""
    found = sorted(mhz for one in file.measurements for mhz in _mhz(one))
    return " to ".join(dict.fromkeys(f"{mhz:.0f}" for mhz in (found[0], found[-1]))) + " MHz" if found else ""


def clock_text(file: ResultFile) -> str:
    """The clock of a run, and how many cases are in doubt about it; for a GPU whose clock nothing tells, that."""
    if not (clock := clock_range(file)):
        return UNKNOWN_CLOCK if file.machine.get("gpu") and _is_timed_here(file.measurements) else ""
    words = [word for one in file.measurements for word in clock_doubts(one)]
    cases = [f"{word} in {pluralize(words.count(word), 'case')}" for word in (MOVED, THROTTLED) if word in words]
    return ", ".join([clock, *cases])


UNKNOWN_CLOCK = "unknown: NVML told nothing (pip install nvidia-ml-py)"


def _is_timed_here(measurements: Sequence[Measurement]) -> bool:
    return any(one.clock == "cuda_event" for one in measurements)


def _mhz(one: Measurement) -> list[float]:
    """Readings before and after the samples; one of either in older files."""
    load = one.telemetry or {}
    ends = [load[name] for name in ("sm_mhz_before", "sm_mhz_after") if name in load]
    return ends or [load[name] for name in ("sm_mhz",) if name in load]


NOISY = 0.2
"""Samples whose middle four fifths spread over more than this share of their median make a noisy case."""
CONTENDED = 0.1
"""Share of the CPU time that others had, above which a case is labelled: it waited for them."""


@dataclass(frozen=True)
class CaseMetrics:
    """A measurement, the ceilings of the same file, and those of its GPU's datasheet where that is known."""

    measurement: Measurement
    measured: Ceilings
    datasheet: Ceilings | None

    @property
    def floor_seconds(self) -> float | None:
        """Least time by the file's own ceilings; None where one is missing, and for work that memory does not see."""
        return self._floor(self.measured)

    @property
    def floor_share(self) -> float | None:
        """Floor / median: 1 is at the ceiling. More than 1 says that the ceiling was measured too low."""
        return self.floor_seconds / self.measurement.median if self.floor_seconds else None

    @property
    def bound(self) -> str | None:
        """Which ceiling sets the floor: memory or compute."""
        case = self.measurement.case
        return roofline.limiting_resource(case.work, case.dtype, self.measured) if self.floor_seconds else None

    @property
    def datasheet_share(self) -> float | None:
        """Floor by datasheet / median."""
        floor = self._floor(self.datasheet) if self.datasheet else None
        return floor / self.measurement.median if floor else None

    def _floor(self, ceilings: Ceilings) -> float | None:
        case = self.measurement.case
        if case.wire_bytes_sent_per_rank or is_launch(case) or is_share(case):  # no ceiling here is of those
            return None
        if not case.hbm_bytes:  # unknown: nothing computes on nothing
            return None
        return roofline.floor_seconds(case.work, case.dtype, ceilings) or None

    @property
    def bytes_per_second(self) -> float | None:
        """Achieved device-memory bandwidth; None where it is not the point."""
        return None if is_launch(self.measurement.case) else self.measurement.bytes_per_second or None

    @property
    def flops_per_second(self) -> float | None:
        """Achieved arithmetic rate; None where it is not the point."""
        return None if is_launch(self.measurement.case) else self.measurement.flops_per_second or None

    @property
    def wire_bytes_per_second(self) -> float | None:
        """Bytes that a rank sends, a second; None where it sends none."""
        return self.measurement.case.wire_bytes_sent_per_rank / self.measurement.median or None

    @cached_property
    def half_width(self) -> float | None:
        """Relative half-width of the 95 % interval; None for a single pass."""
        width = statistics.relative_half_width(self.measurement.seconds)
        return width if isfinite(width) else None

    @cached_property
    def noise(self) -> float | None:
        """Spread of single samples over their median; None for one sample."""
        return statistics.noise(self.measurement.seconds) if len(self.measurement.samples) > 1 else None

    @property
    def _taken_by_others(self) -> float:
        """Share of the CPU time during the case that other processes and other virtual machines had."""
        load = self.measurement.telemetry or {}
        return load.get("others_share", 0.0) + load.get("steal_share", 0.0)

    def warnings(self) -> list[str]:
        """What to mind about the figure, in a word each."""
        said = {
            "noisy": (self.noise or 0) > NOISY,
            **dict.fromkeys(clock_doubts(self.measurement), True),
            "contended": self._taken_by_others > CONTENDED,
            "stopped by budget": self.measurement.stopped_by == "budget",
            self.measurement.stopped_by: self.measurement.stopped_by.startswith(("error", "interrupted")),
            "single pass": self.half_width is None and self.measurement.provenance == "measured",
            self._provenance: self.measurement.provenance != "measured",
            "maybe hot": bool(self.measurement.maybe_hot),
        }
        return [*(word for word, applies in said.items() if applies), *self.measurement.doubts]

    @property
    def _provenance(self) -> str:
        """Where the figure comes from; of an interpolated one between what, and how far off that may be."""
        one = self.measurement
        if not one.interpolated_over:
            return one.provenance
        return f"{one.provenance} over {one.interpolated_over} ±{formatting.percent(one.interpolation_error)}"

    def record(self) -> dict[str, Any]:
        """All of it for a machine: SI units, None where there is nothing to say."""
        measurement = self.measurement
        low, high = measurement.interval or (None, None)
        return {
            **asdict(measurement.case),
            "median_seconds": measurement.median,
            "low_seconds": low,
            "high_seconds": high,
            "mean_seconds": statistics.mean(measurement.seconds),
            "bytes_per_second": self.bytes_per_second,
            "flops_per_second": self.flops_per_second,
            "wire_bytes_per_second": self.wire_bytes_per_second,
            "floor_seconds": self.floor_seconds,
            "floor_share": self.floor_share,
            "bound": self.bound,
            "datasheet_share": self.datasheet_share,
            "noise": self.noise,
            "relative_error": measurement.relative_error,
            "passes": len(measurement.seconds),
            "samples": len(measurement.samples),
            "clock": measurement.clock,
            "stopped_by": measurement.stopped_by,
            "throttled": measurement.throttled,
            "provenance": measurement.provenance,
            "warnings": self.warnings(),
        }


# What decode attention is meant to reach: one point of Llama-3-70B on H200, against the best library of the run.

MAX_RATIO = 1.03
"""Our time over that of the fastest library."""
TARGET_POINT = {"model": "llama-3-70b", "tp": 1, "batch": 32, "context": 8192, "dtype": "bf16"}
"""64 query heads on 8 kv heads: 1.07 GB of keys and values a layer."""
OURS = "triton"
LIBRARIES = ("torch", "flash-attn", "flashinfer")
TARGET_TEXT = (
    f"{OURS} at tp 1, batch 32, context 8192 ≤ {MAX_RATIO}x the fastest of {', '.join(LIBRARIES)} (set for H200)"
)
PUBLISHED_NOTE = "FlashAttention-3 on H200 is published at 247 us"


class AttentionTargetResult(NamedTuple):
    """How the target stands: `met` is None where a library that is missing could still decide it; a ratio of times."""

    met: bool | None
    ratio: float | None
    remark: str

    def __str__(self) -> str:
        verdict = "not measured" if self.met is None else "met" if self.met else "not met"
        return verdict if self.ratio is None else f"{verdict} at {self.ratio:.3f}x"


def judge_attention(figures: Iterable[CaseMetrics]) -> AttentionTargetResult | None:
    """How the target stands, by medians of cold calls in a graph; None where nothing was measured at its point."""
    by = {one.measurement.case.implementation: one for one in figures if _is_point(one.measurement.case)}
    if not by:
        return None
    own = by.get(OURS)
    library = min((by[name] for name in LIBRARIES if name in by), key=lambda f: f.measurement.median, default=None)
    absent = [name for name in (OURS, *LIBRARIES) if name not in by]
    lack = f"no {', '.join(absent)}" if absent else ""
    if own is None or library is None:
        return AttentionTargetResult(None, None, lack)
    ratio = own.measurement.median / library.measurement.median
    met = False if ratio > MAX_RATIO else None if absent else True
    best = f"{library.measurement.case.implementation} takes {1e6 * library.measurement.median:.1f} us"
    return AttentionTargetResult(met, ratio, "; ".join(filter(None, (best, lack))))


def attention_notes(figures: Iterable[CaseMetrics]) -> tuple[str, ...]:
    """The target as a line under the table."""
    standing = judge_attention(figures)
    return (f"target: {TARGET_TEXT}: {standing} ({standing.remark}; {PUBLISHED_NOTE})",) if standing else ()


def _is_point(case: Case) -> bool:
    at = all(getattr(case, name) == value for name, value in TARGET_POINT.items())
    return at and case.op == "attention" and (case.cache, case.launch) == ("cold", "graph")


# A line through times over bytes: t = alpha + bytes / rate, and how sure its two terms are.
#
# Times span decades, so errors count in proportion: least squares of log t. Written t = alpha (1 + bytes / half), with
# `half` the bytes that take twice the latency, alpha follows from half, and one unknown is left to search for. A term
# that is nowhere more than a hundredth of the time is not told apart from nothing, and is left out.

MAX_INTERVAL_FACTOR = 10
"""Factor either way beyond which an interval is left out."""
MIN_TERM_SHARE = 0.01
"""Share of the time that a term has to have somewhere."""
SEARCH_STEPS = 400
"""Places of `half` that are tried before the best of them is refined."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class AlphaBeta:
    """alpha in seconds, and bytes a second; None where the times do not show it."""

    alpha: float | None
    rate: float | None

    def at(self, count: float) -> float:
        """Seconds that it says for so many bytes."""
        return (self.alpha or 0.0) + (count / self.rate if self.rate else 0.0)


@dataclass(frozen=True)
class AlphaBetaFit:
    """A line and how sure it is.

    Attributes:
        line: its two terms.
        alpha, rate: 95 % intervals, or ranges, of the terms.
        source: where the intervals come from: `6 passes`, or `leaving out a size` where there is one figure a size.
        worst_residual: the largest |time / line − 1|: a large one says that the model does not hold.
    """

    line: AlphaBeta
    alpha: Interval | None
    rate: Interval | None
    source: str | None
    worst_residual: float


def fit_alpha_beta(passes: Mapping[int, Passes]) -> AlphaBetaFit:
    """Fit a line to the times of each number of bytes, and to each pass alone for the intervals."""
    middle = {size: statistics.pooled_median(one) for size, one in passes.items()}
    line = _fit(middle)
    again, source = _refit_passes(passes, middle)
    return AlphaBetaFit(
        line=line,
        alpha=term_interval(line.alpha, [one.alpha for one in again], source),
        rate=term_interval(line.rate, [one.rate for one in again], source),
        source=source,
        worst_residual=max(abs(time / line.at(size) - 1) for size, time in middle.items()),
    )


def _refit_passes(passes: Mapping[int, Passes], middle: Mapping[int, float]) -> tuple[list[AlphaBeta], str | None]:
    """The line fitted to each pass that all sizes have; to single figures, without each size in turn."""
    if all(sum(map(len, one)) == 1 for one in passes.values()):
        without = [{size: time for size, time in middle.items() if size != left_out} for left_out in middle]
        return [_fit(rest) for rest in without], "leaving out a size"
    count = min(map(len, passes.values()))
    if count < 2:
        return [], None
    lines = [_fit({size: median(one[number]) for size, one in passes.items()}) for number in range(count)]
    return lines, f"{count} passes"


def term_interval(value: float | None, found: Sequence[float | None], source: str | None) -> Interval | None:
    """Student's t on the logarithms over passes, around the value; of figures with one left out, their range.

    None too where it is so wide, as that of two passes on a busy machine, that it says nothing.
    """
    seen = [one for one in found if one is not None]
    if value is None or source is None or len(seen) < len(found):
        return None
    if source == "leaving out a size":
        return min(seen), max(seen)
    factor = 1 + statistics.relative_half_width([(one,) for one in seen])
    return (value / factor, value * factor) if factor < MAX_INTERVAL_FACTOR else None


def _fit(seconds: Mapping[int, float]) -> AlphaBeta:
    return _line(tuple(seconds.items()))


@cache
def _line(times: tuple[tuple[int, float], ...]) -> AlphaBeta:
    """The least squares of log t over `half`, between the ends where a term would vanish."""
    import numpy as np
    from scipy.optimize import minimize_scalar  # most commands can do without

    sizes, logs = np.array([size for size, _ in times], float), np.log([time for _, time in times])

    def misfit(log_half: float) -> float:
        return float(np.var(logs - np.log1p(sizes / exp(log_half))))

    low, high = log(MIN_TERM_SHARE * float(sizes.min())), log(float(sizes.max()) / MIN_TERM_SHARE)
    tried = np.linspace(low, high, SEARCH_STEPS)
    best = int(np.argmin(np.var(logs[:, None] - np.log1p(sizes[:, None] / np.exp(tried)), axis=0)))
    around = float(tried[max(best - 1, 0)]), float(tried[min(best + 1, SEARCH_STEPS - 1)])
    half = exp(float(minimize_scalar(misfit, bounds=around, method="bounded", options={"xatol": 1e-9}).x))
    alpha = exp(float(np.mean(logs - np.log1p(sizes / half))))
    alpha_seen, rate_seen = half > 1.01 * exp(low), half < exp(high) / 1.01
    if not alpha_seen:
        return AlphaBeta(None, exp(float(np.mean(np.log(sizes) - logs))))
    return AlphaBeta(alpha, half / alpha) if rate_seen else AlphaBeta(exp(float(np.mean(logs))), None)

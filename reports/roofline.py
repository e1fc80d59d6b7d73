"""Compare measurements with floors, judge the attention target, and fit lines."""

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

# SM clock of the times: range over a run, and cases where the clock moved or was throttled.

THROTTLED, MOVED = "throttled", "clock moved"


def clock_doubts(one: Measurement) -> list[str]:
    """Warnings about the SM clock of a case: `throttled`, `clock moved`."""
    said = {THROTTLED: bool(one.throttled), MOVED: bool((one.telemetry or {}).get("moved_visits"))}
    return [word for word, applies in said.items() if applies]


def clock_range(file: ResultFile) -> str:
    """SM clock range over the cases, `1965 to 1980 MHz`; empty where unknown."""
    found = sorted(mhz for one in file.measurements for mhz in _mhz(one))
    return " to ".join(dict.fromkeys(f"{mhz:.0f}" for mhz in (found[0], found[-1]))) + " MHz" if found else ""


def clock_text(file: ResultFile) -> str:
    """SM clock range of a run, and the number of doubtful cases.

    A GPU whose clock is not reported gives `UNKNOWN_CLOCK`.
    """
    if not (clock := clock_range(file)):
        return UNKNOWN_CLOCK if file.machine.get("gpu") and _is_timed_here(file.measurements) else ""
    words = [word for one in file.measurements for word in clock_doubts(one)]
    cases = [f"{word} in {pluralize(words.count(word), 'case')}" for word in (MOVED, THROTTLED) if word in words]
    return ", ".join([clock, *cases])


UNKNOWN_CLOCK = "unknown: NVML told nothing (pip install nvidia-ml-py)"


def _is_timed_here(measurements: Sequence[Measurement]) -> bool:
    return any(one.clock == "cuda_event" for one in measurements)


def _mhz(one: Measurement) -> list[float]:
    """SM clock in MHz before and after the samples; older files hold one reading."""
    load = one.telemetry or {}
    ends = [load[name] for name in ("sm_mhz_before", "sm_mhz_after") if name in load]
    return ends or [load[name] for name in ("sm_mhz",) if name in load]


NOISY = 0.2
"""Spread of samples over their median above which a case is noisy.

The spread is that of the middle four fifths of the samples.
"""
CONTENDED = 0.1
"""Share of CPU time taken by others above which a case is contended."""


@dataclass(frozen=True)
class CaseMetrics:
    """A measurement, the file's own ceilings, and those of the GPU's datasheet.

    `datasheet`: None where the GPU is unknown.
    """

    measurement: Measurement
    measured: Ceilings
    datasheet: Ceilings | None

    @cached_property
    def floor_seconds(self) -> float | None:
        """Minimum time by the file's own ceilings.

        None where a ceiling is missing, and for messages, launches and shares of a rank.
        """
        return self._floor(self.measured)

    @property
    def floor_share(self) -> float | None:
        """Floor / median: 1 is at the ceiling.

        A value above 1 means that the ceiling was measured too low.
        """
        return self.floor_seconds / self.measurement.median if self.floor_seconds else None

    @property
    def bound(self) -> str | None:
        """Resource that sets the floor: memory or compute."""
        case = self.measurement.case
        return roofline.limiting_resource(case.work, case.dtype, self.measured) if self.floor_seconds else None

    @property
    def datasheet_share(self) -> float | None:
        """Floor by datasheet / median."""
        floor = self._floor(self.datasheet) if self.datasheet else None
        return floor / self.measurement.median if floor else None

    def _floor(self, ceilings: Ceilings) -> float | None:
        case = self.measurement.case
        if case.wire_bytes_sent_per_rank or is_launch(case) or is_share(case):  # no ceiling here applies to them
            return None
        if not case.hbm_bytes:  # 0 means unknown
            return None
        return roofline.floor_seconds(case.work, case.dtype, ceilings) or None

    @property
    def bytes_per_second(self) -> float | None:
        """Achieved device-memory bandwidth in bytes/s; None where not applicable."""
        return None if is_launch(self.measurement.case) else self.measurement.bytes_per_second or None

    @property
    def flops_per_second(self) -> float | None:
        """Achieved arithmetic rate in flop/s; None where not applicable."""
        return None if is_launch(self.measurement.case) else self.measurement.flops_per_second or None

    @property
    def wire_bytes_per_second(self) -> float | None:
        """Bytes/s that a rank sends; None where a rank sends nothing."""
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
        """Share of CPU time taken by other processes and virtual machines."""
        load = self.measurement.telemetry or {}
        return load.get("others_share", 0.0) + load.get("steal_share", 0.0)

    def warnings(self) -> list[str]:
        """Warnings about the figure, a few words each."""
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
        """Origin of the figure; if interpolated, with the neighbours and the error."""
        one = self.measurement
        if not one.interpolated_over:
            return one.provenance
        return f"{one.provenance} over {one.interpolated_over} ±{formatting.percent(one.interpolation_error)}"

    def record(self) -> dict[str, Any]:
        """All fields as JSON data: SI units, None where a figure does not apply."""
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


# Target of decode attention: one point of Llama-3-70B on H200, against the fastest library of the run.

MAX_RATIO = 1.03
"""Maximum time of our kernel over that of the fastest library."""
TARGET_POINT = {"model": "llama-3-70b", "tp": 1, "batch": 32, "context": 8192, "dtype": "bf16"}
"""Point of the target.

64 query heads on 8 kv heads: 1.07 GB of keys and values per layer.
"""
OURS = "triton"
LIBRARIES = ("torch", "flash-attn", "flashinfer")
TARGET_TEXT = (
    f"{OURS} at tp 1, batch 32, context 8192 ≤ {MAX_RATIO}x the fastest of {', '.join(LIBRARIES)} (set for H200)"
)
PUBLISHED_NOTE = "FlashAttention-3 on H200 is published at 247 us"


class AttentionTargetResult(NamedTuple):
    """Result of the attention target.

    `met`: None where a missing library could still decide. `ratio`: our time over the fastest library's.
    """

    met: bool | None
    ratio: float | None
    remark: str

    def __str__(self) -> str:
        verdict = "not measured" if self.met is None else "met" if self.met else "not met"
        return verdict if self.ratio is None else f"{verdict} at {self.ratio:.3f}x"


def judge_attention(figures: Iterable[CaseMetrics]) -> AttentionTargetResult | None:
    """Judge the target by medians of cold calls in a graph.

    None where nothing was measured at the target's point.
    """
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
    """Line on the target for below a table; empty where not measured."""
    standing = judge_attention(figures)
    return (f"target: {TARGET_TEXT}: {standing} ({standing.remark}; {PUBLISHED_NOTE})",) if standing else ()


def _is_point(case: Case) -> bool:
    at = all(getattr(case, name) == value for name, value in TARGET_POINT.items())
    return at and case.op == "attention" and (case.cache, case.launch) == ("cold", "graph")


# Line fit t = alpha + bytes / rate, with intervals of both terms.
#
# Times span decades, so relative errors count: least squares of log t. The form is t = alpha (1 + bytes / half).
# `half`: bytes that take twice the latency. alpha follows from half, so the search is over half alone. A term that
# never exceeds a hundredth of the time cannot be distinguished from zero, and is left out.

MAX_INTERVAL_FACTOR = 10
"""Factor in either direction beyond which an interval is left out."""
MIN_TERM_SHARE = 0.01
"""Minimum share of the time that a term must reach at some size."""
SEARCH_STEPS = 400
"""Grid points of `half` before the best point is refined."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class AlphaBeta:
    """Terms of a line, alpha in s and rate in bytes/s; None where not resolved."""

    alpha: float | None
    rate: float | None

    def at(self, count: float) -> float:
        """Seconds that the line gives for `count` bytes."""
        return (self.alpha or 0.0) + (count / self.rate if self.rate else 0.0)


@dataclass(frozen=True)
class AlphaBetaFit:
    """A fitted line with the intervals of its terms.

    Attributes:
        line: the two terms.
        alpha, rate: 95 % intervals, or ranges, of the terms.
        source: origin of the intervals: `6 passes`, or `leaving out a size` with one figure per size.
        worst_residual: largest |time / line − 1|; a large value means that the model does not hold.
    """

    line: AlphaBeta
    alpha: Interval | None
    rate: Interval | None
    source: str | None
    worst_residual: float


def fit_alpha_beta(passes: Mapping[int, Passes]) -> AlphaBetaFit:
    """Fit a line to the times by size in bytes, and to each pass for the intervals."""
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
    """Fit a line to each pass that all sizes have, and name the source.

    With one figure per size, the lines leave out each size in turn.
    """
    if all(sum(map(len, one)) == 1 for one in passes.values()):
        without = [{size: time for size, time in middle.items() if size != left_out} for left_out in middle]
        return [_fit(rest) for rest in without], "leaving out a size"
    count = min(map(len, passes.values()))
    if count < 2:
        return [], None
    lines = [_fit({size: median(one[number]) for size, one in passes.items()}) for number in range(count)]
    return lines, f"{count} passes"


def term_interval(value: float | None, found: Sequence[float | None], source: str | None) -> Interval | None:
    """Interval of a term, or None.

    Over passes: Student's t on the logarithms, around the value. With sizes left out: the range. None also where the
    interval is too wide to be useful, as for two passes on a busy machine.
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
    """Fit by least squares of log t over `half`, up to where a term vanishes."""
    import numpy as np
    from scipy.optimize import minimize_scalar  # most commands do not need it

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

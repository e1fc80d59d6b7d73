"""Medians, and intervals clustered by pass.

Consecutive samples share the state of the machine, so they are not independent: an interval from them calls identical
runs different. Passes over all cases are seconds apart. Each pass therefore gives one figure, its median. The spread
between these figures makes the interval: Student's t on their logarithms (times are positive and errors multiply).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, fsum, inf, log, sqrt
from statistics import fmean, median

Passes = Sequence[Sequence[float]]
"""Seconds per call: one sequence of samples for each pass."""


def pooled_median(passes: Passes) -> float:
    """Return the median in seconds over all samples of all passes.

    pytest-benchmark shows the same figure.
    """
    return median(sample for one in passes for sample in one)


def _log_medians(passes: Passes) -> list[float]:
    return [log(median(one)) for one in passes]


def _variance(figures: Sequence[float]) -> float:
    """Return the variance of a sample.

    It runs twenty times as fast as the standard library's, which adds fractions.
    """
    middle = fmean(figures)
    return fsum((one - middle) ** 2 for one in figures) / (len(figures) - 1)


def _student_t(confidence: float, freedom: float) -> float:
    """Return Student's t at the edge of a two-sided interval of this confidence."""
    from scipy.special import stdtrit  # half a second to import, and most commands do not need it

    return float(stdtrit(freedom, 0.5 + confidence / 2))


def relative_half_width(passes: Passes, confidence: float = 0.95) -> float:
    """Return the relative half-width of the interval on the median.

    0.05 means ± 5 %. It is infinite for a single pass.
    """
    if len(passes) < 2:
        return inf
    return exp(_student_t(confidence, len(passes) - 1) * sqrt(_variance(_log_medians(passes)) / len(passes))) - 1


def median_interval(passes: Passes, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the interval in seconds around the pooled median; None for one pass."""
    if len(passes) < 2:
        return None
    factor, middle = 1 + relative_half_width(passes, confidence), pooled_median(passes)
    return middle / factor, middle * factor


MAX_LOG_HALF_WIDTH = 50.0
"""Limit for the half-width of an interval on a logarithm.

Two noisy passes give no information, and JSON has no infinity.
"""


@dataclass(frozen=True)
class LogRatio:
    """The logarithm of other / base, by Welch's t on the logarithms of pass medians.

    Attributes:
        value: difference of their means. A median of all samples would have an error larger by a quarter.
        error: its standard error between passes; 0 where no pass differs.
        degrees_of_freedom: degrees of freedom of the error.
        passes: number of passes behind the error: error squared times this is the variance of one pass.
    """

    value: float
    error: float
    degrees_of_freedom: float
    passes: float = 1.0

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the two-sided interval on the ratio itself."""
        reach = (
            min(_student_t(confidence, self.degrees_of_freedom) * self.error, MAX_LOG_HALF_WIDTH) if self.error else 0.0
        )
        return exp(self.value - reach), exp(self.value + reach)

    def p_value(self, least: float, most: float) -> float:
        """Return the two-sided p-value for a ratio within `least` to `most`.

        It is the probability of this estimate, or of one further out, if the ratio were in this range.
        """
        from scipy.special import stdtr

        out = max(self.value - log(most), log(least) - self.value)
        if not self.error:
            return 0.0 if out > 0 else 1.0
        return min(1.0, 2 * float(stdtr(self.degrees_of_freedom, -out / self.error)))


def log_ratio(base: Passes, other: Passes) -> LogRatio | None:
    """Return the log ratio of two measurements; None below two passes a side.

    Fewer passes cannot tell chance from change.
    """
    if len(base) < 2 or len(other) < 2:
        return None
    logs = [_log_medians(side) for side in (base, other)]
    spread = [_variance(side) / len(side) for side in logs]
    total = sum(spread)
    if total == 0:
        freedom = float(len(base) + len(other) - 2)
    else:
        freedom = total**2 / sum(s**2 / (len(side) - 1) for s, side in zip(spread, (base, other), strict=True))
    passes = 1 / sum(1 / len(side) for side in logs)
    return LogRatio(fmean(logs[1]) - fmean(logs[0]), sqrt(total), freedom, passes)


def ratio_interval(base: Passes, other: Passes, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the interval on other / base in time; None below two passes a side."""
    found = log_ratio(base, other)
    return found.interval(confidence) if found else None


def noise(passes: Passes) -> float:
    """Return the spread of single samples: (90th − 10th percentile) / median.

    Percentiles use outward ranks. The spread is large where a clock is bimodal.
    """
    samples = sorted(sample for one in passes for sample in one)
    last = len(samples) - 1
    return (samples[ceil(0.9 * last)] - samples[floor(0.1 * last)]) / median(samples)


def mean(passes: Passes) -> float:
    """Return the mean in seconds over all samples; means of parts add up."""
    return fmean(sample for one in passes for sample in one)


def mean_interval(figures: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the interval around the mean of one figure per pass, in its unit.

    None for a single pass. Sums, differences and shares may be negative, so this is Student's t on the figures
    themselves.
    """
    if len(figures) < 2:
        return None
    middle, reach = fmean(figures), _student_t(confidence, len(figures) - 1) * sqrt(_variance(figures) / len(figures))
    return middle - reach, middle + reach

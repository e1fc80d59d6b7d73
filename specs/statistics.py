"""Intervals clustered by pass.

Samples taken one after another share whatever the machine was doing just then, so they are no
independent witnesses: an interval from them calls identical runs different. Passes over all cases
lie seconds apart, so each pass gives one figure, its median, and the spread between those figures
makes the interval: Student's t on their logarithms (times are positive and errors multiply).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, fsum, inf, log, sqrt
from statistics import fmean, median

Passes = Sequence[Sequence[float]]
"""Seconds a call: one sequence of samples for each pass."""


def pooled_median(passes: Passes) -> float:
    """Median in seconds over all samples of all passes: the figure that pytest-benchmark shows."""
    return median(sample for one in passes for sample in one)


def _log_medians(passes: Passes) -> list[float]:
    return [log(median(one)) for one in passes]


def _variance(figures: Sequence[float]) -> float:
    """Of a sample; twenty times as fast as that of the standard library, which adds fractions."""
    middle = fmean(figures)
    return fsum((one - middle) ** 2 for one in figures) / (len(figures) - 1)


def _student_t(confidence: float, freedom: float) -> float:
    """Student's t that a two-sided interval of this confidence reaches to."""
    from scipy.special import stdtrit  # half a second to import, which most commands can do without

    return float(stdtrit(freedom, 0.5 + confidence / 2))


def relative_half_width(passes: Passes, confidence: float = 0.95) -> float:
    """Relative half-width of the interval on the median: 0.05 means ± 5 %. Infinite for a single pass."""
    if len(passes) < 2:
        return inf
    return exp(_student_t(confidence, len(passes) - 1) * sqrt(_variance(_log_medians(passes)) / len(passes))) - 1


def median_interval(passes: Passes, confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval in seconds around the pooled median; None when a single pass cannot give one."""
    if len(passes) < 2:
        return None
    factor, middle = 1 + relative_half_width(passes, confidence), pooled_median(passes)
    return middle / factor, middle * factor


MAX_LOG_HALF_WIDTH = 50.0
"""Of an interval on a logarithm: two noisy passes know nothing, and JSON has no infinity."""


@dataclass(frozen=True)
class LogRatio:
    """The logarithm of other / base, by Welch's t on the logarithms of pass medians.

    Attributes:
        value: the difference of their means. It is no median of all samples, whose error would be a quarter larger.
        error: its standard error between passes; 0 where no pass differs.
        degrees_of_freedom: degrees of freedom.
        passes: that the error is over: the square of the error times this is the variance of one pass.
    """

    value: float
    error: float
    degrees_of_freedom: float
    passes: float = 1.0

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """On the ratio itself, two-sided."""
        reach = (
            min(_student_t(confidence, self.degrees_of_freedom) * self.error, MAX_LOG_HALF_WIDTH) if self.error else 0.0
        )
        return exp(self.value - reach), exp(self.value + reach)

    def p_value(self, least: float, most: float) -> float:
        """Two-sided chance of such an estimate, or one further out, if the ratio were within `least` to `most`."""
        from scipy.special import stdtr

        out = max(self.value - log(most), log(least) - self.value)
        if not self.error:
            return 0.0 if out > 0 else 1.0
        return min(1.0, 2 * float(stdtr(self.degrees_of_freedom, -out / self.error)))


def log_ratio(base: Passes, other: Passes) -> LogRatio | None:
    """How two measurements differ; None below two passes a side, between which nothing tells chance from change."""
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
    """Interval on the time of other over that of base; None below two passes a side."""
    found = log_ratio(base, other)
    return found.interval(confidence) if found else None


def noise(passes: Passes) -> float:
    """Spread of single samples: (90th − 10th percentile, outward ranks) / median. Large where a clock is bimodal."""
    samples = sorted(sample for one in passes for sample in one)
    last = len(samples) - 1
    return (samples[ceil(0.9 * last)] - samples[floor(0.1 * last)]) / median(samples)


def mean(passes: Passes) -> float:
    """Mean in seconds over all samples: what a sum of parts must add up."""
    return fmean(sample for one in passes for sample in one)


def mean_interval(figures: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval around the mean of one figure a pass, in its unit; None for a single pass.

    Sums, differences and shares are no times: they may be negative, so this is Student's t on the figures themselves.
    """
    if len(figures) < 2:
        return None
    middle, reach = fmean(figures), _student_t(confidence, len(figures) - 1) * sqrt(_variance(figures) / len(figures))
    return middle - reach, middle + reach

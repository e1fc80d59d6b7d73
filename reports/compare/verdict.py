"""Verdict on two measurements of a case: faster, slower, same or ambiguous."""

from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Literal

from specs.errors import UserError
from specs.measurement import Measurement
from specs.statistics import LogRatio

Verdict = Literal["faster", "slower", "same", "ambiguous"]
VERDICTS: tuple[Verdict, ...] = ("faster", "slower", "same", "ambiguous")
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class CaseComparison:
    """One case in two files.

    Attributes:
        a, b: the measurements; the verdict is on b.
        log_ratio: log of b over a, with its error between passes; None where a file has a single pass.
        threshold: change that counts, 0.05 for 5 %.
        confidence: confidence of the interval that must lie beyond half of it: 95 %, raised for the number of cases.
        drift: range of factors by which the machine itself changed between the files; includes 1.
        frameworks: range of the ratios by all frameworks that published this work on both GPUs.
    """

    a: Measurement
    b: Measurement
    log_ratio: LogRatio | None
    threshold: float
    confidence: float = 0.95
    drift: Interval = (1.0, 1.0)
    frameworks: Interval | None = None

    @cached_property
    def ratio(self) -> float:
        """Median of b over median of a: below 1 where b is faster."""
        return self.b.median / self.a.median

    @property
    def basis(self) -> Literal["passes", "frameworks"] | None:
        """Source of the interval; None where there is no interval."""
        return "passes" if self.log_ratio else "frameworks" if self.frameworks else None

    @cached_property
    def interval(self) -> Interval | None:
        """95 % interval on the ratio; for published times the range over frameworks.

        None where neither exists.
        """
        return include_ratio(self.ratio, self.log_ratio.interval()) if self.log_ratio else self.frameworks

    @cached_property
    def widened_interval(self) -> Interval | None:
        """Interval at `confidence`, less the drift.

        It must lie beyond half the threshold.
        """
        if not self.log_ratio:
            return self.frameworks
        return remove_drift(include_ratio(self.ratio, self.log_ratio.interval(self.confidence)), self.drift)

    @cached_property
    def verdict(self) -> Verdict:
        """Verdict at the threshold."""
        return self.verdict_at(self.threshold)

    def verdict_at(self, threshold: float) -> Verdict:
        """Return the verdict at another threshold."""
        return (
            "ambiguous"
            if self._doubtful
            else decide_verdict(self.ratio, self.interval, self.widened_interval, threshold)
        )

    @property
    def detectable(self) -> float | None:
        """Slowdown that is detected half the time, 0.03 for 3 %.

        None where none would be detected.
        """
        if not self.log_ratio:
            return None
        low, high = self.log_ratio.interval(self.confidence)
        return max((1 + self.threshold / 2) * self.drift[1] * sqrt(high / low) - 1, self.threshold)

    @property
    def _doubtful(self) -> bool:
        """True for a published time that supports no verdict.

        A cache may have made the time, or its linter finds it odd.
        """
        return self.basis == "frameworks" and any(one.maybe_hot or one.doubts for one in (self.a, self.b))


def include_ratio(ratio: float, interval: Interval) -> Interval:
    """Return the interval, widened to include the ratio of the medians.

    Where that ratio is not that of the passes, both are in doubt.
    """
    return min(interval[0], ratio), max(interval[1], ratio)


def remove_drift(interval: Interval, drift: Interval) -> Interval:
    """Return the interval that remains after the machine's own change."""
    return interval[0] / drift[1], interval[1] / drift[0]


def decide_verdict(ratio: float, interval: Interval | None, widened: Interval | None, threshold: float) -> Verdict:
    """Return the verdict on a ratio.

    Faster or slower: the ratio is beyond the threshold, and the widened interval beyond half of it. Same: the plain
    interval lies within the threshold. Ambiguous: anything else, or no interval.
    """
    if interval is None or widened is None:
        return "ambiguous"
    (least, most), surely = unchanged_range(threshold), unchanged_range(threshold / 2)
    if ratio < least and widened[1] < surely[0]:
        return "faster"
    if ratio > most and widened[0] > surely[1]:
        return "slower"
    return "same" if least <= interval[0] and interval[1] <= most else "ambiguous"


def unchanged_range(threshold: float) -> Interval:
    """Return the range of ratios that count as no change, the same factor both ways."""
    return 1 / (1 + threshold), 1 + threshold


def p_value(log_ratio: LogRatio, threshold: float, drift: Interval) -> float:
    """Return the two-sided p-value of a ratio.

    The null hypothesis is a change within half the threshold and the drift.
    """
    least, most = unchanged_range(threshold / 2)
    return log_ratio.p_value(least * drift[0], most * drift[1])


def parse_threshold(text: str, option: str = "--threshold") -> float:
    """Parse a share from `5%` or `0.05`.

    Raises:
        UserError: any other text, or a share not between 0 and 100 %.
    """
    number, unit = text.strip().removesuffix("%"), 0.01 if text.strip().endswith("%") else 1.0
    try:
        share = float(number) * unit
    except ValueError:
        share = float("nan")
    if not 0 < share < 1:
        raise UserError(f"{option} {text!r}: not between 0 and 100%; write five percent as 5% or 0.05")
    return share

"""Faster, slower, same or ambiguous: what two measurements of one case allow to say."""

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
        a, b: the measurements; the verdict speaks of b.
        log_ratio: the logarithm of b over a with its error between passes; None where a file has a single pass.
        threshold: change that counts, 0.05 for 5 %.
        confidence: of the interval that has to lie beyond half of it: 95 %, raised for the number of cases.
        drift: least and greatest factor by which the machine itself changed between the files, 1 among them.
        frameworks: the ratios by all frameworks that published this very work on both GPUs, least and greatest.
    """

    a: Measurement
    b: Measurement
    log_ratio: LogRatio | None
    threshold: float
    confidence: float = 0.95
    drift: Interval = (1.0, 1.0)
    frameworks: Interval | None = None

    @property
    def ratio(self) -> float:
        """Median of b over median of a: below 1 where b is faster."""
        return self.b.median / self.a.median

    @property
    def basis(self) -> Literal["passes", "frameworks"] | None:
        """What the interval is over; None where there is none."""
        return "passes" if self.log_ratio else "frameworks" if self.frameworks else None

    @cached_property
    def interval(self) -> Interval | None:
        """95 % interval on the ratio; of published times the range over frameworks; None where neither is there."""
        return include_ratio(self.ratio, self.log_ratio.interval()) if self.log_ratio else self.frameworks

    @cached_property
    def widened_interval(self) -> Interval | None:
        """The interval at `confidence`, less the drift: it has to lie beyond half the threshold."""
        if not self.log_ratio:
            return self.frameworks
        return remove_drift(include_ratio(self.ratio, self.log_ratio.interval(self.confidence)), self.drift)

    @property
    def verdict(self) -> Verdict:
        """For the change that counts."""
        return self.verdict_at(self.threshold)

    def verdict_at(self, threshold: float) -> Verdict:
        """The verdict for another change that counts."""
        return (
            "ambiguous"
            if self._doubtful
            else decide_verdict(self.ratio, self.interval, self.widened_interval, threshold)
        )

    @property
    def detectable(self) -> float | None:
        """The slow-down that would have been called in half of such runs: 0.03 for 3 %; None where none would."""
        if not self.log_ratio:
            return None
        low, high = self.log_ratio.interval(self.confidence)
        return max((1 + self.threshold / 2) * self.drift[1] * sqrt(high / low) - 1, self.threshold)

    @property
    def _doubtful(self) -> bool:
        """A published time that a cache may have made, or that its linter finds odd, supports no verdict."""
        return self.basis == "frameworks" and any(one.maybe_hot or one.doubts for one in (self.a, self.b))


def include_ratio(ratio: float, interval: Interval) -> Interval:
    """The interval with the ratio of the medians in it: where it is not that of the passes, both are in doubt."""
    return min(interval[0], ratio), max(interval[1], ratio)


def remove_drift(interval: Interval, drift: Interval) -> Interval:
    """What is left where the machine itself changed by as much."""
    return interval[0] / drift[1], interval[1] / drift[0]


def decide_verdict(ratio: float, interval: Interval | None, widened: Interval | None, threshold: float) -> Verdict:
    """Faster or slower if the ratio is beyond the threshold, and surely beyond half of it: by the widened interval.

    Same if the plain interval lies within the threshold; ambiguous without an interval.
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
    """The ratios that count as no change: the same factor both ways."""
    return 1 / (1 + threshold), 1 + threshold


def p_value(log_ratio: LogRatio, threshold: float, drift: Interval) -> float:
    """Two-sided chance of such a ratio, or one further out, without a change by half the threshold and the drift."""
    least, most = unchanged_range(threshold / 2)
    return log_ratio.p_value(least * drift[0], most * drift[1])


def parse_threshold(text: str, option: str = "--threshold") -> float:
    """A share of one from `5%` or `0.05`.

    Raises:
        UserError: anything else, and what is not between 0 and 100 %.
    """
    number, unit = text.strip().removesuffix("%"), 0.01 if text.strip().endswith("%") else 1.0
    try:
        share = float(number) * unit
    except ValueError:
        share = float("nan")
    if not 0 < share < 1:
        raise UserError(f"{option} {text!r}: not between 0 and 100%; write five percent as 5% or 0.05")
    return share

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
class Comparison:
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
        return self._around(self.log_ratio.interval()) if self.log_ratio else self.frameworks

    @cached_property
    def widened(self) -> Interval | None:
        """The interval at `confidence`, less the drift: it has to lie beyond half the threshold."""
        if not self.log_ratio:
            return self.frameworks
        low, high = self._around(self.log_ratio.interval(self.confidence))
        return low / self.drift[1], high / self.drift[0]

    def _around(self, interval: Interval) -> Interval:
        """With the ratio of the medians in it: where that is no ratio of the passes' means, both are in doubt."""
        return min(interval[0], self.ratio), max(interval[1], self.ratio)

    @property
    def verdict(self) -> Verdict:
        """Faster or slower if the ratio is beyond the threshold, and surely beyond half of it: by the widened interval.

        Same if the plain interval lies within the threshold.
        """
        return self.at(self.threshold)

    def at(self, threshold: float) -> Verdict:
        """The verdict for another change that counts."""
        if self.interval is None or self.widened is None or self._doubtful:
            return "ambiguous"
        least, most = within(threshold)
        surely = within(threshold / 2)
        if self.ratio < least and self.widened[1] < surely[0]:
            return "faster"
        if self.ratio > most and self.widened[0] > surely[1]:
            return "slower"
        return "same" if least <= self.interval[0] and self.interval[1] <= most else "ambiguous"

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


def within(threshold: float) -> Interval:
    """The ratios that count as no change: the same factor both ways."""
    return 1 / (1 + threshold), 1 + threshold


def chance(found: LogRatio, threshold: float, drift: Interval) -> float:
    """Two-sided chance of such a ratio, or one further out, without a change by half the threshold and the drift."""
    least, most = within(threshold / 2)
    return found.beyond(least * drift[0], most * drift[1])


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

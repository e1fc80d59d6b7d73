"""Same, faster, slower or ambiguous: what two measurements of one case allow to say."""

from dataclasses import dataclass
from typing import Literal

from specs import statistics
from specs.errors import UserError
from specs.measurement import Measurement

Verdict = Literal["faster", "slower", "same", "ambiguous"]
VERDICTS: tuple[Verdict, ...] = ("faster", "slower", "same", "ambiguous")
ERROR_RATE = 0.05
"""Chance that any case of two equal files is called faster or slower."""


@dataclass(frozen=True)
class Comparison:
    """One case in two files.

    Attributes:
        a, b: the measurements; the verdict speaks of b.
        threshold: change that counts, 0.05 for 5 %.
        cases: how many cases are compared at once.
        drift: least and greatest factor by which the machine itself changed between the files, 1 among them.
    """

    a: Measurement
    b: Measurement
    threshold: float
    cases: int
    drift: tuple[float, float] = (1.0, 1.0)

    @property
    def ratio(self) -> float:
        """Median of b over median of a: below 1 where b is faster."""
        return self.b.median / self.a.median

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval on the ratio; None where a file has a single pass of the case."""
        return statistics.ratio_interval(self.a.seconds, self.b.seconds)

    @property
    def widened(self) -> tuple[float, float] | None:
        """The interval that all cases together leave with a probability of 5 % at most (Bonferroni), less the drift."""
        chance = statistics.ratio_interval(self.a.seconds, self.b.seconds, 1 - ERROR_RATE / self.cases)
        return (chance[0] / self.drift[1], chance[1] / self.drift[0]) if chance else None

    @property
    def verdict(self) -> Verdict:
        """Faster or slower if the widened interval lies beyond the threshold, same if the plain one lies within it."""
        if self.interval is None or self.widened is None:
            return "ambiguous"
        least, most = 1 / (1 + self.threshold), 1 + self.threshold
        if self.widened[1] < least:
            return "faster"
        if self.widened[0] > most:
            return "slower"
        return "same" if least <= self.interval[0] and self.interval[1] <= most else "ambiguous"


def parse_threshold(text: str) -> float:
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
        raise UserError(f"--threshold {text!r}: not between 0 and 100%; write five percent as 5% or 0.05")
    return share

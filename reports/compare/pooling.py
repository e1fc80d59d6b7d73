"""What the noise of all cases says of the noise of each.

Six passes tell the spread of a case badly: by chance it looks small in some of hundreds, and a bar that is high enough
for these hides what changed in the others. So the error of each case is drawn towards that of all cases together, the
less the more the cases differ in their noise and the more passes a case has: the moderated t of Smyth 2004
(doi:10.2202/1544-6115.1027). How far comes out of the data: squared errors of cases with equal noise scatter as
chi-square over its degrees of freedom, and what they scatter beyond that is a true difference.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import exp, log, sqrt
from statistics import fmean, variance

from specs.statistics import LogRatio

LEAST_CASES = 10
"""Fewer say too little of each other."""
ALIKE = 1e6
"""Degrees of freedom of the common noise where cases do not differ in it."""


def pool(ratios: Sequence[LogRatio | None]) -> list[LogRatio | None]:
    """The same ratios with moderated errors; those without an error stay, and all do where they are few."""
    noisy = [one for one in ratios if one and one.error]
    if len(noisy) < LEAST_CASES:
        return list(ratios)
    common, freedom = _common(noisy)
    return [_moderated(one, common, freedom) if one and one.error else one for one in ratios]


def _moderated(one: LogRatio, common: float, freedom: float) -> LogRatio:
    together = freedom + one.freedom
    return replace(one, error=sqrt((freedom * common + one.freedom * one.error**2) / together), freedom=together)


def _common(noisy: Sequence[LogRatio]) -> tuple[float, float]:
    """The squared error that all have in common, and the degrees of freedom that it counts for."""
    from scipy.optimize import brentq  # most commands can do without
    from scipy.special import digamma, polygamma

    logs = [log(one.error**2) - float(digamma(one.freedom / 2)) + log(one.freedom / 2) for one in noisy]
    beyond_chance = variance(logs) - fmean(float(polygamma(1, one.freedom / 2)) for one in noisy)
    half = ALIKE / 2
    if beyond_chance > float(polygamma(1, half)):
        half = float(brentq(lambda half: float(polygamma(1, half)) - beyond_chance, 1e-3, ALIKE / 2))
    return exp(fmean(logs) + float(digamma(half)) - log(half)), 2 * half

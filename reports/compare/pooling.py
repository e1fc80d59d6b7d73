"""What the noise of all cases says of the noise of each.

Six passes tell the spread of a case badly: by chance it looks small in some of hundreds, and a bar that is high enough
for these hides what changed in the others. So the variance of a case is drawn towards that of all cases together, the
less the more the cases differ in their noise and the more passes a case has: the moderated t of Smyth 2004
(doi:10.2202/1544-6115.1027). How far comes out of the data: variances of cases with equal noise scatter as chi-square
over its degrees of freedom, and what they scatter beyond that is a true difference.

Two things that the method takes for granted do not hold here. A case may be far noisier than the others: what is above
nine in ten of equal noise keeps its own variance. And what disturbs a pass disturbs all of its cases, so that many
cases tell less than they seem to: the common variance counts for twice a case's own degrees of freedom at most.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import exp, log, sqrt
from statistics import fmean, median, variance

from specs.statistics import LogRatio

LEAST_CASES = 10
"""Fewer say too little of each other."""
MOST_WEIGHT = 2
"""Degrees of freedom of the common variance over those of a case, at most."""
NOISIER = 0.1
"""Share of cases of equal noise that would have a variance above the limit to which it is drawn."""


def pool(ratios: Sequence[LogRatio | None]) -> list[LogRatio | None]:
    """The same ratios with moderated errors; all stay where few of them have one."""
    noisy = [one for one in ratios if one and one.error]
    if len(noisy) < LEAST_CASES:
        return list(ratios)
    common, freedom = _common(noisy)
    return [_moderated(one, common, freedom) if one else None for one in ratios]


def _variance(one: LogRatio) -> float:
    """Of one pass."""
    return one.error**2 * one.passes


def _moderated(one: LogRatio, common: float, freedom: float) -> LogRatio:
    from scipy.special import chdtri

    own = _variance(one)
    if own > common * float(chdtri(one.freedom, NOISIER)) / one.freedom:
        return one
    together = freedom + one.freedom
    drawn = (freedom * common + one.freedom * own) / together
    return replace(one, error=sqrt(drawn / one.passes), freedom=together)


def _common(noisy: Sequence[LogRatio]) -> tuple[float, float]:
    """The variance of a pass that all have in common, and the degrees of freedom that it counts for."""
    from scipy.optimize import brentq  # most commands can do without
    from scipy.special import digamma, polygamma

    logs = [log(_variance(one)) - float(digamma(one.freedom / 2)) + log(one.freedom / 2) for one in noisy]
    beyond_chance = variance(logs) - fmean(float(polygamma(1, one.freedom / 2)) for one in noisy)
    half = MOST_WEIGHT * median(one.freedom for one in noisy) / 2
    if beyond_chance > float(polygamma(1, half)):
        half = float(brentq(lambda half: float(polygamma(1, half)) - beyond_chance, 1e-3, half))
    return exp(fmean(logs) + float(digamma(half)) - log(half)), 2 * half

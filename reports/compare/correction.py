"""How sure each verdict has to be, where many are given at once: Benjamini and Hochberg's false discovery rate.

Of a thousand equal cases fifty leave their 95 % intervals by chance. So chances are sorted, and as many cases are
called as keep the wrong ones among those called at 1 %: the intervals of all are raised to the confidence at which
just these lie beyond (Benjamini & Yekutieli 2005, doi:10.1198/016214504000001907). Where nothing changed, that is
Bonferroni's bar: the chance of any wrong call stays below 1 %. Where much changed, it is lower.
"""

from collections.abc import Iterable

FALSE_CALLS = 0.01
"""Share of the calls that may be wrong; where nothing changed, the chance of any."""


def confidence(chances: Iterable[float]) -> float:
    """The confidence of every interval, from the chance of each case's ratio without a change.

    Args:
        chances: two-sided, one for each case that is compared.
    """
    ordered = sorted(chances)
    count = max(len(ordered), 1)
    called = max((rank for rank, one in enumerate(ordered, start=1) if one <= FALSE_CALLS * rank / count), default=1)
    return 1 - FALSE_CALLS * called / count

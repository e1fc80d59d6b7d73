"""What could explain that a case takes longer or shorter on another machine, and what stays unexplained.

A case needs each resource for some least time (its bytes over the bandwidth, its flops over the peak, a launch, its
bytes on the wire), and no less than the longest of these. That resource binds it; how the longest changed between the
machines is the ratio of times to expect. It explains a change only if it went the same way, and if it takes a good part
of the time: a kernel at a tenth of its floor waits for something else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

from reports.compare.resources import Machines
from reports.compare.verdict import Comparison

GOOD_PART = 0.4
"""Share of the time, on either machine, that the binding resource takes at least where it explains a change."""
NOTHING = 0.02
"""A resource that changed by less explains nothing."""


@dataclass(frozen=True)
class Explanation:
    """One case, all ratios being times of B over times of A.

    Attributes:
        could: by resource what it changed by: those that the case needs and both machines' speed is known of.
        bound: the resources that bind it on A and on B.
        expected: what the least times say; None where no resource is known.
        share: of the time that the binding resource takes, the larger one of both machines.
        by: what explains the change; None where nothing does.
        unexplained: the ratio over the expected one; all of the ratio where nothing explains it.
    """

    could: Mapping[str, float]
    bound: tuple[str, str] | None
    expected: float | None
    share: float | None
    by: str | None
    unexplained: float


def explain(pair: Comparison, machines: Machines) -> Explanation:
    """Set a ratio against the ratios of what the case needs."""
    least = machines.seconds(pair.a.case)
    could = {name: after / before for name, (before, after) in least.items()}
    if not least:
        return Explanation(could, None, None, None, None, pair.ratio)
    bound = max(least, key=lambda name: least[name][0]), max(least, key=lambda name: least[name][1])
    before, after = least[bound[0]][0], least[bound[1]][1]
    expected, share = after / before, max(before / pair.a.median, after / pair.b.median)
    by = None
    if share >= GOOD_PART and _alike(pair.ratio, expected):
        by = " and ".join(name for name in dict.fromkeys(bound) if _changed(could[name])) or None
    return Explanation(could, bound, expected, share, by, pair.ratio / expected if by else pair.ratio)


def _alike(ratio: float, expected: float) -> bool:
    """Whether what was to expect is a change at all, and in the direction of the one that came."""
    return _changed(expected) and log(ratio) * log(expected) > 0


def _changed(ratio: float) -> bool:
    return abs(log(ratio)) > log(1 + NOTHING)

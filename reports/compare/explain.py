"""What could explain that a case takes longer or shorter on another machine, and what stays unexplained.

A case needs each resource for some least time (its bytes over the bandwidth, its flops over the peak, a launch, its
bytes on the wire), and no less than the longest of these. That resource binds it; how the longest changed between the
machines is the ratio of times to expect. It explains a change if at least half of what was to expect came, and if the
resource takes a good part of the time: a kernel at a tenth of its floor waits for something else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import NamedTuple

from reports.compare.resources import Least
from reports.compare.verdict import Comparison

GOOD_PART = 0.4
"""Share of the time, on either machine, that the binding resource takes at least where it explains a change."""
NOTHING = 0.02
"""A resource that changed by less explains nothing."""
HALF = 0.5
"""Part of the expected change, on the logarithm, that has to have come."""


@dataclass(frozen=True)
class Explanation:
    """One case, all ratios being times of B over times of A.

    Attributes:
        could: by resource what it changed by: those that the case needs and both machines' speed is known of.
        bound: the resources that bind it on A and on B.
        expected: what the least times say; None where no resource is known.
        share: of the time that the binding resource takes, the larger one of both machines.
        by: what explains the change; None where nothing does.
        unexplained: the ratio over the expected one; all of the ratio where no resource takes a good part of the time.
    """

    could: Mapping[str, float]
    bound: tuple[str, str] | None
    expected: float | None
    share: float | None
    by: str | None
    unexplained: float


class Explained(NamedTuple):
    """A case in two files and what explains its ratio."""

    pair: Comparison
    why: Explanation


def binding(least: Least) -> tuple[str, str] | None:
    """The resources that a case needs longest on A and on B; None where none is known."""
    if not least:
        return None
    return max(least, key=lambda name: least[name][0]), max(least, key=lambda name: least[name][1])


def explain(pair: Comparison, least: Least) -> Explanation:
    """Set a ratio against the ratios of what the case needs."""
    bound, could = binding(least), {name: after / before for name, (before, after) in least.items()}
    if bound is None:
        return Explanation(could, None, None, None, None, pair.ratio)
    before, after = least[bound[0]][0], least[bound[1]][1]
    expected, share = after / before, max(before / pair.a.median, after / pair.b.median)
    by = None
    if share >= GOOD_PART and _came(pair.ratio, expected):
        by = " and ".join(name for name in dict.fromkeys(bound) if _changed(could[name])) or None
    unexplained = pair.ratio / expected if share >= GOOD_PART else pair.ratio
    return Explanation(could, bound, expected, share, by, unexplained)


def _came(ratio: float, expected: float) -> bool:
    """Whether what was to expect is a change at all, and at least half of it came."""
    return _changed(expected) and log(ratio) / log(expected) >= HALF


def _changed(ratio: float) -> bool:
    return abs(log(ratio)) > log(1 + NOTHING)

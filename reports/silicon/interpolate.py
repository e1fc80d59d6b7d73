"""Linear interpolation between tabulated neighbours, with the error that the method makes on those it can check.

The time of a GEMM is close to affine in each of its sizes, and in trials on these tables a straight line missed
left-out shapes by no more than curves in log-log or in share-of-roofline did. How far off it may be is said by leaving
out each of the two neighbours and predicting it from the next ones around it: the larger error of the two.
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple


class Interpolated(NamedTuple):
    """A value, its relative error by leave-one-out, and the two neighbours it stands between."""

    seconds: float
    error: float
    low: int
    high: int


def between(points: Mapping[int, float], at: int) -> Interpolated | None:
    """The value at `at`; None outside the points, and where no neighbour can be left out to find the error.

    Args:
        points: seconds by size.
        at: a size that is not among them.
    """
    sizes = sorted(points)
    place = bisect_left(sizes, at)
    if not 0 < place < len(sizes):
        return None
    errors = []
    for left_out in (place - 1, place):
        if 0 < left_out < len(sizes) - 1:
            size = sizes[left_out]
            guess = _line(points, sizes[left_out - 1], sizes[left_out + 1], size)
            errors.append(abs(guess / points[size] - 1))
    low, high = sizes[place - 1], sizes[place]
    return Interpolated(_line(points, low, high, at), max(errors), low, high) if errors else None


def _line(points: Mapping[int, float], low: int, high: int, at: int) -> float:
    return points[low] + (points[high] - points[low]) * (at - low) / (high - low)

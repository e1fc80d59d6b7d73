"""Figures at many batches from few: where a figure runs straight, what lies between two of its points is on the line.

Parts of a step are straight between the sizes that were tabulated. A sum of them is too, the faster of two all-reduces
bends to one side only, and so does the slower of a stage and a round trip. A curve that bends to one side only and
has the middle of an interval on the straight line between its ends runs straight over all of it.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import floor, isclose
from typing import NamedTuple

from reports.plan.missing import MissingError


class Bounds(NamedTuple):
    """Seconds of a step, and the least and the most that it may take."""

    seconds: float
    low: float
    high: float


def filled(at: Callable[[int], Bounds], grid: Sequence[int], bends: Iterable[float]) -> list[Bounds]:
    """The figure at every batch of the grid, up to the last one that was measured.

    Args:
        at: works it out for one batch; a `MissingError` ends the grid.
        grid: batches, equally far apart.
        bends: where parts may bend, or end.
    """
    if not grid:
        return []
    known: dict[int, Bounds] = {}
    last = -1
    for place in _places(grid, bends):
        try:
            known[place] = at(grid[place])
        except MissingError:
            break
        last = place
    for left, right in pairwise(sorted(known)):
        _fill(known, at, grid, left, right)
    return [known[place] for place in range(last + 1)]


def _places(grid: Sequence[int], bends: Iterable[float]) -> list[int]:
    """Of the ends, and of the neighbours of each bend on both sides."""
    first, step = grid[0], (grid[1] - grid[0]) if len(grid) > 1 else 1
    found = {0, len(grid) - 1}
    for bend in bends:
        place = floor((bend - first) / step)
        found |= {one for one in (place, place + 1) if 0 <= one < len(grid)}
    return sorted(found)


def _fill(known: dict[int, Bounds], at: Callable[[int], Bounds], grid: Sequence[int], left: int, right: int) -> None:
    """Between two places: on the line if the middle is, else half by half."""
    if right - left < 2:
        return
    middle = (left + right) // 2
    known[middle] = at(grid[middle])
    if all(isclose(*pair, rel_tol=1e-9) for pair in zip(known[middle], _line(known, left, right, middle), strict=True)):
        for place in range(left + 1, right):
            known.setdefault(place, _line(known, left, right, place))
        return
    _fill(known, at, grid, left, middle)
    _fill(known, at, grid, middle, right)


def _line(known: dict[int, Bounds], left: int, right: int, place: int) -> Bounds:
    share = (place - left) / (right - left)
    return Bounds(*(a + (b - a) * share for a, b in zip(known[left], known[right], strict=True)))

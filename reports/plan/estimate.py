"""Costs of parts with ranges and provenance, interpolated over sizes."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import floor, hypot, isclose
from operator import attrgetter
from statistics import fmean, median
from typing import NamedTuple

from specs import statistics
from specs.errors import UserError
from specs.measurement import Measurement, weakest_provenance

# Default values for costs that no result file contains, each with its range and reason.
#
# Every plan lists them, and every part that depends on a default says so. A figure in a file takes precedence.


class Assumption(NamedTuple):
    """Assumed value, its range, and its reason."""

    value: float
    low: float
    high: float
    why: str


HOP_SECONDS = Assumption(
    10e-6, 5e-6, 20e-6, "a message between two GPUs of one host; published tables hold none between a pair"
)
"""Latency before the first byte of a hop arrives.

Its bytes take additional time at the datasheet's rate.
"""
NODE_HOP_SECONDS = Assumption(20e-6, 10e-6, 40e-6, "a message between hosts: through two network cards and a switch")
NODE_BYTES_PER_SECOND = Assumption(50e9, 50e9, 50e9, "a 400 Gbit/s network card for each GPU, in one direction")
KERNEL_SECONDS = Assumption(
    2e-6, 0.0, 2e-6, "an elementwise kernel in a graph beyond its bytes; none where it is fused into a neighbour"
)
KERNELS_PER_LAYER = 4
"""Elementwise kernels: two norms with the residual, rotary embedding, SwiGLU."""
QK_NORM_KERNELS = 2
"""Further kernels of a layer that norms queries and keys."""
WORKSPACE_BYTES = Assumption(
    3 * 2.0**30, 3 * 2.0**30, 3 * 2.0**30, "context, libraries' workspaces, buffers of collectives and of graphs"
)


def all_assumptions() -> dict[str, Assumption]:
    """Assumptions of this module, by name."""
    return {name: one for name, one in globals().items() if isinstance(one, Assumption)}


# Cost of a part of a step, with its uncertainty.


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a part, or of several parts in sequence.

    Attributes:
        seconds: mean over calls; sums of medians would omit the slow calls of every part.
        low, high: bounds where a cache or an assumption leaves doubt; errors that all parts share add up.
        half_width: half-width of the 95 % interval from passes, in seconds; errors of different parts are independent.
        provenance: one of `specs.measurement.PROVENANCE_ORDER`; empty for a sum.
        cases: names of the cases behind the cost; none for a sum.
    """

    seconds: float
    low: float
    high: float
    half_width: float = 0.0
    provenance: str = ""
    cases: tuple[str, ...] = ()

    def scaled(self, count: float) -> "Cost":
        """Cost of `count` calls, each with the error of the measured call."""
        return Cost(
            count * self.seconds,
            count * self.low,
            count * self.high,
            count * self.half_width,
            self.provenance,
            self.cases,
        )

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound in seconds: the range widened by the half-width."""
        return max(0.0, self.low - self.half_width), self.high + self.half_width


CostField = Callable[[Cost], float]
COST_FIELDS: tuple[CostField, ...] = tuple(attrgetter(name) for name in ("seconds", "low", "high"))
"""Getters of the estimate and of its lower and upper bound."""


def sum_costs(costs: Iterable[Cost]) -> Cost:
    """Cost of parts in sequence."""
    found = list(costs)
    return Cost(
        sum(one.seconds for one in found),
        sum(one.low for one in found),
        sum(one.high for one in found),
        hypot(*(one.half_width for one in found)),
    )


def exact_cost(seconds: float, provenance: str) -> Cost:
    """Cost without a range and without a case."""
    return Cost(seconds, seconds, seconds, 0.0, provenance)


# Provenance of a composed figure: its weakest part, its cases, its assumptions.

MODELLED = "modelled"
"""Best provenance of a figure that no run gave."""


@dataclass(frozen=True)
class Provenance:
    """Weakest provenance and case names, by part of a step."""

    provenance_by_part: Mapping[str, str]
    cases_by_part: Mapping[str, Sequence[str]]

    @classmethod
    def from_costs(cls, costs: Mapping[str, Cost]) -> "Provenance":
        """Provenance of single costs, by part."""
        return cls(
            {name: one.provenance for name, one in costs.items()}, {name: one.cases for name, one in costs.items()}
        )

    @classmethod
    def merge(cls, found: Iterable["Provenance"]) -> "Provenance":
        """Combined provenance: weakest provenance and all cases of each part."""
        parts: dict[str, str] = {}
        cases: dict[str, list[str]] = {}
        for one in found:
            for name, provenance in one.provenance_by_part.items():
                parts[name] = weakest_provenance([parts.get(name, provenance), provenance])
            for name, names in one.cases_by_part.items():
                cases.setdefault(name, []).extend(names)
        return cls(parts, {name: list(dict.fromkeys(names)) for name, names in cases.items()})

    @property
    def provenance(self) -> str:
        """Provenance of the whole figure: modelled at best."""
        return weakest_provenance([MODELLED, *self.provenance_by_part.values()])

    @property
    def cases(self) -> tuple[str, ...]:
        """Distinct case names of all parts."""
        return tuple(dict.fromkeys(name for names in self.cases_by_part.values() for name in names))

    @property
    def assumptions_text(self) -> str:
        """Text on the assumed parts; empty where no part is assumed.

        Format: `assumed: elementwise kernels of 2 us, hops of 5–20 us`.
        """
        found = sorted(
            _assumption_text(name) for name, provenance in self.provenance_by_part.items() if provenance == "assumed"
        )
        return f"assumed: {', '.join(found)}" if found else ""


def _assumption_text(part: str) -> str:
    if part == "hop":
        low, high = (round(1e6 * one) for one in (HOP_SECONDS.low, HOP_SECONDS.high))
        return f"hops of {low}–{high} us"
    if part == "elementwise":
        return f"elementwise kernels of {1e6 * KERNEL_SECONDS.value:g} us"
    if part == "lm_head":
        return "the LM head by another width"
    return f"{part} beyond its table"


BELOW_SMALLEST, BEYOND_LARGEST = "interpolated", "assumed"
"""Provenance of sizes outside the table.

A call below the smallest size takes as long as the smallest. Beyond the largest size the last slope goes on.
"""


class CostCurve:
    """Costs by size: tokens, sequences, or bytes.

    Args:
        points: costs by size, at least one.
    """

    def __init__(self, points: Mapping[int, Cost]) -> None:
        self._points = dict(sorted(points.items()))
        self._sizes = tuple(self._points)
        self._known: dict[float, Cost] = {float(size): cost for size, cost in self._points.items()}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Tabulated sizes, rising."""
        return self._sizes

    def at(self, size: float) -> Cost:
        """Cost at a size: tabulated, interpolated linearly, or extrapolated."""
        if size not in self._known:
            self._known[size] = self._between(size)
        return self._known[size]

    def covers(self, size: float) -> bool:
        """Return whether a size is at most the largest tabulated size."""
        return size <= self._sizes[-1]

    def _between(self, size: float) -> Cost:
        sizes, place = self._sizes, bisect_left(self._sizes, size)
        if place == 0:
            first = self._points[sizes[0]]
            return replace(first, provenance=weakest_provenance([first.provenance, BELOW_SMALLEST]))
        if len(sizes) == 1:
            return replace(self._points[sizes[0]].scaled(size / sizes[0]), provenance=BEYOND_LARGEST)
        beyond = place == len(sizes)
        a, b = (sizes[-2], sizes[-1]) if beyond else (sizes[place - 1], sizes[place])
        share, low, high = (size - a) / (b - a), self._points[a], self._points[b]

        def line(left: float, right: float) -> float:
            return left + (right - left) * share

        how = weakest_provenance([low.provenance, high.provenance, BEYOND_LARGEST if beyond else "interpolated"])
        return Cost(
            line(low.seconds, high.seconds),
            line(low.low, high.low),
            line(low.high, high.high),
            max(low.half_width, high.half_width),
            how,
            tuple(dict.fromkeys((*low.cases, *high.cases))),
        )


def measured_cost(one: Measurement, high: float = 0.0, factor: float = 1.0) -> Cost:
    """Cost of a measurement: the median over passes of each pass's mean.

    Slow calls within a pass count, because a sum includes them. A whole pass that something else slowed down does not.
    The half-width comes from the interval between passes.

    Args:
        one: the measurement.
        high: extra seconds for doubt about its caches.
        factor: share of the time that counts, as half of a ping-pong.
    """
    means = [fmean(samples) for samples in one.seconds]
    seconds, interval = factor * median(means), statistics.mean_interval(means)
    half = factor * (interval[1] - interval[0]) / 2 if interval else 0.0
    return Cost(seconds, seconds, seconds + factor * high, half, one.provenance, (one.case.name,))


def fastest_curve(points: Iterable[tuple[int, Cost]]) -> CostCurve | None:
    """Curve of the least cost at each size; None without points.

    Engines pad a call where a larger one is faster, so no size costs more than a larger one.
    """
    found: dict[int, Cost] = {}
    for size, one in points:
        if size not in found or one.seconds < found[size].seconds:
            found[size] = one
    for larger, size in pairwise(sorted(found, reverse=True)):
        if found[larger].seconds < found[size].seconds:
            found[size] = found[larger]
    return CostCurve(found) if found else None


class MissingMeasurementError(UserError):
    """Part that no file has; the one-line message says what exists instead."""


# Steps at many batches from few: steps between two batches lie on a line where the midpoint does.
#
# Parts of a step are linear between tabulated sizes, and so is a sum of parts. The faster of two all-reduces bends to
# one side only, and so does the slower of a stage and a round trip. A curve that bends to one side only is linear over
# an interval if its midpoint lies on the line between the ends.


class StepBounds(NamedTuple):
    """Seconds of a step: estimate, lower bound, upper bound."""

    seconds: float
    low: float
    high: float


def evaluate_grid(at: Callable[[int], StepBounds], grid: Sequence[int], bends: Iterable[float]) -> list[StepBounds]:
    """Evaluate a step at every batch of the grid, up to the last measured batch.

    Args:
        at: evaluates one batch; a `MissingMeasurementError` ends the grid.
        grid: equally spaced batches.
        bends: batches where parts may bend or end.
    """
    if not grid:
        return []
    known: dict[int, StepBounds] = {}
    last = -1
    for place in _breakpoint_places(grid, bends):
        try:
            known[place] = at(grid[place])
        except MissingMeasurementError:
            break
        last = place
    for left, right in pairwise(sorted(known)):
        _fill_between(known, at, grid, left, right)
    return [known[place] for place in range(last + 1)]


def _breakpoint_places(grid: Sequence[int], bends: Iterable[float]) -> list[int]:
    """Indices of the grid's ends, and of each bend's neighbours on both sides."""
    first, step = grid[0], (grid[1] - grid[0]) if len(grid) > 1 else 1
    found = {0, len(grid) - 1}
    for bend in bends:
        place = floor((bend - first) / step)
        found |= {one for one in (place, place + 1) if 0 <= one < len(grid)}
    return sorted(found)


def _fill_between(
    known: dict[int, StepBounds], at: Callable[[int], StepBounds], grid: Sequence[int], left: int, right: int
) -> None:
    """Fill the batches between two known places of the grid.

    They are interpolated where the midpoint lies on the line; else each half is filled in turn.
    """
    if right - left < 2:
        return
    middle = (left + right) // 2
    known[middle] = at(grid[middle])
    if all(
        isclose(*pair, rel_tol=1e-9)
        for pair in zip(known[middle], _interpolate(known, left, right, middle), strict=True)
    ):
        for place in range(left + 1, right):
            known.setdefault(place, _interpolate(known, left, right, place))
        return
    _fill_between(known, at, grid, left, middle)
    _fill_between(known, at, grid, middle, right)


def _interpolate(known: dict[int, StepBounds], left: int, right: int, place: int) -> StepBounds:
    share = (place - left) / (right - left)
    return StepBounds(*(a + (b - a) * share for a, b in zip(known[left], known[right], strict=True)))

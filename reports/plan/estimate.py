"""Costs of parts with ranges and provenance, interpolated over sizes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce, wraps
from itertools import pairwise
from math import nan
from operator import attrgetter
from statistics import fmean, median
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

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


# Cost of a part of a step, with its uncertainty and its origin.

Floats = NDArray[np.float64]
Seconds = Any
"""Seconds at one size, or an array of them with one element for each size."""
Sizes = Any
"""Tokens, sequences or bytes: a number, or an array of numbers."""


class Origin(NamedTuple):
    """Origin of a cost at one size.

    Attributes:
        provenance: one of `specs.measurement.PROVENANCE_ORDER`; empty where nothing is behind the cost.
        cases: names of the cases behind the cost.
    """

    provenance: str = ""
    cases: tuple[str, ...] = ()

    @classmethod
    def merge(cls, found: Iterable["Origin | None"], *provenances: str) -> "Origin":
        """Weakest provenance and all cases of several origins, and of further provenances."""
        cases: dict[str, None] = {}
        how = set(provenances)
        for one in found:
            if one:
                cases |= dict.fromkeys(one.cases)
                how.add(one.provenance)
        how.discard("")
        return cls(weakest_provenance(how) if how else "", tuple(cases))


OriginAt = Callable[[int], Origin | None]
"""Origin at a place in the array of sizes; None where the part does not occur there.

It is called for costs that are shown, not for all that are compared.
"""


def no_origin(_: int) -> Origin | None:
    """Return no origin: the part does not occur, or nothing is known about it."""
    return None


def constant_origin(provenance: str, cases: tuple[str, ...] = ()) -> OriginAt:
    """Origin that is the same at every size."""
    origin = Origin(provenance, cases)
    return lambda _: origin


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    """Seconds of a part, or of several parts in sequence, at one size or at an array of sizes.

    Attributes:
        seconds: mean over calls; sums of medians would omit the slow calls of every part. NaN at sizes that were not
            measured.
        low, high: bounds where a cache or an assumption leaves doubt; errors that all parts share add up.
        half_width: half-width of the 95 % interval from passes, in seconds; errors of different parts are independent.
        origin_at: provenance and cases at each size.
    """

    seconds: Seconds
    low: Seconds
    high: Seconds
    half_width: Seconds = 0.0
    origin_at: OriginAt = no_origin

    def scaled(self, count: Seconds) -> "Cost":
        """Cost of `count` calls, each with the error of the measured call."""
        return Cost(count * self.seconds, count * self.low, count * self.high, count * self.half_width, self.origin_at)

    def weakened(self, provenance: str) -> "Cost":
        """Cost whose provenance is this one at best."""
        return replace(self, origin_at=lambda place: Origin.merge([self.origin_at(place)], provenance))

    @property
    def provenance(self) -> str:
        """Provenance at the only size."""
        return Origin.merge([self.origin_at(0)]).provenance

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the cases at the only size."""
        return Origin.merge([self.origin_at(0)]).cases

    @property
    def unknown(self) -> Any:
        """True where the size was not measured: a truth value, or an array of them."""
        return np.isnan(self.seconds)

    @property
    def bounds(self) -> tuple[Seconds, Seconds]:
        """Lower and upper bound in seconds: the range widened by the half-width."""
        return np.maximum(0.0, self.low - self.half_width), self.high + self.half_width


UNKNOWN_COST = Cost(nan, nan, nan, nan)
"""Cost of a size that was not measured."""
ABSENT_COST = Cost(0.0, 0.0, 0.0)
"""Cost of a part that does not occur."""
CostField = Callable[[Cost], Seconds]
COST_FIELDS: tuple[CostField, ...] = tuple(attrgetter(name) for name in ("seconds", "low", "high"))
"""Getters of the estimate and of its lower and upper bound."""


def sum_costs(costs: Iterable[Cost]) -> Cost:
    """Cost of parts in sequence."""
    found = list(costs)
    return Cost(
        sum(one.seconds for one in found),
        sum(one.low for one in found),
        sum(one.high for one in found),
        np.sqrt(sum(one.half_width * one.half_width for one in found)),
        lambda place: Origin.merge(one.origin_at(place) for one in found),
    )


def choose_costs(mask: Any, chosen: Cost, other: Cost) -> Cost:
    """Cost that is `chosen` at sizes where the mask is true, and `other` elsewhere."""
    if mask.all():
        return chosen
    if not mask.any():
        return other
    fields = ((one.seconds, one.low, one.high, one.half_width) for one in (chosen, other))
    seconds, low, high, half_width = (np.where(mask, *pair)[()] for pair in zip(*fields, strict=True))

    def origin_at(place: int) -> Origin | None:
        return (chosen if element(mask, place) else other).origin_at(place)

    return Cost(seconds, low, high, half_width, origin_at)


def element(values: Any, place: int) -> Any:
    """Element at a place; a single number stands at every place."""
    return values[place] if np.ndim(values) else values


def first_known(costs: Iterable[Cost]) -> Cost:
    """At each size the first cost that is known there."""
    found = UNKNOWN_COST
    for one in costs:
        found = choose_costs(found.unknown, one, found)
        if not found.unknown.any():
            break
    return found


def fastest(costs: Iterable[Cost]) -> Cost:
    """At each size the cost of the fewest seconds that is known there."""

    def faster(one: Cost, other: Cost) -> Cost:
        return choose_costs(np.fmin(one.seconds, other.seconds) != one.seconds, other, one)

    return reduce(faster, costs)


def stack_costs(costs: Sequence[Cost], sizes: Sizes) -> Cost:
    """Cost with a row for each of several costs, and a column for each size."""

    def rows(values: Iterable[Seconds]) -> Floats:
        found = np.empty((len(costs), *np.shape(sizes)))
        for row, one in zip(found, values, strict=True):
            row[...] = one
        return found

    return Cost(
        rows(one.seconds for one in costs),
        rows(one.low for one in costs),
        rows(one.high for one in costs),
        rows(one.half_width for one in costs),
        lambda place: Origin.merge(one.origin_at(place) for one in costs),
    )


def exact_cost(seconds: Seconds, provenance: str) -> Cost:
    """Cost without a range and without a case."""
    return Cost(seconds, seconds, seconds, 0.0, constant_origin(provenance))


Owner = TypeVar("Owner")
Found = TypeVar("Found")
Arguments = ParamSpec("Arguments")
MAX_KEPT_SIZES = 64
"""Sizes up to which costs are kept; a search over all batches asks for thousands, and for each only once or twice."""


def kept(
    method: Callable[Concatenate[Owner, Arguments], Found],
) -> Callable[Concatenate[Owner, Arguments], Found]:
    """Keep what a method returned, by its arguments: deployments and variants ask for the same costs."""

    @wraps(method)
    def found(owner: Owner, *arguments: Arguments.args, **options: Arguments.kwargs) -> Found:
        if any(np.size(one) > MAX_KEPT_SIZES for one in arguments if isinstance(one, np.ndarray)):
            return method(owner, *arguments, **options)
        values = [
            (one.dtype.char, one.shape, one.tobytes()) if isinstance(one, np.ndarray) else one for one in arguments
        ]
        by_arguments = vars(owner).setdefault(f"_kept_{method.__name__}", {})
        key = (*values, *options.items())
        if key not in by_arguments:
            by_arguments[key] = method(owner, *arguments, **options)
        return cast(Found, by_arguments[key])

    return cast(Callable[Concatenate[Owner, Arguments], Found], found)


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
        self._origins: dict[int, Origin] = {}

    @property
    def smallest(self) -> int:
        """Smallest tabulated size."""
        return next(iter(self._points))

    @property
    def largest(self) -> int:
        """Largest tabulated size."""
        return next(reversed(self._points))

    def at(self, sizes: Sizes) -> Cost:
        """Cost at each size: tabulated, interpolated linearly, or extrapolated."""
        return self._read(self._lines.costs, sizes)

    def within(self, sizes: Sizes) -> Cost:
        """Cost at each size up to the largest tabulated size; unknown beyond."""
        return self._read(self._lines.measured, sizes)

    def _read(self, costs: Floats, sizes: Sizes) -> Cost:
        lines = self._lines
        line = lines.knots.searchsorted(sizes, side="right")
        further = sizes - lines.starts.take(line)
        seconds, low, high, half_width = costs.take(line, axis=1) + lines.slopes.take(line, axis=1) * further
        return Cost(seconds, low, high, half_width, lambda place: self._origin(int(element(line, place))))

    @cached_property
    def _lines(self) -> "_Lines":
        return _curve_lines(self._points)

    def _origin(self, line: int) -> Origin:
        if line not in self._origins:
            costs = list(self._points.values())
            ends = (costs[side[line]].origin_at(0) for side in (self._lines.left, self._lines.right))
            is_point, is_last = line % 2 == 1, line == 2 * len(costs)
            how = () if is_point else (BEYOND_LARGEST if is_last else BELOW_SMALLEST,)
            self._origins[line] = Origin.merge(ends, *how)
        return self._origins[line]


class _Lines(NamedTuple):
    """Lines of a curve, in the order of sizes.

    Even places are lines below, between and beyond the tabulated sizes; odd places are the tabulated sizes.

    Attributes:
        left, right: places of the points that a line goes through.
        knots: sizes from which on the next line counts.
        starts: size of the left point.
        costs: costs at the left point, with a row for each number in a `Cost`.
        measured: costs, unknown for the line beyond the largest size.
        slopes: costs for each further token, sequence or byte.
    """

    left: NDArray[np.intp]
    right: NDArray[np.intp]
    knots: Floats
    starts: Floats
    costs: Floats
    measured: Floats
    slopes: Floats


def _curve_lines(points: Mapping[int, Cost]) -> _Lines:
    """Lines through points of rising size.

    A single point goes on in proportion to the size. A line has the larger half-width of its ends.
    """
    sizes = np.array(list(points), dtype=np.float64)
    table = np.array([(one.seconds, one.low, one.high, one.half_width) for one in points.values()]).T
    line = np.arange(2 * sizes.size + 1)
    right = np.minimum(line // 2, sizes.size - 1)
    left = np.where(line % 2, right, np.maximum(right - 1, 0))
    left[0] = 0
    starts, costs, ends = sizes[left], table[:, left], table[:, right]
    slopes = (ends - costs) / np.maximum(sizes[right] - starts, 1.0)
    if sizes.size == 1:
        slopes[:, -1] = table[:, 0] / sizes[0]
    else:
        slopes[3] = 0.0
    costs[3] = np.maximum(costs[3], ends[3])
    measured = costs.copy()
    measured[:, -1] = nan
    knots = np.column_stack([sizes, np.nextafter(sizes, np.inf)]).ravel()
    return _Lines(left, right, knots, starts, costs, measured, slopes)


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
    return Cost(seconds, seconds, seconds + factor * high, half, constant_origin(one.provenance, (one.case.name,)))


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

"""Which cases stand behind which points: each part's set of cases once, with a number that points refer to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.plan.answer import both
from reports.plan.plan import Plan
from reports.plan.point import Point

Source = tuple[str, tuple[str, ...]]
"""A part, and the names of the cases that its time comes from."""


@dataclass(frozen=True)
class Traces:
    """Points, and the sources of their parts.

    Attributes:
        sources: in the order of their numbers, which start at 1.
        points: each with its parts' numbers; parts without a case are assumed and have none.
    """

    sources: Sequence[Source]
    points: Sequence[tuple[Point, Mapping[str, int]]]


def of(points: Sequence[Point]) -> Traces:
    """Of the middle implementation of each."""
    numbers: dict[Source, int] = {}
    traced = []
    for one in points:
        cases = one.account.cases if one.account else {}
        found = {part: (part, tuple(names)) for part, names in cases.items() if names}
        traced.append((one, {part: numbers.setdefault(source, len(numbers) + 1) for part, source in found.items()}))
    return Traces(list(numbers), traced)


def telling(plan: Plan) -> list[Point]:
    """The points that a plan's statements are about, by batch: TP and async PP over all GPUs, the best, the front."""
    found: dict[int, Point] = {id(one): one for one in plan.front}
    for batch in plan.batches:
        alike = plan.at(batch)
        best = max(alike, key=lambda one: one.tokens_per_second)
        found |= {id(one): one for one in (best, *both(plan, alike)) if one}
    return sorted(found.values(), key=lambda one: one.batch)

"""Points that differ only in their message, by rising size."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from reports.communication.point import Point
from specs.measurement import Case


@dataclass(frozen=True)
class Series:
    """One operation by one implementation over messages; `case` is what they share, without a message."""

    case: Case
    points: tuple[Point, ...]

    @property
    def label(self) -> str:
        """What tells it from the others of its operation on a plot."""
        case = self.case
        gap = f"gap {1e3 * case.gap_seconds:g} ms" if case.gap_seconds else ""
        ranks = f"{case.ranks} ranks"
        who = case.implementation if case.kernel == f"{case.implementation}_{case.op}" else case.kernel
        parts = (who, case.launch, gap, case.pair and f"pair {case.pair}", ranks, case.dtype)
        return " ".join(filter(None, parts))


def collect(points: Iterable[Point]) -> list[Series]:
    """Every series, in the order in which they come."""
    found: dict[tuple[Case, str | None, str | None], list[Point]] = {}
    for one in points:
        bare = replace(one.case, name="", tokens=None, message_bytes=None, wire_bytes_sent_per_rank=0)
        found.setdefault((bare, one.measurement.framework, one.measurement.version), []).append(one)
    return [Series(case, tuple(sorted(group, key=_size))) for (case, _, _), group in found.items()]


def _size(one: Point) -> tuple[int, int]:
    return one.case.message_bytes or 0, one.case.tokens or 0

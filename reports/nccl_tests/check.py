"""Does a row agree with itself? Size, count, time and both bandwidths say the same thing in several units.

Each printed figure stands for the interval that rounds to it; a row is refused where no exact figures could have been
printed so.
"""

from decimal import Decimal

from reports.nccl_tests.formats import COUNTED_BY_RANK, ITEMSIZE
from reports.nccl_tests.run import Row
from specs import traffic

SLACK = 1e-6
"""Relative error of bandwidths that old versions kept in fp32."""
TELLING = 0.02
"""Relative rounding of a bandwidth below which a mistake of unit shows: GiB for GB is 7 %."""
MISTAKES = (
    (1e3, "as if the time were in ms"),
    (1e6, "as if the time were in s"),
    (1e-3, "as if the time were in ns or bandwidths in MB/s"),
    (1.073741824, "as if bandwidths were in GiB/s"),
    (1 / 8, "as if bandwidths were in Gbit/s"),
)
"""What a bandwidth by size and time is of the printed one, if a unit is another."""


def contradiction(op: str, ranks: int, row: Row) -> str | None:
    """Why the row cannot be true; None if it can."""
    return _size(op, ranks, row) or _bandwidths(op, ranks, row)


def telling(row: Row) -> bool:
    """Whether its bandwidth has digits enough to show a wrong unit."""
    return row.algbw > 0 and float(_rounding(row.algbw) / row.algbw) < TELLING


def _size(op: str, ranks: int, row: Row) -> str | None:
    if row.type not in ITEMSIZE:
        return f"type {row.type}: how many bytes an element has is not known; known are {', '.join(ITEMSIZE)}"
    if not row.size:
        return "moves nothing: fewer elements than ranks"
    parts, each = (ranks if op in COUNTED_BY_RANK else 1), ITEMSIZE[row.type]
    if row.size == row.elements * each * parts:
        return None
    times = f" x {parts} ranks" if parts > 1 else ""
    hint = "; elements given as bytes?" if row.size == row.elements and each > 1 else ""
    return f"size {row.size} B is not count {row.elements} x {each} B{times} = {row.elements * each * parts} B{hint}"


def _bandwidths(op: str, ranks: int, row: Row) -> str | None:
    time = row.microseconds
    if not time > 0:
        return f"time {time} us is not above 0"
    moved = (traffic.algbw(op, row.size, 1.0) or 0.0), (traffic.busbw(op, ranks, row.size, 1.0) or 0.0)
    for name, printed, count in zip(("algbw", "busbw"), (row.algbw, row.busbw), moved, strict=True):
        low, right, high = (count / 1e3 / float(one) for one in (time + _rounding(time), time, time - _rounding(time)))
        least, most = float(printed - _rounding(printed)), float(printed + _rounding(printed))
        if most < low * (1 - SLACK) or least > high * (1 + SLACK):
            return f"{name} {printed} GB/s, but {row.size} B in {time} us are {right:.4g} GB/s{_hint(printed, right)}"
    return None


def _rounding(printed: Decimal) -> Decimal:
    """Half a unit of the last digit."""
    exponent = printed.as_tuple().exponent
    return Decimal(1).scaleb(exponent) / 2 if isinstance(exponent, int) else Decimal(0)


def _hint(printed: Decimal, right: float) -> str:
    if not right or not printed:
        return ""
    ratio = right / float(printed)
    near = [text for mistake, text in MISTAKES if abs(ratio / mistake - 1) < TELLING]
    return f", {near[0]}" if near else ""

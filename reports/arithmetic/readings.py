"""When a printed figure agrees with a computed one, and what its unit must mean for that."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from reports.finding import Verdict
from specs.units import ITEMSIZE

BF16 = ITEMSIZE["bf16"]
TOLERANCE = 0.03
"""Relative difference that passes for rounding: the note prints two or three digits."""


class Reading(NamedTuple):
    """One meaning of MB and GB.

    Attributes:
        verdict: on a claim whose figures are right in this meaning.
        words: the meaning, to open a condition.
        unit_bytes: bytes that one MB and one GB then stand for.
    """

    verdict: Verdict
    words: str
    unit_bytes: Mapping[str, int]


class Size(NamedTuple):
    """A figure as printed, `said` in `unit`, beside the bytes that were found."""

    said: float
    unit: Literal["MB", "GB"]
    found: float


PRINTED = Reading("HOLDS", "right as printed", {"MB": 10**6, "GB": 10**9})
OTHERS = (
    Reading("HOLDS_IF", "right if MB means MiB and GB means GiB", {"MB": 2**20, "GB": 2**30}),
    Reading("HOLDS_IF", "right if MB means 1,000 KiB and GB 1,000 MiB", {"MB": 1000 * 2**10, "GB": 1000 * 2**20}),
    Reading("REFUTED", "the note takes bf16 elements for bytes", {"MB": BF16 * 10**6, "GB": BF16 * 10**9}),
)
NEITHER = Reading("REFUTED", "no reading of the note's unit gives its figure", {})


def agrees(said: float, found: float, tolerance: float = TOLERANCE) -> bool:
    """Whether `said` lies within `tolerance`, a share of one, of `found`; both in the same unit."""
    return abs(said - found) <= tolerance * abs(found)


def read(*sizes: Size) -> Reading:
    """What MB and GB must mean for all sizes to agree: as printed if that does, else whichever comes closest."""

    def off(reading: Reading) -> float:
        return max(abs(size.said * reading.unit_bytes[size.unit] / size.found - 1) for size in sizes)

    if off(PRINTED) <= TOLERANCE:
        return PRINTED
    return min((reading for reading in OTHERS if off(reading) <= TOLERANCE), key=off, default=NEITHER)


def text(size_bytes: float) -> str:
    """Bytes in decimal MB or GB, to four digits."""
    factor, symbol = (1e9, "GB") if size_bytes >= 1e9 else (1e6, "MB")
    return f"{size_bytes / factor:.4g} {symbol}"

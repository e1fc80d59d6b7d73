"""Numbers for people: one unit and one count of decimals for a whole column."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, log10
from statistics import median

NONE = "–"
"""Stands where there is no number."""


@dataclass(frozen=True)
class Quantity:
    """Units that rise by a thousand, and the most decimals worth showing."""

    steps: tuple[tuple[float, str], ...]
    most_decimals: int


SECONDS = Quantity(((1e-9, "ns"), (1e-6, "us"), (1e-3, "ms"), (1.0, "s")), most_decimals=3)
BYTES_PER_SECOND = Quantity(((1e9, "GB/s"),), most_decimals=2)
FLOPS_PER_SECOND = Quantity(((1e9, "GFLOP/s"), (1e12, "TFLOP/s")), most_decimals=2)


@dataclass(frozen=True)
class Scale:
    """A unit and how many decimals its column has."""

    factor: float
    symbol: str
    decimals: int

    def __call__(self, value: float | None) -> str:
        """The value without its unit; `NONE` for none and for nought; a small one keeps two digits at least."""
        if not value:
            return NONE
        number = value / self.factor
        return f"{number:,.{max(self.decimals, _decimals(number, 2))}f}"


def scale(quantity: Quantity, values: Iterable[float | None]) -> Scale:
    """The largest unit in which the middle value reads at least 1, with three digits for the least value."""
    present = [value for value in values if value] or [quantity.steps[-1][0]]
    middle = median(present) * (1 + 1e-9)
    factor, symbol = max((step for step in quantity.steps if step[0] <= middle), default=quantity.steps[0])
    return Scale(factor, symbol, min(quantity.most_decimals, _decimals(min(present) / factor, 3)))


def one(quantity: Quantity, value: float) -> str:
    """A single value with its unit."""
    fitting = scale(quantity, [value])
    return f"{fitting(value)} {fitting.symbol}"


def microseconds(seconds: float | None) -> str:
    """A time in microseconds to three digits or more: 5.23, 52.3, 52,300."""
    return digits(seconds * 1e6) if seconds else NONE


def digits(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:,.{_decimals(value, 3)}f}"


def percent(share: float | None) -> str:
    """A share of one to two digits or more: 0.07%, 4.2%, 97%, 104%."""
    if share is None:
        return NONE
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}" if share >= 0.00995 else f"{share:.2%}"


def ratio(value: float) -> str:
    """A ratio to three decimals, and a small one to three digits."""
    return f"{value:.{max(3, _decimals(value, 3))}f}"


def width(share: float | None) -> str:
    """Half-width of an interval; past 100 % its size says nothing more."""
    return ">100%" if share is not None and share > 1 else percent(share)


def span(low: float, high: float) -> str:
    """Two ratios to one decimal, or one where they read the same."""
    return "–".join(dict.fromkeys((f"{low:.1f}", f"{high:.1f}")))


def counted(count: int, what: str) -> str:
    """1 token, 2 tokens."""
    return f"{count} {what}{'s' * (count != 1)}"


def decimal_bytes(count: float) -> str:
    """A message or an amount of traffic to four digits: 57,344 B, 4.698 GB."""
    for factor, symbol in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= factor:
            return f"{count / factor:,.4g} {symbol}"
    return f"{count:,.0f} B"


def _decimals(number: float, digits: int) -> int:
    """Decimals that show so many significant digits; none below the point are needed for large numbers."""
    return max(0, digits - 1 - floor(log10(number) + 1e-9))

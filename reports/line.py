"""A line through times over bytes: t = alpha + bytes / rate, and how sure its two terms are.

Times span decades, so errors count in proportion: least squares of log t. Written t = alpha (1 + bytes / half), with
`half` the bytes that take twice the latency, alpha follows from half, and one unknown is left to search for. A term
that is nowhere more than a hundredth of the time is not told apart from nothing, and is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, log
from statistics import median

from specs import statistics
from specs.statistics import Passes

NOTHING_SAID = 10
"""Factor either way beyond which an interval is left out."""
SEEN = 0.01
"""Share of the time that a term has to have somewhere."""
STEPS = 400
"""Places of `half` that are tried before the best of them is refined."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """alpha in seconds, and bytes a second; None where the times do not show it."""

    alpha: float | None
    rate: float | None

    def at(self, count: float) -> float:
        """Seconds that it says for so many bytes."""
        return (self.alpha or 0.0) + (count / self.rate if self.rate else 0.0)


@dataclass(frozen=True)
class Fitted:
    """A line and how sure it is.

    Attributes:
        line: its two terms.
        alpha, rate: 95 % intervals, or ranges, of the terms.
        source: where the intervals come from: `6 passes`, or `leaving out a size` where there is one figure a size.
        worst: the largest |time / line − 1|: a large one says that the model does not hold.
    """

    line: Line
    alpha: Interval | None
    rate: Interval | None
    source: str | None
    worst: float


def through(passes: Mapping[int, Passes]) -> Fitted:
    """Fit a line to the times of each number of bytes, and to each pass alone for the intervals."""
    middle = {size: statistics.pooled_median(one) for size, one in passes.items()}
    line = _solve(middle)
    again, source = _again(passes, middle)
    return Fitted(
        line=line,
        alpha=interval(line.alpha, [one.alpha for one in again], source),
        rate=interval(line.rate, [one.rate for one in again], source),
        source=source,
        worst=max(abs(time / line.at(size) - 1) for size, time in middle.items()),
    )


def _again(passes: Mapping[int, Passes], middle: Mapping[int, float]) -> tuple[list[Line], str | None]:
    """The line fitted to each pass that all sizes have; to single figures, without each size in turn."""
    if all(sum(map(len, one)) == 1 for one in passes.values()):
        without = [{size: time for size, time in middle.items() if size != left_out} for left_out in middle]
        return [_solve(rest) for rest in without], "leaving out a size"
    count = min(map(len, passes.values()))
    if count < 2:
        return [], None
    lines = [_solve({size: median(one[number]) for size, one in passes.items()}) for number in range(count)]
    return lines, f"{count} passes"


def interval(value: float | None, found: Sequence[float | None], source: str | None) -> Interval | None:
    """Student's t on the logarithms over passes, around the value; of figures with one left out, their range.

    None too where it is so wide, as that of two passes on a busy machine, that it says nothing.
    """
    seen = [one for one in found if one is not None]
    if value is None or source is None or len(seen) < len(found):
        return None
    if source == "leaving out a size":
        return min(seen), max(seen)
    factor = 1 + statistics.half_width([(one,) for one in seen])
    return (value / factor, value * factor) if factor < NOTHING_SAID else None


def _solve(seconds: Mapping[int, float]) -> Line:
    return _line(tuple(seconds.items()))


@cache
def _line(times: tuple[tuple[int, float], ...]) -> Line:
    """The least squares of log t over `half`, between the ends where a term would vanish."""
    import numpy as np
    from scipy.optimize import minimize_scalar  # most commands can do without

    sizes, logs = np.array([size for size, _ in times], float), np.log([time for _, time in times])

    def misfit(log_half: float) -> float:
        return float(np.var(logs - np.log1p(sizes / exp(log_half))))

    low, high = log(SEEN * float(sizes.min())), log(float(sizes.max()) / SEEN)
    tried = np.linspace(low, high, STEPS)
    best = int(np.argmin(np.var(logs[:, None] - np.log1p(sizes[:, None] / np.exp(tried)), axis=0)))
    around = float(tried[max(best - 1, 0)]), float(tried[min(best + 1, STEPS - 1)])
    half = exp(float(minimize_scalar(misfit, bounds=around, method="bounded", options={"xatol": 1e-9}).x))
    alpha = exp(float(np.mean(logs - np.log1p(sizes / half))))
    alpha_seen, rate_seen = half > 1.01 * exp(low), half < exp(high) / 1.01
    if not alpha_seen:
        return Line(None, exp(float(np.mean(np.log(sizes) - logs))))
    return Line(alpha, half / alpha) if rate_seen else Line(exp(float(np.mean(logs))), None)

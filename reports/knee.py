"""Where the time of a linear stops being flat: the roofline's corner, as the times show it.

t(m) = max(a, c·m) + o over m tokens: a streams the weights, c·m computes, and o is what a launch costs however little
it does. Three parameters cannot be told apart from times alone (o hides in a as well as in c·m), so o is given: the
launch latency of the same run, or for published times a stated constant with a range. The knee is a / c tokens.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

FLAT = 1 / 4
"""Up to this share of the ridge the time is the weights': points there give a."""
STEEP = 4
"""From this many times the ridge on the time is the arithmetic's: points there give c."""
LEAST = 2
"""Points that each side needs."""
GROWN = 1.25
"""The model-free knee: tokens from which on the time stays above this many times that of one token."""
CLIFF = 1.1
"""One more token that costs more than this is a cliff: a tile was opened for it."""


@dataclass(frozen=True)
class Overhead:
    """What a launch costs in seconds, and how far that is certain."""

    seconds: float
    low: float
    high: float


PUBLISHED = Overhead(1.5e-6, 0.5e-6, 2.5e-6)
"""Inside a graph, without quantising: the smallest such GEMM of the published tables takes 1.5 to 2.5 us as a whole."""


@dataclass(frozen=True)
class Knee:
    """A fit in tokens, with the range that other choices of o and leaving out any one point lead to."""

    tokens: float
    low: float
    high: float


def fit(seconds: Mapping[int, float], ridge: float, overhead: Overhead) -> Knee | None:
    """The knee of times by tokens; None where the sweep ends too early on either side.

    Args:
        seconds: median times by tokens.
        ridge: tokens at which the roofline's two sides meet.
        overhead: o of the model.
    """
    best = _fit(seconds, ridge, overhead.seconds)
    if not best:
        return None
    tried = [_fit(seconds, ridge, choice) for choice in (overhead.low, overhead.high)]
    tried += [_fit(_without(seconds, tokens), ridge, overhead.seconds) for tokens in seconds]
    found = [best, *(one for one in tried if one is not None)]
    return Knee(best, min(found), max(found))


class Grown(NamedTuple):
    """Tokens from which on the time stays above a limit, on a straight line between the points below and above it."""

    tokens: float
    below: int
    above: int


def grown(seconds: Mapping[int, float], factor: float = GROWN) -> Grown | None:
    """Where the time comes to stay above `factor` times that of the fewest tokens; None if it never does."""
    tokens = sorted(seconds)
    limit = factor * seconds[tokens[0]]
    below = [count for count in tokens if seconds[count] <= limit]
    last = below[-1]
    if last == tokens[-1]:
        return None
    after = tokens[bisect_left(tokens, last) + 1]
    return Grown(last + (after - last) * (limit - seconds[last]) / (seconds[after] - seconds[last]), last, after)


def cliffs(seconds: Mapping[int, float]) -> dict[int, float]:
    """Tokens after which a single one more costs over a tenth of the time, and how many times the time it takes."""
    steps = {m: seconds[m + 1] / seconds[m] for m in sorted(seconds) if m + 1 in seconds}
    return {tokens: step for tokens, step in steps.items() if step > CLIFF}


def _fit(seconds: Mapping[int, float], ridge: float, overhead: float) -> float | None:
    """The knee a / c; nought where o may be all of the flat time; None where a side has too few points."""
    flat = [time - overhead for tokens, time in seconds.items() if tokens <= max(1.0, FLAT * ridge)]
    steep = [(time - overhead) / tokens for tokens, time in seconds.items() if tokens >= STEEP * ridge]
    if min(len(flat), len(steep)) < LEAST or median(steep) <= 0:
        return None
    return max(0.0, median(flat)) / median(steep)


def _without(seconds: Mapping[int, float], tokens: int) -> dict[int, float]:
    return {count: time for count, time in seconds.items() if count != tokens}


def merged(knees: Sequence[Knee]) -> Knee:
    """The middle knee of several series, and the range of them all."""
    return Knee(median(one.tokens for one in knees), min(k.low for k in knees), max(k.high for k in knees))

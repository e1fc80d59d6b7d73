"""The fastest of many candidates by successive halving: a first look at all of them, the last few timed in full."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from statistics import fmean
from typing import Generic, NamedTuple, TypeVar

from kernels.timing.cuda import CudaTimer, Look
from kernels.timing.device import Device
from kernels.timing.host import Call

LOOKS = ((2, 8), (6, 3))
"""Replays of a look at each candidate, and how many of them are kept after it: a look costs a tenth of samples."""
SHARE = 0.25
"""Part of a visit's time for each candidate that is left."""

C = TypeVar("C")


class Found(NamedTuple, Generic[C]):
    """The fastest, how many were timed in full beside it, and how many could be used at all."""

    best: C
    timed: int
    right: int


class Halving(Generic[C]):
    """A search among candidates.

    Args:
        candidates: in the order of their promise.
        check: raises where a candidate is wrong or cannot run.
        name: what a failure calls a candidate.

    Attributes:
        failures: a line for each that cannot be used.
    """

    def __init__(self, candidates: Sequence[C], check: Callable[[C], object], name: Callable[[C], str]) -> None:
        self._candidates, self._check, self._name = candidates, check, name
        self.failures: list[str] = []

    def first(self) -> C | None:
        """The first that is right, untimed; None where none is."""
        return next((one for one in self._candidates if self._did(one, self._check)), None)

    def fastest(self, device: Device, calls: Callable[[C], Sequence[Call]]) -> Found[C] | None:
        """The one with the least mean of those timed in full; None where none can be used.

        Args:
            device: where they run.
            calls: a candidate's calls, in turn through cold copies.
        """
        looks: dict[C, Look] = {}

        def look(one: C) -> None:
            self._check(one)
            looks[one] = Look(calls(one))

        for one in self._candidates:
            self._did(one, look)
        means: dict[C, float] = {}

        def time(one: C) -> None:
            timer = CudaTimer(device, "graph")
            timer.warm_up(calls(one), min(means.values(), default=None))
            means[one] = fmean(timer.sample(SHARE).seconds)

        for one in self._ranked(looks):
            if len(means) < LOOKS[-1][1]:
                self._did(one, time)
        return Found(min(means, key=means.__getitem__), len(means), len(looks)) if means else None

    def _ranked(self, looks: Mapping[C, Look]) -> list[C]:
        """By promise: each further look orders what the one before has kept; the others stay behind them."""
        ranked, kept = list(looks), len(looks)
        for replays, left in LOOKS:
            if kept <= LOOKS[-1][1]:
                break
            seconds = {one: self._looked(one, looks[one], replays) for one in ranked[:kept]}
            ranked[:kept] = sorted(seconds, key=seconds.__getitem__)
            kept = min(kept, left)
        return ranked

    def _looked(self, one: C, look: Look, replays: int) -> float:
        found = [inf]
        self._did(one, lambda _: found.append(look.seconds(replays)))
        return found[-1]

    def _did(self, one: C, do: Callable[[C], object]) -> bool:
        """Whether it did without an error: whatever one candidate raises, another may do."""
        try:
            do(one)
        except Exception as error:
            self.failures.append(f"{self._name(one)}: {type(error).__name__}: {error}".split("\n")[0])
            return False
        return True

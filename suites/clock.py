"""The benchmark timer that lets pytest-benchmark show samples taken by another clock.

pytest-benchmark can only time Python calls with its timer. Device time is measured elsewhere, and then
replayed: while `replay` runs, the timer tells virtual time and each call of `tick` moves it on by one sample.
At all other times it tells real time, because pytest-benchmark calibrates itself with it.
"""

import time
from collections.abc import Sequence
from typing import Any


class DeviceClock:
    """Host seconds, or the samples of a finished measurement while they are replayed."""

    __name__ = "device_clock"  # what pytest-benchmark's header and files call the timer

    def __init__(self) -> None:
        self._virtual: float | None = None

    def __call__(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.perf_counter() if self._virtual is None else self._virtual

    def replay(self, benchmark: Any, samples: Sequence[float]) -> None:
        """Make `benchmark` record exactly `samples`, in seconds."""
        pending = iter(samples)

        def rewind() -> None:  # differences of an ever growing time would lose the samples' last digits
            self._virtual = 0.0

        def tick() -> None:
            self._virtual = next(pending)

        self._virtual = 0.0

        try:
            benchmark.pedantic(tick, setup=rewind, rounds=len(samples), iterations=1)
        finally:
            self._virtual = None


device_clock = DeviceClock()

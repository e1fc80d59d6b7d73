"""Benchmark timer that replays the samples of another clock.

pytest-benchmark can only time Python calls with its timer. Device time is measured elsewhere and then replayed: during
`replay` the timer gives virtual time, and each call of `tick` advances it by one sample. At all other times it gives
real time, because pytest-benchmark calibrates itself with it.
"""

import time
from collections.abc import Sequence
from typing import Any


class ReplayTimer:
    """Timer of host seconds, or of the samples of a measurement during a replay."""

    __name__ = "device_clock"  # name of the timer in pytest-benchmark's header and files

    def __init__(self) -> None:
        self._virtual: float | None = None

    def __call__(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.perf_counter() if self._virtual is None else self._virtual

    def replay(self, benchmark: Any, samples: Sequence[float]) -> None:
        """Make `benchmark` record exactly `samples`, in seconds."""
        pending = iter(samples)

        def rewind() -> None:  # differences of growing times would lose the samples' last digits
            self._virtual = 0.0

        def tick() -> None:
            self._virtual = next(pending)

        self._virtual = 0.0

        try:
            benchmark.pedantic(tick, setup=rewind, rounds=len(samples), iterations=1)
        finally:
            self._virtual = None


device_clock = ReplayTimer()

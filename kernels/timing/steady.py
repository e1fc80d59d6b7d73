"""The SM clock before samples: load the GPU until its clock holds still, because an idle GPU runs far below it.

A GPU takes tens of milliseconds of load to reach its clock. Each reading is taken while work is queued: the clock of
an idle GPU says nothing about a sample.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

STEADY = 0.01
"""Relative difference of two readings up to which the clock has not moved."""
LEAST_SECONDS, MOST_SECONDS = 0.05, 0.1
"""Load before the samples of a GPU whose clock is not known to be up: the least, and the most that is waited for it."""
IDLE_SECONDS = 0.5
"""Time without load after which the clock may have fallen."""
MOST_CHUNKS = 200
"""Chunks that are queued at most, however short they turn out."""
CHUNK_SECONDS = 3e-3
"""Load between two readings: three chunks, two of them read, make 9 ms of load for a GPU that is warm."""


class Load(NamedTuple):
    """One reading under load: whether clocks are held back (None where nothing tells), and figures by name."""

    throttled: bool | None
    figures: dict[str, float] | None

    @property
    def sm_mhz(self) -> float | None:
        """SM clock in MHz; None without NVML."""
        return self.figures.get("sm_mhz") if self.figures else None


class SteadyClock:
    """The SM clock of this process's GPU: the highest steady reading so far, and when the GPU was last under load."""

    def __init__(self) -> None:
        self._best: float | None = None
        self._loaded_at: float | None = None

    @property
    def warm(self) -> bool:
        """Whether the GPU was under load a moment ago."""
        return self._loaded_at is not None and time.monotonic() - self._loaded_at < IDLE_SECONDS

    def settle(self, queue: Callable[[], object], read: Callable[[], Load]) -> Load:
        """Queue chunks of load, one ahead of each reading, until the clock is steady or `MOST_SECONDS` have passed.

        Returns the last reading; the last chunk may still run.

        Args:
            queue: queues about `CHUNK_SECONDS` of load on the current stream.
            read: reads the GPU at this moment.
        """
        warm, begin, ahead, chunks = self.warm, _mark(), _queued(queue), 1
        last: float | None = None
        while True:
            done, ahead, chunks = ahead, _queued(queue), chunks + 1
            done.synchronize()
            load = read()
            loaded_seconds = begin.elapsed_time(done) / 1000
            if chunks >= MOST_CHUNKS or self._up(last, load.sm_mhz, loaded_seconds, warm=warm):
                break
            last = load.sm_mhz
        if load.sm_mhz is not None:
            self._best = max(self._best or 0.0, load.sm_mhz)
        self.note_load()
        return load

    def note_load(self) -> None:
        """Note that the GPU has been under load until now."""
        self._loaded_at = time.monotonic()

    def _up(self, last: float | None, now: float | None, loaded_seconds: float, *, warm: bool) -> bool:
        """Whether samples may begin after this reading and the one before."""
        if now is None:
            return warm or loaded_seconds >= LEAST_SECONDS
        if loaded_seconds >= MOST_SECONDS:
            return True
        if last is None or moved(last, now):
            return False
        known = warm and self._best is not None and not moved(self._best, now)
        return known or loaded_seconds >= LEAST_SECONDS


def moved(before: float | None, after: float | None) -> bool:
    """Whether two readings in MHz differ by more than `STEADY`; False where one is unknown."""
    return before is not None and after is not None and abs(after - before) > STEADY * before


def _queued(queue: Callable[[], object]) -> torch.cuda.Event:
    """Queue a chunk; returns the event behind it."""
    queue()
    return _mark()


def _mark() -> torch.cuda.Event:
    mark = torch.cuda.Event(enable_timing=True)
    mark.record()
    return mark

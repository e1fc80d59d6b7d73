"""What a rank did and when: one row for each segment, taken by the device's clock as it runs.

On a CPU a segment lies between two readings of perf_counter, which are the same clock for all processes of a host. On a
GPU it lies between two CUDA events on its stream, which are read when all is over and laid on the host's clock by an
event at which both were read.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from suites import ranges

Call = Callable[[], object]
Row = tuple[str, Any, Any, int, int]
"""Kind, start, end, step, slot."""
ANCHORS = 8
START = "start"
"""A moment, not a while: all ranks have passed a barrier."""


class Trace(Protocol):
    """Is told the segments of a walk."""

    def run(self, kind: str, step: int, slot: int, call: Call) -> None:
        """Call, and note from when to when."""

    def mark(self, kind: str, step: int, slot: int) -> None:
        """Note a moment."""


class Clock(Trace, Protocol):
    """Takes them down."""

    name: str

    def begin(self) -> None:
        """Forget the last walk."""

    def rows(self, ahead_seconds: float) -> dict[str, list[Any]]:
        """Columns of the rows; `ahead_seconds` is how far this host's clock is ahead of rank 0's."""


class Shown:
    """Takes nothing down: each segment becomes an NVTX range instead, which a timeline shows by its name.

    Args:
        question, number: of the case.
    """

    def __init__(self, question: str, number: int) -> None:
        self._question, self._number = question, number

    def run(self, kind: str, step: int, slot: int, call: Call) -> None:  # noqa: ARG002 - there is one step
        """In a range."""
        with ranges.mark(f"{kind} {slot}", self._question, self._number):
            call()

    def mark(self, kind: str, step: int, slot: int) -> None:
        """A moment has no range."""


class Taken:
    """Rows of a walk, each with what `now` reads: seconds, or an event that tells them later."""

    def __init__(self, now: Callable[[], Any]) -> None:
        self._now = now
        self._rows: list[Row] = []

    def begin(self) -> None:
        """Forget the last walk."""
        self._rows = []

    def run(self, kind: str, step: int, slot: int, call: Call) -> None:
        """Two readings around the call, on a GPU around what it queues."""
        start = self._now()
        call()
        self._rows.append((kind, start, self._now(), step, slot))

    def mark(self, kind: str, step: int, slot: int) -> None:
        """One reading."""
        now = self._now()
        self._rows.append((kind, now, now, step, slot))

    def _columns(self, seconds: Callable[[Any], float]) -> dict[str, list[Any]]:
        return {
            "kind": [row[0] for row in self._rows],
            "start": [seconds(row[1]) for row in self._rows],
            "end": [seconds(row[2]) for row in self._rows],
            "step": [row[3] for row in self._rows],
            "slot": [row[4] for row in self._rows],
        }


class HostTrace(Taken):
    """perf_counter."""

    name = "perf_counter"

    def __init__(self) -> None:
        super().__init__(time.perf_counter)

    def rows(self, ahead_seconds: float) -> dict[str, list[Any]]:
        """As they were read."""
        return self._columns(lambda read: read - ahead_seconds)


class CudaTrace(Taken):
    """CUDA events on the current stream; they are used again in the next walk, for making one takes long."""

    name = "cuda_event"

    def __init__(self) -> None:
        super().__init__(self._record)
        self._events: list[torch.cuda.Event] = []
        self._used = 0
        self._zero, self._read = torch.cuda.Event(enable_timing=True), 0.0

    def begin(self) -> None:
        """Forget the last walk, and read both clocks at one moment.

        Of several tries the quickest counts: a host that is held up in between reads its own clock too late.
        """
        super().begin()
        self._used = 0
        torch.cuda.synchronize()
        tries = [self._both() for _ in range(ANCHORS)]
        _, self._read, self._zero = min(tries, key=lambda one: one[0])

    def _both(self) -> tuple[float, float, torch.cuda.Event]:
        """How long it took to record an event on an idle device, the middle of that, and the event."""
        event, before = torch.cuda.Event(enable_timing=True), time.perf_counter()
        event.record()
        event.synchronize()
        after = time.perf_counter()
        return after - before, (before + after) / 2, event

    def rows(self, ahead_seconds: float) -> dict[str, list[Any]]:
        """When the device is done."""
        torch.cuda.synchronize()
        zero = self._read - ahead_seconds
        return self._columns(lambda event: zero + self._zero.elapsed_time(event) / 1000)

    def _record(self) -> torch.cuda.Event:
        if self._used == len(self._events):
            self._events.append(torch.cuda.Event(enable_timing=True))
        event = self._events[self._used]
        self._used += 1
        event.record()
        return event

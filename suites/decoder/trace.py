"""Trace of a rank: one row per segment, timed by the device's clock.

On a CPU a segment lies between two readings of perf_counter, which all processes of a host share. On a GPU it lies
between two CUDA events on its stream. They are read at the end and mapped to the host's clock by an anchor event, at
which both clocks were read.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from specs.measurement import COMPUTE_ITEMS
from suites import nvtx

# Offset of a host's clock from rank 0's, which puts events of different ranks in order
#
# Processes of one host share perf_counter on Linux, so their offset is 0. Ranks on other hosts query rank 0 repeatedly:
# it reads its clock between the question and the answer, so half the round trip of the fastest exchange bounds the
# error.

CLOCK_SYNC_ROUNDS = 40


def clock_offset(rank: int, ranks: int, host: str, now: Callable[[], float] = time.perf_counter) -> float:
    """Seconds by which this host's clock is ahead of rank 0's.

    All ranks must call it, with torch.distributed's default group initialised.

    Args:
        rank: rank of this process.
        ranks: number of ranks.
        host: digest that identifies this host.
        now: the clock.
    """
    mark = torch.tensor([int(host[:15], 16)], dtype=torch.int64)
    marks = [torch.empty_like(mark) for _ in range(ranks)]
    dist.all_gather(marks, mark)
    found = 0.0
    for other in range(1, ranks):
        if int(marks[other]) != int(marks[0]) and rank in (0, other):
            found = _serve_clock(other, now) if rank == 0 else _query_clock(now)
    return found


def _serve_clock(other: int, now: Callable[[], float]) -> float:
    question = torch.empty(1)
    for _ in range(CLOCK_SYNC_ROUNDS):
        dist.recv(question, other)
        dist.send(torch.tensor([now()], dtype=torch.float64), other)
    return 0.0


def _query_clock(now: Callable[[], float]) -> float:
    question, answer, tries = torch.zeros(1), torch.empty(1, dtype=torch.float64), []
    for _ in range(CLOCK_SYNC_ROUNDS):
        sent = now()
        dist.send(question, 0)
        dist.recv(answer, 0)
        came = now()
        tries.append((came - sent, (sent + came) / 2 - float(answer)))
    return min(tries)[1]


Call = Callable[[], object]
SegmentRow = tuple[str, Any, Any, int, int]
"""Kind, start, end, step, microbatch."""
ANCHOR_TRIES = 8


class Tracer(Protocol):
    """Receiver of the segments of a run."""

    def run(self, kind: str, step: int, slot: int, call: Call) -> None:
        """Run the call and record its start and end."""

    def mark(self, kind: str, step: int, slot: int) -> None:
        """Record an instant."""


class TraceRecorder(Tracer, Protocol):
    """Tracer that keeps the segments."""

    name: str

    def begin(self) -> None:
        """Forget the previous run."""

    def columns(self, ahead_seconds: float) -> dict[str, list[Any]]:
        """Columns of the trace; times are less `ahead_seconds`, the host's clock offset."""


class NvtxTracer:
    """Tracer that keeps nothing: each segment becomes an NVTX range with its name.

    Args:
        question, number: question and number of the case.
    """

    def __init__(self, question: str, number: int) -> None:
        self._question, self._number = question, number

    def run(self, kind: str, step: int, slot: int, call: Call) -> None:  # noqa: ARG002 - there is one step
        """Run the call in an NVTX range."""
        with nvtx.annotate(f"{kind} {slot}", self._question, self._number):
            call()

    def mark(self, kind: str, step: int, slot: int) -> None:
        """Do nothing: an instant has no range."""


class SegmentRecorder:
    """Segments of a run, timed by `now`: seconds, or events read later."""

    def __init__(self, now: Callable[[], Any]) -> None:
        self._now = now
        self._rows: list[SegmentRow] = []

    def begin(self) -> None:
        """Forget the previous run."""
        self._rows = []

    def run(self, kind: str, step: int, slot: int, call: Call) -> None:
        """Read the clock before and after the call; on a GPU, around its queued work."""
        start = self._now()
        call()
        self._rows.append((kind, start, self._now(), step, slot))

    def mark(self, kind: str, step: int, slot: int) -> None:
        """Read the clock once."""
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


class HostTraceRecorder(SegmentRecorder):
    """Recorder with perf_counter."""

    name = "perf_counter"

    def __init__(self) -> None:
        super().__init__(time.perf_counter)

    def columns(self, ahead_seconds: float) -> dict[str, list[Any]]:
        """Columns in seconds of rank 0's clock."""
        return self._columns(lambda read: read - ahead_seconds)


class CudaTraceRecorder(SegmentRecorder):
    """Recorder with CUDA events on the current stream.

    The next run reuses the events, because creating one is slow.
    """

    name = "cuda_event"

    def __init__(self) -> None:
        super().__init__(self._record)
        self._events: list[torch.cuda.Event] = []
        self._used = 0
        self._zero, self._read = torch.cuda.Event(enable_timing=True), 0.0

    def begin(self) -> None:
        """Forget the previous run, and read both clocks at one instant.

        The fastest of several tries counts: a delayed host reads its own clock too late.
        """
        super().begin()
        self._used = 0
        torch.cuda.synchronize()
        tries = [self._read_anchor() for _ in range(ANCHOR_TRIES)]
        _, self._read, self._zero = min(tries, key=lambda one: one[0])

    def _read_anchor(self) -> tuple[float, float, torch.cuda.Event]:
        """Seconds to record an event on an idle device, their midpoint, and the event."""
        event, before = torch.cuda.Event(enable_timing=True), time.perf_counter()
        event.record()
        event.synchronize()
        after = time.perf_counter()
        return after - before, (before + after) / 2, event

    def columns(self, ahead_seconds: float) -> dict[str, list[Any]]:
        """Columns in seconds of rank 0's clock, after the device is done."""
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


# Trace that a rank sends after a run, in the clock that all ranks share

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

ALL_REDUCE, RECV, SEND, START = "all-reduce", "recv", "send", "start"
KINDS = (*COMPUTE_ITEMS, ALL_REDUCE, RECV, SEND, START)
"""Kinds of segments.

all-reduce: from entry to exit. recv: from the start of the wait to the arrival. send: posting a ready message. start:
the instant after a barrier.
"""


class RankTrace(NamedTuple):
    """Segments of one rank, in order of time.

    Attributes:
        kind: index of each segment's kind in `KINDS`.
        start, end: seconds.
        step: step number from 0, including warm-up steps.
        slot: microbatch number; -1 for a start.
    """

    kind: Ints
    start: Floats
    end: Floats
    step: Ints
    slot: Ints

    def select(self, *kinds: str) -> "RankTrace":
        """Return only segments of these kinds."""
        rows = np.isin(self.kind, [KINDS.index(kind) for kind in kinds])
        return RankTrace(self.kind[rows], self.start[rows], self.end[rows], self.step[rows], self.slot[rows])


def parse_trace(rank: int, columns: Mapping[str, Any]) -> RankTrace:
    """Parse the trace that a rank sent.

    Raises:
        RuntimeError: an unknown kind of segment, or columns of unequal length.
    """
    codes = {kind: code for code, kind in enumerate(KINDS)}
    if unknown := set(columns["kind"]) - set(codes):
        raise RuntimeError(f"rank {rank} traced segments of unknown kind: {', '.join(sorted(unknown))}")
    kind = np.array([codes[kind] for kind in columns["kind"]], np.int64)
    start, end = (np.array(columns[name], np.float64) for name in ("start", "end"))
    step, slot = (np.array(columns[name], np.int64) for name in ("step", "slot"))
    if len({len(kind), len(start), len(end), len(step), len(slot)}) > 1:
        raise RuntimeError(f"rank {rank} sent a trace whose columns are of unequal length")
    return RankTrace(kind, start, end, step, slot)

"""What a rank did and when: one row for each segment, taken by the device's clock as it runs.

On a CPU a segment lies between two readings of perf_counter, which are the same clock for all processes of a host. On a
GPU it lies between two CUDA events on its stream, which are read when all is over and laid on the host's clock by an
event at which both were read.
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

# How far a host's clock is ahead of rank 0's host's: what happened on two ranks can then be put in an order.
#
# Processes of one host share perf_counter on Linux, so nothing is asked there. Between hosts rank 0 is asked for its
# time again and again: it reads its clock after the question was sent and before the answer came, so half the round
# trip of the quickest exchange bounds the error.

CLOCK_SYNC_ROUNDS = 40


def clock_offset(rank: int, ranks: int, host: str, now: Callable[[], float] = time.perf_counter) -> float:
    """Seconds; every rank has to call it, with the default group of torch.distributed there.

    Args:
        rank: this one of how many.
        ranks: how many.
        host: what tells this host from others.
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
"""Kind, start, end, step, slot."""
ANCHOR_TRIES = 8
TRACE_START = "start"
"""A moment, not a while: all ranks have passed a barrier."""


class Tracer(Protocol):
    """Is told the segments of a walk."""

    def run(self, kind: str, step: int, slot: int, call: Call) -> None:
        """Call, and note from when to when."""

    def mark(self, kind: str, step: int, slot: int) -> None:
        """Note a moment."""


class TraceRecorder(Tracer, Protocol):
    """Takes them down."""

    name: str

    def begin(self) -> None:
        """Forget the last walk."""

    def columns(self, ahead_seconds: float) -> dict[str, list[Any]]:
        """Columns of the rows; `ahead_seconds` is how far this host's clock is ahead of rank 0's."""


class NvtxTracer:
    """Takes nothing down: each segment becomes an NVTX range instead, which a timeline shows by its name.

    Args:
        question, number: of the case.
    """

    def __init__(self, question: str, number: int) -> None:
        self._question, self._number = question, number

    def run(self, kind: str, step: int, slot: int, call: Call) -> None:  # noqa: ARG002 - there is one step
        """In a range."""
        with nvtx.annotate(f"{kind} {slot}", self._question, self._number):
            call()

    def mark(self, kind: str, step: int, slot: int) -> None:
        """A moment has no range."""


class SegmentRecorder:
    """Rows of a walk, each with what `now` reads: seconds, or an event that tells them later."""

    def __init__(self, now: Callable[[], Any]) -> None:
        self._now = now
        self._rows: list[SegmentRow] = []

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


class HostTraceRecorder(SegmentRecorder):
    """perf_counter."""

    name = "perf_counter"

    def __init__(self) -> None:
        super().__init__(time.perf_counter)

    def columns(self, ahead_seconds: float) -> dict[str, list[Any]]:
        """As they were read."""
        return self._columns(lambda read: read - ahead_seconds)


class CudaTraceRecorder(SegmentRecorder):
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
        tries = [self._read_anchor() for _ in range(ANCHOR_TRIES)]
        _, self._read, self._zero = min(tries, key=lambda one: one[0])

    def _read_anchor(self) -> tuple[float, float, torch.cuda.Event]:
        """How long it took to record an event on an idle device, the middle of that, and the event."""
        event, before = torch.cuda.Event(enable_timing=True), time.perf_counter()
        event.record()
        event.synchronize()
        after = time.perf_counter()
        return after - before, (before + after) / 2, event

    def columns(self, ahead_seconds: float) -> dict[str, list[Any]]:
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


# What a rank sends after a walk: when each of its segments began and ended, by a clock that all ranks share.

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

ALL_REDUCE, RECV, SEND, START = "all-reduce", "recv", "send", "start"
KINDS = (*COMPUTE_ITEMS, ALL_REDUCE, RECV, SEND, START)
"""all-reduce: from entry to exit. recv: from when the rank begins to wait until the message is there. send: posting it,
from when the message was ready. start: the moment after a barrier."""


class RankTrace(NamedTuple):
    """Segments of one rank, in order of time.

    Attributes:
        kind: of each segment, its place in `KINDS`.
        start, end: in seconds.
        step: that it belongs to, from 0 on, steps that only warm up included.
        slot: the micro-batch; -1 of a start.
    """

    kind: Ints
    start: Floats
    end: Floats
    step: Ints
    slot: Ints

    def select(self, *kinds: str) -> "RankTrace":
        """Segments of these kinds alone."""
        rows = np.isin(self.kind, [KINDS.index(kind) for kind in kinds])
        return RankTrace(self.kind[rows], self.start[rows], self.end[rows], self.step[rows], self.slot[rows])


def parse_trace(rank: int, columns: Mapping[str, Any]) -> RankTrace:
    """The trace as it came over the wire.

    Raises:
        RuntimeError: it has a kind of segment that there is not, or columns of unequal length.
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

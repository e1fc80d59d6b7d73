"""All-reduce behind a linear on one rank: set up, check, and time each call from the linear's end.

A call is this rank's part of a row-parallel linear, then the all-reduce of its output. The clock is read when the
linear has ended and when the all-reduce has ended. On a CPU both readings are perf_counter's. On a GPU they are CUDA
events on the stream; in a graph they are nodes of it, which every replay records anew. A pair of events also holds
their own cost, about 1 us on a GPU.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import count
from math import isnan, nan, sqrt
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist

from comm.backend import Backend, Communicator, World
from kernels.kernel import Inputs, Kernel
from kernels.registry import select_linear
from kernels.timing.device import COLD_FACTOR, Device
from kernels.timing.host import gc_disabled
from kernels.timing.pool import TensorPool
from specs.journal import CALL_RANGE, UNTIMED_RANGE
from specs.units import ITEMSIZE
from suites import nvtx
from suites.workers.process import CollectiveTask

LINEAR = "torch"
"""Implementation of the linear: the library's GEMM."""

Thunk = Callable[[], object]
Capture = Callable[[Thunk], Thunk]
"""Function that gives a call in the form in which it is timed: a graph's replay, or the call itself."""


class InStepRound(NamedTuple):
    """Seconds of the calls of one round on this rank.

    Attributes:
        all_reduces: from the start of each all-reduce to its end; it starts when the linear, and the delay, have ended.
        delays: delay behind each linear; empty for a rank that is not delayed.
        call_seconds: seconds per call, with the linear.
    """

    all_reduces: list[float]
    delays: list[float]
    call_seconds: float


class InStepTimer(Protocol):
    """Timer of calls that follow a linear."""

    name: str

    def rounds(
        self, linear: Thunk, all_reduce: Thunk, barrier: Thunk, late_seconds: float, calls: int, rounds: int
    ) -> list[InStepRound]:
        """Run `rounds` rounds of a barrier and `calls` calls, and return their times.

        One more call comes first in each round and is not returned: its ranks start from the barrier, not from an
        all-reduce.
        """

    def prepare(self, call: Thunk) -> Thunk:
        """Return the call in the form in which it is timed."""


class HostInStepTimer:
    """Timer with perf_counter, for calls that return when their work is done."""

    name = "perf_counter"

    def rounds(
        self, linear: Thunk, all_reduce: Thunk, barrier: Thunk, late_seconds: float, calls: int, rounds: int
    ) -> list[InStepRound]:
        """Read the clock between linear and all-reduce; a late rank spins until its delay is over."""
        found = []
        with gc_disabled():
            for _ in range(rounds):
                barrier()
                found.append(_summarise(self._round(linear, all_reduce, late_seconds, calls + 1), late_seconds))
        return found

    def prepare(self, call: Thunk) -> Thunk:
        """Return the call unchanged."""
        return call

    def _round(
        self, linear: Thunk, all_reduce: Thunk, late_seconds: float, calls: int
    ) -> list[tuple[float, float, float]]:
        now, marks = time.perf_counter, []
        for _ in range(calls):
            linear()
            computed = started = now()
            if late_seconds:
                while (started := now()) < computed + late_seconds:
                    pass
            all_reduce()
            marks.append((computed, started, now()))
        return marks


EventTriple = tuple[torch.cuda.Event, torch.cuda.Event, torch.cuda.Event]
"""Events at the linear's end, at the all-reduce's start, and at its end."""
CALIBRATION_CYCLES = 2_000_000
"""Cycles of the spin from which the clock's rate is learnt: about 1 ms."""


class CudaInStepTimer:
    """Timer with CUDA events in the stream of the calls.

    Args:
        capture: captures a round in a graph and returns its replay; returns the round itself if launched eagerly.
    """

    name = "cuda_event"

    def __init__(self, capture: Capture) -> None:
        self.prepare = capture
        self._cycles_per_second: float | None = None
        self._captured: dict[int, tuple[Thunk, list[EventTriple]]] = {}

    def rounds(
        self, linear: Thunk, all_reduce: Thunk, barrier: Thunk, late_seconds: float, calls: int, rounds: int
    ) -> list[InStepRound]:
        """Record events around each all-reduce; on a late rank a kernel spins before it.

        The events are read after every round, because the next round records them anew.
        """
        if calls not in self._captured:
            self._captured[calls] = self._round(linear, all_reduce, late_seconds, calls + 1)
        run, events = self._captured[calls]
        found = []
        for _ in range(rounds):
            barrier()
            run()
            torch.cuda.synchronize()
            first = events[0][0]
            marks = [tuple(first.elapsed_time(event) / 1000 for event in one) for one in events]
            found.append(_summarise(marks, late_seconds))
        return found

    def _round(
        self, linear: Thunk, all_reduce: Thunk, late_seconds: float, calls: int
    ) -> tuple[Thunk, list[EventTriple]]:
        cycles = self._cycles(late_seconds) if late_seconds else 0
        events = [
            (computed, _event() if cycles else computed, _event()) for computed in (_event() for _ in range(calls))
        ]

        def play() -> None:
            for computed, started, ended in events:
                linear()
                computed.record()
                if cycles:
                    torch.cuda._sleep(cycles)
                    started.record()
                all_reduce()
                ended.record()

        return self.prepare(play), events

    def _cycles(self, seconds: float) -> int:
        """Cycles that a kernel spins for these seconds; the events tell how long it really took."""
        if self._cycles_per_second is None:
            for _ in range(2):  # the first spin raises the clock
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                torch.cuda._sleep(CALIBRATION_CYCLES)
                end.record()
                torch.cuda.synchronize()
                self._cycles_per_second = CALIBRATION_CYCLES / (start.elapsed_time(end) / 1000)
        return max(1, round(seconds * (self._cycles_per_second or 0.0)))


def _event() -> torch.cuda.Event:
    """Event that a captured graph records on every replay."""
    return torch.cuda.Event(enable_timing=True, external=True)


def _summarise(marks: list[Any], late_seconds: float) -> InStepRound:
    """Times of all calls but the first, from the moments (linear's end, all-reduce's start, its end)."""
    timed = marks[1:]
    return InStepRound(
        [ended - started for _, started, ended in timed],
        [started - computed for computed, started, _ in timed] if late_seconds else [],
        (marks[-1][2] - marks[0][2]) / len(timed),
    )


class LinearInputs:
    """Inputs of the linears of one rank: weights that no cache holds when they are read again.

    Ranks of a CPU share its last-level cache and its memory, so each holds its part of the cold weights.

    Args:
        device: device of the rank.
        world: the ranks.
    """

    def __init__(self, device: Device, world: World) -> None:
        sharing = world.local_ranks if world.kind == "cpu" else 1
        self._device = replace(device, llc_bytes=max(1, device.cold_bytes // sharing // COLD_FACTOR))
        self._window: dict[str, int] = {}
        self._pool: TensorPool | None = None

    def draw(self, kernel: Kernel, *, tokens: int, n: int, k: int, dtype: str) -> list[Inputs]:
        """Inputs of successive calls: one x, and as many copies of the weight as leave it cold."""
        size = n * k * ITEMSIZE[dtype]
        if self._pool is None or size > self._window.get(dtype, 0):
            self._window[dtype] = size
            self._pool = TensorPool(self._device, self._window)
        self._pool.reset()
        copies = self._device.cold_copies(size)
        return [kernel.inputs(self._pool, tokens=tokens, n=n, k=k, dtype=dtype) for _ in range(copies)]


def gather_partials(partial_sum: torch.Tensor) -> list[torch.Tensor]:
    """Gather a tensor of every rank in host memory, over the group that all ranks joined at the start."""
    every = [torch.empty_like(partial_sum) for _ in range(dist.get_world_size())]
    dist.all_gather(every, partial_sum)
    return every


CHECK_ELEMENTS = 2**20
"""Elements of the result that ranks gather at a time, in float64."""


class LinearAllReduceCase:
    """All-reduce of a linear's output on this rank.

    The linear writes the message anew in every call, so an all-reduce in place does not multiply it.

    Args:
        task: message, width of the linear's inputs, and delay.
        backend, communicator: library, and its connection, that carries the message.
        inputs: inputs of the linear.
        timer: timer of the calls.
        label: name, question and number of the case, for its NVTX ranges.
        gather: gathers a float64 tensor of all ranks for the check.
    """

    def __init__(
        self,
        task: CollectiveTask,
        backend: Backend,
        communicator: Communicator,
        inputs: LinearInputs,
        timer: InStepTimer,
        label: Mapping[str, Any],
        gather: Callable[[torch.Tensor], list[torch.Tensor]] = gather_partials,
    ) -> None:
        self._task, self._communicator, self.timer, self.label = task, communicator, timer, label
        self._gather = gather
        tokens = task.elements // task.row
        self._kernel = select_linear(LINEAR, tokens)
        drawn = inputs.draw(self._kernel, tokens=tokens, n=task.row, k=task.k or 0, dtype=task.dtype)
        self._message = communicator.buffer(task.elements, task.dtype)
        in_place = "all_reduce" in backend.in_place
        self._out = self._message if in_place else communicator.buffer(task.elements, task.dtype)
        self._inputs = [{**one, "out": self._message.view(tokens, task.row)} for one in drawn]
        self._linears = [self._kernel.call(one) for one in self._inputs]
        self._turn = count()

    @property
    def copies(self) -> int:
        """Copies of the weight that calls rotate through."""
        return len(self._linears)

    @property
    def late_seconds(self) -> float:
        """Delay of this rank: the last one is late, if any."""
        world = self._communicator.world
        return self._task.late_seconds if world.rank == world.ranks - 1 else 0.0

    def check(self, _: int) -> float:
        """Largest relative error of two calls on two weights, the second as it is timed; NaN if unwritten."""
        first, last = 0, self.copies - 1
        errors = [self._check_once(partial(self._call, first), first, shown=True)]
        errors.append(self._check_once(self.timer.prepare(partial(self._call, last)), last))
        return nan if any(map(isnan, errors)) else max(errors)

    def sample(self, calls: int, rounds: int) -> list[InStepRound]:
        """Times of `calls` calls in each round."""
        return self.timer.rounds(self._next_linear, self._all_reduce, self._barrier, self.late_seconds, calls, rounds)

    def call_count(self, calls: int, rounds: int) -> int:
        """Calls that `sample` makes, including the first of each round."""
        return (calls + 1) * rounds

    def _next_linear(self) -> None:
        self._linears[next(self._turn) % len(self._linears)]()

    def _all_reduce(self) -> None:
        self._communicator.all_reduce(self._message, self._out)

    def _call(self, copy: int) -> None:
        self._linears[copy]()
        self._all_reduce()

    def _barrier(self) -> None:
        with self._range(UNTIMED_RANGE):
            self._communicator.barrier()

    def _check_once(self, call: Thunk, copy: int, *, shown: bool = False) -> float:
        """Error of one call; only a check's first call is traced."""
        self._message.fill_(nan)
        self._out.fill_(nan)
        self._communicator.barrier()
        with self._range(CALL_RANGE) if shown else nullcontext():
            call()
        if self._communicator.world.kind != "cpu":
            torch.cuda.synchronize()
        return self._relative_error(self._inputs[copy])

    def _relative_error(self, inputs: Inputs) -> float:
        """Compare with the sum of all ranks' own products in float64."""
        own = self._kernel.reference(inputs["x"], inputs["weight"])
        if isinstance(own, tuple):
            raise TypeError(f"{self._kernel.name} has several results")
        wrong = whole = 0.0
        parts = zip(own.flatten().split(CHECK_ELEMENTS), self._out.split(CHECK_ELEMENTS), strict=True)
        for part, found in parts:
            right = torch.stack(self._gather(part.cpu())).sum(0)
            wrong += float(torch.sum((found.cpu().double() - right) ** 2))
            whole += float(torch.sum(right**2))
        return sqrt(wrong / whole)

    def _range(self, name: str) -> AbstractContextManager[None]:
        return nvtx.annotate(name, self.label["question"], self.label["number"])

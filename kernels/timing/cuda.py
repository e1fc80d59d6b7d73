"""Device time on a GPU: CUDA events around graph replays, or around calls launched one by one.

A sample is t = (T(2n) − T(n)) / n, where T(n) is the time between events around n calls. What it costs to start a
graph, or to begin launching, is in both and drops out. Graph samples are queued behind untimed replays, which bring the
SM clock up. So the host runs ahead, and no gap of its making lies between two events. For eager calls nothing is
queued ahead: where the host is slower than the device, that is what they are there to show.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import cycle, islice, pairwise
from math import ceil
from statistics import median
from typing import NamedTuple

import torch

from kernels.timing.device import Device, read_load
from kernels.timing.host import MAX_ROUNDS, Call, TimerSamples, gc_disabled

# The SM clock before samples: load the GPU until its clock holds still, because an idle GPU runs far below it.
#
# A GPU takes tens of milliseconds of load to reach its clock. Each reading is taken while work is queued: the clock of
# an idle GPU says nothing about a sample.

STEADY_TOLERANCE = 0.01
"""Relative difference of two readings up to which the clock has not moved."""
MIN_LOAD_SECONDS, MAX_LOAD_SECONDS = 0.05, 0.1
"""Load before the samples of a GPU whose clock is not known to be up: the least, and the most that is waited for it."""
IDLE_SECONDS = 0.5
"""Time without load after which the clock may have fallen."""
MAX_CHUNKS = 200
"""Chunks that are queued at most, however short they turn out."""
CHUNK_SECONDS = 3e-3
"""Load between two readings: three chunks, two of them read, make 9 ms of load for a GPU that is warm."""


class LoadReading(NamedTuple):
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

    def settle(self, queue: Callable[[], object], read: Callable[[], LoadReading]) -> LoadReading:
        """Queue chunks of load, one ahead of each reading, until the clock is steady or `MOST_SECONDS` have passed.

        Returns the last reading; the last chunk may still run.

        Args:
            queue: queues about `CHUNK_SECONDS` of load on the current stream.
            read: reads the GPU at this moment.
        """
        warm, begin, ahead, chunks = self.warm, _record_event(), _queue_chunk(queue), 1
        last: float | None = None
        while True:
            done, ahead, chunks = ahead, _queue_chunk(queue), chunks + 1
            done.synchronize()
            load = read()
            loaded_seconds = begin.elapsed_time(done) / 1000
            if chunks >= MAX_CHUNKS or self._is_steady(last, load.sm_mhz, loaded_seconds, warm=warm):
                break
            last = load.sm_mhz
        if load.sm_mhz is not None:
            self._best = max(self._best or 0.0, load.sm_mhz)
        self.note_load()
        return load

    def note_load(self) -> None:
        """Note that the GPU has been under load until now."""
        self._loaded_at = time.monotonic()

    def _is_steady(self, last: float | None, now: float | None, loaded_seconds: float, *, warm: bool) -> bool:
        """Whether samples may begin after this reading and the one before."""
        if now is None:
            return warm or loaded_seconds >= MIN_LOAD_SECONDS
        if loaded_seconds >= MAX_LOAD_SECONDS:
            return True
        if last is None or moved(last, now):
            return False
        known = warm and self._best is not None and not moved(self._best, now)
        return known or loaded_seconds >= MIN_LOAD_SECONDS


def moved(before: float | None, after: float | None) -> bool:
    """Whether two readings in MHz differ by more than `STEADY`; False where one is unknown."""
    return before is not None and after is not None and abs(after - before) > STEADY_TOLERANCE * before


def _queue_chunk(queue: Callable[[], object]) -> torch.cuda.Event:
    """Queue a chunk; returns the event behind it."""
    queue()
    return _record_event()


def _record_event() -> torch.cuda.Event:
    mark = torch.cuda.Event(enable_timing=True)
    mark.record()
    return mark


PROBE_CALLS = 16
MIN_ROUNDS = 3
HOLD_SECONDS, HOLD_CYCLES = 2e-3, 4_000_000
"""Time at 2 GHz of a kernel that only waits behind eager calls: NVML takes less to read the clock."""
QUICK_CALLS = 32
UntimedContext = Callable[[], AbstractContextManager[None]]
PROCESS_CLOCK = SteadyClock()
"""Of this process: the next visit knows which clock the GPU reaches."""


class CudaTimer:
    """Times calls on torch's current stream.

    Args:
        device: gives a sample's span and a visit's time.
        launch: graph (calls are captured once and replayed) or eager.
        between: opened around load that no sample is made of, so that a trace does not take it for calls of the case.
    """

    clock = "cuda_event"

    def __init__(self, device: Device, launch: str, between: UntimedContext = nullcontext) -> None:
        self._device, self._between = device, between
        self.calls_made = 0
        self._uses_graph = launch == "graph"
        self._runner = self._graph_runner if launch == "graph" else self._eager_runner

    def warm_up(self, calls: Sequence[Call], expected: float | None) -> None:
        """Compile and allocate (impossible during capture), learn a call's time, then size the samples."""
        self._call_cycle = cycle(calls)
        self._launch(3)
        with gc_disabled():
            self._call_seconds = expected or self._probe(max(len(calls), PROBE_CALLS))
        # Whole turns, so that the long graph does not end on what the short one begins with.
        self._calls = ceil(self._device.limits.span_seconds / self._call_seconds / len(calls)) * len(calls)
        self._short, self._long = self._runner(self._calls), self._runner(2 * self._calls)

    def sample(self, share: float) -> TimerSamples:
        """Samples one behind the other at a steady clock, which is read under load before the first and after the last.

        Where the clock moved in between they are taken once more; `moved` says that it moved then too. A clock that is
        held back moves all the time, and is not tried again. A hiccup of the host between two eager launches can make
        T(n) longer than T(2n): such samples are left out, and for each of them the longest, since as many hiccups fall
        into T(2n).

        Raises:
            RuntimeError: 2n calls took no longer than n in most samples.
        """
        wanted = share * self._device.limits.visit_seconds / (3 * self._calls * self._call_seconds)
        rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, int(wanted)))
        with gc_disabled():
            sampled = self._take_samples(rounds)
            if sampled.throttled or not sampled.moved:
                return sampled
            again = self._take_samples(rounds)
        return replace(again, calls_made=sampled.calls_made + again.calls_made)

    def _take_samples(self, rounds: int) -> TimerSamples:
        torch.cuda.synchronize()
        before = self._settle()
        after: list[LoadReading] = []
        spans = _event_milliseconds([self._short, self._long] * rounds, self._tail, lambda: after.append(_read_gpu()))
        PROCESS_CLOCK.note_load()
        pairs = zip(spans[::2], spans[1::2], strict=True)
        seconds = tuple((long - short) / 1000 / self._calls for short, long in pairs)
        if median(seconds) <= 0:
            raise RuntimeError(f"{2 * self._calls} calls took no longer than {self._calls}: {median(seconds)} s a call")
        return TimerSamples(
            _drop_hiccups(seconds),
            self._calls,
            _any_throttled(before.throttled, after[0].throttled),
            _telemetry(before, after[0]),
            calls_made=3 * rounds * self._calls,
            moved=moved(before.sm_mhz, after[0].sm_mhz),
        )

    def _settle(self) -> LoadReading:
        """Load the GPU until its clock is steady; returns the last reading.

        Graph samples follow the last chunk without a gap. Eager ones begin on an idle stream, else the host would be
        ahead of the device in the first of them and in no other.
        """
        wanted = CHUNK_SECONDS - (0.0 if self._uses_graph else HOLD_SECONDS)
        shorts = max(1, round(wanted / (self._calls * self._call_seconds)))
        turn = iter(((self._long, *[self._short] * (shorts - 2)),))  # a graph's first replay uploads it

        def chunk() -> None:
            for part in next(turn, [self._short] * shorts):
                part()
            if not self._uses_graph:
                torch.cuda._sleep(HOLD_CYCLES)

        with self._between():
            load = PROCESS_CLOCK.settle(chunk, _read_gpu)
            if not self._uses_graph:
                torch.cuda.synchronize()
        return load

    def _tail(self) -> None:
        """Keep the GPU busy behind the last sample while its clock is read."""
        with self._between():
            if self._uses_graph:
                self._short()
            else:
                torch.cuda._sleep(HOLD_CYCLES)

    def _probe(self, count: int) -> float:
        """Seconds a call, at the clock of the samples: at an idle GPU's they would be made too short."""
        probe = self._runner(count)
        probe()
        seconds = _event_milliseconds([probe])[0] / 1000
        if not PROCESS_CLOCK.warm:
            PROCESS_CLOCK.settle(partial(_repeat, probe, max(1, round(CHUNK_SECONDS / seconds))), _read_gpu)
            seconds = _event_milliseconds([probe])[0] / 1000
        return seconds / count

    def _launch(self, count: int) -> None:
        self.calls_made += count
        for call in islice(self._call_cycle, count):
            call()

    def _eager_runner(self, count: int) -> Call:
        return partial(self._launch, count)

    def _graph_runner(self, count: int) -> Call:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._launch(count)
        return graph.replay


class QuickTiming:
    """A first look at what a call takes: one small graph replayed a few times, its start within the time.

    It tells slow from fast for a tenth of what samples cost, and only among looks at as many calls.

    Args:
        calls: what to time, in turn; the first `LOOK_CALLS` of them, called before so that all is compiled.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self._count = min(len(calls), QUICK_CALLS)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            for call in calls[: self._count]:
                call()
        self._graph.replay()  # the first replay uploads it

    def seconds(self, replays: int) -> float:
        """The shortest of so many replays, in seconds a call; the clock of a GPU that was idle is brought up first."""
        with gc_disabled():
            if not PROCESS_CLOCK.warm:
                once = _event_milliseconds([self._graph.replay])[0] / 1000
                PROCESS_CLOCK.settle(
                    partial(_repeat, self._graph.replay, max(1, round(CHUNK_SECONDS / once))), _read_gpu
                )
            spans = _event_milliseconds([self._graph.replay] * replays)
        PROCESS_CLOCK.note_load()
        return min(spans) / 1000 / self._count


def _drop_hiccups(seconds: Sequence[float]) -> tuple[float, ...]:
    """What is a time, less as many of the longest as were none: a mean of what is merely positive is too long."""
    longest = sorted(range(len(seconds)), key=lambda at: seconds[at])[len(seconds) - sum(one <= 0 for one in seconds) :]
    return tuple(one for at, one in enumerate(seconds) if one > 0 and at not in longest)


def _event_milliseconds(
    parts: Sequence[Call], tail: Call = lambda: None, meanwhile: Callable[[], object] = lambda: None
) -> list[float]:
    """Time of each part between CUDA events; `meanwhile` runs on the host when all are done and `tail` is queued."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(parts) + 1)]
    marks[0].record()
    for part, mark in zip(parts, marks[1:], strict=True):
        part()
        mark.record()
    tail()
    marks[-1].synchronize()
    meanwhile()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in pairwise(marks)]


def _repeat(part: Call, times: int) -> None:
    for _ in range(times):
        part()


def _read_gpu() -> LoadReading:
    return LoadReading(*read_load())


def _any_throttled(before: bool | None, after: bool | None) -> bool | None:
    """Whether clocks were held back at either end; None where neither tells."""
    return None if before is None and after is None else bool(before or after)


def _telemetry(before: LoadReading, after: LoadReading) -> dict[str, float] | None:
    """Figures under load behind the samples, and the SM clock at both ends."""
    if after.figures is None:
        return None
    ends = {"sm_mhz_before": before.sm_mhz, "sm_mhz_after": after.sm_mhz}
    return after.figures | {name: mhz for name, mhz in ends.items() if mhz is not None}

"""Device time on a GPU: CUDA events around graph replays or eager calls.

A sample is t = (T(2n) − T(n)) / n, where T(n) is the time between events around n calls. The start of a graph, or of
launching, is in both and cancels. Graph samples are queued after untimed replays, which raise the SM clock. The host
thus runs ahead, and causes no gap between two events. Eager calls have nothing queued ahead: where the host is slower
than the device, they are meant to show it.
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

# The SM clock before samples: load the GPU until its clock is steady, since an idle GPU runs far below it.
#
# A GPU takes tens of milliseconds of load to reach its clock. Each reading is taken while work is queued: the clock of
# an idle GPU says nothing about a sample.

STEADY_TOLERANCE = 0.01
"""Largest relative difference of two readings of a steady clock."""
MIN_LOAD_SECONDS, MAX_LOAD_SECONDS = 0.05, 0.1
"""Least and most load before samples, where the clock may still be low."""
IDLE_SECONDS = 0.5
"""Time without load after which the clock may have fallen."""
MAX_CHUNKS = 200
"""Most chunks that are queued, however short they are."""
CHUNK_SECONDS = 3e-3
"""Load between two readings.

Three chunks with two readings make 9 ms of load for a warm GPU.
"""


class LoadReading(NamedTuple):
    """One reading under load: throttled clocks, and figures by name.

    None where unknown.
    """

    throttled: bool | None
    figures: dict[str, float] | None

    @property
    def sm_mhz(self) -> float | None:
        """SM clock in MHz; None without NVML."""
        return self.figures.get("sm_mhz") if self.figures else None


class SteadyClock:
    """The SM clock of this process's GPU.

    It keeps the highest steady reading so far, and the time of the last load.
    """

    _best: float | None = None
    _loaded_at: float | None = None

    @property
    def warm(self) -> bool:
        """True where the GPU was under load a moment ago."""
        return self._loaded_at is not None and time.monotonic() - self._loaded_at < IDLE_SECONDS

    def settle(self, queue: Callable[[], object], read: Callable[[], LoadReading]) -> LoadReading:
        """Load the GPU until its clock is steady; return the last reading.

        One chunk of load is queued ahead of each reading. The wait ends after `MAX_LOAD_SECONDS`; the last chunk may
        still run.

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
        """Return whether samples may begin after this reading and the previous reading."""
        if now is None:
            return warm or loaded_seconds >= MIN_LOAD_SECONDS
        if loaded_seconds >= MAX_LOAD_SECONDS:
            return True
        if last is None or moved(last, now):
            return False
        known = warm and self._best is not None and not moved(self._best, now)
        return known or loaded_seconds >= MIN_LOAD_SECONDS


def moved(before: float | None, after: float | None) -> bool:
    """Return whether two readings in MHz differ by more than `STEADY_TOLERANCE`.

    False where one is unknown.
    """
    return before is not None and after is not None and abs(after - before) > STEADY_TOLERANCE * before


def _queue_chunk(queue: Callable[[], object]) -> torch.cuda.Event:
    """Queue a chunk; return the event after it."""
    queue()
    return _record_event()


def _record_event() -> torch.cuda.Event:
    mark = torch.cuda.Event(enable_timing=True)
    mark.record()
    return mark


PROBE_CALLS = 16
MIN_ROUNDS = 3
HOLD_SECONDS, HOLD_CYCLES = 2e-3, 4_000_000
"""Time at 2 GHz of a kernel that only waits, after eager calls.

NVML takes less time to read the clock.
"""
QUICK_CALLS = 32
UntimedContext = Callable[[], AbstractContextManager[None]]
PROCESS_CLOCK = SteadyClock()
"""Clock of this process: later visits know which clock the GPU reaches."""


class CudaTimer:
    """Timer of calls on torch's current stream.

    Args:
        device: gives a sample's span and a visit's time.
        launch: graph (calls are captured once and replayed) or eager.
        between: context around untimed load, so that a trace does not count it as calls of the case.
    """

    clock = "cuda_event"

    def __init__(self, device: Device, launch: str, between: UntimedContext = nullcontext) -> None:
        self._device, self._between = device, between
        self.calls_made = 0
        self._uses_graph = launch == "graph"
        self._runner = self._graph_runner if launch == "graph" else self._eager_runner

    def warm_up(self, calls: Sequence[Call], expected: float | None) -> None:
        """Compile and allocate, learn a call's time, then size the samples.

        Compilation and allocation are impossible during capture.
        """
        self._call_cycle = cycle(calls)
        self._launch(3)
        with gc_disabled():
            self._call_seconds = expected or self._probe(max(len(calls), PROBE_CALLS))
        # Whole turns, so that the long graph does not end on inputs that the short graph begins with.
        self._calls = ceil(self._device.limits.span_seconds / self._call_seconds / len(calls)) * len(calls)
        self._short, self._long = self._runner(self._calls), self._runner(2 * self._calls)

    def sample(self, share: float) -> TimerSamples:
        """Return consecutive samples at a steady clock.

        The clock is read under load before the first sample and after the last. Where it moved in between, the samples
        are repeated once; `moved` says that it moved again. A throttled clock moves all the time, so its samples are
        not repeated. A hiccup of the host between two eager launches can make T(n) longer than T(2n). Each such sample
        is dropped together with one longest sample, since as many hiccups fall into T(2n).

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
        """Load the GPU until its clock is steady; return the last reading.

        Graph samples follow the last chunk without a gap. Eager samples begin on an idle stream, else the host would be
        ahead of the device in the first sample only.
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
        """Keep the GPU busy after the last sample while its clock is read."""
        with self._between():
            if self._uses_graph:
                self._short()
            else:
                torch.cuda._sleep(HOLD_CYCLES)

    def _probe(self, count: int) -> float:
        """Return seconds per call at the clock of the samples.

        At an idle GPU's clock the samples would be sized too short.
        """
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
    """A quick timing: one small graph replayed a few times, with its start included.

    It tells slow from fast for a tenth of the cost of samples, and only among timings of as many calls.

    Args:
        calls: calls to time, in turn; the first `QUICK_CALLS` are used, and must have run before so that all is
            compiled.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self._count = min(len(calls), QUICK_CALLS)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            for call in calls[: self._count]:
                call()
        self._graph.replay()  # the first replay uploads it

    def seconds(self, replays: int) -> float:
        """Return the shortest of so many replays, in seconds per call.

        The clock of an idle GPU is raised first.
        """
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
    """Return positive samples, without as many of the longest as were not positive.

    A mean of all positive samples would be too long.
    """
    longest = sorted(range(len(seconds)), key=lambda at: seconds[at])[len(seconds) - sum(one <= 0 for one in seconds) :]
    return tuple(one for at, one in enumerate(seconds) if one > 0 and at not in longest)


def _event_milliseconds(
    parts: Sequence[Call], tail: Call = lambda: None, meanwhile: Callable[[], object] = lambda: None
) -> list[float]:
    """Return the time of each part between CUDA events, in milliseconds.

    `meanwhile` runs on the host once all parts are done and `tail` is queued.
    """
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
    """Return whether clocks were held back at either end; None where unknown."""
    return None if before is None and after is None else bool(before or after)


def _telemetry(before: LoadReading, after: LoadReading) -> dict[str, float] | None:
    """Return figures under load after the samples, and the SM clock at both ends."""
    if after.figures is None:
        return None
    ends = {"sm_mhz_before": before.sm_mhz, "sm_mhz_after": after.sm_mhz}
    return after.figures | {name: mhz for name, mhz in ends.items() if mhz is not None}

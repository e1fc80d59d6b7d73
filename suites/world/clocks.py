"""How long calls take that all ranks make together: each rank times its own, from a barrier on.

The slowest rank's time is the sample; the parent takes the maximum. Calls that multiply their message (an all-reduce
in place) are given fresh values before each span, outside the time.
"""

import time
from collections.abc import Callable
from typing import Protocol

import torch

from kernels.timing.host import without_collector

SPIN_SECONDS = 3e-4
"""How long before the end of an idle gap a rank stops sleeping: a scheduler wakes it up to so much too late."""

Calls = Callable[[int], object]
Step = Callable[[], object]


class Clock(Protocol):
    """Seconds a call of one rank."""

    name: str

    def spans(self, calls: Calls, fresh: Step, barrier: Step, count: int, rounds: int) -> list[float]:
        """For each round the seconds a call of `count` calls behind one another."""

    def after_gap(self, calls: Calls, fresh: Step, barrier: Step, gap_seconds: float, rounds: int) -> list[float]:
        """For each round the seconds of one call after the device and the links were idle for so long."""

    def prepared(self, call: Step) -> Step:
        """A call in the form in which it is timed."""

    def made(self, count: int, rounds: int) -> int:
        """Calls that `spans` makes, those that are not timed too."""


class HostClock:
    """perf_counter, where calls return when their work is done."""

    name = "perf_counter"

    def spans(self, calls: Calls, fresh: Step, barrier: Step, count: int, rounds: int) -> list[float]:
        """T(n) / n: a CPU has no graph whose start would have to be subtracted."""
        return [one / count for one in self._rounds(lambda: calls(count), fresh, barrier, rounds)]

    def after_gap(self, calls: Calls, fresh: Step, barrier: Step, gap_seconds: float, rounds: int) -> list[float]:
        """The ranks leave the barrier together, so they sleep and call together."""

        def idle() -> None:
            barrier()
            idle_until(time.perf_counter() + gap_seconds)

        return self._rounds(lambda: calls(1), fresh, idle, rounds)

    def prepared(self, call: Step) -> Step:
        """As it is."""
        return call

    def made(self, count: int, rounds: int) -> int:
        """All are timed."""
        return count * rounds

    def _rounds(self, timed: Step, fresh: Step, barrier: Step, rounds: int) -> list[float]:
        found = []
        with without_collector():
            for _ in range(rounds):
                fresh()
                barrier()
                start = time.perf_counter()
                timed()
                found.append(time.perf_counter() - start)
        return found


class CudaClock:
    """CUDA events around graph replays, or around calls launched one by one.

    Args:
        graph: whether calls are captured once and replayed.
    """

    name = "cuda_event"

    def __init__(self, graph: bool) -> None:
        self._graph = graph
        self._captured: dict[int, Step] = {}

    def spans(self, calls: Calls, fresh: Step, barrier: Step, count: int, rounds: int) -> list[float]:
        """(T(2n) − T(n)) / n: what starting costs is in both.

        The barrier is on the stream, so the ranks' devices start together however late a host is.
        """
        parts = [self._part(calls, count), self._part(calls, 2 * count)]
        if self._graph:
            for part in parts:  # a graph's first replay uploads it
                fresh()
                part()
        marks = []
        for _ in range(rounds):
            for part in parts:
                fresh()
                barrier()
                marks.append(_between(part))
        torch.cuda.synchronize()
        spans = [start.elapsed_time(end) / 1000 for start, end in marks]
        return [(long - short) / count for short, long in zip(spans[::2], spans[1::2], strict=True)]

    def after_gap(self, calls: Calls, fresh: Step, barrier: Step, gap_seconds: float, rounds: int) -> list[float]:
        """One call on a device that has had nothing to do: the host's launch is in it, and whoever comes last."""
        part, found = self._part(calls, 1), []
        for _ in range(rounds):
            fresh()
            barrier()
            torch.cuda.synchronize()
            idle_until(time.perf_counter() + gap_seconds)
            start, end = _between(part)
            torch.cuda.synchronize()
            found.append(start.elapsed_time(end) / 1000)
        return found

    def prepared(self, call: Step) -> Step:
        """Captured where it is replayed; nothing of it has run then."""
        if not self._graph:
            return call
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # NCCL's watchdog asks events meanwhile
            call()
        return graph.replay

    def made(self, count: int, rounds: int) -> int:
        """Of a round n and 2n, and once more where a graph is uploaded by its first replay."""
        return 3 * count * (rounds + self._graph)

    def _part(self, calls: Calls, count: int) -> Step:
        if count not in self._captured:
            self._captured[count] = self.prepared(lambda: calls(count))
        return self._captured[count]


def idle_until(deadline: float) -> None:
    """Sleep, then spin for the last moments."""
    if (left := deadline - time.perf_counter() - SPIN_SECONDS) > 0:
        time.sleep(left)
    while time.perf_counter() < deadline:
        pass


def _between(part: Step) -> tuple[torch.cuda.Event, torch.cuda.Event]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    part()
    end.record()
    return start, end

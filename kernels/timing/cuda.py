"""Device time on a GPU: CUDA events around graph replays, or around calls launched one by one.

A sample is t = (T(2n) − T(n)) / n, where T(n) is the time between events around n calls: what it costs to
start a graph, or to begin launching, is in both and drops out. Graph samples are queued behind one replay
that nobody times, so that the host runs ahead and no gap of its making lies between two events. For eager
calls nothing is queued ahead: where the host is slower than the device, that is what they are there to show.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice, pairwise
from math import ceil
from statistics import median

import torch

from kernels.timing.device import Device
from kernels.timing.host import MOST_ROUNDS, Call, Sampled
from kernels.timing.telemetry import read_load

PROBE_CALLS = 16
LEAST_ROUNDS = 3


class CudaTimer:
    """Times calls on torch's current stream.

    Args:
        device: gives a sample's span and a visit's time.
        launch: graph (calls are captured once and replayed) or eager.
    """

    clock = "cuda_event"

    def __init__(self, device: Device, launch: str) -> None:
        self._device = device
        self.made = 0
        self._ahead = launch == "graph"
        self._runner = self._captured if launch == "graph" else self._launched

    def warm_up(self, calls: Sequence[Call], expected: float | None) -> None:
        """Compile and allocate (impossible during capture), learn a call's time, then size the samples."""
        self._turn = cycle(calls)
        self._launch(3)
        self._once = expected or self._probe(max(len(calls), PROBE_CALLS))
        # Whole turns, so that the long graph does not end on what the short one begins with.
        self._calls = ceil(self._device.patience.span_seconds / self._once / len(calls)) * len(calls)
        self._short, self._long = self._runner(self._calls), self._runner(2 * self._calls)

    def sample(self, share: float) -> Sampled:
        """Samples one behind the other, with the clocks read while they run.

        A hiccup of the host between two eager launches can make T(n) longer than T(2n): such samples are left out, and
        for each of them the longest, since as many hiccups fall into T(2n).

        Raises:
            RuntimeError: 2n calls took no longer than n in most samples.
        """
        wanted = share * self._device.patience.visit_seconds / (3 * self._calls * self._once)
        rounds = min(MOST_ROUNDS, max(LEAST_ROUNDS, int(wanted)))
        torch.cuda.synchronize()
        if self._ahead:
            self._short()  # a graph's first replay uploads it
            self._long()
        load: list[tuple[bool | None, dict[str, float] | None]] = []
        spans = _milliseconds([self._short, self._long] * rounds, lambda: load.append(read_load()))
        pairs = zip(spans[::2], spans[1::2], strict=True)
        seconds = tuple((long - short) / 1000 / self._calls for short, long in pairs)
        if median(seconds) <= 0:
            raise RuntimeError(f"{2 * self._calls} calls took no longer than {self._calls}: {median(seconds)} s a call")
        ((throttled, telemetry),) = load
        made = 3 * self._calls * (rounds + self._ahead)
        return Sampled(_without_hiccups(seconds), self._calls, throttled, telemetry, made)

    def _probe(self, count: int) -> float:
        probe = self._runner(count)
        probe()
        return _milliseconds([probe])[0] / 1000 / count

    def _launch(self, count: int) -> None:
        self.made += count
        for call in islice(self._turn, count):
            call()

    def _launched(self, count: int) -> Call:
        return partial(self._launch, count)

    def _captured(self, count: int) -> Call:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._launch(count)
        return graph.replay


def _without_hiccups(seconds: Sequence[float]) -> tuple[float, ...]:
    """What is a time, less as many of the longest as were none: a mean of what is merely positive is too long."""
    longest = sorted(range(len(seconds)), key=lambda at: seconds[at])[len(seconds) - sum(one <= 0 for one in seconds) :]
    return tuple(one for at, one in enumerate(seconds) if one > 0 and at not in longest)


def _milliseconds(parts: Sequence[Call], meanwhile: Callable[[], object] = lambda: None) -> list[float]:
    """Time of each part between CUDA events; `meanwhile` runs on the host once all parts are queued."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(parts) + 1)]
    marks[0].record()
    for part, mark in zip(parts, marks[1:], strict=True):
        part()
        mark.record()
    meanwhile()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in pairwise(marks)]

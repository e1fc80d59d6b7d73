"""Timers: their samples and interface, and the timer for a CPU."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from math import ceil
from typing import NamedTuple, Protocol

import psutil

from kernels.timing.device import Device

Call = Callable[[], object]
MAX_ROUNDS = 10
"""Most samples of one case in one pass."""


@dataclass(frozen=True)
class TimerSamples:
    """Samples of one visit to a case.

    Attributes:
        seconds: samples, in seconds per call.
        calls: calls that a sample spans.
        throttled: True where clocks were held back under load; None where unknown.
        telemetry: figures read from the device under load.
        calls_made: calls made in all samples, with those of a dropped first try.
        moved: True where the SM clock differed between the two ends of the samples.
    """

    seconds: tuple[float, ...]
    calls: int
    throttled: bool | None = None
    telemetry: dict[str, float] | None = None
    calls_made: int = 0
    moved: bool = False


class Timer(Protocol):
    """A timer of calls that rotate through copies of their inputs."""

    clock: str
    calls_made: int
    """Calls made so far; the next visit continues at this turn of copies."""

    def warm_up(self, calls: Sequence[Call], expected: float | None) -> None:
        """Compile, load and allocate as a first call does, and size the samples.

        Args:
            calls: calls to time, in turn.
            expected: seconds per call in an earlier pass; None in the first pass, which learns it.
        """

    def sample(self, share: float) -> TimerSamples:
        """Take samples for `share` of a visit's time; valid after `warm_up`."""


class HostTimer:
    """perf_counter around calls that return when their work is done.

    A CPU has no graph start to subtract, so a sample is T(n) / n.
    """

    clock = "perf_counter"

    def __init__(self, device: Device) -> None:
        self._device = device
        self.calls_made = 0

    def warm_up(self, calls: Sequence[Call], expected: float | None) -> None:
        """Run a call to warm up, and in the first pass another to learn its time.

        A call that outlasts a visit needs no second call.
        """
        self._call_cycle = cycle(calls)
        with gc_disabled():
            self._call_seconds = expected or self._elapsed(1)
            if self._call_seconds < self._device.limits.visit_seconds:
                self._call_seconds = min(
                    self._call_seconds, self._elapsed(1)
                )  # a slow earlier pass must not make short samples now
        self._calls = max(1, ceil(self._device.limits.span_seconds / self._call_seconds))

    def sample(self, share: float) -> TimerSamples:
        """Return consecutive samples of at least the device's span."""
        wanted = share * self._device.limits.visit_seconds / (self._calls * self._call_seconds)
        rounds = min(MAX_ROUNDS, max(1, int(wanted)))
        before = cpu_seconds()
        with gc_disabled():
            seconds = tuple(self._elapsed(self._calls) / self._calls for _ in range(rounds))
        load = contention(before, cpu_seconds())
        return TimerSamples(seconds, self._calls, telemetry=load, calls_made=rounds * self._calls)

    def _elapsed(self, count: int) -> float:
        calls = list(islice(self._call_cycle, count))
        self.calls_made += count
        start = time.perf_counter()
        for call in calls:
            call()
        return time.perf_counter() - start


@contextmanager
def gc_disabled() -> Iterator[None]:
    """Disable Python's garbage collector, which can interrupt any call."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class CpuSeconds(NamedTuple):
    """CPU time so far: all, busy, of the run itself, and stolen by the hypervisor.

    `total` is the time of all processors.
    """

    total: float
    busy: float
    own: float
    steal: float


def cpu_seconds(others: Sequence[int] = ()) -> CpuSeconds:
    """Return the CPU time so far; `others` are further processes of the run."""
    machine, own = psutil.cpu_times(), 0.0
    for process in (None, *others):
        with suppress(psutil.Error):
            times = psutil.Process(process).cpu_times()
            own += times.user + times.system
    steal = getattr(machine, "steal", 0.0)
    idle = machine.idle + getattr(machine, "iowait", 0.0)
    return CpuSeconds(sum(machine), sum(machine) - idle - steal, own, steal)


def contention(before: CpuSeconds, after: CpuSeconds) -> dict[str, float] | None:
    """Return the shares of CPU time of other processes and other machines.

    They are the usual causes of noise.
    """
    total, busy, own, steal = (b - a for a, b in zip(before, after, strict=True))
    if total <= 0:
        return None
    return {"others_share": max(0.0, (busy - own) / total), "steal_share": max(0.0, steal / total)}

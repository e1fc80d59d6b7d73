"""The simulated device in virtual time: kernels, CUDA graphs, events, SM clock, L2 cache, throttling and faults.

Nothing here imports torch. The truth is `true_seconds`: it adds up what launches cost at the top clock. It never sees
an event, a graph start, the ramp of the clock, jitter or throttling, which is what a timer has to see through.
"""

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

GRANULE = 2**19
"""Bytes that the cache keeps or evicts together."""
STEP_MHZ = 15
"""NVML reads the SM clock in such steps."""


@dataclass(frozen=True)
class Spec:
    """Constants of the device: near an H200's, and invented where nobody has measured one.

    Attributes:
        ticks: resolution of an event, seconds.
        launch_seconds: of a kernel that follows another on the device.
        graph_start_seconds: from one graph's last kernel to the next graph's first.
        graph_upload_seconds: of each of a graph's kernels, before its first replay.
        host_*_seconds: what the host takes to ask for a kernel, an event, a graph replay, a captured kernel.
        ramp_seconds: load after which the SM clock has gone from idle to top.
        cool_seconds: idle time after which the ramp begins anew.
        kept_share: share of the L2 that keeps old lines whatever streams past.
    """

    name: str = "NVIDIA H200"
    capability: tuple[int, int] = (9, 0)
    sms: int = 132
    l2_bytes: int = 62_914_560
    memory_bytes: int = 150_754_820_096
    free_bytes: int = 149_000_000_000
    shared_bytes_per_block: int = 232_448
    dram_bytes_per_second: float = 4.2e12
    l2_bytes_per_second: float = 1.1e13
    flops_per_second: tuple[tuple[int, float], ...] = ((1, 1.5e15), (2, 7.6e14), (4, 4.0e14), (8, 6.0e13))
    launch_seconds: float = 1.8e-6
    graph_start_seconds: float = 25e-6
    graph_upload_seconds: float = 0.5e-6
    ticks: float = 0.5e-6
    host_launch_seconds: float = 6e-6
    host_event_seconds: float = 1e-6
    host_graph_seconds: float = 8e-6
    host_capture_seconds: float = 12e-6
    host_sync_seconds: float = 5e-6
    idle_mhz: float = 345.0
    top_mhz: float = 1980.0
    ramp_seconds: float = 0.05
    cool_seconds: float = 0.5
    kept_share: float = 0.25


@dataclass(frozen=True)
class Launch:
    """One kernel: (address, bytes) of what it touches, flops, bytes of an operand's element, and programs in x."""

    name: str
    touched: tuple[tuple[int, int], ...] = ()
    flops: float = 0.0
    itemsize: int = 2
    programs: int = 1


@dataclass(frozen=True)
class Weather:
    """What disturbs a run. Quiet is all zeros.

    Attributes:
        jitter: relative spread of single graph replays.
        drift: relative spread of slow changes, which a whole visit shares.
        throttled: (begin, end, MHz) in device seconds, during which a power cap holds the clock back.
        seed: of the two random parts.
    """

    jitter: float = 0.0
    drift: float = 0.0
    throttled: tuple[tuple[float, float, float], ...] = ()
    seed: int = 0


class StickyError(RuntimeError):
    """A CUDA error after which a process can do no more on the device."""


class L2:
    """Least recently used lines, but for a share that keeps what came first until it has not been used for long."""

    def __init__(self, spec: Spec) -> None:
        kept = int(spec.l2_bytes * spec.kept_share) // GRANULE
        self._sizes = (kept, spec.l2_bytes // GRANULE - kept)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._kept: dict[int, None] = {}
        self._recent: OrderedDict[int, None] = OrderedDict()

    def hits(self, touched: Iterable[tuple[int, int]]) -> tuple[float, float]:
        """(bytes found, bytes missed); all of them are in the cache afterwards, as far as they fit."""
        found = missed = 0.0
        for address, count in touched:
            first, last = address // GRANULE, (address + max(count, 1) - 1) // GRANULE
            hits = self._touch(range(first, last + 1))
            found += count * hits / (last - first + 1)
            missed += count * (1 - hits / (last - first + 1))
        return found, missed

    def _touch(self, granules: Iterable[int]) -> int:
        """How many of them were there: the innermost loop of the simulation."""
        (most_kept, most_recent), kept, recent, hits = self._sizes, self._kept, self._recent, 0
        for granule in granules:
            if granule in kept:
                hits += 1
            elif granule in recent:
                recent.move_to_end(granule)
                hits += 1
            elif len(kept) < most_kept:
                kept[granule] = None
            else:
                recent[granule] = None
                if len(recent) > most_recent:
                    recent.popitem(last=False)
        return hits


def seconds_at_top(spec: Spec, launch: Launch, cache: L2) -> float:
    """Seconds of one kernel at the top clock; the cache then holds what it touched."""
    return _seconds(spec, launch, *cache.hits(launch.touched))


def _seconds(spec: Spec, launch: Launch, hit: float, missed: float) -> float:
    rate = next(flops for itemsize, flops in spec.flops_per_second if itemsize >= launch.itemsize)
    moved = missed / spec.dram_bytes_per_second + hit / spec.l2_bytes_per_second
    return spec.launch_seconds + max(moved, launch.flops / rate)


def true_seconds(spec: Spec, calls: Sequence[Sequence[Launch]], *, cold: bool) -> float:
    """Seconds a call at the top clock when `calls` follow one another.

    Cold: no call finds its weights in the cache, as if copies without end were rotated through; the first call only
    makes the cache hold what all of them share. Otherwise the calls go round, and the second round counts.
    """
    cache, taken = L2(spec), 0.0
    if cold:
        for launch in calls[0]:
            seconds_at_top(spec, launch, cache)
        return math.fsum(seconds_at_top(spec, launch, cache) for launch in calls[1])
    for _ in range(2):
        taken = math.fsum(seconds_at_top(spec, launch, cache) for call in calls for launch in call)
    return taken / len(calls)


@dataclass
class Graph:
    """Captured launches, what a replay costs at the top clock in a known state of the cache, and whether one was."""

    launches: list[Launch] = field(default_factory=list)
    costs: dict[int, float] = field(default_factory=dict)
    uploaded: bool = False


class Gpu:
    """One device, one stream, one host thread, all in virtual seconds."""

    def __init__(self, spec: Spec, weather: Weather) -> None:
        self.spec, self.weather = spec, weather
        self.host = 0.0
        self.free_at = 0.0
        self.load = 0.0
        self.capturing: Graph | None = None
        self.sticky: str | None = None
        self.fault: Callable[[str], None] = lambda _text: None
        self.profiled: list[tuple[Launch, float, float]] | None = None
        self._traced: list[Launch] | None = None
        self._cache, self._before = L2(spec), 0
        self._random = random.Random(weather.seed)
        self._drifted, self._drift_until = 1.0, 0.0

    # ---- what the host does

    def launch(self, launch: Launch) -> None:
        """One kernel on the stream, or into the graph that is being captured."""
        if self._traced is not None:
            self._traced.append(launch)
            return
        self.check()
        if self.capturing is not None:
            self.capturing.launches.append(launch)
            self.host += self.spec.host_capture_seconds
            return
        self.host += self.spec.host_launch_seconds
        self._before = 0
        hit, missed = self._cache.hits(launch.touched)
        seconds = _seconds(self.spec, launch, hit, missed)
        if self.profiled is not None:
            self.profiled.append((launch, missed, seconds))
        self._run(seconds)

    def replay(self, graph: Graph) -> None:
        """All launches of a graph, after the time that it takes to start one."""
        self.check()
        self.host += self.spec.host_graph_seconds
        begins = max(self.free_at, self.host)
        self._idle_until(begins)
        upload = 0.0 if graph.uploaded else self.spec.graph_upload_seconds * len(graph.launches)
        self.free_at, graph.uploaded = begins + self.spec.graph_start_seconds + upload, True
        if self._before not in graph.costs or not self._before:
            graph.costs[self._before] = math.fsum(seconds_at_top(self.spec, one, self._cache) for one in graph.launches)
        cost, self._before = graph.costs[self._before], id(graph)
        self._run(cost, queued=True)

    def busy(self, seconds: float) -> None:
        """A kernel that spins for so long."""
        self.check()
        self.host += self.spec.host_launch_seconds
        self._run(seconds)

    def record(self) -> float:
        """The device time at which an event recorded now is reached."""
        self.check()
        self.host += self.spec.host_event_seconds
        return max(self.free_at, self.host)

    def elapsed(self, begin: float, end: float) -> float:
        """Seconds between two events, in whole ticks of each."""
        ticks = self.spec.ticks
        return (math.floor(end / ticks) - math.floor(begin / ticks)) * ticks

    def wait(self, until: float | None = None) -> None:
        """The host waits for a moment on the device; without one for all that is queued.

        Raises:
            StickyError: the device is lost.
            RuntimeError: a graph is being captured.
        """
        self.check()
        if self.capturing is not None:
            self.fault("the host waits for the device inside a graph capture")
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        self.host = max(self.host, self.free_at if until is None else until) + self.spec.host_sync_seconds

    def check(self) -> None:
        """Raise what a lost device answers to everything."""
        if self.sticky is not None:
            raise StickyError(self.sticky)

    @contextmanager
    def tracing(self) -> Iterator[list[Launch]]:
        """Note launches instead of running them: what a call consists of."""
        self._traced = noted = []
        try:
            yield noted
        finally:
            self._traced = None

    # ---- what NVML says

    def sm_mhz(self) -> float:
        """The SM clock at the host's moment, in NVML's steps."""
        if self.host - self.free_at > self.spec.cool_seconds:
            return self.spec.idle_mhz
        load = self.load - max(0.0, self.free_at - self.host)
        return STEP_MHZ * round(self._mhz(self.host, load) / STEP_MHZ)

    def held_back(self) -> bool:
        """Whether a power cap holds the clock back at the host's moment."""
        return any(begin <= self.host < end for begin, end, _ in self.weather.throttled)

    # ---- how time passes on the device

    def _mhz(self, at: float, load: float) -> float:
        spec = self.spec
        ramped = spec.idle_mhz + (spec.top_mhz - spec.idle_mhz) * min(1.0, max(0.0, load) / spec.ramp_seconds)
        caps = [mhz for begin, end, mhz in self.weather.throttled if begin <= at < end]
        return min([ramped, *caps])

    def _idle_until(self, moment: float) -> None:
        if moment - self.free_at > self.spec.cool_seconds:
            self.load = 0.0

    def _run(self, at_top: float, *, queued: bool = False) -> None:
        """Pass the time of work that takes `at_top` seconds at the top clock."""
        if not queued:
            begins = max(self.free_at, self.host)
            self._idle_until(begins)
            self.free_at = begins
        left = at_top * self._noise()
        steady = self.load >= self.spec.ramp_seconds and not self._throttling_ahead(left)
        while left > 0:
            # In slices while the clock moves: a tenth of the ramp, or of a millisecond where a cap begins or ends.
            mhz = self._mhz(self.free_at, self.load)
            step = left if steady else min(left, 2e-4)
            taken = step * self.spec.top_mhz / mhz
            self.free_at, self.load, left = self.free_at + taken, self.load + taken, left - step

    def _throttling_ahead(self, seconds: float) -> bool:
        most = seconds * self.spec.top_mhz / self.spec.idle_mhz
        return any(self.free_at < end and begin < self.free_at + most for begin, end, _ in self.weather.throttled)

    def _noise(self) -> float:
        weather = self.weather
        if self.free_at >= self._drift_until and weather.drift:
            self._drifted = math.exp(self._random.gauss(0, weather.drift))
            self._drift_until = self.free_at + 0.03
        return self._drifted * (math.exp(self._random.gauss(0, weather.jitter)) if weather.jitter else 1.0)

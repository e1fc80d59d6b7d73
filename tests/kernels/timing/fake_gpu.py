"""A GPU that does one thing after another behind a host that runs ahead, with an SM clock that needs load to rise."""

from contextlib import contextmanager
from functools import partial

import torch

from kernels.timing import cuda

IDLE_MHZ, FULL_MHZ = 345.0, 1980.0


class FakeGpu:
    """Time goes on only by what is done. `seen` is how far the host has waited: behind it work is still queued.

    Work takes its time at `FULL_MHZ`, and longer at a lower clock. The clock follows from seconds of load since the
    GPU was idle, through `clock`; without NVML nothing is read.

    `order` is what the GPU was given, and when it was read: call, hold (a kernel that only waits), upload (a graph's
    first replay), replay, event, read. Calls that follow one another are one entry.
    """

    def __init__(self, clock=lambda loaded: FULL_MHZ):
        self.now = self.seen = self.loaded = 0.0
        self.calls = []
        self.clock = clock
        self.held_back = lambda loaded: False
        self.nvml = True
        self.readings = []
        self.order = []

    def note(self, what):
        if self.order[-1:] != ["call"] or what != "call":
            self.order.append(what)

    def work(self, name, seconds):
        self.note("call")
        self.calls.append(name)
        self.spend(seconds)

    def hold(self, cycles):
        self.note("hold")
        self.spend(cycles / FULL_MHZ / 1e6)

    def spend(self, seconds):
        """Go through `seconds` of work at full clock, in steps over which the clock hardly moves."""
        while seconds > 0:
            mhz = self.clock(self.loaded)
            step = min(seconds * FULL_MHZ / mhz, 2e-4)
            self.now, self.loaded = self.now + step, self.loaded + step
            seconds -= step * mhz / FULL_MHZ
            if seconds < 1e-12:
                break

    def rest(self, seconds):
        """Let the GPU be idle: its clock has to rise again."""
        self.now += seconds
        self.seen, self.loaded = self.now, 0.0

    def read(self):
        self.note("read")
        if not self.nvml:
            return None, None
        assert self.seen < self.now, "read without load"
        self.readings.append(self.clock(self.loaded))
        return self.held_back(self.loaded), {"sm_mhz": self.readings[-1]}


def ramp(loaded):
    """Up in 50 ms."""
    return IDLE_MHZ + (FULL_MHZ - IDLE_MHZ) * min(1.0, loaded / 0.05)


def install(monkeypatch, machine, *, warm=True):
    """Put it in the place of torch's GPU and of NVML; `warm` says that its clock is known to be up."""

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            machine.note("event")
            self.at = machine.now

        def synchronize(self):
            machine.seen = max(machine.seen, self.at)

        def elapsed_time(self, other):
            assert max(self.at, other.at) <= machine.seen, "a time is asked for before its event has come"
            return (other.at - self.at) * 1000

    class Graph:
        START = 7e-6
        uploaded = False

        def replay(self):
            machine.note("replay" if self.uploaded else "upload")
            self.uploaded = True
            machine.now += self.START
            for call in self.captured:
                call()

    @contextmanager
    def capture(graph):
        """Run nothing, note what would run."""
        before, machine.work, graph.captured = machine.work, None, []
        machine.work = lambda *what: graph.captured.append(partial(before, *what))
        yield
        machine.work = before

    def synchronize():
        machine.seen = machine.now

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "_sleep", machine.hold)
    monkeypatch.setattr(cuda.time, "monotonic", lambda: machine.now)
    monkeypatch.setattr(cuda, "read_load", machine.read)
    clock = cuda.SteadyClock()
    monkeypatch.setattr(cuda, "PROCESS_CLOCK", clock)
    if warm:
        clock._best = FULL_MHZ
        clock.note_load()

"""The program of one rank: it does what its parent tells it, one command at a time, and says how that went.

A second thread tells the parent that the process lives and what it is doing, and ends it when the parent is gone: no
rank outlives the run.
"""

import ctypes
import hashlib
import os
import platform
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import timedelta
from functools import partial
from itertools import cycle
from math import isnan
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from comm.backend import Backend, Communicator, World
from comm.backends.all import BACKENDS
from comm.collective import Buffers, Collective, Role, fill, predictable, relative_error
from comm.collectives import COLLECTIVES
from kernels.timing.host import without_collector
from specs.errors import UserError
from specs.journal import BETWEEN, CALL, TIMED, WARM_UP
from specs.privacy import here
from suites import nvtx
from suites.decoder.worker import Desk
from suites.workers.process import BEAT_SECONDS, Task, Wire

# How long calls take that all ranks make together: each rank times its own, from a barrier on.
#
# The slowest rank's time is the sample; the parent takes the maximum. Calls that multiply their message (an all-reduce
# in place) are given fresh values before each span, outside the time.

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


# A rank at its work: it joins the others, sets a case up, checks it, and times it, each when it is told to.

Reply = dict[str, Any]
OF_MODELS = ("build", "share", "prove", "walk")
"""Commands that `suites.decoder.worker.Desk` carries out."""
SHORT = 2**20
"""Elements of messages that are checked twice: of longer ones a check takes long."""


def this_host() -> str:
    """What tells this host from another and does not give its name away: a digest of name and network card."""
    card = uuid.getnode()
    made_up = card >> 40 & 1  # where there is no card, every process is given another number, marked by this bit
    return hashlib.sha256(f"{platform.node()} {0 if made_up else card}".encode()).hexdigest()[:16]


class Stand:
    """What a rank keeps between commands: the world, its connections, and the case that is set up."""

    def __init__(self) -> None:
        self._communicators: dict[str, Communicator] = {}
        self._case: Case | None = None
        self._world: World | None = None
        self._desk: Desk | None = None

    def do(self, command: str, arguments: Reply) -> Reply:
        """Carry out a command and say what came of it."""
        doing: dict[str, Callable[..., Reply]] = {
            "join": self._join,
            "draw": self._draw,
            "check": self._check,
            "sample": self._sample,
        }
        if command in OF_MODELS:
            self._case = None  # probes and models do not share memory
            return cast("Reply", getattr(self._desk_of_models(), command)(**arguments))
        return doing[command](**arguments)

    def close(self) -> None:
        """Let go of the other ranks, which do the same."""
        self._case = None
        if self._desk:
            with suppress(Exception):
                self._desk.close()
        for communicator in self._communicators.values():
            with suppress(Exception):
                communicator.close()

    def _join(self, world: Reply, store: tuple[str, int], threads: int) -> Reply:
        torch.set_num_threads(threads)
        self._world = World(**world)
        if self._world.kind == "cuda":
            torch.cuda.set_device(self._world.device)
        limit = timedelta(seconds=self._world.timeout_seconds)
        shared = TCPStore(*store, is_master=False, timeout=limit)
        dist.init_process_group(
            "gloo" if self._world.kind == "cpu" else "cpu:gloo,cuda:nccl",
            store=PrefixStore(f"generation {self._world.generation}", shared),
            rank=self._world.rank,
            world_size=self._world.ranks,
            timeout=limit,
        )
        dist.all_reduce(torch.zeros(1))  # on the CPU: NCCL is for those cases alone that ask for it
        return {"host": this_host()}

    def _draw(self, task: Reply, copies: int, label: Reply) -> Reply:
        self._case = None  # its memory goes before the next one's comes
        asked, world = Task(**task), self._joined()
        backend = BACKENDS[asked.backend]
        if reason := backend.why_not(world):
            raise UserError(reason)
        communicator = self._connect(backend, world)
        communicator.reuse()
        self._case = Case(asked, backend, communicator, copies, label)
        return {"path": communicator.path(asked.target)}

    def _check(self, turn: int) -> Reply:
        """One call on fresh values and poisoned results, held against the reference."""
        case = self._set_up()
        with nvtx.visit(case.label, WARM_UP):
            error = case.check(turn)
        return {"error": "nan" if error is not None and isnan(error) else error}

    def _sample(self, calls: int, rounds: int) -> Reply:
        case = self._set_up()
        with nvtx.visit(case.label, TIMED):
            seconds = case.sample(calls, rounds)
            nvtx.tell(case.label["question"], case.made(calls, rounds), seconds)
        return {"seconds": seconds, "clock": case.clock.name}

    def _connect(self, backend: Backend, world: World) -> Communicator:
        if backend.name not in self._communicators:
            self._communicators[backend.name] = backend.connect(world)
        return self._communicators[backend.name]

    def _desk_of_models(self) -> Desk:
        if self._desk is None:
            self._desk = Desk(self._joined(), this_host())
        return self._desk

    def _joined(self) -> World:
        if self._world is None:
            raise UserError("told to run a case before it was told to join the others")
        return self._world

    def _set_up(self) -> "Case":
        if self._case is None:
            raise UserError("told to run a case before one was set up")
        return self._case


def _worst(errors: Sequence[float | None]) -> float | None:
    """The largest error, NaN above all; None where this rank is given nothing."""
    known = [error for error in errors if error is not None]
    return max(known, key=lambda error: (isnan(error), error), default=None)


class Case:
    """A case on this rank.

    Args:
        task: what is asked.
        backend, communicator: what carries it.
        copies: buffers that calls rotate through, so that an all-reduce in place multiplies each only so often.
        label: name, question and number of the case, for its ranges.
    """

    def __init__(
        self, task: Task, backend: Backend, communicator: Communicator, copies: int, label: Mapping[str, Any]
    ) -> None:
        self._task, self._communicator, self.label = task, communicator, label
        self._collective: Collective = COLLECTIVES[task.op]
        world = communicator.world
        self._role: Role = task.role(world, in_place=self._collective.method in backend.in_place)
        self._buffers = [self._room() for _ in range(copies)]
        self.clock: Clock = HostClock() if world.kind == "cpu" else CudaClock(task.launch == "graph")
        self._turn = cycle(self._buffers)

    def check(self, turn: int) -> float | None:
        """Relative error of one call; NaN where something was not written, None where this rank is given nothing."""
        buffers = self._buffers[0]
        call = partial(self._collective.run, self._communicator, buffers, self._role)
        errors = [self._checked(call, buffers, turn, shown=True)]
        if self._task.launch == "graph":  # compiled and connected by now, as a capture needs it
            errors.append(self._checked(self.clock.prepared(call), buffers, turn + 1))
        elif self._task.elements <= SHORT:  # a one-shot has two slots in turn
            errors.append(self._checked(call, buffers, turn + 1))
        return _worst(errors)

    def _checked(self, call: Step, buffers: Buffers, turn: int, *, shown: bool = False) -> float | None:
        """The error of one call on values that no call before has seen; a trace is shown one call and no second."""
        world = self._communicator.world
        self._fill(buffers, turn)
        self._communicator.barrier()
        with self._range(CALL) if shown else nullcontext():
            call()
        if world.kind != "cpu":
            torch.cuda.synchronize()
        return relative_error(self._collective, buffers, predictable(world.ranks, turn), self._role)

    def sample(self, calls: int, rounds: int) -> list[float]:
        """Seconds a call, for each round."""
        fresh, barrier = self._between(self._fresh), self._between(self._communicator.barrier)
        self._between(self._fill_all)()
        if self._task.gap_seconds:
            return self.clock.after_gap(self._call, fresh, barrier, self._task.gap_seconds, rounds)
        return self.clock.spans(self._call, fresh, barrier, calls, rounds)

    def made(self, calls: int, rounds: int) -> int:
        """Calls that `sample` makes, those that are not timed too."""
        return rounds if self._task.gap_seconds else self.clock.made(calls, rounds)

    def _call(self, count: int) -> None:
        run, communicator, role = self._collective.run, self._communicator, self._role
        for _ in range(count):
            run(communicator, next(self._turn), role)

    def _fresh(self) -> None:
        if self._collective.grows(self._role):
            self._fill_all()

    def _between(self, step: Step) -> Step:
        """In a range that tells it from the calls that are timed; clocks take such steps outside of their samples."""

        def shown() -> None:
            with self._range(BETWEEN):
                step()

        return shown

    def _range(self, name: str) -> AbstractContextManager[None]:
        return nvtx.mark(name, self.label["question"], self.label["number"])

    def _fill_all(self) -> None:
        for buffers in self._buffers:
            self._fill(buffers, 0)

    def _room(self) -> Buffers:
        parts = self._collective.parts(self._role)
        return {name: self._buffer(name, part.elements) for name, part in parts.items()}

    def _buffer(self, name: str, elements: int) -> torch.Tensor:
        """Room in memory that the backend can send from; a copy's target lies with the rank that is copied to."""
        if self._collective.method == "copy_to" and name == "out":
            return self._communicator.buffer_at(self._task.target, elements, self._task.dtype)
        return self._communicator.buffer(elements, self._task.dtype)

    def _fill(self, buffers: Buffers, turn: int) -> None:
        world = self._communicator.world
        for name, part in self._collective.parts(self._role).items():
            fill(buffers[name], predictable(world.ranks, turn), part.holds)


PARENT_GONE = 3
FAREWELL_SECONDS = 2.0
"""MPI wants its end told, which all ranks have to do together."""


def one_line(error: BaseException) -> str:
    """What an exception says, in a line; without this host's name, which no other host can tell for one."""
    told = here().text(" ".join(str(error).split()))
    return f"{type(error).__name__}: {told[:300]}" if told else type(error).__name__


class Pulse(threading.Thread):
    """Tells the parent once a second where the main thread is."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(daemon=True)
        self._wire, self._main = wire, threading.main_thread().ident
        self.doing = "starting"

    def run(self) -> None:
        """Until the parent is gone."""
        while self._wire.tell({"beat": self.doing, "in": self._function()}):
            threading.Event().wait(BEAT_SECONDS)
        os._exit(PARENT_GONE)

    def _function(self) -> str:
        frame: FrameType | None = sys._current_frames().get(self._main or 0)
        return frame.f_code.co_name if frame else ""


def serve(wire: Wire) -> None:
    """Do what the parent says until it says `end` or hangs up."""
    pulse, stand = Pulse(wire), Stand()
    pulse.start()
    while (command := wire.hear()) is not None and command["do"] != "end":
        pulse.doing = command["do"]
        try:
            reply = {"done": command["do"], **stand.do(command["do"], command["with"])}
        except (Exception, SystemExit) as error:  # whatever a library raises is told; the parent decides
            reply = {"failed": one_line(error), "doing": command["do"]}
        pulse.doing = "waiting"
        wire.tell({**reply, "turn": command["turn"]})
    threading.Timer(FAREWELL_SECONDS, os._exit, (0,)).start()
    stand.close()
    os._exit(0)  # what a library would still do at exit can hang when another rank is gone


def main() -> None:
    """The connection to the parent is the file descriptor in the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    if sys.platform == "linux":  # should the parent be killed together with its pipes held open elsewhere
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    serve(Wire(Connection(int(sys.argv[1]))))


if __name__ == "__main__":
    main()

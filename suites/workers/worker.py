"""Program of one rank: run the parent's commands in turn, and reply to each.

A second thread sends the parent a heartbeat and the current activity. It ends the process when the parent is gone, so
no rank outlives the run.
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
from comm.backends import BACKENDS
from comm.collective import Buffers, Collective, Role, fill_buffer, message_values, relative_error
from comm.collectives import COLLECTIVES
from kernels.timing.device import current_device
from kernels.timing.host import gc_disabled
from specs.errors import UserError
from specs.journal import CALL_RANGE, TIMED_RANGE, UNTIMED_RANGE, WARM_UP_RANGE
from specs.privacy import current_identity
from suites import nvtx
from suites.decoder.worker import ModelWorker
from suites.workers.in_step import (
    CudaInStepTimer,
    HostInStepTimer,
    InStepTimer,
    LinearAllReduceCase,
    LinearInputs,
)
from suites.workers.process import HEARTBEAT_SECONDS, CollectiveTask, MessageChannel

# Timing of calls that all ranks make together
#
# Each rank times its own calls, starting at a barrier; the parent takes the slowest rank's time. Calls that multiply
# their message (an all-reduce in place) get fresh values before each span, outside the timing.

SPIN_SECONDS = 3e-4
"""Time before a gap's end at which a rank stops sleeping: it may wake that late."""

RepeatedCall = Callable[[int], object]
Thunk = Callable[[], object]


class CallTimer(Protocol):
    """Timer of one rank's calls, in seconds per call."""

    name: str

    def seconds_per_call(
        self, calls: RepeatedCall, fresh: Thunk, barrier: Thunk, count: int, rounds: int
    ) -> list[float]:
        """Seconds per call for each round of `count` calls in a row."""

    def seconds_after_gap(
        self, calls: RepeatedCall, fresh: Thunk, barrier: Thunk, gap_seconds: float, rounds: int
    ) -> list[float]:
        """Seconds of one call, for each round, after an idle gap of device and links."""

    def prepare(self, call: Thunk) -> Thunk:
        """Return the call in the form in which it is timed."""

    def call_count(self, count: int, rounds: int) -> int:
        """Calls that `seconds_per_call` makes, including untimed calls."""


class HostCallTimer:
    """Timer with perf_counter, for calls that return when their work is done."""

    name = "perf_counter"

    def seconds_per_call(
        self, calls: RepeatedCall, fresh: Thunk, barrier: Thunk, count: int, rounds: int
    ) -> list[float]:
        """T(n) / n: a CPU has no graph launch to subtract."""
        return [one / count for one in self._rounds(lambda: calls(count), fresh, barrier, rounds)]

    def seconds_after_gap(
        self, calls: RepeatedCall, fresh: Thunk, barrier: Thunk, gap_seconds: float, rounds: int
    ) -> list[float]:
        """Seconds of one call after a gap: ranks sleep together after a barrier."""

        def idle() -> None:
            barrier()
            wait_until(time.perf_counter() + gap_seconds)

        return self._rounds(lambda: calls(1), fresh, idle, rounds)

    def prepare(self, call: Thunk) -> Thunk:
        """Return the call unchanged."""
        return call

    def call_count(self, count: int, rounds: int) -> int:
        """Calls of all rounds: all are timed."""
        return count * rounds

    def _rounds(self, timed: Thunk, fresh: Thunk, barrier: Thunk, rounds: int) -> list[float]:
        found = []
        with gc_disabled():
            for _ in range(rounds):
                fresh()
                barrier()
                start = time.perf_counter()
                timed()
                found.append(time.perf_counter() - start)
        return found


class CudaCallTimer:
    """Timer with CUDA events around graph replays, or around eager launches.

    Args:
        graph: whether calls are captured once and replayed.
    """

    name = "cuda_event"

    def __init__(self, graph: bool) -> None:
        self._graph = graph
        self._captured: dict[int, Thunk] = {}

    def seconds_per_call(
        self, calls: RepeatedCall, fresh: Thunk, barrier: Thunk, count: int, rounds: int
    ) -> list[float]:
        """(T(2n) − T(n)) / n: the start-up cost cancels.

        The barrier is on the stream, so the ranks' devices start together even if a host is late.
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
                marks.append(_record_events(part))
        torch.cuda.synchronize()
        spans = [start.elapsed_time(end) / 1000 for start, end in marks]
        return [(long - short) / count for short, long in zip(spans[::2], spans[1::2], strict=True)]

    def seconds_after_gap(
        self, calls: RepeatedCall, fresh: Thunk, barrier: Thunk, gap_seconds: float, rounds: int
    ) -> list[float]:
        """Seconds of one call on an idle device, with launch and wait for the last rank."""
        part, found = self._part(calls, 1), []
        for _ in range(rounds):
            fresh()
            barrier()
            torch.cuda.synchronize()
            wait_until(time.perf_counter() + gap_seconds)
            start, end = _record_events(part)
            torch.cuda.synchronize()
            found.append(start.elapsed_time(end) / 1000)
        return found

    def prepare(self, call: Thunk) -> Thunk:
        """Return a graph replay of the call, or the call itself; a capture runs nothing."""
        if not self._graph:
            return call
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # NCCL's watchdog queries events meanwhile
            call()
        return graph.replay

    def call_count(self, count: int, rounds: int) -> int:
        """Calls of rounds of n and 2n; with a graph, also of each first replay."""
        return 3 * count * (rounds + self._graph)

    def _part(self, calls: RepeatedCall, count: int) -> Thunk:
        if count not in self._captured:
            self._captured[count] = self.prepare(lambda: calls(count))
        return self._captured[count]


def wait_until(deadline: float) -> None:
    """Sleep, then spin for the last moments."""
    if (left := deadline - time.perf_counter() - SPIN_SECONDS) > 0:
        time.sleep(left)
    while time.perf_counter() < deadline:
        pass


def _record_events(part: Thunk) -> tuple[torch.cuda.Event, torch.cuda.Event]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    part()
    end.record()
    return start, end


# Commands of a rank: join, set up a case, check, time

Reply = dict[str, Any]
MODEL_COMMANDS = ("build", "share", "prove", "walk")
"""Commands of `suites.decoder.worker.ModelWorker`."""
SHORT_ELEMENTS = 2**20
"""Largest messages, in elements, to check twice: longer ones take long."""


def host_digest() -> str:
    """Digest of host name and network card: identifies a host without its name."""
    card = uuid.getnode()
    made_up = card >> 40 & 1  # without a card, each process gets a random number, marked by this bit
    return hashlib.sha256(f"{platform.node()} {0 if made_up else card}".encode()).hexdigest()[:16]


class RankWorker:
    """State of a rank between commands: world, connections, and current case."""

    def __init__(self) -> None:
        self._communicators: dict[str, Communicator] = {}
        self._case: CollectiveCase | LinearAllReduceCase | None = None
        self._linear_inputs: LinearInputs | None = None
        self._world: World | None = None
        self._model_worker: ModelWorker | None = None

    def execute(self, command: str, arguments: Reply) -> Reply:
        """Run a command and return its reply."""
        doing: dict[str, Callable[..., Reply]] = {
            "join": self._join,
            "draw": self._set_up_case,
            "check": self._check,
            "sample": self._sample,
            "sample_behind_linear": self._sample_behind_linear,
        }
        if command in MODEL_COMMANDS:
            self._case = self._linear_inputs = None  # probes and models do not share memory
            return cast("Reply", getattr(self._get_model_worker(), command)(**arguments))
        return doing[command](**arguments)

    def close(self) -> None:
        """Close the connections to the other ranks, which do the same."""
        self._case = None
        if self._model_worker:
            with suppress(Exception):
                self._model_worker.close()
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
        dist.all_reduce(torch.zeros(1))  # on the CPU: NCCL is only for cases that ask for it
        return {"host": host_digest()}

    def _set_up_case(self, task: Reply, copies: int, label: Reply) -> Reply:
        self._case = None  # free its memory before the next case allocates
        asked, world = CollectiveTask(**task), self._require_world()
        backend = BACKENDS[asked.backend]
        if reason := backend.why_not(world):
            raise UserError(reason)
        communicator = self._connect(backend, world)
        communicator.recycle_buffers()
        if asked.k is not None:
            return self._set_up_linear(asked, backend, communicator, label)
        self._case = CollectiveCase(asked, backend, communicator, copies, label)
        return {"path": communicator.transfer_path(asked.target)}

    def _set_up_linear(self, task: CollectiveTask, backend: Backend, communicator: Communicator, label: Reply) -> Reply:
        if self._linear_inputs is None:
            self._linear_inputs = LinearInputs(current_device(), communicator.world)
        timer: InStepTimer = HostInStepTimer()
        if communicator.world.kind != "cpu":
            timer = CudaInStepTimer(CudaCallTimer(task.launch == "graph").prepare)
        self._case = LinearAllReduceCase(task, backend, communicator, self._linear_inputs, timer, label)
        return {"copies": self._case.copies}

    def _check(self, turn: int) -> Reply:
        """Check one call on fresh values and poisoned results against the reference."""
        case = self._require_case()
        with nvtx.annotate_case(case.label, WARM_UP_RANGE):
            error = case.check(turn)
        return {"error": "nan" if error is not None and isnan(error) else error}

    def _sample(self, calls: int, rounds: int) -> Reply:
        case = self._require_case()
        if not isinstance(case, CollectiveCase):
            raise UserError("told to time a collective alone, and a linear was set up before it")
        with nvtx.annotate_case(case.label, TIMED_RANGE):
            seconds = case.sample(calls, rounds)
            nvtx.mark_timing(case.label["question"], case.call_count(calls, rounds), seconds)
        return {"seconds": seconds, "clock": case.clock.name}

    def _sample_behind_linear(self, calls: int, rounds: int) -> Reply:
        case = self._require_case()
        if not isinstance(case, LinearAllReduceCase):
            raise UserError("told to time an all-reduce behind a linear before one was set up")
        with nvtx.annotate_case(case.label, TIMED_RANGE):
            timed = case.sample(calls, rounds)
            means = [sum(one.all_reduces) / len(one.all_reduces) for one in timed]
            nvtx.mark_timing(case.label["question"], case.call_count(calls, rounds), means)
        return {"rounds": [one._asdict() for one in timed], "clock": case.timer.name}

    def _connect(self, backend: Backend, world: World) -> Communicator:
        if backend.name not in self._communicators:
            self._communicators[backend.name] = backend.connect(world)
        return self._communicators[backend.name]

    def _get_model_worker(self) -> ModelWorker:
        if self._model_worker is None:
            self._model_worker = ModelWorker(self._require_world(), host_digest())
        return self._model_worker

    def _require_world(self) -> World:
        if self._world is None:
            raise UserError("told to run a case before it was told to join the others")
        return self._world

    def _require_case(self) -> "CollectiveCase | LinearAllReduceCase":
        if self._case is None:
            raise UserError("told to run a case before one was set up")
        return self._case


def _worst_error(errors: Sequence[float | None]) -> float | None:
    """Return the largest error, NaN above all; None if this rank receives nothing."""
    known = [error for error in errors if error is not None]
    return max(known, key=lambda error: (isnan(error), error), default=None)


class CollectiveCase:
    """A collective case on this rank.

    Args:
        task: op, message and launch of the case.
        backend, communicator: library, and its connection, that carries the message.
        copies: buffers that calls rotate through, which limits how often an all-reduce in place multiplies each.
        label: name, question and number of the case, for its NVTX ranges.
    """

    def __init__(
        self, task: CollectiveTask, backend: Backend, communicator: Communicator, copies: int, label: Mapping[str, Any]
    ) -> None:
        self._task, self._communicator, self.label = task, communicator, label
        self._collective: Collective = COLLECTIVES[task.op]
        world = communicator.world
        self._role: Role = task.role(world, in_place=self._collective.method in backend.in_place)
        self._buffers = [self._allocate_buffers() for _ in range(copies)]
        self.clock: CallTimer = HostCallTimer() if world.kind == "cpu" else CudaCallTimer(task.launch == "graph")
        self._turn = cycle(self._buffers)

    def check(self, turn: int) -> float | None:
        """Relative error of one call; NaN if unwritten, None if this rank gets nothing."""
        buffers = self._buffers[0]
        call = partial(self._collective.run, self._communicator, buffers, self._role)
        errors = [self._check_once(call, buffers, turn, shown=True)]
        if self._task.launch == "graph":  # by now compiled and connected, as a capture requires
            errors.append(self._check_once(self.clock.prepare(call), buffers, turn + 1))
        elif self._task.elements <= SHORT_ELEMENTS:  # a one-shot all-reduce alternates between two buffers
            errors.append(self._check_once(call, buffers, turn + 1))
        return _worst_error(errors)

    def _check_once(self, call: Thunk, buffers: Buffers, turn: int, *, shown: bool = False) -> float | None:
        """Error of one call on fresh values; only a check's first call is traced."""
        world = self._communicator.world
        self._fill(buffers, turn)
        self._communicator.barrier()
        with self._range(CALL_RANGE) if shown else nullcontext():
            call()
        if world.kind != "cpu":
            torch.cuda.synchronize()
        return relative_error(self._collective, buffers, message_values(world.ranks, turn), self._role)

    def sample(self, calls: int, rounds: int) -> list[float]:
        """Seconds per call, for each round."""
        fresh, barrier = self._between(self._fresh), self._between(self._communicator.barrier)
        self._between(self._fill_all)()
        if self._task.gap_seconds:
            return self.clock.seconds_after_gap(self._call, fresh, barrier, self._task.gap_seconds, rounds)
        return self.clock.seconds_per_call(self._call, fresh, barrier, calls, rounds)

    def call_count(self, calls: int, rounds: int) -> int:
        """Calls that `sample` makes, including untimed calls."""
        return rounds if self._task.gap_seconds else self.clock.call_count(calls, rounds)

    def _call(self, count: int) -> None:
        run, communicator, role = self._collective.run, self._communicator, self._role
        for _ in range(count):
            run(communicator, next(self._turn), role)

    def _fresh(self) -> None:
        if self._collective.accumulates(self._role):
            self._fill_all()

    def _between(self, step: Thunk) -> Thunk:
        """Wrap an untimed step in an NVTX range of its own, outside of samples."""

        def shown() -> None:
            with self._range(UNTIMED_RANGE):
                step()

        return shown

    def _range(self, name: str) -> AbstractContextManager[None]:
        return nvtx.annotate(name, self.label["question"], self.label["number"])

    def _fill_all(self) -> None:
        for buffers in self._buffers:
            self._fill(buffers, 0)

    def _allocate_buffers(self) -> Buffers:
        parts = self._collective.buffers(self._role)
        return {name: self._buffer(name, part.elements) for name, part in parts.items()}

    def _buffer(self, name: str, elements: int) -> torch.Tensor:
        """Buffer that the backend can send from; a copy's target is on the receiver."""
        if self._collective.method == "copy_to" and name == "out":
            return self._communicator.buffer_at(self._task.target, elements, self._task.dtype)
        return self._communicator.buffer(elements, self._task.dtype)

    def _fill(self, buffers: Buffers, turn: int) -> None:
        world = self._communicator.world
        for name, part in self._collective.buffers(self._role).items():
            fill_buffer(buffers[name], message_values(world.ranks, turn), part.value_id)


PARENT_GONE_STATUS = 3
SHUTDOWN_SECONDS = 2.0
"""Time for shutdown: MPI needs a finalize call that all ranks make together."""


def error_line(error: BaseException) -> str:
    """Text of an exception in one line, without this host's name.

    Other hosts cannot recognise that name.
    """
    told = current_identity().text(" ".join(str(error).split()))
    return f"{type(error).__name__}: {told[:300]}" if told else type(error).__name__


class Heartbeat(threading.Thread):
    """Thread that tells the parent once a second where the main thread is."""

    def __init__(self, wire: MessageChannel) -> None:
        super().__init__(daemon=True)
        self._wire, self._main = wire, threading.main_thread().ident
        self.doing = "starting"

    def run(self) -> None:
        """Send heartbeats until the parent is gone."""
        while self._wire.send({"beat": self.doing, "in": self._function()}):
            threading.Event().wait(HEARTBEAT_SECONDS)
        os._exit(PARENT_GONE_STATUS)

    def _function(self) -> str:
        frame: FrameType | None = sys._current_frames().get(self._main or 0)
        return frame.f_code.co_name if frame else ""


def serve(channel: MessageChannel) -> None:
    """Run the parent's commands until it sends `end` or closes the connection."""
    heartbeat, rank_worker = Heartbeat(channel), RankWorker()
    heartbeat.start()
    while (command := channel.receive()) is not None and command["do"] != "end":
        heartbeat.doing = command["do"]
        try:
            reply = {"done": command["do"], **rank_worker.execute(command["do"], command["with"])}
        except (Exception, SystemExit) as error:  # the parent decides on errors of any library
            reply = {"failed": error_line(error), "doing": command["do"]}
        heartbeat.doing = "waiting"
        channel.send({**reply, "turn": command["turn"]})
    threading.Timer(SHUTDOWN_SECONDS, os._exit, (0,)).start()
    rank_worker.close()
    os._exit(0)  # a library's exit handlers can hang when another rank is gone


def main() -> None:
    """Serve the parent on the file descriptor in the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    if sys.platform == "linux":  # ends this rank with a killed parent, even if its pipes stay open elsewhere
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    serve(MessageChannel(Connection(int(sys.argv[1]))))


if __name__ == "__main__":
    main()

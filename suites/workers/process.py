"""One rank's process: started with a pipe, watched, and ended by its parent."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from comm.backend import World
from comm.collective import Role

# How the parent reaches one rank: a process of its own on this host, or one that another process keeps for it.

# Messages between the processes of a run: JSON over a connection, one object each.
#
# No pickles: they would run whatever the other side sends.

Message = dict[str, Any]
HEARTBEAT_SECONDS = 1.0
"""How often a process tells that it lives."""
HEARTBEAT_TIMEOUT_SECONDS = 3.5
"""After which it is taken not to."""


class MessageChannel:
    """One end of a connection; several threads may tell, one hears.

    Args:
        connection: a pipe or a socket.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._lock = Lock()

    def send(self, message: Message) -> bool:
        """Send; False when the other side is gone."""
        try:
            with self._lock:
                self.connection.send_bytes(json.dumps(message, allow_nan=False).encode())
        except (OSError, ValueError):
            return False
        return True

    def receive(self) -> Message | None:
        """What has arrived, waiting for it; None when the other side is gone or sends what is no message."""
        try:
            message = json.loads(self.connection.recv_bytes(2**24))
        except (EOFError, OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Hang up."""
        self.connection.close()


class WorkerHandle(Protocol):
    """The parent's side of one rank."""

    rank: int
    local: tuple[int, int]
    wire: MessageChannel

    def send(self, message: Message) -> bool:
        """Send a command; False when the rank is gone."""

    def receive(self) -> Message:
        """What the rank said, waiting for it; `died` says how it ended."""

    def mark_silent(self) -> None:
        """Note that the rank has fallen silent: whoever keeps it may have too."""

    def end(self) -> None:
        """End the rank's process and all that it started."""


class Spawner(Protocol):
    """Where the ranks of a run come from.

    Attributes:
        address: of the host that all ranks can reach the parent at.
    """

    ranks: int
    address: str
    launcher: str

    def start(self, first: Mapping[str, str]) -> list[WorkerHandle]:
        """Start every rank's process anew; rank 0's is given the variables `first` besides.

        Raises:
            RankLostError: one of them cannot be started any more.
        """

    def close(self) -> None:
        """Let go of all."""


class RankLostError(Exception):
    """A rank died, hung or failed in the middle of a collective: all of them have to be started anew."""


class CaseRefusedError(Exception):
    """A rank cannot run this case; all are well."""


# What all ranks are asked to run: a case in a form that can be told to another process.


@dataclass(frozen=True)
class CollectiveTask:
    """One case.

    Attributes:
        op: the collective, by its name.
        backend: what carries it, by its name.
        dtype: of the message.
        elements: of the message, as specs/traffic.py means it.
        row: elements of a row of it: hidden, where a norm follows; else 1.
        launch: graph or eager.
        gap_seconds: idle time before each call.
        source, target: the ranks that talk, where the others wait.
    """

    op: str
    backend: str
    dtype: str
    elements: int
    row: int
    launch: str
    gap_seconds: float
    source: int = 0
    target: int = 1

    def role(self, world: World, *, in_place: bool) -> Role:
        """What a rank does in it."""
        return Role(world.rank, world.ranks, self.elements, self.row, in_place, self.source, self.target)

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


ROOT = Path(__file__).parent.parent.parent
WORKER_COMMAND = (sys.executable, "-m", "suites.workers.worker")
"""The program of a rank; its last argument is the pipe's file descriptor."""
LAST_OUTPUT_LINES = 3
"""Lines of a dead rank's output that are told."""


class WorkerProcess:
    """The process of one rank on this host.

    Args:
        rank: its number.
        environment: variables that it is given besides this process's own.
        log: file of what it prints.
        local: its number on this host, and how many ranks the host has.
    """

    def __init__(self, rank: int, environment: Mapping[str, str], log: Path, local: tuple[int, int]) -> None:
        self.rank, self.local, self._log = rank, local, log
        ours, theirs = Pipe()
        self.wire = MessageChannel(ours)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [*WORKER_COMMAND, str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": path, **environment},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the parent; what the rank starts ends with it
            )
        theirs.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def send(self, message: Message) -> bool:
        """Send a command; False when the rank is gone."""
        return self.wire.send(message)

    def receive(self) -> Message:
        """What the rank said; how it ended when it is gone."""
        return self.wire.receive() or {"died": self._exit_reason()}

    def mark_silent(self) -> None:
        """It is this process that keeps it."""

    def end(self) -> None:
        """End the rank and all that it started, stopped or not."""
        if self._process.returncode is None:  # else its number may be another's by now
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self.wire.close()

    def _exit_reason(self) -> str:
        try:
            status = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if status == -signal.SIGKILL:  # from outside: it had no time for words
            return "was killed by SIGKILL (out of memory? see the kernel's log)"
        words = " | ".join(self.last_output())
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return how + (f": {words}" if words else "")

    def last_output(self) -> list[str]:
        """The last lines that the rank printed."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return []
        return [line.strip()[:200] for line in lines if line.strip()][-LAST_OUTPUT_LINES:]


# Ranks that the suites start themselves: one a GPU, or as many as asked for on a CPU.


class LocalSpawner:
    """All ranks on this host.

    Args:
        ranks: how many.
        environment: variables that each is given.
    """

    address = "127.0.0.1"
    launcher = "own"

    def __init__(self, ranks: int, environment: Mapping[str, str]) -> None:
        self.ranks, self._environment = ranks, environment
        self._logs = tempfile.TemporaryDirectory(prefix="shardbench-ranks-")

    def start(self, first: Mapping[str, str]) -> list[WorkerHandle]:
        """A process for each."""
        own = [{**self._environment, **(first if rank == 0 else {})} for rank in range(self.ranks)]
        return [
            WorkerProcess(rank, own[rank], Path(self._logs.name) / f"rank-{rank}.log", (rank, self.ranks))
            for rank in range(self.ranks)
        ]

    def close(self) -> None:
        """Remove what the ranks printed."""
        self._logs.cleanup()

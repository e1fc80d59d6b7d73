"""Process of one rank on this host, its messages, and the task of a case.

The parent starts a process with a pipe, watches it and ends it.
"""

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

# Messages between the processes of a run: one JSON object each
#
# Pickles are unsafe: they would run code that the other side sends.

Message = dict[str, Any]
HEARTBEAT_SECONDS = 1.0
"""Interval of heartbeats."""
HEARTBEAT_TIMEOUT_SECONDS = 3.5
"""Time without a heartbeat after which a process counts as stopped."""


class MessageChannel:
    """One end of a connection; several threads may send, one receives.

    Args:
        connection: a pipe or a socket.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._lock = Lock()

    def send(self, message: Message) -> bool:
        """Send a message; return False if the other side is gone."""
        try:
            with self._lock:
                self.connection.send_bytes(json.dumps(message, allow_nan=False).encode())
        except (OSError, ValueError):
            return False
        return True

    def receive(self) -> Message | None:
        """Wait for a message; None if the other side is gone or sent no JSON object."""
        try:
            message = json.loads(self.connection.recv_bytes(2**24))
        except (EOFError, OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


class WorkerHandle(Protocol):
    """Parent's handle of one rank."""

    rank: int
    local: tuple[int, int]
    wire: MessageChannel

    def send(self, message: Message) -> bool:
        """Send a command; return False if the rank is gone."""

    def receive(self) -> Message:
        """Wait for a message of the rank; `died` says how it ended."""

    def mark_silent(self) -> None:
        """Note that the rank is silent: the process that keeps it may be silent too."""

    def end(self) -> None:
        """End the rank's process and all its children."""


class Spawner(Protocol):
    """Starter of a run's ranks.

    Attributes:
        address: host address at which all ranks can reach the parent.
    """

    ranks: int
    address: str
    launcher: str

    def start(self, first: Mapping[str, str]) -> list[WorkerHandle]:
        """Start every rank's process; rank 0 also gets the variables `first`.

        Raises:
            RankLostError: a rank cannot be started any more.
        """

    def close(self) -> None:
        """Release all ranks."""


class RankLostError(Exception):
    """A rank died, hung or failed in a collective: all ranks must restart."""


class CaseRefusedError(Exception):
    """A rank cannot run this case; all ranks are healthy."""


# Task of all ranks: a case as JSON for another process


@dataclass(frozen=True)
class CollectiveTask:
    """Collective case to run.

    Attributes:
        op: name of the collective.
        backend: name of the backend.
        dtype: dtype of the message.
        elements: elements of the message, as specs/traffic.py defines it.
        row: elements of a row: hidden if a norm follows, else 1.
        launch: graph or eager.
        gap_seconds: idle time before each call.
        source, target: communicating ranks, if the other ranks wait.
        k: width of the inputs of the linear before each call, whose output is the message; None without a linear.
        late_seconds: delay of the last rank behind its linear.
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
    k: int | None = None
    late_seconds: float = 0.0

    def role(self, world: World, *, in_place: bool) -> Role:
        """Role of a rank in the collective."""
        return Role(world.rank, world.ranks, self.elements, self.row, in_place, self.source, self.target)

    def to_json(self) -> dict[str, Any]:
        """Fields of the task, for JSON."""
        return asdict(self)


ROOT = Path(__file__).parent.parent.parent
WORKER_COMMAND = (sys.executable, "-m", "suites.workers.worker")
"""Program of a rank; its last argument is the pipe's file descriptor."""
LAST_OUTPUT_LINES = 3
"""Lines of a dead rank's output in a reason."""


class WorkerProcess:
    """Process of one rank on this host.

    Args:
        rank: rank of the process.
        environment: variables besides this process's own.
        log: file for its output.
        local: rank on this host, and ranks of the host.
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
                start_new_session=True,  # Ctrl-C goes to the parent; the rank's children end with it
            )
        theirs.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, message: Message) -> bool:
        """Send a command; return False if the rank is gone."""
        return self.wire.send(message)

    def receive(self) -> Message:
        """Wait for a message; if the rank is gone, how it ended."""
        return self.wire.receive() or {"died": self._exit_reason()}

    def mark_silent(self) -> None:
        """No-op for local workers."""

    def end(self) -> None:
        """End the rank and all its children, even if stopped."""
        if self._process.returncode is None:  # else another process may have the id by now
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self.wire.close()

    def _exit_reason(self) -> str:
        try:
            status = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if status == -signal.SIGKILL:  # killed from outside, so without a message
            return "was killed by SIGKILL (out of memory? see the kernel's log)"
        words = " | ".join(self.last_output())
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return how + (f": {words}" if words else "")

    def last_output(self) -> list[str]:
        """Last lines that the rank printed."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return []
        return [line.strip()[:200] for line in lines if line.strip()][-LAST_OUTPUT_LINES:]


# Ranks that the suites start themselves: one per GPU, or the requested number on a CPU


class LocalSpawner:
    """Starter of all ranks on this host.

    Args:
        ranks: number of ranks.
        environment: variables of each rank.
    """

    address = "127.0.0.1"
    launcher = "own"

    def __init__(self, ranks: int, environment: Mapping[str, str]) -> None:
        self.ranks, self._environment = ranks, environment
        self._logs = tempfile.TemporaryDirectory(prefix="shardbench-ranks-")

    def start(self, first: Mapping[str, str]) -> list[WorkerHandle]:
        """Start a process for each rank."""
        own = [{**self._environment, **(first if rank == 0 else {})} for rank in range(self.ranks)]
        return [
            WorkerProcess(rank, own[rank], Path(self._logs.name) / f"rank-{rank}.log", (rank, self.ranks))
            for rank in range(self.ranks)
        ]

    def close(self) -> None:
        """Remove the ranks' logs."""
        self._logs.cleanup()

"""One rank's process: started with a pipe, watched, and ended by its parent."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path

from suites.workers.protocol import Link, Message, Wire

ROOT = Path(__file__).parent.parent.parent
WORKER = (sys.executable, "-m", "suites.workers.worker")
"""The program of a rank; its last argument is the pipe's file descriptor."""
LAST_WORDS = 3
"""Lines of a dead rank's output that are told."""


class Keeper:
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
        self.wire = Wire(ours)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [*WORKER, str(theirs.fileno())],
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

    def tell(self, message: Message) -> bool:
        """Send a command; False when the rank is gone."""
        return self.wire.tell(message)

    def hear(self) -> Message:
        """What the rank said; how it ended when it is gone."""
        return self.wire.hear() or {"died": self._how()}

    def give_up(self) -> None:
        """It is this process that keeps it."""

    def end(self) -> None:
        """End the rank and all that it started, stopped or not."""
        if self._process.returncode is None:  # else its number may be another's by now
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self.wire.close()

    def _how(self) -> str:
        try:
            status = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if status == -signal.SIGKILL:  # from outside: it had no time for words
            return "was killed by SIGKILL (out of memory? see the kernel's log)"
        words = " | ".join(self.last_words())
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return how + (f": {words}" if words else "")

    def last_words(self) -> list[str]:
        """The last lines that the rank printed."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return []
        return [line.strip()[:200] for line in lines if line.strip()][-LAST_WORDS:]


# Ranks that the suites start themselves: one a GPU, or as many as asked for on a CPU.


class OwnRanks:
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

    def start(self, first: Mapping[str, str]) -> list[Link]:
        """A process for each."""
        own = [{**self._environment, **(first if rank == 0 else {})} for rank in range(self.ranks)]
        return [
            Keeper(rank, own[rank], Path(self._logs.name) / f"rank-{rank}.log", (rank, self.ranks))
            for rank in range(self.ranks)
        ]

    def close(self) -> None:
        """Remove what the ranks printed."""
        self._logs.cleanup()

"""How the parent reaches one rank: a process of its own on this host, or one that another process keeps for it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any, Protocol

from comm.backend import World
from comm.collective import Role

# Messages between the processes of a run: JSON over a connection, one object each.
#
# No pickles: they would run whatever the other side sends.

Message = dict[str, Any]
BEAT_SECONDS = 1.0
"""How often a process tells that it lives."""
SILENT_SECONDS = 3.5
"""After which it is taken not to."""


class Wire:
    """One end of a connection; several threads may tell, one hears.

    Args:
        connection: a pipe or a socket.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._lock = Lock()

    def tell(self, message: Message) -> bool:
        """Send; False when the other side is gone."""
        try:
            with self._lock:
                self.connection.send_bytes(json.dumps(message, allow_nan=False).encode())
        except (OSError, ValueError):
            return False
        return True

    def hear(self) -> Message | None:
        """What has arrived, waiting for it; None when the other side is gone or sends what is no message."""
        try:
            message = json.loads(self.connection.recv_bytes(2**24))
        except (EOFError, OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Hang up."""
        self.connection.close()


class Link(Protocol):
    """The parent's side of one rank."""

    rank: int
    local: tuple[int, int]
    wire: Wire

    def tell(self, message: Message) -> bool:
        """Send a command; False when the rank is gone."""

    def hear(self) -> Message:
        """What the rank said, waiting for it; `died` says how it ended."""

    def give_up(self) -> None:
        """Note that the rank has fallen silent: whoever keeps it may have too."""

    def end(self) -> None:
        """End the rank's process and all that it started."""


class Muster(Protocol):
    """Where the ranks of a run come from.

    Attributes:
        address: of the host that all ranks can reach the parent at.
    """

    ranks: int
    address: str
    launcher: str

    def start(self, first: Mapping[str, str]) -> list[Link]:
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
class Task:
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

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

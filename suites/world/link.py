"""How the parent reaches one rank: a process of its own on this host, or one that another process keeps for it."""

from collections.abc import Mapping
from typing import Protocol

from suites.world.wire import Message, Wire


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

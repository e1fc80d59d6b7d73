"""What all ranks are asked to run: a case in a form that can be told to another process."""

from dataclasses import asdict, dataclass
from typing import Any

from comm.backend import World
from comm.collective import Role


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

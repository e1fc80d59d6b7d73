"""Ranks that the suites start themselves: one a GPU, or as many as asked for on a CPU."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from suites.world.keeper import Keeper
from suites.world.link import Link


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

"""The ranks of a run, as one of them sees it."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class World:
    """Where this rank stands.

    Attributes:
        rank, ranks: this one of how many.
        local_rank, local_ranks: the same on this host; `local_rank` is the GPU's number.
        kind: torch's device name, cpu or cuda.
        launcher: who started the ranks: own (the suites), torchrun, srun or mpirun.
        timeout_seconds: how long a rank waits for the others.
        generation: how often the ranks of this run have been started.
        group: torch's process group of these ranks, where they are the first of those that were started; None for all.
            It carries tensors of every device, so a backend of torch.distributed uses it as it is.
        overlapping: several ranks share one GPU: a functional check, whose times say nothing of a link.
    """

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    kind: str
    launcher: str = "own"
    timeout_seconds: float = 60.0
    overlapping: bool = False
    generation: int = 1
    group: Any = None

    @property
    def device(self) -> torch.device:
        """The device of this rank."""
        if self.kind == "cpu":
            return torch.device("cpu")
        return torch.device(self.kind, 0 if self.overlapping else self.local_rank)

    @property
    def hosts(self) -> int:
        """Hosts, if each has as many ranks as this one."""
        return -(-self.ranks // self.local_ranks)

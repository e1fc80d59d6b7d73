"""What every backend of torch.distributed does alike: gloo on a CPU, NCCL or RCCL on GPUs."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from comm.backend import Communicator, Pending
from comm.world import World

METHODS = frozenset({"all_reduce", "all_gather", "reduce_scatter", "broadcast", "send", "exchange"})
IN_PLACE = frozenset({"all_reduce"})
# torch 2.13 renamed them
_all_gather: Any = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_reduce_scatter: Any = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


class TorchCommunicator(Communicator):
    """A process group.

    Args:
        world: the ranks.
        group: of all ranks.
    """

    def __init__(self, world: World, group: Any) -> None:
        super().__init__(world)
        self.group = group
        self._token = torch.zeros(1, device=world.device)

    def barrier(self) -> None:
        """An all-reduce of four bytes: on a GPU it holds the stream and not the host."""
        dist.all_reduce(self._token, group=self.group)

    def all_reduce(self, message: torch.Tensor, out: torch.Tensor) -> None:  # noqa: ARG002
        """In place: torch.distributed has no other."""
        dist.all_reduce(message, group=self.group)

    def all_gather(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Into one tensor."""
        _all_gather(out, message, group=self.group)

    def reduce_scatter(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Out of one tensor."""
        _reduce_scatter(out, message, group=self.group)

    def broadcast(self, message: torch.Tensor, root: int) -> None:
        """From rank `root`."""
        dist.broadcast(message, root, group=self.group)

    def send(self, message: torch.Tensor, to: int) -> None:
        """To rank `to`."""
        dist.send(message, to, group=self.group)

    def recv(self, out: torch.Tensor, source: int) -> None:
        """From rank `source`."""
        dist.recv(out, source, group=self.group)

    def isend(self, message: torch.Tensor, to: int) -> Pending:
        """To rank `to`; on a GPU from a stream of the library's own."""
        return _under_way(dist.isend(message, to, group=self.group))

    def irecv(self, out: torch.Tensor, source: int) -> Pending:
        """From rank `source`."""
        return _under_way(dist.irecv(out, source, group=self.group))

    def exchange(self, message: torch.Tensor, to: int, out: torch.Tensor, source: int) -> None:
        """Both at once, in one batch."""
        both = [dist.P2POp(dist.isend, message, to, self.group), dist.P2POp(dist.irecv, out, source, self.group)]
        for one in dist.batch_isend_irecv(both):
            one.wait()

    def close(self) -> None:
        """Let go of the group."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dist.destroy_process_group(self.group)


def _under_way(work: Pending | None) -> Pending:
    """None is what a rank gets that is not in the group."""
    if work is None:
        raise RuntimeError("this rank is not in the group that it sends through")
    return work


def group_of(world: World, backend: str) -> Any:
    """A group of all ranks, so that its traffic mixes with no other's; of fewer, the one that they have."""
    return world.group or dist.new_group(backend=backend)


def own_group(groups: Sequence[Sequence[int]], backend: str, world: World) -> TorchCommunicator:
    """This rank's group of several disjoint ones: every rank has to make them all, in the same order."""
    made = {tuple(ranks): dist.new_group(list(ranks), backend=backend) for ranks in groups}
    return TorchCommunicator(world, next(group for ranks, group in made.items() if world.rank in ranks))

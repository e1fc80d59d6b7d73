"""Peer copies: the source's copy engine writes into another GPU's memory, with no other rank's help. The bare link."""

import torch
import torch.distributed as dist

from comm.backend import DTYPES, Backend, Communicator
from comm.backends.needs import gpus, one_host
from comm.world import World

DIRECT, STAGED = "peer", "host"


class PeerCommunicator(Communicator):
    """Copies that this process makes between its GPU and those of the other ranks.

    Args:
        world: the ranks.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._token = torch.zeros(1)

    def barrier(self) -> None:
        """The stream first, then the ranks, over their group's gloo: there is no device between them."""
        torch.cuda.current_stream().synchronize()
        dist.all_reduce(self._token, group=self.world.group)

    def buffer_at(self, rank: int, elements: int, dtype: str) -> torch.Tensor:
        """In the memory of a rank's GPU."""
        return torch.empty(elements, dtype=DTYPES[dtype], device=torch.device("cuda", rank))

    def copy_to(self, message: torch.Tensor, to: int, out: torch.Tensor) -> None:
        """On the stream of the source's device, which is the current one; torch lets `out`'s stream wait for it."""
        if out.device.index != to:
            raise ValueError(f"out lies on {out.device}, not with rank {to}; take it from buffer_at")
        out.copy_(message, non_blocking=True)

    def path(self, rank: int) -> str:
        """`peer` where the GPUs reach each other's memory; `host` where the driver stages the copy in the host's."""
        return DIRECT if torch.cuda.can_device_access_peer(self.world.device.index, rank) else STAGED


def why_not(world: World) -> str | None:
    """Two GPUs of one host."""
    if reason := gpus(world):
        return reason
    if world.overlapping or world.ranks < 2:
        return "a copy to a peer needs two GPUs, and all ranks are on one; run it where there are two"
    return one_host(world)


PEER = Backend(
    name="peer",
    methods=frozenset({"copy_to"}),
    why_not=why_not,
    connect=PeerCommunicator,
    graph=False,  # the target's stream, which the copy waits for, is not part of a capture
)

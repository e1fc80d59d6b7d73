"""Our one-shot all-reduce over PyTorch's symmetric memory: messages and results lie anywhere, the kernel copies."""

from typing import Any

import torch

from comm.backend import Backend, Communicator
from comm.backends import symmetric
from comm.backends.symmetric import share
from comm.world import World

try:
    from comm.one_shot import MOST_BYTES, OneShot, buffer_bytes
except ImportError:  # no Triton here: `why_not` says so, before anything asks for more
    MOST_BYTES = 0


class TritonOneShotCommunicator(Communicator):
    """Ranks that share two slots and flags each.

    Args:
        world: the ranks.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._shared, self._handle = share(buffer_bytes(world.ranks), torch.uint8, world)
        self._shared.zero_()
        torch.cuda.synchronize(world.device)
        self._handle.barrier(channel=0)
        torch.cuda.synchronize(world.device)  # now every rank's flags are zero, whatever stream comes next
        self._sum = OneShot(world.rank, addresses(self._handle), world.device)

    def barrier(self) -> None:
        """On the stream, with flags of torch's own."""
        self._handle.barrier(channel=0)

    def all_reduce(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Out of place."""
        self._sum(message, out)


def addresses(handle: Any) -> list[int]:
    """Where each rank's memory begins in this process."""
    offset = getattr(handle, "offset", 0)  # of the tensor in its allocation
    return [pointer + offset for pointer in handle.buffer_ptrs]


def why_not(world: World) -> str | None:
    """Symmetric memory, and Triton for the kernel."""
    if reason := symmetric.why_not(world):
        return reason
    return "it needs Triton: pip install -c constraints.txt triton (on Linux)" if not MOST_BYTES else None


TRITON_ONE_SHOT = Backend(
    name="triton-one-shot",
    methods=frozenset({"all_reduce"}),
    why_not=why_not,
    connect=TritonOneShotCommunicator,
    most_bytes=MOST_BYTES or None,
    algorithm="one-shot",
)

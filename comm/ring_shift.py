"""Ring shift: every rank sends message[elements] to the next and receives from the one before, all at once.

What pipeline stages do when each has a micro-batch in flight; nccl-tests calls it sendrecv.
"""

import torch

from comm.backend import Communicator
from comm.collective import MOVED, Buffers, Collective, Part, Role, Value


def parts(role: Role) -> dict[str, Part]:
    """A message, and room for that of the rank before."""
    return {"message": Part(role.elements, holds=role.rank), "out": Part(role.elements, holds=None)}


def run(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """Send on and receive at once."""
    after, before = (role.rank + 1) % role.ranks, (role.rank - 1) % role.ranks
    communicator.exchange(buffers["message"], after, buffers["out"], before)


def reference(value: Value, index: torch.Tensor, role: Role) -> torch.Tensor:
    """The message of the rank before."""
    return value((role.rank - 1) % role.ranks, index).double()


RING_SHIFT = Collective(
    op="ring_shift",
    method="exchange",
    parts=parts,
    run=run,
    reference=reference,
    result=lambda _: "out",
    rtol=MOVED,
)

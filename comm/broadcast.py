"""Broadcast: every rank ends with rank 0's message[elements]. Sampled token ids go out so."""

import torch

from comm.backend import Communicator
from comm.collective import MOVED, Buffers, Collective, Part, Role, Value

ROOT = 0


def parts(role: Role) -> dict[str, Part]:
    """The root's message; on the other ranks room for it."""
    return {"message": Part(role.elements, holds=ROOT if role.rank == ROOT else None)}


def run(communicator: Communicator, buffers: Buffers, _: Role) -> None:
    """One broadcast."""
    communicator.broadcast(buffers["message"], ROOT)


def reference(value: Value, index: torch.Tensor, _: Role) -> torch.Tensor:
    """The root's message."""
    return value(ROOT, index).double()


BROADCAST = Collective(
    op="broadcast",
    method="broadcast",
    parts=parts,
    run=run,
    reference=reference,
    result=lambda _: "message",
    rtol=MOVED,
)

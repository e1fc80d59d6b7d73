"""Peer copy: the source writes message[elements] into the target's memory, which takes no part. The bare link."""

import torch

from comm.backend import Communicator
from comm.collective import MOVED, Buffers, Collective, Part, Role, Value


def parts(role: Role) -> dict[str, Part]:
    """Both ends belong to the source; the backend lays `out` into the target's memory."""
    if role.rank != role.source:
        return {}
    return {"message": Part(role.elements, holds=role.source), "out": Part(role.elements, holds=None)}


def run(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """One copy."""
    if role.rank == role.source:
        communicator.copy_to(buffers["message"], role.target, buffers["out"])


def reference(value: Value, index: torch.Tensor, role: Role) -> torch.Tensor:
    """The source's message."""
    return value(role.source, index).double()


PEER_COPY = Collective(
    op="peer_copy",
    method="copy_to",
    parts=parts,
    run=run,
    reference=reference,
    result=lambda role: "out" if role.rank == role.source else None,
    rtol=MOVED,
    pair=True,
)

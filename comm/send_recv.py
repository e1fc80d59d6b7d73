"""Send and receive, one way: the source's message[elements] arrives at the target. A hop between pipeline stages."""

import torch

from comm.backend import Communicator
from comm.collective import MOVED, Buffers, Collective, Part, Role, Value


def parts(role: Role) -> dict[str, Part]:
    """A message at the source, room for it at the target, nothing elsewhere."""
    if role.rank == role.source:
        return {"message": Part(role.elements, holds=role.source)}
    return {"out": Part(role.elements, holds=None)} if role.rank == role.target else {}


def run(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """One side's part of the hop."""
    if role.rank == role.source:
        communicator.send(buffers["message"], role.target)
    elif role.rank == role.target:
        communicator.recv(buffers["out"], role.source)


def reference(value: Value, index: torch.Tensor, role: Role) -> torch.Tensor:
    """The source's message."""
    return value(role.source, index).double()


def result(role: Role) -> str | None:
    """The target alone is given something."""
    return "out" if role.rank == role.target else None


SEND_RECV = Collective(
    op="send_recv",
    method="send",
    parts=parts,
    run=run,
    reference=reference,
    result=result,
    rtol=MOVED,
    pair=True,
)

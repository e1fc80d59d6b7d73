"""Ping-pong: message[elements] goes to the target and what arrived comes back. Half of it is the latency of a hop.

The way back sends what has just arrived, so that neither way can begin before the other has ended.
"""

import torch

from comm.backend import Communicator
from comm.collective import MOVED, Buffers, Collective, Part, Role, Value


def parts(role: Role) -> dict[str, Part]:
    """A message and room for its return at the source, room for it at the target, nothing elsewhere."""
    room = {"out": Part(role.elements, holds=None)}
    if role.rank == role.source:
        return {"message": Part(role.elements, holds=role.source), **room}
    return room if role.rank == role.target else {}


def run(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """There and back."""
    if role.rank == role.source:
        communicator.send(buffers["message"], role.target)
        communicator.recv(buffers["out"], role.target)
    elif role.rank == role.target:
        communicator.recv(buffers["out"], role.source)
        communicator.send(buffers["out"], role.source)


def reference(value: Value, index: torch.Tensor, role: Role) -> torch.Tensor:
    """The source's message, on both sides."""
    return value(role.source, index).double()


PING_PONG = Collective(
    op="ping_pong",
    method="send",
    parts=parts,
    run=run,
    reference=reference,
    result=lambda role: "out" if role.rank in (role.source, role.target) else None,
    rtol=MOVED,
    pair=True,
)

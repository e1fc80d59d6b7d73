"""Exchange: two ranks send message[elements] to each other at the same time. Both directions of one link."""

import torch

from comm.backend import Communicator
from comm.collective import MOVED, Buffers, Collective, Part, Role, Value


def _other(role: Role) -> int | None:
    """Whom this rank talks to; None if it only waits."""
    return {role.source: role.target, role.target: role.source}.get(role.rank)


def parts(role: Role) -> dict[str, Part]:
    """A message and room for the other's; nothing at ranks that wait."""
    if _other(role) is None:
        return {}
    return {"message": Part(role.elements, holds=role.rank), "out": Part(role.elements, holds=None)}


def run(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """Send and receive at once."""
    if (other := _other(role)) is not None:
        communicator.exchange(buffers["message"], other, buffers["out"], other)


def reference(value: Value, index: torch.Tensor, role: Role) -> torch.Tensor:
    """The other's message."""
    other = _other(role)
    return value(role.rank if other is None else other, index).double()


EXCHANGE = Collective(
    op="exchange",
    method="exchange",
    parts=parts,
    run=run,
    reference=reference,
    result=lambda role: None if _other(role) is None else "out",
    rtol=MOVED,
    pair=True,
)

"""All-reduce: every rank ends with the sum over ranks of message[elements]. Two follow every layer under TP."""

import torch

from comm.backend import Communicator
from comm.collective import MOVED, Buffers, Collective, Part, Role, Value, out_or_message


def parts(role: Role) -> dict[str, Part]:
    """The message, and a place for the sum unless it is written over the message."""
    message = {"message": Part(role.elements, holds=role.rank)}
    return message if role.in_place else message | {"out": Part(role.elements, holds=None)}


def run(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """One all-reduce."""
    communicator.all_reduce(buffers["message"], buffers[out_or_message(role)])


def reference(value: Value, index: torch.Tensor, role: Role) -> torch.Tensor:
    """The sum, exact in any order: see `comm.value.amplitude`."""
    return torch.stack([value(rank, index).double() for rank in range(role.ranks)]).sum(0)


ALL_REDUCE = Collective(
    op="all_reduce",
    method="all_reduce",
    parts=parts,
    run=run,
    reference=reference,
    result=out_or_message,
    rtol=MOVED,
)

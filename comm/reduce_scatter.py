"""Reduce-scatter: rank r ends with part r of the sum over ranks. Half of an all-reduce."""

import torch

from comm.backend import Communicator
from comm.collective import MOVED, Buffers, Collective, Part, Role, Value


def parts(role: Role) -> dict[str, Part]:
    """The whole message, and room for this rank's part of the sum."""
    return {
        "message": Part(role.elements, holds=role.rank),
        "out": Part(role.elements // role.ranks, holds=None),
    }


def run(communicator: Communicator, buffers: Buffers, _: Role) -> None:
    """One reduce-scatter."""
    communicator.reduce_scatter(buffers["message"], buffers["out"])


def reference(value: Value, index: torch.Tensor, role: Role) -> torch.Tensor:
    """The sum from where this rank's part begins."""
    begin = role.rank * (role.elements // role.ranks)
    return torch.stack([value(rank, begin + index).double() for rank in range(role.ranks)]).sum(0)


REDUCE_SCATTER = Collective(
    op="reduce_scatter",
    method="reduce_scatter",
    parts=parts,
    run=run,
    reference=reference,
    result=lambda _: "out",
    rtol=MOVED,
    divided=True,
)

"""All-gather: every rank ends with all ranks' parts one after another. Logits of a cut vocabulary are gathered so."""

import torch

from comm.backend import Communicator
from comm.collective import MOVED, Buffers, Collective, Part, Role, Value


def parts(role: Role) -> dict[str, Part]:
    """This rank's part, and room for the whole."""
    return {
        "message": Part(role.elements // role.ranks, holds=role.rank),
        "out": Part(role.elements, holds=None),
    }


def run(communicator: Communicator, buffers: Buffers, _: Role) -> None:
    """One all-gather."""
    communicator.all_gather(buffers["message"], buffers["out"])


def reference(value: Value, index: torch.Tensor, role: Role) -> torch.Tensor:
    """Element i of the whole is element i mod part of rank i div part."""
    part = role.elements // role.ranks
    return value(index // part, index % part).double()


ALL_GATHER = Collective(
    op="all_gather",
    method="all_gather",
    parts=parts,
    run=run,
    reference=reference,
    result=lambda _: "out",
    rtol=MOVED,
    divided=True,
)

"""All-reduce, residual and RMSNorm, as a layer issues them after o and after down.

    residual += sum over ranks of message;  message = residual / sqrt(mean(residual^2) + eps) * weight

The norm is written where the next call's message is, so that a chain of calls has a true data dependency and its
values stay bounded.
"""

import torch
import torch.nn.functional as nn

from comm.backend import Communicator
from comm.collective import RESIDUAL, WEIGHT, Buffers, Collective, Part, Role, Value

EPS = 1e-5
RTOL = {"fp32": 1e-5, "bf16": 8e-3, "fp16": 1e-3}
"""The residual and the norm are rounded once each; sums of small integers are exact."""


def parts(role: Role) -> dict[str, Part]:
    """Message and residual of tokens x hidden, the norm's weight, and the sum unless that is written in place."""
    found = {
        "message": Part(role.elements, holds=role.rank),
        "residual": Part(role.elements, holds=RESIDUAL),
        "weight": Part(role.row, holds=WEIGHT),
    }
    return found if role.in_place else found | {"sum": Part(role.elements, holds=None)}


def run(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """The three, one after another: nothing is fused."""
    message = buffers["message"]
    total = message if role.in_place else buffers["sum"]
    communicator.all_reduce(message, total)
    residual = buffers["residual"]
    residual.add_(total)
    normed = nn.rms_norm(residual.view(-1, role.row), (role.row,), buffers["weight"], EPS)
    message.copy_(normed.view(-1))


def reference(value: Value, index: torch.Tensor, role: Role) -> torch.Tensor:
    """In float64, whole rows at a time: `index` begins and ends with a row."""
    total = value(RESIDUAL, index).double()
    for rank in range(role.ranks):
        total += value(rank, index).double()
    rows = total.view(-1, role.row)
    scale = torch.rsqrt(rows.square().mean(1, keepdim=True) + EPS)
    weight = value(WEIGHT, torch.arange(role.row, device=index.device)).double()
    return (rows * scale * weight).view(-1)


ALL_REDUCE_RMSNORM = Collective(
    op="all_reduce_rmsnorm",
    method="all_reduce",
    parts=parts,
    run=run,
    reference=reference,
    result=lambda _: "message",
    rtol=RTOL,
)

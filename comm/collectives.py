"""All collectives, each with its buffers, call and reference."""

import torch
import torch.nn.functional as nn

from comm.backend import Communicator
from comm.collective import (
    EXACT_RTOL,
    RESIDUAL_ID,
    WEIGHT_ID,
    Buffers,
    BufferSpec,
    Collective,
    MessageValues,
    Role,
    result_buffer,
)
from comm.point_to_point import EXCHANGE, PEER_COPY, PING_PONG, RING_SHIFT, SEND_RECV

# All-gather: every rank ends with the parts of all ranks in a row. Logits of a cut vocabulary are gathered so.


def all_gather_buffers(role: Role) -> dict[str, BufferSpec]:
    """Return this rank's part, and room for the whole."""
    return {
        "message": BufferSpec(role.elements // role.ranks, value_id=role.rank),
        "out": BufferSpec(role.elements, value_id=None),
    }


def run_all_gather(communicator: Communicator, buffers: Buffers, _: Role) -> None:
    """Run one all-gather."""
    communicator.all_gather(buffers["message"], buffers["out"])


def all_gather_reference(value: MessageValues, index: torch.Tensor, role: Role) -> torch.Tensor:
    """Return the reference: element i is element i mod part of rank i div part."""
    part = role.elements // role.ranks
    return value(index // part, index % part).double()


ALL_GATHER = Collective(
    op="all_gather",
    method="all_gather",
    buffers=all_gather_buffers,
    run=run_all_gather,
    reference=all_gather_reference,
    result=lambda _: "out",
    rtol=EXACT_RTOL,
    is_sharded=True,
)


# All-reduce: every rank ends with the sum over ranks of message[elements]. Under TP every layer has two.


def all_reduce_buffers(role: Role) -> dict[str, BufferSpec]:
    """Return the message, and room for the sum unless it overwrites the message."""
    message = {"message": BufferSpec(role.elements, value_id=role.rank)}
    return message if role.in_place else message | {"out": BufferSpec(role.elements, value_id=None)}


def run_all_reduce(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """Run one all-reduce."""
    communicator.all_reduce(buffers["message"], buffers[result_buffer(role)])


def all_reduce_reference(value: MessageValues, index: torch.Tensor, role: Role) -> torch.Tensor:
    """Return the sum, exact in any order: see `comm.collective.max_value`."""
    return torch.stack([value(rank, index).double() for rank in range(role.ranks)]).sum(0)


ALL_REDUCE = Collective(
    op="all_reduce",
    method="all_reduce",
    buffers=all_reduce_buffers,
    run=run_all_reduce,
    reference=all_reduce_reference,
    result=result_buffer,
    rtol=EXACT_RTOL,
)


# All-reduce, residual and RMSNorm, as a layer runs them after o and after down.
#
#     residual += sum over ranks of message;  message = residual / sqrt(mean(residual^2) + eps) * weight
#
# The norm overwrites the message of the next call. A chain of calls thus has a true data dependency, and its values
# stay bounded.

RMSNORM_EPS = 1e-5
RMSNORM_RTOL = {"fp32": 1e-5, "bf16": 8e-3, "fp16": 1e-3}
"""Accepted error by dtype.

The residual and the norm are rounded once each; sums of small integers are exact.
"""


def all_reduce_rmsnorm_buffers(role: Role) -> dict[str, BufferSpec]:
    """Return message and residual of tokens x hidden, the norm's weight, and the sum.

    The sum has no buffer where it is written in place.
    """
    found = {
        "message": BufferSpec(role.elements, value_id=role.rank),
        "residual": BufferSpec(role.elements, value_id=RESIDUAL_ID),
        "weight": BufferSpec(role.row, value_id=WEIGHT_ID),
    }
    return found if role.in_place else found | {"sum": BufferSpec(role.elements, value_id=None)}


def run_all_reduce_rmsnorm(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """Run all-reduce, addition and norm one after another, without fusion."""
    message = buffers["message"]
    total = message if role.in_place else buffers["sum"]
    communicator.all_reduce(message, total)
    residual = buffers["residual"]
    residual.add_(total)
    normed = nn.rms_norm(residual.view(-1, role.row), (role.row,), buffers["weight"], RMSNORM_EPS)
    message.copy_(normed.view(-1))


def all_reduce_rmsnorm_reference(value: MessageValues, index: torch.Tensor, role: Role) -> torch.Tensor:
    """Return the reference in float64; `index` consists of whole rows."""
    total = value(RESIDUAL_ID, index).double()
    for rank in range(role.ranks):
        total += value(rank, index).double()
    rows = total.view(-1, role.row)
    scale = torch.rsqrt(rows.square().mean(1, keepdim=True) + RMSNORM_EPS)
    weight = value(WEIGHT_ID, torch.arange(role.row, device=index.device)).double()
    return (rows * scale * weight).view(-1)


ALL_REDUCE_RMSNORM = Collective(
    op="all_reduce_rmsnorm",
    method="all_reduce",
    buffers=all_reduce_rmsnorm_buffers,
    run=run_all_reduce_rmsnorm,
    reference=all_reduce_rmsnorm_reference,
    result=lambda _: "message",
    rtol=RMSNORM_RTOL,
)


# Broadcast: every rank ends with rank 0's message[elements]. Sampled token ids are sent so.

ROOT = 0


def broadcast_buffers(role: Role) -> dict[str, BufferSpec]:
    """Return the root's message; on other ranks room for it."""
    return {"message": BufferSpec(role.elements, value_id=ROOT if role.rank == ROOT else None)}


def run_broadcast(communicator: Communicator, buffers: Buffers, _: Role) -> None:
    """Run one broadcast."""
    communicator.broadcast(buffers["message"], ROOT)


def broadcast_reference(value: MessageValues, index: torch.Tensor, _: Role) -> torch.Tensor:
    """Return the root's message."""
    return value(ROOT, index).double()


BROADCAST = Collective(
    op="broadcast",
    method="broadcast",
    buffers=broadcast_buffers,
    run=run_broadcast,
    reference=broadcast_reference,
    result=lambda _: "message",
    rtol=EXACT_RTOL,
)


# Reduce-scatter: rank r ends with part r of the sum over ranks. An all-reduce is this and an all-gather.


def reduce_scatter_buffers(role: Role) -> dict[str, BufferSpec]:
    """Return the whole message, and room for this rank's part of the sum."""
    return {
        "message": BufferSpec(role.elements, value_id=role.rank),
        "out": BufferSpec(role.elements // role.ranks, value_id=None),
    }


def run_reduce_scatter(communicator: Communicator, buffers: Buffers, _: Role) -> None:
    """Run one reduce-scatter."""
    communicator.reduce_scatter(buffers["message"], buffers["out"])


def reduce_scatter_reference(value: MessageValues, index: torch.Tensor, role: Role) -> torch.Tensor:
    """Return the reference: this rank's part of the sum."""
    begin = role.rank * (role.elements // role.ranks)
    return torch.stack([value(rank, begin + index).double() for rank in range(role.ranks)]).sum(0)


REDUCE_SCATTER = Collective(
    op="reduce_scatter",
    method="reduce_scatter",
    buffers=reduce_scatter_buffers,
    run=run_reduce_scatter,
    reference=reduce_scatter_reference,
    result=lambda _: "out",
    rtol=EXACT_RTOL,
    is_sharded=True,
)


_ROWS = (
    *(ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, BROADCAST, SEND_RECV, EXCHANGE, RING_SHIFT, PING_PONG, PEER_COPY),
    ALL_REDUCE_RMSNORM,
)
COLLECTIVES: dict[str, Collective] = {row.op: row for row in _ROWS}
"""All collectives by name; a row in `_ROWS` adds a collective."""

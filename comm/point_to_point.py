"""Point-to-point operations: exchange, peer copy, ping-pong, ring shift, send."""

import torch

from comm.backend import Communicator
from comm.collective import EXACT_RTOL, Buffers, BufferSpec, Collective, MessageValues, Role

# Exchange: two ranks send message[elements] to each other at the same time, in both directions of one link.


def _peer_rank(role: Role) -> int | None:
    """Return the rank that this rank communicates with; None if it only waits."""
    return {role.source: role.target, role.target: role.source}.get(role.rank)


def exchange_buffers(role: Role) -> dict[str, BufferSpec]:
    """Return a message and room for the peer's; nothing at ranks that wait."""
    if _peer_rank(role) is None:
        return {}
    return {"message": BufferSpec(role.elements, value_id=role.rank), "out": BufferSpec(role.elements, value_id=None)}


def run_exchange(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """Send and receive at once."""
    if (other := _peer_rank(role)) is not None:
        communicator.exchange(buffers["message"], other, buffers["out"], other)


def exchange_reference(value: MessageValues, index: torch.Tensor, role: Role) -> torch.Tensor:
    """Return the peer's message."""
    other = _peer_rank(role)
    return value(role.rank if other is None else other, index).double()


EXCHANGE = Collective(
    op="exchange",
    method="exchange",
    buffers=exchange_buffers,
    run=run_exchange,
    reference=exchange_reference,
    result=lambda role: None if _peer_rank(role) is None else "out",
    rtol=EXACT_RTOL,
    pair=True,
)


# Peer copy: the source writes message[elements] into the target's memory; the target takes no part. The bare link.


def peer_copy_buffers(role: Role) -> dict[str, BufferSpec]:
    """Return both buffers at the source; `out` lies in the target's memory."""
    if role.rank != role.source:
        return {}
    return {"message": BufferSpec(role.elements, value_id=role.source), "out": BufferSpec(role.elements, value_id=None)}


def run_peer_copy(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """Run one copy."""
    if role.rank == role.source:
        communicator.copy_to(buffers["message"], role.target, buffers["out"])


def peer_copy_reference(value: MessageValues, index: torch.Tensor, role: Role) -> torch.Tensor:
    """Return the source's message."""
    return value(role.source, index).double()


PEER_COPY = Collective(
    op="peer_copy",
    method="copy_to",
    buffers=peer_copy_buffers,
    run=run_peer_copy,
    reference=peer_copy_reference,
    result=lambda role: "out" if role.rank == role.source else None,
    rtol=EXACT_RTOL,
    pair=True,
)


def ping_pong_buffers(role: Role) -> dict[str, BufferSpec]:
    """Return the buffers of a ping-pong.

    The source has a message and room for its return, the target has room for it, other ranks have nothing.
    """
    room = {"out": BufferSpec(role.elements, value_id=None)}
    if role.rank == role.source:
        return {"message": BufferSpec(role.elements, value_id=role.source), **room}
    return room if role.rank == role.target else {}


def run_ping_pong(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """Send to the target and back.

    Ping-pong: message[elements] goes to the target, and the target sends back what has just arrived. Neither way can
    thus begin before the other has ended. Half of the time is the latency of a hop.
    """
    if role.rank == role.source:
        communicator.send(buffers["message"], role.target)
        communicator.recv(buffers["out"], role.target)
    elif role.rank == role.target:
        communicator.recv(buffers["out"], role.source)
        communicator.send(buffers["out"], role.source)


def ping_pong_reference(value: MessageValues, index: torch.Tensor, role: Role) -> torch.Tensor:
    """Return the source's message, on both sides."""
    return value(role.source, index).double()


PING_PONG = Collective(
    op="ping_pong",
    method="send",
    buffers=ping_pong_buffers,
    run=run_ping_pong,
    reference=ping_pong_reference,
    result=lambda role: "out" if role.rank in (role.source, role.target) else None,
    rtol=EXACT_RTOL,
    pair=True,
)


# Ring shift: every rank sends message[elements] to the next and receives from the previous rank, all at once.
#
# Pipeline stages do this when each has a microbatch in flight; nccl-tests calls it sendrecv.


def ring_shift_buffers(role: Role) -> dict[str, BufferSpec]:
    """Return a message, and room for the message of the previous rank."""
    return {"message": BufferSpec(role.elements, value_id=role.rank), "out": BufferSpec(role.elements, value_id=None)}


def run_ring_shift(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """Send and receive at once."""
    after, before = (role.rank + 1) % role.ranks, (role.rank - 1) % role.ranks
    communicator.exchange(buffers["message"], after, buffers["out"], before)


def ring_shift_reference(value: MessageValues, index: torch.Tensor, role: Role) -> torch.Tensor:
    """Return the message of the previous rank."""
    return value((role.rank - 1) % role.ranks, index).double()


RING_SHIFT = Collective(
    op="ring_shift",
    method="exchange",
    buffers=ring_shift_buffers,
    run=run_ring_shift,
    reference=ring_shift_reference,
    result=lambda _: "out",
    rtol=EXACT_RTOL,
)


# Send and receive, one way: the source's message[elements] arrives at the target. A hop between pipeline stages.


def send_recv_buffers(role: Role) -> dict[str, BufferSpec]:
    """Return a message at the source, room for it at the target, nothing elsewhere."""
    if role.rank == role.source:
        return {"message": BufferSpec(role.elements, value_id=role.source)}
    return {"out": BufferSpec(role.elements, value_id=None)} if role.rank == role.target else {}


def run_send_recv(communicator: Communicator, buffers: Buffers, role: Role) -> None:
    """Run this rank's side of the hop."""
    if role.rank == role.source:
        communicator.send(buffers["message"], role.target)
    elif role.rank == role.target:
        communicator.recv(buffers["out"], role.source)


def send_recv_reference(value: MessageValues, index: torch.Tensor, role: Role) -> torch.Tensor:
    """Return the source's message."""
    return value(role.source, index).double()


def send_recv_result(role: Role) -> str | None:
    """Return the result's buffer, which only the target has."""
    return "out" if role.rank == role.target else None


SEND_RECV = Collective(
    op="send_recv",
    method="send",
    buffers=send_recv_buffers,
    run=run_send_recv,
    reference=send_recv_reference,
    result=send_recv_result,
    rtol=EXACT_RTOL,
    pair=True,
)

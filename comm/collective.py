"""The type `Collective`, the check of its results, and predictable messages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import sqrt
from typing import NamedTuple, Protocol

import torch

from comm.backend import Communicator

Buffers = dict[str, torch.Tensor]
"""Named tensors of one call on one rank.

They are `message`, and `out` where the result is not written over the message.
"""

EXACT_RTOL = {"fp32": 0.0, "bf16": 0.0, "fp16": 0.0}
"""Accepted error of moved or summed values: zero.

Messages are small integers, whose sums are exact.
"""

RESIDUAL_ID, WEIGHT_ID = -1, -2
"""Value ids of buffers that hold no rank's message; equal on every rank."""


class Role(NamedTuple):
    """One rank's part in a case.

    Attributes:
        rank, ranks: number of this rank, and count of ranks.
        elements: length of the message as specs/traffic.py defines it.
        row: elements of one row of the message: hidden, where a norm follows; else 1.
        in_place: True where the backend writes the result over the message.
        source, target: the two ranks that communicate, where all other ranks wait.
    """

    rank: int
    ranks: int
    elements: int
    row: int
    in_place: bool = False
    source: int = 0
    target: int = 1


class BufferSpec(NamedTuple):
    """One buffer: its length, and the rank whose values it holds.

    `value_id` is None for a result, which is poisoned with NaN.
    """

    elements: int
    value_id: int | None


class MessageValues(Protocol):
    """Function that computes any element of any rank's message on any rank."""

    def __call__(self, rank: int | torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return elements `index` of a rank's message: integers in float32."""


@dataclass(frozen=True)
class Collective:
    """One operation between ranks.

    Attributes:
        op: its name, and its row of `specs.traffic.TRAFFIC`, with algbw, busbw and bytes on the wire.
        method: method of a communicator that it needs.
        buffers: `buffers(role)` gives a rank's buffers by name.
        run: `run(communicator, buffers, role)` is one call of one rank.
        reference: `reference(value, index, role)` gives the elements `index` of the rank's result in float64.
        result: `result(role)` names the buffer that holds the result after a call; None for a rank without a result.
        rtol: largest accepted ‖result − reference‖ / ‖reference‖, by dtype.
        pair: True where two ranks communicate and all other ranks wait.
        is_sharded: True where the message is cut into a part for each rank.
    """

    op: str
    method: str
    buffers: Callable[[Role], Mapping[str, BufferSpec]]
    run: Callable[[Communicator, Buffers, Role], object]
    reference: Callable[[MessageValues, torch.Tensor, Role], torch.Tensor]
    result: Callable[[Role], str | None]
    rtol: Mapping[str, float]
    pair: bool = False
    is_sharded: bool = False

    def __str__(self) -> str:
        return self.op

    def accumulates(self, role: Role) -> bool:
        """Return whether repeated calls multiply the message by the ranks.

        Few such calls can follow one another before the values overflow.
        """
        return role.in_place and self.op == "all_reduce"


def result_buffer(role: Role) -> str:
    """Return the result buffer's name: `message` where the backend works in place."""
    return "message" if role.in_place else "out"


# Check of a collective's result, piece by piece, so that it takes little memory.

CHECK_ELEMENTS = 2**20
"""Elements that are compared at a time."""


def relative_error(collective: Collective, buffers: Buffers, value: MessageValues, role: Role) -> float | None:
    """Return ‖result − reference‖ / ‖reference‖ in float64; None without a result.

    NaN where an element was not written.
    """
    name = collective.result(role)
    if name is None:
        return None
    result, wrong, whole = buffers[name], 0.0, 0.0
    step = max(1, CHECK_ELEMENTS // role.row) * role.row
    for begin in range(0, result.numel(), step):
        piece = result[begin : begin + step]
        index = torch.arange(begin, begin + piece.numel(), device=result.device)
        right = collective.reference(value, index, role)
        wrong += float(torch.sum((piece.double() - right) ** 2))
        whole += float(torch.sum(right**2))
    return sqrt(wrong / whole)


# Messages that every rank can predict: a table of small integers, with a different offset for each rank.
#
# The table's length is a prime, so a part from a wrong place, rank or round does not match. Integers whose sum over all
# ranks stays below 2^7 are exact in every format and in every order of summation.

TABLE_LENGTH = 65_537
MAX_SUM = 127
"""Largest sum over ranks.

bf16 has eight bits of significand, so integers up to 256 are exact.
"""


def max_value(ranks: int) -> int:
    """Return the largest value of one rank's message.

    With over 127 ranks sums may be rounded.
    """
    return max(1, MAX_SUM // (ranks + 1))  # + 1 for the residual


@cache
def _value_table(most: int, device: torch.device) -> torch.Tensor:
    table = torch.randint(-most, most + 1, (TABLE_LENGTH,), generator=torch.Generator().manual_seed(TABLE_LENGTH))
    table[table == 0] = 1  # zeros would hide unwritten elements, and cost less power
    return table.to(torch.float32).to(device)


def message_values(ranks: int, generation: int) -> MessageValues:
    """Return the values of a round.

    Another `generation` starts elsewhere in the table, so that stale results show.
    """
    most = max_value(ranks)

    def value(rank: int | torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return _value_table(most, index.device)[(index + (rank + 3) * 7919 + generation * 104_729) % TABLE_LENGTH]

    return value


def fill_buffer(buffer: torch.Tensor, value: MessageValues, value_id: int | None) -> None:
    """Write a rank's values to a buffer, or NaN for a result."""
    if value_id is None:
        buffer.fill_(float("nan"))
        return
    block = value(value_id, torch.arange(min(TABLE_LENGTH, buffer.numel()), device=buffer.device)).to(buffer.dtype)
    whole = buffer.numel() // TABLE_LENGTH * TABLE_LENGTH
    if whole:
        buffer[:whole].view(-1, TABLE_LENGTH).copy_(block.expand(whole // TABLE_LENGTH, TABLE_LENGTH))
    buffer[whole:].copy_(block[: buffer.numel() - whole])

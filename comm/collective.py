"""The noun `Collective`: everything that the suites and the tests need to know of one operation between ranks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import sqrt
from typing import NamedTuple, Protocol

import torch

from comm.backend import Communicator

Buffers = dict[str, torch.Tensor]
"""Named tensors of one call on one rank: `message`, and `out` where the result has a place of its own."""

EXACT_RTOL = {"fp32": 0.0, "bf16": 0.0, "fp16": 0.0}
"""Accepted error of what is moved or added up: none, because messages are small integers, whose sums are exact."""

RESIDUAL_ID, WEIGHT_ID = -1, -2
"""Whose values the buffers hold that are no rank's message: the same on every rank."""


class Role(NamedTuple):
    """One rank's part in a case.

    Attributes:
        rank, ranks: this one of how many.
        elements: length of the message as specs/traffic.py means it.
        row: elements of one row of it that belong together: hidden, where a norm follows; else 1.
        in_place: whether the backend writes the result over the message.
        source, target: the two ranks that talk, where the others only wait.
    """

    rank: int
    ranks: int
    elements: int
    row: int
    in_place: bool = False
    source: int = 0
    target: int = 1


class BufferSpec(NamedTuple):
    """One buffer: its length, and whose values it holds; None for a result, which is poisoned with NaN."""

    elements: int
    value_id: int | None


class MessageValues(Protocol):
    """What stands in every rank's message, so that any rank can work out any element of any other's."""

    def __call__(self, rank: int | torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Elements `index` of a rank's message: integers in float32."""


@dataclass(frozen=True)
class Collective:
    """One operation between ranks.

    Attributes:
        op: its name; algbw, busbw and bytes on the wire are that row of `specs.traffic.TRAFFIC`.
        method: what a communicator has to offer for it.
        buffers: `parts(role)` gives a rank's buffers by name.
        run: `run(communicator, buffers, role)` is one call of one rank.
        reference: `reference(value, index, role)` gives the elements `index` of the rank's result in float64.
        result: `result(role)` names the buffer that a call leaves the result in; None for a rank that is given none.
        rtol: largest accepted ‖result − reference‖ / ‖reference‖, by dtype.
        pair: whether two ranks talk and the others wait.
        is_sharded: whether the message is cut into a part for each rank.
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
        """Whether a call multiplies the message by the ranks, so that only so many follow before it overflows."""
        return role.in_place and self.op == "all_reduce"


def result_buffer(role: Role) -> str:
    """Where the result is: over the message if the backend works in place."""
    return "message" if role.in_place else "out"


# Is a collective's result right? Compared piece by piece, so that a check takes little memory beside the message.

CHECK_ELEMENTS = 2**20
"""Elements that are compared at a time."""


def relative_error(collective: Collective, buffers: Buffers, value: MessageValues, role: Role) -> float | None:
    """‖result − reference‖ / ‖reference‖ in float64; NaN where an element was not written, None for no result."""
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


# Messages that every rank can predict: a table of small integers, entered at another place by each rank.
#
# The table's length is a prime, so that a part which arrives at a wrong place, from a wrong rank or from an earlier
# round does not agree. Integers whose sum over all ranks stays below 2^7 are exact in every format and in every order
# of summation.

TABLE_LENGTH = 65_537
MAX_SUM = 127
"""Largest sum over ranks: bf16 has eight bits of significand, so integers up to 256 are exact."""


def max_value(ranks: int) -> int:
    """Largest value of one rank's message; with over 127 ranks sums may be rounded."""
    return max(1, MAX_SUM // (ranks + 1))  # one more for the residual


@cache
def _value_table(most: int, device: torch.device) -> torch.Tensor:
    table = torch.randint(-most, most + 1, (TABLE_LENGTH,), generator=torch.Generator().manual_seed(TABLE_LENGTH))
    table[table == 0] = 1  # zeros would hide what was never written, and cost less power
    return table.to(torch.float32).to(device)


def message_values(ranks: int, generation: int) -> MessageValues:
    """The values of a round; another `generation` enters the table elsewhere, so that stale results show."""
    most = max_value(ranks)

    def value(rank: int | torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return _value_table(most, index.device)[(index + (rank + 3) * 7919 + generation * 104_729) % TABLE_LENGTH]

    return value


def fill_buffer(buffer: torch.Tensor, value: MessageValues, value_id: int | None) -> None:
    """Write a rank's values, or NaN where nothing is held yet."""
    if value_id is None:
        buffer.fill_(float("nan"))
        return
    block = value(value_id, torch.arange(min(TABLE_LENGTH, buffer.numel()), device=buffer.device)).to(buffer.dtype)
    whole = buffer.numel() // TABLE_LENGTH * TABLE_LENGTH
    if whole:
        buffer[:whole].view(-1, TABLE_LENGTH).copy_(block.expand(whole // TABLE_LENGTH, TABLE_LENGTH))
    buffer[whole:].copy_(block[: buffer.numel() - whole])

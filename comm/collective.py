"""The noun `Collective`: everything that the suites and the tests need to know of one operation between ranks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from comm.backend import Communicator

Buffers = dict[str, torch.Tensor]
"""Named tensors of one call on one rank: `message`, and `out` where the result has a place of its own."""

MOVED = {"fp32": 0.0, "bf16": 0.0, "fp16": 0.0}
"""Accepted error of what is moved or added up: none, because messages are small integers, whose sums are exact."""

RESIDUAL, WEIGHT = -1, -2
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


class Part(NamedTuple):
    """One buffer: its length, and whose values it holds; None for a result, which is poisoned with NaN."""

    elements: int
    holds: int | None


class Value(Protocol):
    """What stands in every rank's message, so that any rank can work out any element of any other's."""

    def __call__(self, rank: int | torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Elements `index` of a rank's message: integers in float32."""


@dataclass(frozen=True)
class Collective:
    """One operation between ranks.

    Attributes:
        op: its name; algbw, busbw and bytes on the wire are that row of `specs.traffic.TRAFFIC`.
        method: what a communicator has to offer for it.
        parts: `parts(role)` gives a rank's buffers by name.
        run: `run(communicator, buffers, role)` is one call of one rank.
        reference: `reference(value, index, role)` gives the elements `index` of the rank's result in float64.
        result: `result(role)` names the buffer that a call leaves the result in; None for a rank that is given none.
        rtol: largest accepted ‖result − reference‖ / ‖reference‖, by dtype.
        pair: whether two ranks talk and the others wait.
        divided: whether the message is cut into a part for each rank.
    """

    op: str
    method: str
    parts: Callable[[Role], Mapping[str, Part]]
    run: Callable[[Communicator, Buffers, Role], object]
    reference: Callable[[Value, torch.Tensor, Role], torch.Tensor]
    result: Callable[[Role], str | None]
    rtol: Mapping[str, float]
    pair: bool = False
    divided: bool = False

    def __str__(self) -> str:
        return self.op

    def grows(self, role: Role) -> bool:
        """Whether a call multiplies the message by the ranks, so that only so many follow before it overflows."""
        return role.in_place and self.op == "all_reduce"


def out_or_message(role: Role) -> str:
    """Where the result is: over the message if the backend works in place."""
    return "message" if role.in_place else "out"

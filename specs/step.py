"""A step of a whole model: every sequence of the batch gets one token, or every prompt is read once.

Its time is that of the slowest replica. In decode it is also what a sequence waits for each of its tokens: the loop is
closed, a micro-batch goes on only when its last token has come back.
"""

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from specs.measurement import Measurement

OP = "step"
QUESTION = "tp_vs_pp"
COMPUTE = ("linears", "attention", "norms")
"""Of a layer, and of both ends: the embedding's look-up counts as norms, the LM head and sampling as linears."""
ITEMS = (*COMPUTE, "all-reduce", "hop", "idle", "skew", "host")
"""Where a rank's time goes.

all-reduce: from the moment that the last rank of the group has come, sampling's all-gather included.
hop: sending, and what a message is waited for after it was sent.
idle: what it is waited for before: the bubble, and the time after a rank has finished while others go on.
skew: waiting in an all-reduce for the last rank to come.
host: what is left between all these.
"""
BUSY = (*COMPUTE, "all-reduce", "hop", "host")
"""All but waiting for others."""
BLOCKS = ("compute", "all-reduce", "hop", "idle")
"""Kinds of blocks of a timeline; skew is idle there, and the host's time belongs to the block before."""


class Block(NamedTuple):
    """What one rank did for a while, in seconds from the window's start, for which micro-batch of which step.

    A timeline is {"seconds": length of the window, "blocks": [[rank, kind, start, end, step, slot], …]}, and a rank's
    blocks fill the window one after another. `slot` is the micro-batch, -1 of a block that belongs to none.
    """

    rank: int
    kind: str
    start: float
    end: float
    step: int
    slot: int


def blocks(timeline: Mapping[str, Any]) -> list[Block]:
    """A timeline's blocks, as they stand in a file."""
    return [Block(*one) for one in timeline["blocks"]]


def is_decode(tokens: int | None, batch: int | None) -> bool:
    """Whether each sequence adds one token; else each is a prompt of tokens / batch."""
    return tokens == batch


def ledger(ledgers: Any) -> dict[str, float]:
    """Shares of a step over all passes and stages: they add up to 1."""
    rows = [stage for one in ledgers for stage in one]
    return {item: fmean(row.get(item, 0.0) for row in rows) for item in ITEMS}


def by_stage(ledgers: Any) -> list[dict[str, float]]:
    """The same of each stage, over all passes."""
    return [{item: fmean(row.get(item, 0.0) for row in rows) for item in ITEMS} for rows in zip(*ledgers, strict=True)]


def share_by_pass(ledgers: Any, *items: str) -> list[float]:
    """Of each pass the share of these items together, the mean over stages."""
    return [fmean(sum(row.get(item, 0.0) for item in items) for row in one) for one in ledgers]


def derived(measurement: "Measurement") -> Mapping[str, Any]:
    """What a result file says of a step beside its samples; nothing of any other case."""
    case = measurement.case
    if case.op != OP or not case.batch:
        return {}
    seconds = measurement.median
    decode = is_decode(case.tokens, case.batch)
    found: dict[str, Any] = {
        "step_seconds": seconds,
        "seconds_per_token": seconds if decode else seconds / ((case.tokens or 0) // case.batch),
        "tokens_per_second": (case.tokens or 0) / seconds,
    }
    if measurement.ledgers:
        found["ledger"] = ledger(measurement.ledgers)
    return found

"""What nccl-tests means by algbw and busbw, for every operation between ranks; docs/busbw.md derives the factors.

`message_bytes` is what nccl-tests prints as `size`: of an all-gather the whole that every rank ends with, of a
reduce-scatter the whole that every rank begins with, of everything else what one rank sends or holds.
"""

from collections.abc import Callable
from typing import NamedTuple

from specs.errors import find
from specs.parallel import Split


class Traffic(NamedTuple):
    """How an operation's time becomes a bandwidth.

    Attributes:
        bus_factor: busbw / algbw for so many ranks; None where the time holds more than the transfer.
        sent_factor: bytes that the busiest rank sends, as a multiple of the message, for so many ranks; in a ring where
            several rank do.
        sequential_messages: messages that follow one another within one call: a ping-pong is two.
    """

    bus_factor: Callable[[int], float] | None
    sent_factor: Callable[[int], float]
    sequential_messages: int = 1


def _all_reduce_factor(ranks: int) -> float:
    """A reduce-scatter and an all-gather."""
    return 2 * _shard_factor(ranks)


def _shard_factor(ranks: int) -> float:
    """Of n parts a rank has one already: n − 1 of them cross its link."""
    return (ranks - 1) / ranks


def _unit_factor(_: int) -> float:
    return 1.0


TRAFFIC: dict[str, Traffic] = {
    "all_reduce": Traffic(_all_reduce_factor, _all_reduce_factor),
    "all_reduce_rmsnorm": Traffic(None, _all_reduce_factor),
    "all_gather": Traffic(_shard_factor, _shard_factor),
    "reduce_scatter": Traffic(_shard_factor, _shard_factor),
    "broadcast": Traffic(_unit_factor, _unit_factor),
    "send_recv": Traffic(_unit_factor, _unit_factor),
    "exchange": Traffic(_unit_factor, _unit_factor),
    "ring_shift": Traffic(_unit_factor, _unit_factor),
    "ping_pong": Traffic(_unit_factor, _unit_factor, sequential_messages=2),
    "peer_copy": Traffic(_unit_factor, _unit_factor),
}
"""Every operation between ranks."""


COMM_IMPLEMENTATIONS = (
    *("gloo", "mpi", "nccl", "rccl", "cupy-nccl"),
    *("symm-one-shot", "symm-two-shot", "symm-multimem", "triton-one-shot", "peer"),
)
"""What carries messages, by the names of `--impl` and of result files."""


def bytes_sent_per_rank(op: str, ranks: int, message_bytes: int) -> int:
    """Bytes that the busiest rank sends in one call.

    Raises:
        UserError: no such operation.
    """
    return round(find(TRAFFIC, op, "collective").sent_factor(ranks) * message_bytes)


def algbw(op: str, message_bytes: int, seconds: float) -> float | None:
    """Algorithm bandwidth in bytes a second: message over time; None where the time holds more than the transfer."""
    traffic = TRAFFIC.get(op)
    if traffic is None or traffic.bus_factor is None:
        return None
    return traffic.sequential_messages * message_bytes / seconds


def busbw(op: str, ranks: int, message_bytes: int, seconds: float) -> float | None:
    """Bus bandwidth in bytes a second: algbw times the factor, to be held against one direction of a link."""
    found = algbw(op, message_bytes, seconds)
    if found is None or (factor := TRAFFIC[op].bus_factor) is None:
        return None
    return found * factor(ranks)


# What one rank sends to others in a forward pass, in bytes sent (received is as much again).
#
# Per rank and per system, sent and sent plus received are four figures for one traffic; each name says which.


def message_bytes(split: Split, tokens: int, itemsize: int) -> int:
    """The hidden state of `tokens`: what an all-reduce reduces and what a pipeline hop carries."""
    return tokens * split.model.hidden * itemsize


def all_reduces_per_forward(split: Split, vocabulary_parallel_embedding: bool = False) -> int:
    """Two a layer, after o and after down, and one more where the embedding is cut by vocabulary; none for tp=1."""
    return 0 if split.tp == 1 else 2 * split.model.layers + vocabulary_parallel_embedding


def all_reduce_bytes_sent_per_rank(split: Split, tokens: int, itemsize: int) -> int:
    """A ring sends (tp − 1)/tp of the message in reduce-scatter and as much in all-gather."""
    return 2 * (split.tp - 1) * message_bytes(split, tokens, itemsize) // split.tp


def layer_bytes_sent_per_rank(split: Split, tokens: int, itemsize: int) -> int:
    """Two all-reduces a layer."""
    return 2 * all_reduce_bytes_sent_per_rank(split, tokens, itemsize)


def stage_bytes_sent_per_rank(split: Split, tokens: int, itemsize: int, stage: int = 0) -> int:
    """The all-reduces of one stage's layers; with pp=1 those of a whole step.

    Raises:
        UserError: there is no such stage.
    """
    return split.layers_of(stage) * layer_bytes_sent_per_rank(split, tokens, itemsize)


def logits_gather_bytes_sent_per_rank(split: Split, tokens: int, itemsize: int) -> int:
    """An all-gather of the logits in a ring: each rank passes on tp − 1 slices of the vocabulary."""
    return (split.tp - 1) * tokens * split.vocab_per_rank * itemsize


def hop_bytes_sent_per_rank(split: Split, tokens: int, itemsize: int, with_residual: bool = False) -> int:
    """The hidden state to the next stage, twice where an engine ships the residual apart; none for pp=1.

    Every rank of a stage sends it whole to its peer in the next one.
    """
    return 0 if split.pp == 1 else (1 + with_residual) * message_bytes(split, tokens, itemsize)


def all_reduce_bytes_sent_system_wide(split: Split, tokens: int, itemsize: int) -> int:
    """All ranks, all layers, one forward pass: 4 · layers · (tp − 1) · message."""
    return split.tp * split.model.layers * layer_bytes_sent_per_rank(split, tokens, itemsize)


def hop_bytes_sent_system_wide(split: Split, tokens: int, itemsize: int, with_residual: bool = False) -> int:
    """The pp − 1 hops of one forward pass, by each rank of a stage."""
    return (split.pp - 1) * split.tp * hop_bytes_sent_per_rank(split, tokens, itemsize, with_residual)

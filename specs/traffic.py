"""Traffic between ranks: algbw and busbw, and bytes of a forward pass.

algbw and busbw are those of nccl-tests; docs/busbw.md derives the factors. `message_bytes` is the `size` that
nccl-tests prints. In an all-gather it is the whole that every rank ends with, in a reduce-scatter the whole that every
rank begins with. In all other operations it is the size that one rank sends or holds.
"""

from collections.abc import Callable
from typing import NamedTuple

from specs.errors import find
from specs.parallel import Split


class Traffic(NamedTuple):
    """Factors that turn an operation's time into a bandwidth.

    Attributes:
        bus_factor: busbw / algbw by number of ranks; None where the time holds more than the transfer.
        sent_factor: bytes that the busiest rank sends, as a multiple of the message, by number of ranks; in a ring
            where several ranks send.
        sequential_messages: messages that follow one another within one call: a ping-pong has two.
    """

    bus_factor: Callable[[int], float] | None
    sent_factor: Callable[[int], float]
    sequential_messages: int = 1


def _all_reduce_factor(ranks: int) -> float:
    """Return the factor of a reduce-scatter plus an all-gather."""
    return 2 * _shard_factor(ranks)


def _shard_factor(ranks: int) -> float:
    """Return (n − 1) / n: of n parts a rank has one, and the rest cross its link."""
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
"""All operations between ranks, by name."""


COMM_IMPLEMENTATIONS = (
    *("gloo", "mpi", "nccl", "rccl", "cupy-nccl"),
    *("symm-one-shot", "symm-two-shot", "symm-multimem", "triton-one-shot", "peer"),
)
"""Libraries that carry messages, by the names of `--impl` and of result files."""


def bytes_sent_per_rank(op: str, ranks: int, message_bytes: int) -> int:
    """Return the bytes that the busiest rank sends in one call.

    Raises:
        UserError: no such operation.
    """
    return round(find(TRAFFIC, op, "collective").sent_factor(ranks) * message_bytes)


def algbw(op: str, message_bytes: int, seconds: float) -> float | None:
    """Return the algorithm bandwidth in bytes/s: message over time.

    None where the time holds more than the transfer.
    """
    traffic = TRAFFIC.get(op)
    if traffic is None or traffic.bus_factor is None:
        return None
    return traffic.sequential_messages * message_bytes / seconds


def busbw(op: str, ranks: int, message_bytes: int, seconds: float) -> float | None:
    """Return the bus bandwidth in bytes/s: algbw times the bus factor.

    It compares with one direction of a link.
    """
    found = algbw(op, message_bytes, seconds)
    if found is None or (factor := TRAFFIC[op].bus_factor) is None:
        return None
    return found * factor(ranks)


# Bytes that one rank sends in a forward pass; it receives as many.
#
# Per rank and per system, sent and sent plus received are four figures for one traffic. Each name says which.


def message_bytes(split: Split, tokens: int, itemsize: int) -> int:
    """Return the size of the hidden state of `tokens`.

    An all-reduce reduces it, and a pipeline hop carries it.
    """
    return tokens * split.model.hidden * itemsize


def all_reduces_per_forward(split: Split, vocabulary_parallel_embedding: bool = False) -> int:
    """Return the all-reduces of a forward pass; 0 for tp=1.

    There are two per layer, after o and after down, and one more where the embedding is cut by vocabulary.
    """
    return 0 if split.tp == 1 else 2 * split.model.layers + vocabulary_parallel_embedding


def all_reduce_bytes_sent_per_rank(split: Split, tokens: int, itemsize: int) -> int:
    """Return the bytes that a rank sends in one ring all-reduce.

    It sends (tp − 1)/tp of the message in reduce-scatter and as much in all-gather.
    """
    return 2 * (split.tp - 1) * message_bytes(split, tokens, itemsize) // split.tp


def layer_bytes_sent_per_rank(split: Split, tokens: int, itemsize: int) -> int:
    """Return the bytes that a rank sends in a layer's two all-reduces."""
    return 2 * all_reduce_bytes_sent_per_rank(split, tokens, itemsize)


def stage_bytes_sent_per_rank(split: Split, tokens: int, itemsize: int, stage: int = 0) -> int:
    """Return the bytes that a rank sends in the all-reduces of one stage's layers.

    With pp=1 these are the all-reduces of a whole step.

    Raises:
        UserError: there is no such stage.
    """
    return split.layers_of(stage) * layer_bytes_sent_per_rank(split, tokens, itemsize)


def logits_gather_bytes_sent_per_rank(split: Split, tokens: int, itemsize: int) -> int:
    """Return the bytes that a rank sends in a ring all-gather of the logits.

    Each rank passes on tp − 1 slices of the vocabulary.
    """
    return (split.tp - 1) * tokens * split.vocab_per_rank * itemsize


def hop_bytes_sent_per_rank(split: Split, tokens: int, itemsize: int, with_residual: bool = False) -> int:
    """Return the bytes that a rank sends to the next stage; 0 for pp=1.

    Every rank of a stage sends the whole hidden state to its peer in the next stage. The size doubles where an engine
    sends the residual separately.
    """
    return 0 if split.pp == 1 else (1 + with_residual) * message_bytes(split, tokens, itemsize)


def all_reduce_bytes_sent_system_wide(split: Split, tokens: int, itemsize: int) -> int:
    """Return the bytes of all ranks' all-reduces in all layers of one forward pass.

    The sum is 4 · layers · (tp − 1) · message.
    """
    return split.tp * split.model.layers * layer_bytes_sent_per_rank(split, tokens, itemsize)


def hop_bytes_sent_system_wide(split: Split, tokens: int, itemsize: int, with_residual: bool = False) -> int:
    """Return the bytes of the pp − 1 hops of one forward pass.

    Each rank of a stage sends its own copy.
    """
    return (split.pp - 1) * split.tp * hop_bytes_sent_per_rank(split, tokens, itemsize, with_residual)

"""What one rank sends to others in a forward pass, in bytes sent (received is as much again).

Per rank and per system, sent and sent plus received are four figures for one traffic; each name says which.
"""

from specs.parallel import Split


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

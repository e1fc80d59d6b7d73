"""What attention can be asked for as, and one rank's heads of it."""

from typing import NamedTuple

from specs.parallel import Split

LAYER = "attention"
"""What `--layer` and a case call it, beside the linears."""

IMPLEMENTATIONS = ("torch", "triton", "triton-paged", "flash-attn", "flashinfer")
"""Of decode attention, in the order in which rivals are measured; of prefill those that have it."""

PAGED = ("triton-paged", "flashinfer")
"""Those whose cache is in pages."""

PAGE_SIZE = 64
"""Tokens of a page: whole tiles of ours, and a size that all libraries take but FlashAttention-2, which wants 256."""


class Heads(NamedTuple):
    """One rank's part of attention, between its qkv and its o; strings and integers only, for JSON."""

    model: str
    tp: int
    pp: int
    layer: str
    heads: int
    kv_heads: int
    head_dim: int


def heads_of(split: Split) -> Heads:
    """The heads of one rank: kv heads are repeated once tp exceeds them.

    Raises:
        UserError: the model's attention is of another kind.
    """
    one = split.model
    one.require_attention()
    return Heads(one.slug, split.tp, split.pp, LAYER, one.heads // split.tp, split.kv_heads_per_rank, one.head_dim)

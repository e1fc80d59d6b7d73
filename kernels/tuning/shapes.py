"""The shapes that are tuned and inspected: of a layer under several degrees of tensor parallelism."""

from collections.abc import Sequence

from specs.layer import MODEL, TP, Heads, heads_of
from specs.models import model
from specs.parallel import Shard, Split

TOKEN_TILES = (1, 2, 4, 16, 32, 64)
"""Of the skinny linear, which holds all tokens in a tile."""
GEMM_TOKENS = (128, 256, 512, 1024, 2048, 4096, 8192)
"""Of the GEMM: each stands for all counts from its half on, the last one for all beyond it too."""
TOKEN_CLASSES = (*TOKEN_TILES, *GEMM_TOKENS)
ATTENTION_BATCHES = (1, 32, 128)
CONTEXTS = (1024, 8192, 32768)


def shards(name: str = MODEL, tp: Sequence[int] = TP) -> list[Shard]:
    """One rank's linears of a layer, each degree after the other; the LM head is no part of a layer.

    Raises:
        UserError: an unknown model, or a degree that does not divide it.
    """
    found = [shard for degree in tp for shard in Split(model(name), degree).linears.values()]
    return [shard for shard in found if shard.layer != "lm_head"]


def heads(shards: Sequence[Shard]) -> list[Heads]:
    """One rank's heads of attention between these linears, once for each model and degree; of some models none."""
    cuts = dict.fromkeys((shard.model, shard.tp) for shard in shards)
    return [heads_of(Split(model(slug), tp)) for slug, tp in cuts if model(slug).heads]

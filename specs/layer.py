"""One decoder layer as a rank runs it: widths under TP, parts, and case names.

Decode: every sequence adds one token, so tokens = batch. Each token attends to `context` tokens of its KV cache.
Prefill: one prompt, so batch = 1 and context = tokens. Under tensor parallelism an all-reduce follows o and another
follows down; both are outside of the work of one rank.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from specs.errors import UserError
from specs.models import Model
from specs.parallel import Split

# Implementations of attention, and one rank's heads.

ATTENTION = "attention"
"""Name of attention in `--layer` and in cases, next to the linears."""

ATTENTION_IMPLEMENTATIONS = ("torch", "triton", "triton-paged", "flash-attn", "flashinfer")
"""Implementations of decode attention, in the order of measurement.

Prefill has some of them.
"""

PAGED_IMPLEMENTATIONS = ("triton-paged", "flashinfer")
"""Implementations with a paged cache."""

PAGE_SIZE = 64
"""Tokens of a page: whole tiles of our kernel.

All libraries but FlashAttention-2 take this size; FlashAttention-2 requires 256.
"""


class AttentionShard(NamedTuple):
    """One rank's part of attention, between its qkv and its o.

    All fields are strings and integers, for JSON.
    """

    model: str
    tp: int
    pp: int
    layer: str
    heads: int
    kv_heads: int
    head_dim: int


def attention_shard(split: Split) -> AttentionShard:
    """Return the heads of one rank; kv heads are replicated once tp exceeds them.

    Raises:
        UserError: the model's attention is not grouped-query.
    """
    one = split.model
    one.require_attention()
    return AttentionShard(
        one.slug, split.tp, split.pp, ATTENTION, one.heads // split.tp, split.kv_heads_per_rank, one.head_dim
    )


# Shapes of the decode kernels: a layer's linears of one model, at four TP degrees and five batches.

DEFAULT_MODEL = "llama-3-70b"
LAYER_LINEARS = ("qkv", "o", "gate_up", "down")
TP_DEGREES = (1, 2, 4, 8)
DECODE_TOKENS = (1, 8, 16, 32, 64)

LINEAR_IMPLEMENTATIONS = ("torch", "cublaslt", "triton", "triton-pdl", "cuda")
"""Implementations of a linear, in the order of measurement."""

CUBLASLT_CANDIDATES = 32
"""Algorithms requested from cuBLASLt's heuristics per size.

A ratio against the fastest of fewer algorithms would claim less.
"""


WHOLE_LAYER = "layer"
LAYER_PARTS = ("norm", "qkv", "rotary", "attention", "o", "gate_up", "swiglu", "down")
"""Parts in the order of a layer.

The norm adds the residual too, and comes once more after o.
"""
FUSED_GATE_UP = "gate_up_swiglu"
"""Part that is gate_up with swiglu in its epilogue, where both are fused."""
CALLS_PER_LAYER = {"norm": 2}
"""Calls per layer of the parts that a layer calls more than once."""

LAYER_IMPLEMENTATIONS = ("torch", "torch-compile", "triton")
FUSING_IMPLEMENTATIONS = ("triton",)
"""Implementations that replace gate_up and swiglu by the fused part."""


class LayerPart(NamedTuple):
    """A part of one rank's layer, or the whole layer.

    All fields are strings and integers, for JSON.

    Attributes:
        model, tp, pp: the split model.
        layer: `layer` for the whole layer, else the part's name.
        tokens: rows of x.
        batch: sequences that the rows belong to: equal to tokens in decode, 1 in prefill.
        context: tokens in each sequence's cache, with the new token; in prefill the tokens of the prompt.
        per_layer: calls a layer.
    """

    model: str
    tp: int
    pp: int
    layer: str
    tokens: int
    batch: int
    context: int
    per_layer: int

    def __str__(self) -> str:
        phase = f"{self.tokens}tok-ctx{self.context}" if self.batch == self.tokens else f"prompt{self.tokens}"
        return f"{self.model}-tp{self.tp}-pp{self.pp}-{phase}-{self.layer}"


@dataclass(frozen=True)
class LayerShape:
    """Widths of one rank's layer.

    Attributes:
        hidden: width of the residual stream.
        heads, kv_heads: heads of this rank.
        head_dim: width of each head.
        intermediate: width of this rank's part of the MLP.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int

    @property
    def qkv(self) -> int:
        """Output features of the first linear: queries, keys and values of all heads."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def queries(self) -> int:
        """Width of the queries, and of the output of attention."""
        return self.heads * self.head_dim


def why_unsupported_layer(model: Model) -> str | None:
    """Return one line on features of a model's layers that no kernel has; None without any."""
    odd = {
        "experts": model.experts,
        "biases": model.biases,
        "biases on queries, keys and values": model.qkv_biases,
        "norms on queries and keys": model.qk_norm,
        "no gate in its MLP": not model.gated,
        "attention of another kind": not model.heads,
    }
    found = [name for name, there in odd.items() if there]
    return f"{model}: a whole layer of it is not made, it has {', '.join(found)}" if found else None


def why_unplannable_layer(model: Model) -> str | None:
    """Return one line on features of a model's layers that a plan has no cost for; None without any.

    Biases and norms of queries and keys have a cost, so a plan covers more models than the kernels do.
    """
    return why_unsupported_layer(replace(model, qkv_biases=False, qk_norm=False))


def layer_shape(split: Split) -> LayerShape:
    """Return the widths of a layer on a rank of `split`.

    Raises:
        UserError: the model's layers have unsupported features.
    """
    model = split.model
    if reason := why_unsupported_layer(model):
        raise UserError(f"{reason}; choose a dense Llama: llama-3.2-1b, llama-3-8b, llama-3-70b")
    return LayerShape(
        model.hidden, model.heads // split.tp, split.kv_heads_per_rank, model.head_dim, model.intermediate // split.tp
    )


def layer_part(split: Split, name: str, *, tokens: int, batch: int, context: int) -> LayerPart:
    """Return the part `name` of a rank's layer as a `LayerPart`."""
    return LayerPart(split.model.slug, split.tp, split.pp, name, tokens, batch, context, CALLS_PER_LAYER.get(name, 1))


# Shares: the parts of a model that one rank computes by itself, timed alone and next to other ranks.

SHARES_QUESTION = "shares"
LAYER_SHARE, HEAD_SHARE = WHOLE_LAYER, "lm_head"
"""Parts of a share: one layer, and the head.

The head is norm, LM head and the largest logit of each sequence.
"""
SHARE_PARTS = (LAYER_SHARE, HEAD_SHARE)

"""One decoder layer as a rank runs it: the widths that are left of it under tensor parallelism, and its parts.

Decode: every sequence adds one token, so tokens = batch, and each attends to `context` tokens of its KV cache. Prefill:
one prompt, so batch = 1 and context = tokens. Under tensor parallelism two all-reduces follow, one behind o and one
behind down; they are no part of what one rank computes.
"""

from dataclasses import dataclass
from typing import NamedTuple

from specs.errors import UserError
from specs.models import Model
from specs.parallel import Split

# What attention can be asked for as, and one rank's heads of it.

ATTENTION = "attention"
"""What `--layer` and a case call it, beside the linears."""

ATTENTION_IMPLEMENTATIONS = ("torch", "triton", "triton-paged", "flash-attn", "flashinfer")
"""Of decode attention, in the order in which rivals are measured; of prefill those that have it."""

PAGED_IMPLEMENTATIONS = ("triton-paged", "flashinfer")
"""Those whose cache is in pages."""

PAGE_SIZE = 64
"""Tokens of a page: whole tiles of ours, and a size that all libraries take but FlashAttention-2, which wants 256."""


class AttentionShard(NamedTuple):
    """One rank's part of attention, between its qkv and its o; strings and integers only, for JSON."""

    model: str
    tp: int
    pp: int
    layer: str
    heads: int
    kv_heads: int
    head_dim: int


def attention_shard(split: Split) -> AttentionShard:
    """The heads of one rank: kv heads are repeated once tp exceeds them.

    Raises:
        UserError: the model's attention is of another kind.
    """
    one = split.model
    one.require_attention()
    return AttentionShard(
        one.slug, split.tp, split.pp, ATTENTION, one.heads // split.tp, split.kv_heads_per_rank, one.head_dim
    )


# The points that decode kernels are held to: a layer's linears of one model, cut several ways, at five batches.

DEFAULT_MODEL = "llama-3-70b"
LAYER_LINEARS = ("qkv", "o", "gate_up", "down")
TP_DEGREES = (1, 2, 4, 8)
DECODE_TOKENS = (1, 8, 16, 32, 64)

LINEAR_IMPLEMENTATIONS = ("torch", "cublaslt", "triton", "triton-pdl", "cuda")
"""What a linear can be asked for as, in the order in which rivals are measured."""

CUBLASLT_CANDIDATES = 32
"""Proposals that cuBLASLt's heuristics are asked for at a size: a ratio against the fastest of fewer claims less."""


WHOLE_LAYER = "layer"
LAYER_PARTS = ("norm", "qkv", "rotary", "attention", "o", "gate_up", "swiglu", "down")
"""In the order of a layer; the norm, which adds the residual too, comes once more behind o."""
FUSED_GATE_UP = "gate_up_swiglu"
"""gate_up with swiglu in its epilogue, where an implementation has that."""
CALLS_PER_LAYER = {"norm": 2}
"""Calls a layer of what it calls more than once."""

LAYER_IMPLEMENTATIONS = ("torch", "torch-compile", "triton")
FUSING_IMPLEMENTATIONS = ("triton",)
"""Those whose layer has the fused part in place of gate_up and swiglu."""


class LayerPart(NamedTuple):
    """A part of one rank's layer, or all of it; strings and integers only, for JSON.

    Attributes:
        model, tp, pp: what it was cut from.
        layer: `layer` for all of it, else the part's name.
        tokens: rows of x.
        batch: sequences that they belong to: as many as tokens in decode, 1 in prefill.
        context: tokens in each sequence's cache, the new one included; of a prompt its tokens.
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
        hidden: of the residual stream.
        heads, kv_heads: of this rank.
        head_dim: of each head.
        intermediate: of this rank's part of the MLP.
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
        """Width of the queries, and of what attention hands on."""
        return self.heads * self.head_dim


def why_unsupported_layer(model: Model) -> str | None:
    """One line on what a model's layers have that ours do not; None where they are of this kind."""
    odd = {
        "experts": model.experts,
        "biases": model.biases,
        "norms on queries and keys": model.qk_norm,
        "no gate in its MLP": not model.gated,
        "attention of another kind": not model.heads,
    }
    found = [name for name, there in odd.items() if there]
    return f"{model}: a whole layer of it is not made, it has {', '.join(found)}" if found else None


def layer_shape(split: Split) -> LayerShape:
    """What a rank of `split` holds of a layer.

    Raises:
        UserError: the model's layers are none of this kind.
    """
    model = split.model
    if reason := why_unsupported_layer(model):
        raise UserError(f"{reason}; choose a dense Llama: llama-3.2-1b, llama-3-8b, llama-3-70b")
    return LayerShape(
        model.hidden, model.heads // split.tp, split.kv_heads_per_rank, model.head_dim, model.intermediate // split.tp
    )


def layer_part(split: Split, name: str, *, tokens: int, batch: int, context: int) -> LayerPart:
    """What tells the part `name` of a rank's layer from others."""
    return LayerPart(split.model.slug, split.tp, split.pp, name, tokens, batch, context, CALLS_PER_LAYER.get(name, 1))


# What a rank computes of a model by itself, its share, as cases name it: timed alone, and beside other ranks.

SHARES_QUESTION = "shares"
LAYER_SHARE, HEAD_SHARE = WHOLE_LAYER, "lm_head"
"""Its parts: one layer; and norm, LM head and the largest logit of each sequence."""
SHARE_PARTS = (LAYER_SHARE, HEAD_SHARE)

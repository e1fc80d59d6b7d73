"""Which kernel computes each part of a layer, by implementation, and at what shape."""

from typing import NamedTuple

from kernels.attentions import DECODE, pick
from kernels.gate_up import gate_up
from kernels.kernel import Kernel
from kernels.linears import linear
from kernels.prefill_attention import TORCH_PREFILL_ATTENTION
from kernels.rmsnorm import TORCH_RMSNORM, TRITON_RMSNORM
from kernels.rotary import TORCH_ROTARY, TRITON_ROTARY
from kernels.swiglu import TORCH_SWIGLU, TRITON_SWIGLU
from specs.layer import FUSED, FUSING, LAYER_PARTS, LayerShape

ELEMENTWISE = {
    "torch": {"norm": TORCH_RMSNORM, "rotary": TORCH_ROTARY, "swiglu": TORCH_SWIGLU},
    "triton": {"norm": TRITON_RMSNORM, "rotary": TRITON_ROTARY, "swiglu": TRITON_SWIGLU},
}


class Part(NamedTuple):
    """A kernel and what its `inputs` and `work` ask for."""

    kernel: Kernel
    shape: dict[str, int]


def part(name: str, implementation: str, widths: LayerShape, *, tokens: int, batch: int, context: int) -> Part:
    """The part `name` of a layer, one of `specs.layer.LAYER_PARTS` or the fused gate_up.

    In prefill attention is the library's in any implementation: there is none of our own.

    Raises:
        UserError: `implementation` has no linear for so many tokens.
    """
    hidden, intermediate = widths.hidden, widths.intermediate
    heads = {"heads": widths.heads, "kv_heads": widths.kv_heads, "head_dim": widths.head_dim}
    linears = {
        "qkv": (widths.qkv, hidden),
        "o": (hidden, widths.queries),
        "gate_up": (2 * intermediate, hidden),
        FUSED: (2 * intermediate, hidden),
        "down": (hidden, intermediate),
    }
    if name in linears:
        n, k = linears[name]
        kernel = (gate_up if name == FUSED else linear)(implementation, tokens)
        return Part(kernel, {"tokens": tokens, "n": n, "k": k})
    if name == "attention":
        if tokens == batch:
            return Part(pick(DECODE, implementation), {"batch": batch, "context": context, **heads})
        return Part(TORCH_PREFILL_ATTENTION, {"tokens": tokens, **heads})
    own = {"norm": {"hidden": hidden}, "rotary": heads, "swiglu": {"intermediate": intermediate}}
    return Part(ELEMENTWISE[implementation][name], {"tokens": tokens, **own[name]})


def names(implementation: str) -> tuple[str, ...]:
    """What a layer is made of by `implementation`: ours has SwiGLU in the epilogue of gate_up."""
    if implementation not in FUSING:
        return LAYER_PARTS
    return tuple(FUSED if name == "gate_up" else name for name in LAYER_PARTS if name != "swiglu")

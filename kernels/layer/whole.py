"""A decoder layer of one rank: norm, qkv, rotary, attention, o, norm, gate and up, SwiGLU, down.

    h = x + residual;  total = h + o(attention(rotary(qkv(norm(h)))));  out = down(swiglu(gate_up(norm(total))))

The next layer's norm adds `out` and `total`. Under tensor parallelism an all-reduce belongs behind o and behind down;
ranks do not talk here. In decode the new token's keys and values go to the last place of each sequence's cache, where
attention finds them.
"""

from collections.abc import Mapping
from functools import partial
from math import sqrt
from typing import Any

import torch

from kernels.kernel import Draw, Inputs, Kernel, Step
from kernels.layer.parts import Part, names, part
from specs.layer import FUSED, LayerShape
from specs.roofline import Work
from specs.units import ITEMSIZE

RTOL = {"fp32": 1e-4, "bf16": 4e-2, "fp16": 5e-3}
"""Some ten parts round their results one after another, each 1.1e-3 in bf16, and attention sharpens the differences."""

Parts = Mapping[str, Part]


def layer(implementation: str, widths: LayerShape, *, tokens: int, batch: int, context: int) -> Kernel:
    """The layer for a shape, which its `inputs` and `work` are then asked for too.

    Args:
        implementation: torch or triton.
        widths: of this rank's layer.
        tokens: rows of x.
        batch: sequences: as many as tokens in decode, 1 in prefill.
        context: tokens in each sequence's cache, the new one included; of a prompt its tokens.

    Raises:
        UserError: `implementation` has no linear for so many tokens.
    """
    parts = layer_parts(implementation, widths, tokens=tokens, batch=batch, context=context)
    kernels = [one.kernel for one in parts.values()]
    return Kernel(
        name=f"{implementation}_layer",
        op="layer",
        implementation=implementation,
        inputs=partial(inputs, parts, widths),
        run=partial(run, parts),
        steps=partial(steps, parts),
        reference=partial(reference, parts),
        work=partial(work, parts, widths),
        rtol=RTOL,
        archs=next((kernel.archs for kernel in kernels if kernel.archs), None),
        missing=lambda: next((reason for kernel in kernels if (reason := kernel.missing())), None),
        outputs=("out", "total"),
        configuration=partial(configuration, parts),
    )


def configuration(parts: Parts, *, arch: str, dtype: str, **_: int) -> str:
    """What each part that has a choice runs with."""
    told = {
        name: one.kernel.configuration(arch=arch, dtype=dtype, **one.shape)
        for name, one in parts.items()
        if one.kernel.configuration
    }
    return "; ".join(f"{name} {choice}" for name, choice in told.items()) or "nothing to choose"


def absent(implementation: str, reason: str) -> Kernel:
    """What stands for a layer that is not made: it says why, and does nothing."""
    return Kernel(
        name=f"{implementation}_layer",
        op="layer",
        implementation=implementation,
        inputs=lambda draw, **_: {},  # noqa: ARG005 - a Draw is always given
        run=lambda: None,
        reference=lambda: (),
        work=lambda **_: Work(),
        rtol=RTOL,
        archs=None,
        missing=lambda: reason,
        outputs=(),
    )


def layer_parts(implementation: str, widths: LayerShape, *, tokens: int, batch: int, context: int) -> Parts:
    """The parts of a layer by name."""
    shape = {"tokens": tokens, "batch": batch, "context": context}
    return {name: part(name, implementation, widths, **shape) for name in names(implementation)}


def work(parts: Parts, widths: LayerShape, *, tokens: int, batch: int, context: int, dtype: str) -> Work:
    """Read each weight, the KV cache, x and the residual once; write both results and the new keys and values once.

    What lies between the parts need not leave the caches.
    """
    flops = sum(one.kernel.work(dtype=dtype, **one.shape).flops for one in parts.values())
    flops += parts["norm"].kernel.work(dtype=dtype, **parts["norm"].shape).flops  # it comes twice
    weights = widths.hidden * (widths.qkv + widths.queries + 3 * widths.intermediate + 2)
    cache = 2 * batch * context * widths.kv_heads * widths.head_dim
    return Work(flops=flops, hbm_bytes=(weights + cache + 4 * tokens * widths.hidden) * ITEMSIZE[dtype])


def inputs(
    parts: Parts, widths: LayerShape, draw: Draw, *, tokens: int, batch: int, context: int, dtype: str
) -> Inputs:
    """Weights and cache that stream, x and residual that the layer before has written, and room between the parts.

    Gains are near 1 / √hidden: with weights of one, queries and keys are of one then, and softmax is no mere maximum.
    """
    hidden, intermediate = widths.hidden, widths.intermediate
    places = (batch, context) if tokens == batch else (tokens,)
    cached = (*places, widths.kv_heads, widths.head_dim)
    return {
        "x": draw.activation(tokens, hidden, dtype=dtype, name="x"),
        "residual": draw.activation(tokens, hidden, dtype=dtype, name="residual"),
        "first_gain": draw.activation(hidden, dtype=dtype, name="first_gain") / sqrt(hidden),
        "second_gain": draw.activation(hidden, dtype=dtype, name="second_gain") / sqrt(hidden),
        "cos": draw.activation(tokens, widths.head_dim // 2, dtype="fp32", name="cos"),
        "sin": draw.activation(tokens, widths.head_dim // 2, dtype="fp32", name="sin"),
        "lengths": draw.integers(torch.full((batch,), context, dtype=torch.int32)),
        "qkv_weight": draw.weight(widths.qkv, hidden, dtype=dtype),
        "o_weight": draw.weight(hidden, widths.queries, dtype=dtype),
        "gate_up_weight": draw.weight(2 * intermediate, hidden, dtype=dtype),
        "down_weight": draw.weight(hidden, intermediate, dtype=dtype),
        "key": draw.weight(*cached, dtype=dtype),
        "value": draw.weight(*cached, dtype=dtype),
        **{name: draw.output(tokens, hidden, dtype=dtype, name=name) for name in ("out", "total")},
        **{name: draw.output(*one, dtype=dtype, name=name) for name, one in room(parts, widths, tokens).items()},
    }


def room(parts: Parts, widths: LayerShape, tokens: int) -> dict[str, tuple[int, ...]]:
    """Shapes of what one part hands to the next."""
    heads = (tokens, widths.heads, widths.head_dim)
    shapes: dict[str, tuple[int, ...]] = {
        "middle": (tokens, widths.hidden),
        "normed": (tokens, widths.hidden),
        "qkv": (tokens, widths.qkv),
        "query": heads,
        "attended": heads,
        "projected": (tokens, widths.hidden),
        "activated": (tokens, widths.intermediate),
    }
    return shapes if FUSED in parts else shapes | {"gate_up": (tokens, 2 * widths.intermediate)}


def steps(parts: Parts, prompts: int = 1, **t: torch.Tensor) -> list[Step]:
    """The calls of a layer in their order, each with the name of its part.

    In prefill the rows may be those of several prompts of one length: attention is called for each.
    """
    decode = t["key"].dim() == 4
    key, value = (t[name][:, -1] if decode else t[name] for name in ("key", "value"))
    told = parts["attention"].kernel.implementation != "torch"  # its compiler would have to stop and look at them
    lengths = {"lengths": t["lengths"] if told else None} if decode else {}
    attended = t["attended"].view(t["projected"].shape[0], -1)
    operands = {"query": t["query"], "key": t["key"], "value": t["value"], "out": t["attended"]}
    apart = [operands] if decode else _apart(operands, prompts)
    runs = {name: one.kernel.run for name, one in parts.items()}
    mlp: list[Step]
    if FUSED in parts:
        mlp = [(FUSED, partial(runs[FUSED], x=t["normed"], weight=t["gate_up_weight"], out=t["activated"]))]
    else:
        mlp = [
            ("gate_up", partial(runs["gate_up"], x=t["normed"], weight=t["gate_up_weight"], out=t["gate_up"])),
            ("swiglu", partial(runs["swiglu"], gate_up=t["gate_up"], out=t["activated"])),
        ]
    norm = partial(runs["norm"], out=t["normed"])
    return [
        ("norm", partial(norm, x=t["x"], residual=t["residual"], weight=t["first_gain"], total=t["middle"])),
        ("qkv", partial(runs["qkv"], x=t["normed"], weight=t["qkv_weight"], out=t["qkv"])),
        (
            "rotary",
            partial(runs["rotary"], t["qkv"], t["cos"], t["sin"], out=t["query"], key=key, value=value),
        ),
        *(("attention", partial(runs["attention"], **one, **lengths)) for one in apart),
        ("o", partial(runs["o"], x=attended, weight=t["o_weight"], out=t["projected"])),
        ("norm", partial(norm, x=t["projected"], residual=t["middle"], weight=t["second_gain"], total=t["total"])),
        *mlp,
        ("down", partial(runs["down"], x=t["activated"], weight=t["down_weight"], out=t["out"])),
    ]


def _apart(operands: Mapping[str, torch.Tensor], prompts: int) -> list[dict[str, torch.Tensor]]:
    """The rows of each prompt."""
    cut = {name: tensor.chunk(prompts) for name, tensor in operands.items()}
    return [{name: rows[index] for name, rows in cut.items()} for index in range(prompts)]


def run(parts: Parts, **tensors: torch.Tensor) -> None:
    """All of them."""
    for _, step in steps(parts, 1, **tensors):
        step()


def reference(parts: Parts, **t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each part's reference in float64 on what the one before gives.

    The new keys and values go to the last place of the cache here too: what a wrong call has put there, its result is
    judged by. A copy of the cache in float64 would be four times what a call streams.
    """

    def of(name: str, *given: torch.Tensor, **named: torch.Tensor) -> Any:
        return parts[name].kernel.reference(*given, **named)

    normed, middle = of("norm", x=t["x"], residual=t["residual"], weight=t["first_gain"])
    qkv = of("qkv", x=normed, weight=t["qkv_weight"])
    query, new_key, new_value = of("rotary", qkv, t["cos"], t["sin"], torch.tensor(t["key"].shape[-2]))
    if t["key"].dim() == 4:
        t["key"][:, -1], t["value"][:, -1] = new_key, new_value
        attended = of("attention", query, t["key"], t["value"], lengths=t["lengths"])
    else:
        attended = of("attention", query, new_key, new_value)
    projected = of("o", x=attended.flatten(1), weight=t["o_weight"])
    normed, total = of("norm", x=projected, residual=middle, weight=t["second_gain"])
    if FUSED in parts:
        activated = of(FUSED, x=normed, weight=t["gate_up_weight"])
    else:
        activated = of("swiglu", gate_up=of("gate_up", x=normed, weight=t["gate_up_weight"]))
    return of("down", x=activated, weight=t["down_weight"]), total

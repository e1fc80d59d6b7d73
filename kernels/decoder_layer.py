"""A decoder layer of one rank, by torch, torch.compile or Triton.

It is norm, qkv, rotary, attention, o, norm, gate and up, SwiGLU, down:

    h = x + residual;  total = h + o(attention(rotary(qkv(norm(h)))));  out = down(swiglu(gate_up(norm(total))))

The next layer's norm adds `out` and `total`. Under tensor parallelism an all-reduce follows o and another follows down;
ranks do not communicate here. In decode the new token's keys and values go to the last place of each sequence's cache,
where attention reads them.
"""

import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from math import sqrt
from types import FunctionType
from typing import Any, NamedTuple

import torch

from kernels.attention import TORCH_PREFILL_ATTENTION
from kernels.gate_up import select_gate_up
from kernels.kernel import Inputs, Kernel, Step, TensorSource
from kernels.registry import DECODE_ATTENTION, find_kernel, select_linear
from kernels.rmsnorm import TORCH_RMSNORM, TRITON_RMSNORM
from kernels.rotary import TORCH_ROTARY, TRITON_ROTARY
from kernels.swiglu import TORCH_SWIGLU, TRITON_SWIGLU
from kernels.triton_utils import missing_triton_launch
from specs.layer import FUSED_GATE_UP, FUSING_IMPLEMENTATIONS, LAYER_PARTS, LayerShape
from specs.roofline import Work
from specs.units import ITEMSIZE

# Kernel and shape of each part of a layer, by implementation.

ELEMENTWISE_KERNELS = {
    "torch": {"norm": TORCH_RMSNORM, "rotary": TORCH_ROTARY, "swiglu": TORCH_SWIGLU},
    "triton": {"norm": TRITON_RMSNORM, "rotary": TRITON_ROTARY, "swiglu": TRITON_SWIGLU},
}


class PartKernel(NamedTuple):
    """A kernel, and the shape for its `inputs` and `work`."""

    kernel: Kernel
    shape: dict[str, int]


def part_kernel(
    name: str, implementation: str, widths: LayerShape, *, tokens: int, batch: int, context: int
) -> PartKernel:
    """Return the kernel of the part `name` of a layer.

    `name` is one of `specs.layer.LAYER_PARTS` or the fused gate_up. Prefill attention is a library's in any
    implementation, since we have none.

    Raises:
        UserError: `implementation` has no linear for so many tokens.
    """
    hidden, intermediate = widths.hidden, widths.intermediate
    heads = {"heads": widths.heads, "kv_heads": widths.kv_heads, "head_dim": widths.head_dim}
    linears = {
        "qkv": (widths.qkv, hidden),
        "o": (hidden, widths.queries),
        "gate_up": (2 * intermediate, hidden),
        FUSED_GATE_UP: (2 * intermediate, hidden),
        "down": (hidden, intermediate),
    }
    if name in linears:
        n, k = linears[name]
        kernel = (select_gate_up if name == FUSED_GATE_UP else select_linear)(implementation, tokens)
        return PartKernel(kernel, {"tokens": tokens, "n": n, "k": k})
    if name == "attention":
        if tokens == batch:
            return PartKernel(
                find_kernel(DECODE_ATTENTION, implementation), {"batch": batch, "context": context, **heads}
            )
        return PartKernel(TORCH_PREFILL_ATTENTION, {"tokens": tokens, **heads})
    own = {"norm": {"hidden": hidden}, "rotary": heads, "swiglu": {"intermediate": intermediate}}
    return PartKernel(ELEMENTWISE_KERNELS[implementation][name], {"tokens": tokens, **own[name]})


def part_names(implementation: str) -> tuple[str, ...]:
    """Return the parts of a layer by `implementation`.

    Ours has SwiGLU in the epilogue of gate_up.
    """
    if implementation not in FUSING_IMPLEMENTATIONS:
        return LAYER_PARTS
    return tuple(FUSED_GATE_UP if name == "gate_up" else name for name in LAYER_PARTS if name != "swiglu")


RTOL = {"fp32": 1e-4, "bf16": 4e-2, "fp16": 5e-3}
"""Largest accepted relative error by dtype.

Some ten parts round their results in sequence, each 1.1e-3 in bf16, and attention amplifies the differences.
"""

PartKernels = Mapping[str, PartKernel]


def layer_kernel(implementation: str, widths: LayerShape, *, tokens: int, batch: int, context: int) -> Kernel:
    """Return the layer for a shape; its `inputs` and `work` take the same shape.

    Args:
        implementation: torch or triton.
        widths: widths of this rank's layer.
        tokens: rows of x.
        batch: sequences: equal to tokens in decode, 1 in prefill.
        context: tokens in each sequence's cache, with the new token; in prefill the tokens of the prompt.

    Raises:
        UserError: `implementation` has no linear for so many tokens.
    """
    parts = part_kernels(implementation, widths, tokens=tokens, batch=batch, context=context)
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


def configuration(parts: PartKernels, *, arch: str, dtype: str, **_: int) -> str:
    """Return the configuration of each part that has a choice."""
    told = {
        name: one.kernel.configuration(arch=arch, dtype=dtype, **one.shape)
        for name, one in parts.items()
        if one.kernel.configuration
    }
    return "; ".join(f"{name} {choice}" for name, choice in told.items()) or "nothing to choose"


def unavailable_layer(implementation: str, reason: str) -> Kernel:
    """Return a placeholder for an unsupported layer; its `missing` gives the reason."""
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


def part_kernels(implementation: str, widths: LayerShape, *, tokens: int, batch: int, context: int) -> PartKernels:
    """Return the parts of a layer by name."""
    shape = {"tokens": tokens, "batch": batch, "context": context}
    return {name: part_kernel(name, implementation, widths, **shape) for name in part_names(implementation)}


def work(parts: PartKernels, widths: LayerShape, *, tokens: int, batch: int, context: int, dtype: str) -> Work:
    """Return the work: read each weight, the KV cache, x and the residual once.

    Both results and the new keys and values are written once. Intermediate results need not leave the caches.
    """
    flops = sum(one.kernel.work(dtype=dtype, **one.shape).flops for one in parts.values())
    flops += parts["norm"].kernel.work(dtype=dtype, **parts["norm"].shape).flops  # the norm comes twice
    weights = widths.hidden * (widths.qkv + widths.queries + 3 * widths.intermediate + 2)
    cache = 2 * batch * context * widths.kv_heads * widths.head_dim
    return Work(flops=flops, hbm_bytes=(weights + cache + 4 * tokens * widths.hidden) * ITEMSIZE[dtype])


def inputs(
    parts: PartKernels, widths: LayerShape, source: TensorSource, *, tokens: int, batch: int, context: int, dtype: str
) -> Inputs:
    """Return the tensors of one call: weights, cache, inputs and buffers between.

    Weights and cache stream; the previous layer has written x and residual. Gains are near 1 / √hidden: weights have
    variance 1, so queries and keys then have variance 1 too, and softmax is no mere maximum.
    """
    hidden, intermediate = widths.hidden, widths.intermediate
    places = (batch, context) if tokens == batch else (tokens,)
    cached = (*places, widths.kv_heads, widths.head_dim)
    return {
        "x": source.activation(tokens, hidden, dtype=dtype, name="x"),
        "residual": source.activation(tokens, hidden, dtype=dtype, name="residual"),
        "first_gain": source.activation(hidden, dtype=dtype, name="first_gain") / sqrt(hidden),
        "second_gain": source.activation(hidden, dtype=dtype, name="second_gain") / sqrt(hidden),
        "cos": source.activation(tokens, widths.head_dim // 2, dtype="fp32", name="cos"),
        "sin": source.activation(tokens, widths.head_dim // 2, dtype="fp32", name="sin"),
        "lengths": source.integers(torch.full((batch,), context, dtype=torch.int32)),
        "qkv_weight": source.weight(widths.qkv, hidden, dtype=dtype),
        "o_weight": source.weight(hidden, widths.queries, dtype=dtype),
        "gate_up_weight": source.weight(2 * intermediate, hidden, dtype=dtype),
        "down_weight": source.weight(hidden, intermediate, dtype=dtype),
        "key": source.weight(*cached, dtype=dtype),
        "value": source.weight(*cached, dtype=dtype),
        **{name: source.output(tokens, hidden, dtype=dtype, name=name) for name in ("out", "total")},
        **{
            name: source.output(*one, dtype=dtype, name=name)
            for name, one in intermediate_shapes(parts, widths, tokens).items()
        },
    }


def intermediate_shapes(parts: PartKernels, widths: LayerShape, tokens: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the intermediate results between parts."""
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
    return shapes if FUSED_GATE_UP in parts else shapes | {"gate_up": (tokens, 2 * widths.intermediate)}


def steps(parts: PartKernels, prompts: int = 1, **tensors: torch.Tensor) -> list[Step]:
    """Return the calls of a layer in their order, each with the name of its part.

    In prefill the rows may be those of several prompts of one length: attention runs once for each.
    """
    decode = tensors["key"].dim() == 4
    key, value = (tensors[name][:, -1] if decode else tensors[name] for name in ("key", "value"))
    told = parts["attention"].kernel.implementation != "torch"  # torch's compiler would stop to read them
    lengths = {"lengths": tensors["lengths"] if told else None} if decode else {}
    attended = tensors["attended"].view(tensors["projected"].shape[0], -1)
    operands = {"query": tensors["query"], "key": tensors["key"], "value": tensors["value"], "out": tensors["attended"]}
    apart = [operands] if decode else _split_prompts(operands, prompts)
    runs = {name: one.kernel.run for name, one in parts.items()}
    mlp: list[Step]
    if FUSED_GATE_UP in parts:
        mlp = [
            (
                FUSED_GATE_UP,
                partial(
                    runs[FUSED_GATE_UP], x=tensors["normed"], weight=tensors["gate_up_weight"], out=tensors["activated"]
                ),
            )
        ]
    else:
        mlp = [
            (
                "gate_up",
                partial(runs["gate_up"], x=tensors["normed"], weight=tensors["gate_up_weight"], out=tensors["gate_up"]),
            ),
            ("swiglu", partial(runs["swiglu"], gate_up=tensors["gate_up"], out=tensors["activated"])),
        ]
    norm = partial(runs["norm"], out=tensors["normed"])
    return [
        (
            "norm",
            partial(
                norm,
                x=tensors["x"],
                residual=tensors["residual"],
                weight=tensors["first_gain"],
                total=tensors["middle"],
            ),
        ),
        ("qkv", partial(runs["qkv"], x=tensors["normed"], weight=tensors["qkv_weight"], out=tensors["qkv"])),
        (
            "rotary",
            partial(
                runs["rotary"],
                tensors["qkv"],
                tensors["cos"],
                tensors["sin"],
                out=tensors["query"],
                key=key,
                value=value,
            ),
        ),
        *(("attention", partial(runs["attention"], **one, **lengths)) for one in apart),
        ("o", partial(runs["o"], x=attended, weight=tensors["o_weight"], out=tensors["projected"])),
        (
            "norm",
            partial(
                norm,
                x=tensors["projected"],
                residual=tensors["middle"],
                weight=tensors["second_gain"],
                total=tensors["total"],
            ),
        ),
        *mlp,
        ("down", partial(runs["down"], x=tensors["activated"], weight=tensors["down_weight"], out=tensors["out"])),
    ]


def _split_prompts(operands: Mapping[str, torch.Tensor], prompts: int) -> list[dict[str, torch.Tensor]]:
    """Return the rows of each prompt."""
    cut = {name: tensor.chunk(prompts) for name, tensor in operands.items()}
    return [{name: rows[index] for name, rows in cut.items()} for index in range(prompts)]


def run(parts: PartKernels, **tensors: torch.Tensor) -> None:
    """Run all steps."""
    for _, step in steps(parts, 1, **tensors):
        step()


def reference(parts: PartKernels, **tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both results in float64, by each part's reference in turn.

    The new keys and values go to the last place of the cache here too. They replace a wrong call's entries, whose error
    shows in that call's result. A float64 copy of the cache would be four times the streamed bytes of a call.
    """

    def of(name: str, *given: torch.Tensor, **named: torch.Tensor) -> Any:
        return parts[name].kernel.reference(*given, **named)

    normed, middle = of("norm", x=tensors["x"], residual=tensors["residual"], weight=tensors["first_gain"])
    qkv = of("qkv", x=normed, weight=tensors["qkv_weight"])
    query, new_key, new_value = of(
        "rotary", qkv, tensors["cos"], tensors["sin"], torch.tensor(tensors["key"].shape[-2])
    )
    if tensors["key"].dim() == 4:
        tensors["key"][:, -1], tensors["value"][:, -1] = new_key, new_value
        attended = of("attention", query, tensors["key"], tensors["value"], lengths=tensors["lengths"])
    else:
        attended = of("attention", query, new_key, new_value)
    projected = of("o", x=attended.flatten(1), weight=tensors["o_weight"])
    normed, total = of("norm", x=projected, residual=middle, weight=tensors["second_gain"])
    if FUSED_GATE_UP in parts:
        activated = of(FUSED_GATE_UP, x=normed, weight=tensors["gate_up_weight"])
    else:
        activated = of("swiglu", gate_up=of("gate_up", x=normed, weight=tensors["gate_up_weight"]))
    return of("down", x=activated, weight=tensors["down_weight"]), total


# The layer through torch.compile: the same torch kernels, fused by the compiler where it can.


def compiled_layer(widths: LayerShape, *, tokens: int, batch: int, context: int) -> Kernel:
    """Return the torch layer for a shape, compiled for it on the first call."""
    return replace(
        layer_kernel("torch", widths, tokens=tokens, batch=batch, context=context),
        name="torch_compile_layer",
        implementation="torch-compile",
        run=partial(_run_compiled, widths, tokens, batch, context),
        steps=None,
        missing=missing_compiler,
    )


def _run_compiled(widths: LayerShape, tokens: int, batch: int, context: int, **tensors: torch.Tensor) -> None:
    compiled, own = _compile_layer(widths, tokens, batch, context)
    compiled(**{name: tensor for name, tensor in tensors.items() if name not in own})


@cache
def _compile_layer(
    widths: LayerShape, tokens: int, batch: int, context: int
) -> tuple[Callable[..., object], Iterable[str]]:
    """Return the compiled layer, and the names of tensors that it allocates itself.

    Each shape has its own code object, since torch gives up on a code object after eight compilations.
    """
    parts = part_kernels("torch", widths, tokens=tokens, batch=batch, context=context)
    rotary = parts["rotary"]
    traceable = {**parts, "rotary": rotary._replace(kernel=replace(rotary.kernel, run=run_traceable_rotary))}
    between = intermediate_shapes(parts, widths, tokens)
    name = f"layer_{tokens}_{batch}_{context}"
    own = FunctionType(_run_with_own_buffers.__code__.replace(co_name=name), _run_with_own_buffers.__globals__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import torch.utils.mkldnn  # the compiler would import it, and warn of torch's own use of torch.jit
    # In this process: torch's pool of compilers would run on during measurements.
    options: dict[str, str | int | bool | Callable[..., object]] = {"compile_threads": 1}
    made = torch.compile(partial(own, traceable, between), dynamic=False, fullgraph=True, options=options)
    return made, between


def _run_with_own_buffers(parts: PartKernels, shapes: Mapping[str, tuple[int, ...]], **given: torch.Tensor) -> None:
    """Run the parts with intermediate results that the compiler allocates.

    The compiler would have to fill given buffers, even where it fuses the parts.
    """
    run(parts, **given, **{name: given["x"].new_empty(shape) for name, shape in shapes.items()})


def run_traceable_rotary(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> None:
    """Run the rotary embedding without results that are written in halves.

    torch.compile does not trace such results.
    """
    rows = qkv.unflatten(1, (-1, out.shape[2]))
    query, keys, values = rows.split((out.shape[1], key.shape[1], value.shape[1]), dim=1)
    along, across = cos[:, None], sin[:, None]
    for target, part in ((out, query), (key, keys)):
        first, second = part.chunk(2, dim=2)
        target.copy_(torch.cat((first * along - second * across, second * along + first * across), dim=2))
    value.copy_(values)


def missing_compiler() -> str | None:
    """Return one line on tools that torch.compile lacks; None when all are there."""
    if torch.cuda.is_available():
        return missing_triton_launch()
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        return "torch.compile writes C++ for a CPU, and there is neither g++ nor clang++: apt-get install g++"
    return None

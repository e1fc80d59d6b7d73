"""Rotary embedding from qkv to queries and KV cache, by torch and Triton.

Column i of a head's first half turns with column i of its second half, like Llama in transformers: first' = first · cos
− second · sin, second' = second · cos + first · sin. Values are copied. `key` and `value` may have any stride between
tokens, so they can be rows of a cache.
"""

from dataclasses import replace
from typing import NamedTuple

import torch

from kernels.compile import LAUNCH_OPTIONS, TRITON_ARCHS, TritonVariant
from kernels.kernel import Inputs, Kernel, TensorSource
from kernels.operands import check_contiguous, dtype_name, shape_error
from kernels.triton_utils import missing_triton_launch, tl, triton
from specs.errors import UserError
from specs.roofline import Work
from specs.units import ITEMSIZE

RTOL = {"fp32": 1e-6, "bf16": 4e-3, "fp16": 1e-3}
"""Largest accepted relative error by dtype.

cos and sin are fp32, and the result is rounded once, for bf16 1.1e-3. fp32 rounds two products and a sum.
"""

PAIRS_PER_PROGRAM = 1024
"""Pairs of elements that turn together, per program.

They are 16 bytes of bf16 from each half for each thread, or 16 heads of 128.
"""
WARPS = 4


@triton.jit(do_not_specialize=["heads", "kv_heads"])
def _rotary(
    qkv: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    out: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    heads: int,
    kv_heads: int,
    key_stride: int,
    value_stride: int,
    HALF: tl.constexpr,
    COLUMNS: tl.constexpr,
    HEADS: tl.constexpr,
) -> None:
    blocks = tl.cdiv(heads + 2 * kv_heads, HEADS)
    token = (tl.program_id(0) // blocks).to(tl.int64)  # int64: 256k tokens of 10240 pass 2^31 elements
    head = (tl.program_id(0) % blocks * HEADS + tl.arange(0, HEADS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    within = column < HALF
    turned = head < heads + kv_heads
    every = head < heads + 2 * kv_heads
    place = head * (2 * HALF) + column
    source = qkv + token * (heads + 2 * kv_heads) * (2 * HALF) + place
    first = tl.load(source, mask=within & every, other=0.0)
    second = tl.load(source + HALF, mask=within & every, other=0.0)
    along = tl.load(cos + token * HALF + column, mask=within, other=0.0)
    across = tl.load(sin + token * HALF + column, mask=within, other=0.0)
    wide, other = first.to(tl.float32), second.to(tl.float32)
    first = tl.where(turned, (wide * along - other * across).to(first.dtype), first)
    second = tl.where(turned, (other * along + wide * across).to(first.dtype), second)

    query = out + token * heads * (2 * HALF) + place
    tl.store(query, first, mask=within & (head < heads))
    tl.store(query + HALF, second, mask=within & (head < heads))
    slot = key + token * key_stride + place - heads * (2 * HALF)
    tl.store(slot, first, mask=within & turned & (head >= heads))
    tl.store(slot + HALF, second, mask=within & turned & (head >= heads))
    slot = value + token * value_stride + place - (heads + kv_heads) * (2 * HALF)
    tl.store(slot, first, mask=within & every & (head >= heads + kv_heads))
    tl.store(slot + HALF, second, mask=within & every & (head >= heads + kv_heads))


def constexprs(head_dim: int) -> dict[str, int]:
    """Return the kernel's compile-time arguments."""
    columns = triton.next_power_of_2(head_dim // 2)
    return {"HALF": head_dim // 2, "COLUMNS": columns, "HEADS": max(1, PAIRS_PER_PROGRAM // columns)}


class RotarySizes(NamedTuple):
    """Sizes of qkv[tokens, (heads + 2 · kv_heads) · head_dim]."""

    tokens: int
    heads: int
    kv_heads: int
    head_dim: int


def work(*, tokens: int, heads: int, kv_heads: int, head_dim: int, dtype: str) -> Work:
    """Return the work: read qkv, write it turned, read fp32 cos and sin.

    cos and sin have half a head each. A turned element takes two products and a sum.
    """
    moved = 2 * tokens * (heads + 2 * kv_heads) * head_dim * ITEMSIZE[dtype]
    angles = tokens * head_dim * ITEMSIZE["fp32"]
    return Work(flops=3 * tokens * (heads + kv_heads) * head_dim, hbm_bytes=moved + angles)


def inputs(source: TensorSource, *, tokens: int, heads: int, kv_heads: int, head_dim: int, dtype: str) -> Inputs:
    """Return qkv, cos, sin, queries, keys and values.

    qkv is [tokens, (heads + 2 · kv_heads) · head_dim], cos and sin are fp32 [tokens, head_dim / 2]. out is [tokens,
    heads, head_dim], key and value are [tokens, kv_heads, head_dim]. `kv_heads` is for the reference: it gets no
    outputs, and would not know the start of the keys in qkv.
    """
    return {
        "qkv": source.activation(tokens, (heads + 2 * kv_heads) * head_dim, dtype=dtype),
        "cos": source.activation(tokens, head_dim // 2, dtype="fp32", name="cos"),
        "sin": source.activation(tokens, head_dim // 2, dtype="fp32", name="sin"),
        "kv_heads": source.integers(torch.tensor(kv_heads)),
        "out": source.output(tokens, heads, head_dim, dtype=dtype, name="out"),
        "key": source.output(tokens, kv_heads, head_dim, dtype=dtype, name="key"),
        "value": source.output(tokens, kv_heads, head_dim, dtype=dtype, name="value"),
    }


def run_torch(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    out: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    kv_heads: torch.Tensor | None = None,  # noqa: ARG001 - the reference's
) -> None:
    """Run six kernels.

    They are all products with cos, which torch allocates in fp32, each half of queries and keys, and a copy.
    """
    (tokens, heads, head_dim), half = out.shape, cos.shape[1]
    rows = qkv.view(tokens, -1, head_dim)
    turning = rows[:, : heads + key.shape[1]].unflatten(2, (2, half))
    along, across = turning * cos[:, None, None], sin[:, None]
    for target, part in ((out, slice(heads)), (key, slice(heads, None))):
        torch.addcmul(along[:, part, 0], turning[:, part, 1], across, value=-1, out=target[..., :half])
        torch.addcmul(along[:, part, 1], turning[:, part, 0], across, out=target[..., half:])
    value.copy_(rows[:, heads + key.shape[1] :])


def run_triton(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    out: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    kv_heads: torch.Tensor | None = None,  # noqa: ARG001 - the reference's
) -> None:
    """Run one launch; a program takes a few heads of one token.

    With heads of 128 it takes 16.

    Raises:
        UserError: operands of mismatched shapes, or gaps elsewhere than between tokens of key and value.
    """
    sizes = check_rotary(qkv, cos, sin, out, key, value)
    constants = constexprs(sizes.head_dim)
    grid = (sizes.tokens * triton.cdiv(sizes.heads + 2 * sizes.kv_heads, constants["HEADS"]),)
    counts = (sizes.heads, sizes.kv_heads, key.stride(0), value.stride(0))
    with torch.cuda.device_of(qkv):
        _rotary[grid](qkv, cos, sin, out, key, value, *counts, **constants, num_warps=WARPS, **LAUNCH_OPTIONS)


def check_rotary(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> RotarySizes:
    """Refuse accesses outside of the operands.

    Raises:
        UserError: gaps within a token, an odd head_dim, or shapes or dtypes that do not match.
    """
    operands = {"qkv": qkv, "cos": cos, "sin": sin, "out": out, "key": key, "value": value}
    if out.dim() != 3 or key.dim() != 3 or out.shape[2] % 2:
        raise shape_error(
            "out[tokens, heads, head_dim] and key[tokens, kv_heads, head_dim] of an even head_dim", **operands
        )
    sizes = RotarySizes(out.shape[0], out.shape[1], key.shape[1], out.shape[2])
    tokens, heads, kv_heads, head_dim = sizes
    expected = {
        "qkv": (tokens, (heads + 2 * kv_heads) * head_dim),
        **dict.fromkeys(("cos", "sin"), (tokens, head_dim // 2)),
        **dict.fromkeys(("key", "value"), (tokens, kv_heads, head_dim)),
    }
    if any(operands[name].shape != shape for name, shape in expected.items()):
        must = "qkv[tokens, (heads + 2 · kv_heads) · head_dim], cos and sin[tokens, head_dim / 2], "
        raise shape_error(must + "out[tokens, heads, head_dim], key and value[tokens, kv_heads, head_dim]", **operands)
    check_contiguous(qkv=qkv, out=out, key=key[:1], value=value[:1])
    check_contiguous(cos=cos, sin=sin)
    dtype_name(qkv, "triton_rotary")
    if cos.dtype != torch.float32:
        raise UserError(f"cos and sin are {cos.dtype}; triton_rotary takes fp32, for bf16 angles cost a digit")
    return sizes


def reference(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, kv_heads: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries and keys in float64, values unchanged."""
    heads = qkv.unflatten(1, (-1, 2 * cos.shape[1]))
    keys = int(kv_heads)
    turning, values = heads[:, : heads.shape[1] - keys].to(torch.float64), heads[:, heads.shape[1] - keys :]
    first, second = turning.chunk(2, dim=2)
    along, across = cos[:, None].to(torch.float64), sin[:, None].to(torch.float64)
    turned = torch.cat((first * along - second * across, second * along + first * across), dim=2)
    return turned[:, : turned.shape[1] - keys], turned[:, turned.shape[1] - keys :], values


def variant(head_dim: int, dtype: str) -> TritonVariant:
    """Return the compiled form for heads of `head_dim`."""
    given = dict.fromkeys(("qkv", "out", "key", "value"), f"*{dtype}") | dict.fromkeys(("cos", "sin"), "*fp32")
    counts = dict.fromkeys(("heads", "kv_heads", "key_stride", "value_stride"), "i32")
    return TritonVariant(_rotary, given | counts, constexprs(head_dim), WARPS, 1)


TORCH_ROTARY = Kernel(
    name="torch_rotary",
    op="rotary",
    implementation="torch",
    inputs=inputs,
    run=run_torch,
    reference=reference,
    work=work,
    rtol=RTOL,
    archs=None,
    outputs=("out", "key", "value"),
)

TRITON_ROTARY = replace(
    TORCH_ROTARY,
    name="triton_rotary",
    implementation="triton",
    run=run_triton,
    archs=TRITON_ARCHS,
    missing=missing_triton_launch,
)

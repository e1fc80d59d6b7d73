"""Few tokens: y[tokens, n] = x[tokens, k] · W[n, k]ᵀ for 1 to 4 tokens, W streamed once past all of them.

A program owns a few rows of W. Its threads stand side by side along k, 16 bytes each, so a warp reads 512
bytes in a row; each thread adds up its own products and the threads meet once, at the end of k. Sums are
taken in one fixed order: two calls give the same bits.
"""

import torch
import triton
import triton.language as tl

from kernels.compile import OPTIONS, TRITON_ARCHS, Variant
from kernels.kernel import Kernel
from kernels.linear import RTOL, inputs, reference, work
from kernels.operands import check_operands, linear_signature
from specs.dtypes import ITEMSIZE
from specs.errors import UserError

TOKENS = range(1, 5)
WARPS = 4
STAGES = 4

MANY_ROWS = 4096
"""Rows of W from which four a program still make enough programs for a hundred and more SMs."""


@triton.jit(do_not_specialize=["tokens"])
def _gemv(
    x: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    tokens: int,
    n: int,
    k: int,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNKS: tl.constexpr,
    CHUNK: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    # Axes: token, row of W, chunk of 16 bytes, element of the chunk. The last one stays within a thread.
    token = tl.arange(0, TOKENS)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, CHUNKS)[:, None] * CHUNK + tl.arange(0, CHUNK)[None, :]
    x_row = x + token[:, None, None, None] * k
    weight_row = weight + row.to(tl.int64)[None, :, None, None] * k  # int64: n * k passes 2^31 in lm_heads
    total = tl.zeros([TOKENS, ROWS, CHUNKS], tl.float32)
    for start in tl.range(0, k, CHUNKS * CHUNK, num_stages=STAGES):
        here = (start + column)[None, None, :, :]
        weights = tl.load(weight_row + here, mask=(row < n)[None, :, None, None] & (here < k), other=0.0)
        values = tl.load(x_row + here, mask=(token < tokens)[:, None, None, None] & (here < k), other=0.0)
        total += tl.sum(weights.to(tl.float32) * values.to(tl.float32), axis=3)
    inside = (token < tokens)[:, None] & (row < n)[None, :]
    tl.store(out + token[:, None] * n + row[None, :], tl.sum(total, axis=2), mask=inside)


def tile(*, tokens: int, n: int, itemsize: int) -> dict[str, int]:
    """Constexprs for a shape.

    Each thread holds one 16-byte chunk of each row: 4 rows x 128 threads x 16 bytes is 8 KiB of W a stage,
    and three stages in flight are 24 KiB a program. Below MANY_ROWS two rows each make twice the programs, so
    that the last wave is not half empty.
    """
    return {
        "TOKENS": triton.next_power_of_2(tokens),
        "ROWS": 4 if n >= MANY_ROWS else 2,
        "CHUNKS": 32 * WARPS,
        "CHUNK": 16 // itemsize,
        "STAGES": STAGES,
    }


def variants(dtype: str) -> list[Variant]:
    """Every compiled form that `tile` can choose."""
    signature = linear_signature(dtype)
    return [
        Variant(_gemv, signature, tile(tokens=tokens, n=n, itemsize=ITEMSIZE[dtype]), WARPS, STAGES)
        for tokens in (1, 2, 4)
        for n in (MANY_ROWS - 1, MANY_ROWS)
    ]


def run(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """One pass over W for all tokens.

    Raises:
        UserError: more than 4 tokens, or operands that are strided or do not fit together.
    """
    check_operands(x, weight, out)
    (tokens, k), n = x.shape, weight.shape[0]
    if tokens not in TOKENS:
        raise UserError(f"{tokens} tokens; triton_gemv takes 1 to {TOKENS[-1]}, so use triton_gemm")
    sizes = tile(tokens=tokens, n=n, itemsize=x.element_size())
    grid = (triton.cdiv(n, sizes["ROWS"]),)
    _gemv[grid](x, weight, out, tokens, n, k, **sizes, num_warps=WARPS, num_stages=STAGES, **OPTIONS)


TRITON_GEMV = Kernel(
    name="triton_gemv",
    op="linear",
    implementation="triton",
    inputs=inputs,
    run=run,
    reference=reference,
    work=work,
    rtol=RTOL,
    archs=TRITON_ARCHS,
    tokens=TOKENS,
)

"""Many tokens: y[tokens, n] = x[tokens, k] · W[n, k]ᵀ on the matrix units, for 65 tokens and more.

Tiles are computed transposed, yᵀ = W · xᵀ: matrix instructions have at least 64 rows on sm_90 and sm_100,
and rows of W always fill them where the last few tokens would not.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.compile import OPTIONS, TRITON_ARCHS, Variant
from kernels.linear import TORCH_LINEAR
from kernels.operands import check_operands, linear_signature

GROUP = 8
"""Row blocks that are walked together, so that the x they share is still in L2."""


@triton.jit(do_not_specialize=["tokens"])
def _gemm(
    x: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    tokens: int,
    n: int,
    k: int,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
) -> None:
    row_blocks, in_group = tl.cdiv(n, ROWS), GROUP * tl.cdiv(tokens, TOKENS)
    first, within = tl.program_id(0) // in_group * GROUP, tl.program_id(0) % in_group
    height = tl.minimum(row_blocks - first, GROUP)
    row = (first + within % height) * ROWS + tl.arange(0, ROWS)
    token = (within // height * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)  # int64: tokens * n passes 2^31
    column = tl.arange(0, DEPTH)
    weight_row = weight + row.to(tl.int64)[:, None] * k
    x_row = x + token[None, :] * k
    total = tl.zeros([ROWS, TOKENS], tl.float32)
    for start in tl.range(0, k, DEPTH):
        here = start + column
        weights = tl.load(weight_row + here[None, :], mask=(row < n)[:, None] & (here < k)[None, :], other=0.0)
        values = tl.load(x_row + here[:, None], mask=(token < tokens)[None, :] & (here < k)[:, None], other=0.0)
        total = tl.dot(weights, values, total, input_precision="ieee")  # else fp32 is rounded to tf32: 5e-4
    inside = (row < n)[:, None] & (token < tokens)[None, :]
    tl.store(out + token[None, :] * n + row[:, None], total, mask=inside)


class Tile(NamedTuple):
    """What one program computes: `rows` of W by `tokens`, `depth` of k at a time, in `stages` by `warps`."""

    rows: int
    tokens: int
    depth: int
    warps: int
    stages: int

    @property
    def constexprs(self) -> dict[str, int]:
        """Arguments of the kernel."""
        return {"ROWS": self.rows, "TOKENS": self.tokens, "DEPTH": self.depth, "GROUP": GROUP}


NARROW = Tile(128, 64, 64, 8, 4)
"""Where large tiles would be too few to fill the GPU."""

WIDE = Tile(128, 128, 64, 8, 3)
"""64 multiply-adds for each element loaded; its 96 KiB of stages fit every arch."""

FP32 = Tile(64, 32, 32, 8, 3)
"""No matrix unit multiplies true fp32: plain multiply-adds, whose operands have to fit into registers."""

SMS = 108
"""Programs that give every SM of an A100 one."""


def tile(*, tokens: int, n: int, dtype: torch.dtype) -> Tile:
    """The large tile where it still fills the GPU."""
    if dtype == torch.float32:
        return FP32
    return WIDE if triton.cdiv(tokens, WIDE.tokens) * triton.cdiv(n, WIDE.rows) >= SMS else NARROW


def variants(dtype: str) -> list[Variant]:
    """Every compiled form that `tile` can choose."""
    signature = linear_signature(dtype)
    tiles = (FP32,) if dtype == "fp32" else (NARROW, WIDE)
    return [Variant(_gemm, signature, one.constexprs, one.warps, one.stages) for one in tiles]


def run(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """One launch, one tile of y a program.

    Raises:
        UserError: operands that are strided or do not fit together.
    """
    tokens, n, k = check_operands(x, weight, out)
    chosen = tile(tokens=tokens, n=n, dtype=x.dtype)
    grid = (triton.cdiv(n, chosen.rows) * triton.cdiv(tokens, chosen.tokens),)
    options = {"num_warps": chosen.warps, "num_stages": chosen.stages, **OPTIONS}
    _gemm[grid](x, weight, out, tokens, n, k, **chosen.constexprs, **options)


TRITON_GEMM = replace(
    TORCH_LINEAR,
    name="triton_gemm",
    implementation="triton",
    run=run,
    archs=TRITON_ARCHS,
    tokens=range(65, 2**31),
)

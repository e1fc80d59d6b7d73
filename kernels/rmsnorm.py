"""RMSNorm of the residual stream, by torch and Triton.

    total = x + residual, out = total / sqrt(mean(total²) + eps) · weight

`total` is rounded to the dtype once, and the rounded value is normed, as in torch. Later layers thus add to the same
numbers that this norm has seen. x, residual, out and total are [tokens, hidden].
"""

from dataclasses import replace
from typing import NamedTuple

import torch

from kernels.compile import LAUNCH_OPTIONS, TRITON_ARCHS, TritonVariant
from kernels.kernel import Inputs, Kernel, TensorSource
from kernels.operands import check_contiguous, dtype_name, shape_error
from kernels.triton_utils import missing_triton_launch, tl, triton
from specs.errors import UserError
from specs.gpus import WARP_SIZE
from specs.roofline import Work
from specs.units import ITEMSIZE

EPS = 1e-5
RTOL = {"fp32": 2e-6, "bf16": 4e-3, "fp16": 1e-3}
"""Largest accepted relative error by dtype.

out is rounded once, for bf16 1.1e-3. Sum, root and two products cost fp32 a few 1e-7. total is exact or nearly exact.
"""

MAX_HIDDEN = 16384
"""Widest supported row; it stays in the registers of one program."""
MIN_ELEMENTS = 1024
"""Least elements of a program; with narrow rows it takes several rows."""
MAX_WARPS = 16


@triton.jit(do_not_specialize=["tokens"])
def _rmsnorm(
    x: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    total: tl.tensor,
    tokens: int,
    hidden: int,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    EPS: tl.constexpr,
) -> None:
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    place = row.to(tl.int64) * hidden + column  # int64: 256k tokens of 8192 are 2^31 elements
    inside = (row < tokens) & (column < hidden)
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    gain = tl.load(weight + column, mask=column < hidden, other=0.0).to(tl.float32)
    rounded = value.to(total.dtype.element_ty)
    tl.store(total + place, rounded, mask=inside)
    value = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=1, keep_dims=True) / hidden + EPS)
    tl.store(out + place, value * scale * gain, mask=inside)


class RowTiling(NamedTuple):
    """Tile of one program: `rows` tokens of up to `columns` elements, and `warps`."""

    rows: int
    columns: int
    warps: int


def choose_tiling(*, hidden: int, itemsize: int) -> RowTiling:
    """Return the tile of a program: one row where it is wide enough.

    A thread has two pieces of 16 bytes while there are warps for it.
    """
    columns = triton.next_power_of_2(hidden)
    rows = max(1, MIN_ELEMENTS // columns)
    pieces = rows * columns * itemsize // 16
    return RowTiling(rows, columns, min(MAX_WARPS, max(1, pieces // (2 * WARP_SIZE))))


def work(*, tokens: int, hidden: int, dtype: str) -> Work:
    """Return the work: read x, residual and weight, write out and total.

    An element takes an addition, a square, its sum, and two products.
    """
    return Work(flops=5 * tokens * hidden, hbm_bytes=(4 * tokens + 1) * hidden * ITEMSIZE[dtype])


def inputs(source: TensorSource, *, tokens: int, hidden: int, dtype: str) -> Inputs:
    """Return x, residual, out and total[tokens, hidden], and weight[hidden]."""
    return {
        "x": source.activation(tokens, hidden, dtype=dtype, name="x"),
        "residual": source.activation(tokens, hidden, dtype=dtype, name="residual"),
        "weight": source.activation(hidden, dtype=dtype, name="weight"),
        "out": source.output(tokens, hidden, dtype=dtype, name="out"),
        "total": source.output(tokens, hidden, dtype=dtype, name="total"),
    }


def run_torch(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, total: torch.Tensor
) -> None:
    """Run an addition, torch's norm, and a copy to `out`.

    torch's norm allocates its result and has no `out`.
    """
    torch.add(x, residual, out=total)
    out.copy_(torch.nn.functional.rms_norm(total, (total.shape[1],), weight, EPS))


def run_triton(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, total: torch.Tensor
) -> None:
    """Run one launch; `total` may be `x` or `residual` itself.

    Raises:
        UserError: rows of more than 16384, operands that are strided or of mismatched shapes, or an unsupported dtype.
    """
    tokens, hidden = check_rmsnorm(x, residual, weight, out, total)
    rows, columns, warps = choose_tiling(hidden=hidden, itemsize=x.element_size())
    sizes = {"ROWS": rows, "COLUMNS": columns, "EPS": EPS}
    with torch.cuda.device_of(x):
        _rmsnorm[(triton.cdiv(tokens, rows),)](
            x, residual, weight, out, total, tokens, hidden, **sizes, num_warps=warps, **LAUNCH_OPTIONS
        )


def check_rmsnorm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, total: torch.Tensor
) -> tuple[int, int]:
    """Return tokens and hidden, after refusing accesses outside of the operands.

    Raises:
        UserError: rows are too wide, an operand is strided, or shapes or dtypes do not match.
    """
    operands = {"x": x, "residual": residual, "weight": weight, "out": out, "total": total}
    check_contiguous(**operands)
    dtype_name(x, "triton_rmsnorm")
    if x.dim() != 2 or weight.shape != x.shape[1:] or not x.shape == residual.shape == out.shape == total.shape:
        raise shape_error("weight[hidden] and the others [tokens, hidden]", **operands)
    tokens, hidden = x.shape
    if hidden > MAX_HIDDEN:
        raise UserError(f"hidden {hidden}; triton_rmsnorm takes rows of up to {MAX_HIDDEN}, so use torch_rmsnorm")
    return tokens, hidden


def reference(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return out in float64, and total rounded once."""
    total = (x.to(torch.float64) + residual.to(torch.float64)).to(x.dtype)
    wide = total.to(torch.float64)
    scale = torch.rsqrt((wide * wide).mean(dim=1, keepdim=True) + EPS)
    return wide * scale * weight.to(torch.float64), total


def variant(hidden: int, dtype: str) -> TritonVariant:
    """Return the compiled form for rows of `hidden`."""
    rows, columns, warps = choose_tiling(hidden=hidden, itemsize=ITEMSIZE[dtype])
    pointers = dict.fromkeys(("x", "residual", "weight", "out", "total"), f"*{dtype}")
    sizes = {"ROWS": rows, "COLUMNS": columns, "EPS": EPS}
    return TritonVariant(_rmsnorm, pointers | {"tokens": "i32", "hidden": "i32"}, sizes, warps, 1)


TORCH_RMSNORM = Kernel(
    name="torch_rmsnorm",
    op="rmsnorm",
    implementation="torch",
    inputs=inputs,
    run=run_torch,
    reference=reference,
    work=work,
    rtol=RTOL,
    archs=None,
    outputs=("out", "total"),
)

TRITON_RMSNORM = replace(
    TORCH_RMSNORM,
    name="triton_rmsnorm",
    implementation="triton",
    run=run_triton,
    archs=TRITON_ARCHS,
    missing=missing_triton_launch,
)

"""SwiGLU as a kernel of its own, by torch and Triton.

It computes out[tokens, intermediate] = silu(gate) · up, where gate_up[tokens, 2 · intermediate] is gate, then up. A
layer needs it where no linear has SwiGLU in its epilogue (kernels/gate_up.py).
"""

from dataclasses import replace
from typing import NamedTuple

import torch

from kernels.compile import LAUNCH_OPTIONS, TRITON_ARCHS, TritonVariant
from kernels.kernel import Inputs, Kernel, TensorSource
from kernels.operands import check_contiguous, dtype_name, shape_error
from kernels.triton_utils import missing_triton_launch, tl, triton
from specs.roofline import Work
from specs.units import ITEMSIZE

RTOL = {"fp32": 5e-6, "bf16": 4e-3, "fp16": 1e-3}
"""Largest accepted relative error by dtype.

torch rounds silu and then the product, 1.1e-3 each for bf16. The GPU's exponential and division cost fp32 1e-6.
"""

BLOCK_BYTES = 2048
"""Bytes of gate, and of up, that a program takes: 16 for each of its threads."""
WARPS = 4


@triton.jit
def _swiglu(gate_up: tl.tensor, out: tl.tensor, intermediate: int, BLOCK: tl.constexpr) -> None:
    blocks = tl.cdiv(intermediate, BLOCK)
    token = (tl.program_id(0) // blocks).to(tl.int64)  # int64: 40k tokens of 57344 pass 2^31 elements
    column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = column < intermediate
    first = gate_up + token * 2 * intermediate + column
    gate = tl.load(first, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(first + intermediate, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token * intermediate + column, gate * tl.sigmoid(gate) * up, mask=inside)


class SwigluSizes(NamedTuple):
    """Sizes of gate_up[tokens, 2 · intermediate]."""

    tokens: int
    intermediate: int


def work(*, tokens: int, intermediate: int, dtype: str) -> Work:
    """Return the work: read gate and up, write out.

    An exponential, an addition, a division and two products each count as one flop.
    """
    elements = tokens * intermediate
    return Work(flops=5 * elements, hbm_bytes=3 * elements * ITEMSIZE[dtype])


def inputs(source: TensorSource, *, tokens: int, intermediate: int, dtype: str) -> Inputs:
    """Return gate_up[tokens, 2 · intermediate] and out[tokens, intermediate]."""
    return {
        "gate_up": source.activation(tokens, 2 * intermediate, dtype=dtype),
        "out": source.output(tokens, intermediate, dtype=dtype),
    }


def run_torch(gate_up: torch.Tensor, out: torch.Tensor) -> None:
    """Run two kernels; torch allocates silu(gate)[tokens, intermediate] between them."""
    gate, up = gate_up.chunk(2, dim=1)
    torch.mul(torch.nn.functional.silu(gate), up, out=out)


def run_triton(gate_up: torch.Tensor, out: torch.Tensor) -> None:
    """Run one launch; a program takes 2 KiB of a token's gate and the matching up.

    Raises:
        UserError: operands that are strided or of mismatched shapes, or an unsupported dtype.
    """
    sizes = check_swiglu(gate_up, out)
    block = BLOCK_BYTES // gate_up.element_size()
    grid = (sizes.tokens * triton.cdiv(sizes.intermediate, block),)
    with torch.cuda.device_of(gate_up):
        _swiglu[grid](gate_up, out, sizes.intermediate, BLOCK=block, num_warps=WARPS, **LAUNCH_OPTIONS)


def check_swiglu(gate_up: torch.Tensor, out: torch.Tensor) -> SwigluSizes:
    """Refuse accesses outside of gate_up and out.

    They are gate_up[tokens, 2 · intermediate] and out[tokens, intermediate].

    Raises:
        UserError: an operand is strided, shapes or dtypes do not match, or the dtype is unsupported.
    """
    check_contiguous(gate_up=gate_up, out=out)
    dtype_name(gate_up, "triton_swiglu")
    if out.dim() != 2 or gate_up.shape != (out.shape[0], 2 * out.shape[1]):
        must = "gate_up[tokens, 2 · intermediate] and out[tokens, intermediate]"
        raise shape_error(must, gate_up=gate_up, out=out)
    return SwigluSizes(*out.shape)


def reference(gate_up: torch.Tensor) -> torch.Tensor:
    """Return the formula in float64."""
    gate, up = gate_up.to(torch.float64).chunk(2, dim=1)
    return gate * torch.sigmoid(gate) * up


def variants(dtype: str) -> list[TritonVariant]:
    """Return the only compiled form."""
    signature = {"gate_up": f"*{dtype}", "out": f"*{dtype}", "intermediate": "i32"}
    return [TritonVariant(_swiglu, signature, {"BLOCK": BLOCK_BYTES // ITEMSIZE[dtype]}, WARPS, 1)]


TORCH_SWIGLU = Kernel(
    name="torch_swiglu",
    op="swiglu",
    implementation="torch",
    inputs=inputs,
    run=run_torch,
    reference=reference,
    work=work,
    rtol=RTOL,
    archs=None,
)

TRITON_SWIGLU = replace(
    TORCH_SWIGLU,
    name="triton_swiglu",
    implementation="triton",
    run=run_triton,
    archs=TRITON_ARCHS,
    missing=missing_triton_launch,
)

"""Gate and up projection with SwiGLU, by torch and Triton.

It computes y[tokens, n / 2] = silu(x · gateᵀ) · (x · upᵀ) for x[tokens, k] and W[n, k]. W holds both projections, n
rows for n / 2 features. Torch has all gates first, then all ups, and writes both to memory before it multiplies them.
Ours alternates both (kernels/triton_utils.py), which makes SwiGLU the epilogue of the linear and its output half as
wide.
"""

from dataclasses import replace
from functools import partial

import torch

from kernels import gemm, linear, skinny
from kernels.kernel import CHECK_ELEMENTS, Inputs, Kernel, TensorSource, select_kernel
from kernels.swiglu import run_torch as torch_swiglu
from specs.roofline import Work
from specs.units import ITEMSIZE

TORCH_RTOL = {"fp32": 2e-5, "bf16": 8e-3, "fp16": 2e-3}
"""Largest accepted relative error by dtype, twice a linear's.

Gate, up, silu and the product are rounded one after the other, 1.1e-3 each for bf16.
"""


def work(*, tokens: int, n: int, k: int, dtype: str) -> Work:
    """Return the work: read W and x once, write half as much as a linear.

    The flops are the linear's: SwiGLU adds next to none.
    """
    elements = n * k + tokens * k + tokens * (n // 2)
    return Work(flops=2 * tokens * n * k, hbm_bytes=elements * ITEMSIZE[dtype])


def inputs(source: TensorSource, *, tokens: int, n: int, k: int, dtype: str) -> Inputs:
    """Return x[tokens, k], weight[n, k] and out[tokens, n / 2]; n is even."""
    return {
        "x": source.activation(tokens, k, dtype=dtype),
        "weight": source.weight(n, k, dtype=dtype),
        "out": source.output(tokens, n // 2, dtype=dtype),
    }


def run(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """Run three kernels, with both projections and silu(gate) allocated by torch."""
    torch_swiglu(torch.mm(x, weight.t()), out)


def reference_of_halves(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the formula in float64, for W with all gates first."""
    return _swiglu_reference(x, *weight.chunk(2))


def reference_of_alternating(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the formula in float64, for W with alternating rows of gate and up."""
    return _swiglu_reference(x, weight[0::2], weight[1::2])


def _swiglu_reference(x: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    wide, rows = x.to(torch.float64), max(1, CHECK_ELEMENTS // gate.shape[1])
    parts = zip(gate.split(rows), up.split(rows), strict=True)
    products = ((wide @ one.to(torch.float64).t(), wide @ other.to(torch.float64).t()) for one, other in parts)
    return torch.cat([torch.nn.functional.silu(one) * other for one, other in products], dim=1)


TORCH_GATE_UP = Kernel(
    name="torch_gate_up",
    op="gate_up_swiglu",
    implementation="torch",
    inputs=inputs,
    run=run,
    reference=reference_of_halves,
    work=work,
    rtol=TORCH_RTOL,
    archs=None,
)

TRITON_SKINNY_GATE_UP = replace(
    skinny.TRITON_SKINNY,
    name="triton_skinny_gate_up",
    op=TORCH_GATE_UP.op,
    inputs=inputs,
    run=partial(skinny.run, swiglu=True),
    reference=reference_of_alternating,
    work=work,
    rtol=linear.RTOL,
)

TRITON_SKINNY_GATE_UP_PDL = replace(
    TRITON_SKINNY_GATE_UP,
    name="triton_skinny_gate_up_pdl",
    implementation=skinny.TRITON_SKINNY_PDL.implementation,
    run=partial(skinny.run, swiglu=True, dependent=True),
    archs=skinny.TRITON_SKINNY_PDL.archs,
)

TRITON_GEMM_GATE_UP = replace(
    TRITON_SKINNY_GATE_UP,
    name="triton_gemm_gate_up",
    run=partial(gemm.run, swiglu=True),
    tokens=gemm.TRITON_GEMM.tokens,
)

GATE_UPS = (
    TORCH_GATE_UP,
    TRITON_SKINNY_GATE_UP,
    TRITON_SKINNY_GATE_UP_PDL,
    TRITON_GEMM_GATE_UP,
)


def select_gate_up(implementation: str, tokens: int) -> Kernel:
    """Return the gate and up projection of `implementation` for `tokens` tokens.

    Raises:
        UserError: no such implementation, or none of its kernels takes that many tokens.
    """
    return select_kernel(GATE_UPS, implementation, tokens)

"""Gate and up of many tokens in one linear: y[tokens, n / 2] = silu(x · gateᵀ) · (x · upᵀ), W[n, k] their rows in turn.

The product never reaches memory: what the GEMM stores is half as wide, and the activation costs no launch.
"""

from dataclasses import replace
from functools import partial

import torch

from kernels import linear
from kernels.gemm import TRITON_GEMM, run
from kernels.kernel import Draw, Inputs
from specs.dtypes import ITEMSIZE
from specs.work import Work


def work(*, tokens: int, n: int, k: int, dtype: str) -> Work:
    """Read W once, read x once, write half as many features as W has rows; the activation is not counted."""
    return Work(flops=2 * tokens * n * k, hbm_bytes=(n * k + tokens * k + tokens * (n // 2)) * ITEMSIZE[dtype])


def inputs(draw: Draw, *, tokens: int, n: int, k: int, dtype: str) -> Inputs:
    """x[tokens, k], weight[n, k] and out[tokens, n / 2]."""
    return {
        "x": draw.activation(tokens, k, dtype=dtype),
        "weight": draw.weight(n, k, dtype=dtype),
        "out": draw.output(tokens, n // 2, dtype=dtype),
    }


def reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The product and its activation in float64."""
    gate, up = linear.reference(x, weight).unflatten(1, (-1, 2)).unbind(2)
    gated: torch.Tensor = gate * torch.sigmoid(gate) * up
    return gated


TRITON_GEMM_GATE_UP = replace(
    TRITON_GEMM,
    name="triton_gemm_gate_up",
    op="gate_up_swiglu",
    inputs=inputs,
    run=partial(run, swiglu=True),
    reference=reference,
    work=work,
)

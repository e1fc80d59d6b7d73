"""The baseline linear, y[tokens, n] = x[tokens, k] · W[n, k]ᵀ, through torch.

torch uses cuBLAS on a GPU, oneDNN or MKL on a CPU.
"""

import torch

from kernels.kernel import CHECK_ELEMENTS, Inputs, Kernel, TensorSource
from specs.roofline import Work
from specs.units import ITEMSIZE

RTOL = {"fp32": 2e-5, "bf16": 4e-3, "fp16": 1e-3}
"""Largest accepted relative error by dtype.

Rounding the result once costs bf16 2^-9 per element (1.1e-3 in this norm). The rest is order of summation.
"""


def work(*, tokens: int, n: int, k: int, dtype: str) -> Work:
    """Return the work: read W once, read x once, write y once."""
    return Work(flops=2 * tokens * n * k, hbm_bytes=(n * k + tokens * k + tokens * n) * ITEMSIZE[dtype])


def inputs(source: TensorSource, *, tokens: int, n: int, k: int, dtype: str) -> Inputs:
    """Return x[tokens, k], weight[n, k] and out[tokens, n]."""
    return {
        "x": source.activation(tokens, k, dtype=dtype),
        "weight": source.weight(n, k, dtype=dtype),
        "out": source.output(tokens, n, dtype=dtype),
    }


def run(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """Run one matrix product; torch picks the library, the library its algorithm."""
    torch.mm(x, weight.t(), out=out)


def reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the product in float64, in slices of W."""
    wide, rows = x.to(torch.float64), max(1, CHECK_ELEMENTS // weight.shape[1])
    return torch.cat([wide @ part.to(torch.float64).t() for part in weight.split(rows)], dim=1)


TORCH_LINEAR = Kernel(
    name="torch_linear",
    op="linear",
    implementation="torch",
    inputs=inputs,
    run=run,
    reference=reference,
    work=work,
    rtol=RTOL,
    archs=None,
)

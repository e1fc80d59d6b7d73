"""The launch floor: what one call costs when there is next to nothing to do, out[1] = fmax(x[1], out[1]).

Each call reads the `out` that the one before wrote, so calls cannot overlap. fmax passes over NaN, so the
first call turns the poison in `out` into x and every later one leaves x there.
"""

import torch

from kernels.kernel import Draw, Inputs, Kernel
from specs.roofline import Work
from specs.units import ITEMSIZE

RTOL = {"fp32": 0.0, "bf16": 0.0, "fp16": 0.0}
"""The larger of two equal numbers is exact."""


def work(*, dtype: str) -> Work:
    """Read x and out, write out: one element each, and one comparison."""
    return Work(flops=1, hbm_bytes=3 * ITEMSIZE[dtype])


def inputs(draw: Draw, *, dtype: str) -> Inputs:
    """x[1] and out[1]."""
    return {"x": draw.activation(1, dtype=dtype), "out": draw.output(1, dtype=dtype)}


def run(x: torch.Tensor, out: torch.Tensor) -> None:
    """One elementwise op on one element."""
    torch.fmax(x, out, out=out)


def reference(x: torch.Tensor) -> torch.Tensor:
    """X itself."""
    return x.to(torch.float64)


TORCH_LAUNCH = Kernel(
    name="torch_launch",
    op="launch",
    implementation="torch",
    inputs=inputs,
    run=run,
    reference=reference,
    work=work,
    rtol=RTOL,
    archs=None,
)

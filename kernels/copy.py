"""The copy ceiling: memory read and written at the same rate, out[elements] = source[elements]."""

import torch

from kernels.kernel import Draw, Inputs, Kernel
from specs.roofline import Work
from specs.units import ITEMSIZE

RTOL = {"fp32": 0.0, "bf16": 0.0, "fp16": 0.0}
"""A copy is exact."""


def work(*, elements: int, dtype: str) -> Work:
    """Read source once, write out once."""
    return Work(flops=0, hbm_bytes=2 * elements * ITEMSIZE[dtype])


def inputs(draw: Draw, *, elements: int, dtype: str) -> Inputs:
    """source[elements] and out[elements]."""
    return {"source": draw.weight(elements, dtype=dtype), "out": draw.output(elements, dtype=dtype)}


def run(source: torch.Tensor, out: torch.Tensor) -> None:
    """One copy within the device."""
    out.copy_(source)


def reference(source: torch.Tensor) -> torch.Tensor:
    """The source itself, which is exact."""
    return source


TORCH_COPY = Kernel(
    name="torch_copy",
    op="copy",
    implementation="torch",
    inputs=inputs,
    run=run,
    reference=reference,
    work=work,
    rtol=RTOL,
    archs=None,
)

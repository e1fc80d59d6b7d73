"""The least launch: a kernel that does nothing, so that in a chain of them the time is the launch alone."""

import torch

from kernels.compile import OPTIONS, TRITON_ARCHS, Variant
from kernels.kernel import Draw, Inputs, Kernel
from kernels.triton_utils import missing_triton_launch, tl, triton
from specs.roofline import Work

RTOL = {"fp32": 0.0}
"""What it leaves alone is exact."""
WARPS = 1


@triton.jit
def _empty(out: tl.tensor) -> None:
    pass


def work(*, dtype: str) -> Work:  # noqa: ARG001 - every kernel's work has its dtype
    """Neither bytes nor flops."""
    return Work(flops=0, hbm_bytes=0)


def inputs(draw: Draw, *, dtype: str) -> Inputs:
    """x[1], and out[1] that holds the same."""
    x = draw.activation(1, dtype=dtype)
    return {"x": x, "out": x.clone()}


def run(x: torch.Tensor, out: torch.Tensor) -> None:  # noqa: ARG001 - x is what out is held against
    """One program of one warp that returns at once."""
    _empty[(1,)](out, num_warps=WARPS, **OPTIONS)


def reference(x: torch.Tensor) -> torch.Tensor:
    """X itself: what was in out stays there."""
    return x.to(torch.float64)


def variants(dtype: str) -> list[Variant]:
    """The one compiled form."""
    return [Variant(_empty, {"out": f"*{dtype}"}, {}, WARPS, 1)]


TRITON_EMPTY = Kernel(
    name="triton_empty",
    op="launch",
    implementation="triton",
    inputs=inputs,
    run=run,
    reference=reference,
    work=work,
    rtol=RTOL,
    archs=TRITON_ARCHS,
    missing=missing_triton_launch,
)

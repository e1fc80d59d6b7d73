"""Faults for the sanitizer to find: a store one element past the end, and a barrier that was left out.

Beside them stands a control without a fault: hazards that racecheck reports there are its own false alarms.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl

from kernels.compile import TRITON_ARCHS
from kernels.kernel import Draw, Inputs, Kernel
from specs.roofline import Work
from specs.units import ITEMSIZE

SIZE = 256

RACE = r"""
extern "C" __global__ void race(int *out)
{
    __shared__ int tile[256];
    tile[threadIdx.x] = threadIdx.x;
    // Here a __syncthreads() is missing: what is read below another warp may not have written yet.
    out[threadIdx.x] = tile[255 - threadIdx.x];
}
"""


@triton.jit
def _fill(out: tl.tensor, size: int, SIZE: tl.constexpr) -> None:
    here = tl.arange(0, SIZE)
    tl.store(out + here, here, mask=here < size)


@triton.jit
def _control_sum(value: tl.tensor, out: tl.tensor, SIZE: tl.constexpr) -> None:
    tl.store(out, tl.sum(tl.load(value + tl.arange(0, SIZE))))


def control_inputs(draw: Draw, *, dtype: str) -> Inputs:
    """value[4 SIZE] and out[1]."""
    return {"value": draw.weight(4 * SIZE, dtype=dtype), "out": draw.output(1, dtype=dtype)}


def control_run(value: torch.Tensor, out: torch.Tensor) -> None:
    """Add up across four warps."""
    _control_sum[(1,)](value, out, SIZE=4 * SIZE, num_warps=4)


def control_work(*, dtype: str) -> Work:
    """Read the values."""
    return Work(flops=4 * SIZE, hbm_bytes=4 * SIZE * ITEMSIZE[dtype])


CONTROL = Kernel(
    name="control_sum",
    op="control",
    implementation="control",
    inputs=control_inputs,
    run=control_run,
    reference=lambda value: value.double().sum(dim=0, keepdim=True),
    work=control_work,
    rtol={"fp32": 1e-3},
    archs=TRITON_ARCHS,
)
"""A plain `tl.sum` across warps, in fp32."""


def out_of_bounds() -> None:
    """The mask lets one element too many through."""
    out = torch.empty(SIZE - 1, dtype=torch.int32, device="cuda")
    _fill[(1,)](out, SIZE, SIZE=SIZE)
    torch.cuda.synchronize()


def race() -> None:
    """Eight warps read what the others write."""
    import cupy

    out = cupy.empty(SIZE, dtype=cupy.int32)
    cupy.RawKernel(RACE, "race")((1,), (SIZE,), (out,))
    cupy.cuda.Device().synchronize()


FAULTS: dict[str, Callable[[], None]] = {"out_of_bounds": out_of_bounds, "race": race}


def main(argv: Sequence[str] | None = None) -> int:
    """Commit one of them."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("fault", choices=list(FAULTS))
    FAULTS[parser.parse_args(argv).fault]()
    return 0


if __name__ == "__main__":
    sys.exit(main())

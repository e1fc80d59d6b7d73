"""Faults for the sanitizer to find: a store one element past the end, and a barrier that was left out."""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl

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

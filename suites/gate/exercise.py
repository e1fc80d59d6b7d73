"""What the sanitizer watches: each kernel of ours, small, with ragged edges, its result checked."""

import sys
from collections.abc import Iterator

import torch

from kernels.draw import FreshDraw
from kernels.kernel import Kernel
from kernels.linears import LINEARS
from kernels.read import TRITON_READ
from kernels.timing.device import Device, current_device
from specs.errors import UserError

LIBRARIES = ("torch", "cublaslt")
"""Not ours to prove."""

SHAPES = [(1, 131, 1032), (3, 131, 257), (16, 384, 1032), (64, 130, 520), (129, 131, 257)]
"""(tokens, n, k): n no multiple of a block; k a multiple of 8, so that rows stay aligned to 16 bytes, and odd."""
DTYPE = "bf16"


def exercises() -> Iterator[tuple[Kernel, dict[str, int]]]:
    """Kernels and what they are called with."""
    for kernel in LINEARS:
        if kernel.implementation not in LIBRARIES:
            for tokens, n, k in SHAPES:
                if tokens in kernel.tokens:
                    yield kernel, {"tokens": tokens, "n": n, "k": k}
    yield TRITON_READ, {"elements": 2**16 + 3}


def exercise(kernel: Kernel, shape: dict[str, int], device: Device) -> str:
    """Run once; one line on the result, which begins with `wrong` when it is."""
    dtype = DTYPE if DTYPE in kernel.rtol else next(iter(kernel.rtol))
    told = f"{kernel.name} {dtype} {shape}"
    if reason := kernel.why_not(device.arch, dtype):
        return f"not run: {told}: {reason}"
    inputs = kernel.inputs(FreshDraw(1, device.kind), dtype=dtype, **shape)
    try:
        kernel.run(**inputs)
    except UserError as refusal:
        return f"refused: {told}: {refusal}"
    error = kernel.relative_error(inputs)
    return f"{'right' if error <= kernel.rtol[dtype] else 'wrong'}: {told}: relative error {error:.3g}"


def main() -> int:
    """All of them; 1 if a result is wrong."""
    device, wrong = current_device(), False
    with torch.inference_mode():
        for kernel, shape in exercises():
            line = exercise(kernel, shape, device)
            print(line, flush=True)  # noqa: T201 - a program's output
            wrong = wrong or line.startswith("wrong")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())

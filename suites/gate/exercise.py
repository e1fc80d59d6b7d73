"""Exercise for the sanitizer: our kernels at small ragged sizes, results checked."""

import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
import triton
import triton.language as tl

from kernels import gemm
from kernels.ceilings import TRITON_READ
from kernels.compile import TRITON_ARCHS
from kernels.configs.config import SKINNY_MAX_TOKENS, LinearConfig
from kernels.configs.dispatch import tuned_linear_table
from kernels.gate_up import GATE_UPS, TRITON_GEMM_GATE_UP
from kernels.kernel import Inputs, Kernel, RandomTensors, TensorSource
from kernels.registry import DECODE_ATTENTION, LINEARS
from kernels.rmsnorm import TRITON_RMSNORM
from kernels.rotary import TRITON_ROTARY
from kernels.skinny import TRITON_SKINNY, launch
from kernels.swiglu import TRITON_SWIGLU
from kernels.timing.device import Device, current_device
from specs.errors import UserError
from specs.gpus import ARCHS
from specs.layer import PAGE_SIZE, PAGED_IMPLEMENTATIONS
from specs.roofline import Work
from specs.units import ITEMSIZE

# Planted faults for the sanitizer: a store one element past the end, and a missing barrier.
#
# The control beside them has no fault: hazards that racecheck reports in the control are false alarms.

SIZE = 256

RACE_SOURCE = r"""
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


def control_inputs(draw: TensorSource, *, dtype: str) -> Inputs:
    """Inputs value[4 SIZE] and out[1]."""
    return {"value": draw.weight(4 * SIZE, dtype=dtype), "out": draw.output(1, dtype=dtype)}


def control_run(value: torch.Tensor, out: torch.Tensor) -> None:
    """Add up the values across four warps."""
    _control_sum[(1,)](value, out, SIZE=4 * SIZE, num_warps=4)


def control_work(*, dtype: str) -> Work:
    """Work of the control: each value is read and added once."""
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
"""Plain `tl.sum` across warps, in fp32."""


def store_out_of_bounds() -> None:
    """Store one element past the end, which the mask lets through."""
    out = torch.empty(SIZE - 1, dtype=torch.int32, device="cuda")
    _fill[(1,)](out, SIZE, SIZE=SIZE)
    torch.cuda.synchronize()


def launch_race() -> None:
    """Let eight warps read values of other warps without a barrier."""
    import cupy

    out = cupy.empty(SIZE, dtype=cupy.int32)
    cupy.RawKernel(RACE_SOURCE, "race")((1,), (SIZE,), (out,))
    cupy.cuda.Device().synchronize()


FAULTS: dict[str, Callable[[], None]] = {"out_of_bounds": store_out_of_bounds, "race": launch_race}


LIBRARY_IMPLEMENTATIONS = ("torch", "cublaslt", "flash-attn", "flashinfer")
"""Implementations of libraries, left unchecked."""

LINEAR_SHAPES = [(1, 131, 1032), (3, 131, 257), (16, 384, 1032), (64, 130, 520), (129, 131, 257)]
"""(tokens, n, k): n no multiple of a block.

k: a multiple of 8, so that rows stay aligned to 16 bytes, or odd.
"""
ATTENTION_SHAPES = [(3, 130), (2, 1030), (1, 20003)]
"""(batch, context) of decode attention with one, several and very many parts.

Very many parts are added up twice.
"""
ELEMENTWISE_CASES: tuple[tuple[Kernel, dict[str, int]], ...] = (
    (TRITON_RMSNORM, {"tokens": 7, "hidden": 200}),
    (TRITON_RMSNORM, {"tokens": 3, "hidden": 5001}),
    (TRITON_ROTARY, {"tokens": 3, "heads": 15, "kv_heads": 3, "head_dim": 96}),
    (TRITON_ROTARY, {"tokens": 2, "heads": 5, "kv_heads": 1, "head_dim": 66}),
    (TRITON_SWIGLU, {"tokens": 3, "intermediate": 1032}),
    (TRITON_SWIGLU, {"tokens": 3, "intermediate": 1027}),
)
"""Rows, heads and blocks that fill no program, aligned to 16 bytes and not."""
DTYPE = "bf16"


def exercise_cases() -> Iterator[tuple[Kernel, dict[str, int]]]:
    """Yield the control, then our kernels, each with its shape."""
    yield CONTROL, {}
    for kernel in (*LINEARS, *GATE_UPS):
        if kernel.implementation not in LIBRARY_IMPLEMENTATIONS:
            for tokens, n, k in LINEAR_SHAPES:
                if tokens in kernel.tokens:
                    rows = n + n % 2 if kernel in GATE_UPS else n  # gate and up have equally many rows
                    yield kernel, {"tokens": tokens, "n": rows, "k": k}
    for config in tuned_configs(current_device().arch):
        kernel = replace(TRITON_SKINNY, name=f"triton_skinny {config}", run=partial(launch, config=config))
        ragged = {"n": 2 * config.rows + 3, "k": 3 * config.depth * config.split + 8}
        yield kernel, {"tokens": min(config.tokens, 3), **ragged}
    for kernel in (one for one in DECODE_ATTENTION if one.implementation not in LIBRARY_IMPLEMENTATIONS):
        for batch, context in ATTENTION_SHAPES:
            shape = {"batch": batch, "context": context, "heads": 8, "kv_heads": 1, "head_dim": 128}
            yield kernel, shape | ({"page_size": PAGE_SIZE} if kernel.implementation in PAGED_IMPLEMENTATIONS else {})
    yield from gemm_cases(current_device().arch)
    yield TRITON_READ, {"elements": 2**16 + 3}
    yield from ELEMENTWISE_CASES


def gemm_cases(arch: str) -> Iterator[tuple[Kernel, dict[str, int]]]:
    """Yield the GEMM with more tiles than programs.

    Cases: split and whole, by pointers and descriptors, with and without SwiGLU.
    """
    whole = LinearConfig(64, 64, 64, 1, 4, 3)
    configs = [whole, whole._replace(split=2)]
    if arch in ARCHS and ARCHS[arch].tma:
        configs += [config._replace(tma=True) for config in configs]
    for config in configs:
        ragged = {"tokens": 129, "n": 2 * config.rows + 16, "k": 3 * config.depth * config.split + 8}
        for kernel, swiglu in ((gemm.TRITON_GEMM, False), (TRITON_GEMM_GATE_UP, True)):
            run = partial(gemm.launch, config=config, swiglu=swiglu, programs=2)
            yield replace(kernel, name=f"{kernel.name} {config}", run=run), ragged
    yield TRITON_GEMM_GATE_UP, {"tokens": 129, "n": 262, "k": 257}


def tuned_configs(arch: str) -> list[LinearConfig]:
    """One tuned configuration of each kind, and one with descriptors.

    Compiling all would take the step's time.
    """
    table = tuned_linear_table(arch)
    used = [row.config for row in table.rows if row.tokens <= SKINNY_MAX_TOKENS] if table else []
    kinds = {(one.matrix, one.tokens, one.split > 1): one for one in used}
    fetched = [LinearConfig(64, 16, 64, 2, 4, 4, tma=True)] if arch in ARCHS and ARCHS[arch].tma else []
    return [*kinds.values(), *fetched]


def interleave_kernels(calls: Iterable[tuple[Kernel, dict[str, int]]]) -> list[tuple[Kernel, dict[str, int]]]:
    """Order calls so that each kernel runs once before any runs twice.

    An exercise that is cut off has missed no kernel.
    """
    seen = Counter[str]()
    turns = []
    for kernel, shape in calls:
        name = kernel.name.split()[0]  # without its configuration
        turns.append((seen[name], kernel, shape))
        seen[name] += 1
    return [(kernel, shape) for _, kernel, shape in sorted(turns, key=lambda turn: turn[0])]


def check_case(kernel: Kernel, shape: dict[str, int], device: Device) -> str:
    """Run a case once; return a line that begins with `wrong` for a wrong result."""
    dtype = DTYPE if DTYPE in kernel.rtol else next(iter(kernel.rtol))
    told = f"{kernel.name} {dtype} {shape}"
    if reason := kernel.why_not(device.arch, dtype):
        return f"not run: {told}: {reason}"
    inputs = kernel.inputs(RandomTensors(1, device.kind), dtype=dtype, **shape)
    try:
        kernel.run(**inputs)
    except UserError as refusal:
        return f"refused: {told}: {refusal}"
    error = kernel.relative_error(inputs)
    return f"{'right' if error <= kernel.rtol[dtype] else 'wrong'}: {told}: relative error {error:.3g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run all cases, or one fault; return 1 if a result is wrong.

    Each case is printed before and after it runs.
    """
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--fault", choices=list(FAULTS), help="commit this fault, and nothing else")
    if fault := parser.parse_args(argv).fault:
        FAULTS[fault]()
        return 0
    device, wrong, calls = current_device(), False, interleave_kernels(exercise_cases())
    _print_line(f"calls: {len(calls)}")
    with torch.inference_mode():
        for number, (kernel, shape) in enumerate(calls, start=1):
            _print_line(f"begins {number}: {kernel.name} {shape}")
            line = check_case(kernel, shape, device)
            _print_line(line)
            wrong = wrong or line.startswith("wrong")
    return int(wrong)


def _print_line(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a program's output


if __name__ == "__main__":
    sys.exit(main())

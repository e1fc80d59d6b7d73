"""What the sanitizer watches: each kernel of ours, small, with ragged edges, its result checked."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import torch

from kernels import gemm
from kernels.ceilings import TRITON_READ
from kernels.configs.config import FEW_TOKENS, Config
from kernels.configs.dispatch import tuned
from kernels.gate_up import GATE_UPS, TRITON_GEMM_GATE_UP
from kernels.kernel import FreshDraw, Kernel
from kernels.registry import DECODE, LINEARS
from kernels.rmsnorm import TRITON_RMSNORM
from kernels.rotary import TRITON_ROTARY
from kernels.skinny import TRITON_SKINNY, launch
from kernels.swiglu import TRITON_SWIGLU
from kernels.timing.device import Device, current_device
from specs.errors import UserError
from specs.gpus import ARCHS
from specs.layer import PAGE_SIZE, PAGED
from suites.gate.faults import CONTROL

LIBRARIES = ("torch", "cublaslt", "flash-attn", "flashinfer")
"""Not ours to prove."""

SHAPES = [(1, 131, 1032), (3, 131, 257), (16, 384, 1032), (64, 130, 520), (129, 131, 257)]
"""(tokens, n, k): n no multiple of a block; k a multiple of 8, so that rows stay aligned to 16 bytes, and odd."""
SEQUENCES = [(3, 130), (2, 1030), (1, 20003)]
"""(batch, context): decode attention whose parts are one, several, and so many that they are added up twice."""
PIECES: tuple[tuple[Kernel, dict[str, int]], ...] = (
    (TRITON_RMSNORM, {"tokens": 7, "hidden": 200}),
    (TRITON_RMSNORM, {"tokens": 3, "hidden": 5001}),
    (TRITON_ROTARY, {"tokens": 3, "heads": 15, "kv_heads": 3, "head_dim": 96}),
    (TRITON_ROTARY, {"tokens": 2, "heads": 5, "kv_heads": 1, "head_dim": 66}),
    (TRITON_SWIGLU, {"tokens": 3, "intermediate": 1032}),
    (TRITON_SWIGLU, {"tokens": 3, "intermediate": 1027}),
)
"""Rows, heads and blocks that fill no program, with rows aligned to 16 bytes and not."""
DTYPE = "bf16"


def exercises() -> Iterator[tuple[Kernel, dict[str, int]]]:
    """The control, then our kernels, with what they are called with."""
    yield CONTROL, {}
    for kernel in (*LINEARS, *GATE_UPS):
        if kernel.implementation not in LIBRARIES:
            for tokens, n, k in SHAPES:
                if tokens in kernel.tokens:
                    rows = n + n % 2 if kernel in GATE_UPS else n  # a gate has an up
                    yield kernel, {"tokens": tokens, "n": rows, "k": k}
    for config in configurations(current_device().arch):
        kernel = replace(TRITON_SKINNY, name=f"triton_skinny {config}", run=partial(launch, config=config))
        ragged = {"n": 2 * config.rows + 3, "k": 3 * config.depth * config.split + 8}
        yield kernel, {"tokens": min(config.tokens, 3), **ragged}
    for kernel in (one for one in DECODE if one.implementation not in LIBRARIES):
        for batch, context in SEQUENCES:
            shape = {"batch": batch, "context": context, "heads": 8, "kv_heads": 1, "head_dim": 128}
            yield kernel, shape | ({"page_size": PAGE_SIZE} if kernel.implementation in PAGED else {})
    yield from gemms(current_device().arch)
    yield TRITON_READ, {"elements": 2**16 + 3}
    yield from PIECES


def gemms(arch: str) -> Iterator[tuple[Kernel, dict[str, int]]]:
    """The GEMM with more tiles than programs, split and whole, by pointers and descriptors, with and without SwiGLU."""
    whole = Config(64, 64, 64, 1, 4, 3)
    configs = [whole, whole._replace(split=2)]
    if arch in ARCHS and ARCHS[arch].tma:
        configs += [config._replace(tma=True) for config in configs]
    for config in configs:
        ragged = {"tokens": 129, "n": 2 * config.rows + 16, "k": 3 * config.depth * config.split + 8}
        for kernel, swiglu in ((gemm.TRITON_GEMM, False), (TRITON_GEMM_GATE_UP, True)):
            run = partial(gemm.launch, config=config, swiglu=swiglu, programs=2)
            yield replace(kernel, name=f"{kernel.name} {config}", run=run), ragged
    yield TRITON_GEMM_GATE_UP, {"tokens": 129, "n": 262, "k": 257}


def configurations(arch: str) -> list[Config]:
    """One of the table's of each kind, for compiling all would take the step's time, and one with descriptors."""
    table = tuned(arch)
    used = [row.config for row in table.rows if row.tokens <= FEW_TOKENS] if table else []
    kinds = {(one.matrix, one.tokens, one.split > 1): one for one in used}
    fetched = [Config(64, 16, 64, 2, 4, 4, tma=True)] if arch in ARCHS and ARCHS[arch].tma else []
    return [*kinds.values(), *fetched]


def widest_first(calls: Iterable[tuple[Kernel, dict[str, int]]]) -> list[tuple[Kernel, dict[str, int]]]:
    """Each kernel once, then each a second time, and so on: an exercise that is cut off has missed no kernel."""
    seen = Counter[str]()
    turns = []
    for kernel, shape in calls:
        name = kernel.name.split()[0]  # without its configuration
        turns.append((seen[name], kernel, shape))
        seen[name] += 1
    return [(kernel, shape) for _, kernel, shape in sorted(turns, key=lambda turn: turn[0])]


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
    """All of them, each named before it begins and after it ended; 1 if a result is wrong."""
    device, wrong, calls = current_device(), False, widest_first(exercises())
    _say(f"calls: {len(calls)}")
    with torch.inference_mode():
        for number, (kernel, shape) in enumerate(calls, start=1):
            _say(f"begins {number}: {kernel.name} {shape}")
            line = exercise(kernel, shape, device)
            _say(line)
            wrong = wrong or line.startswith("wrong")
    return int(wrong)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a program's output


if __name__ == "__main__":
    sys.exit(main())

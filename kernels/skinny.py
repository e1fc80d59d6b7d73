"""The linear in Triton for 1 to 64 tokens, with one pass over W for all tokens.

It computes y[tokens, n] = x[tokens, k] · W[n, k]ᵀ. At these sizes the time is that of reading W. Three losses add to
it: too few bytes in flight, idle SMs, and launch latency.
- A tile is computed transposed, yᵀ = W · xᵀ, so rows of W and not the few tokens fill the matrix instruction. Up to
  four tokens plain multiply-adds are as fast, and W need not go through shared memory.
- Where rows alone make too few programs, `split` programs share a tile, each with its part of k. Each leaves an fp32
  partial sum and counts itself in. The last to arrive adds the partial sums in the order of k, and sets the counter
  back to zero. So one launch does all the work, and two calls give the same bits.
- With dependent launch a program asks for its first bytes of W before it waits for the previous kernel. W does not
  depend on that kernel. x, out and the workspace do, and are touched only after the wait.
With SWIGLU rows of W alternate between gate and up (kernels/triton_utils.py). Then out[tokens, n / 2] = silu(gate) · up
is made of the whole fp32 sums: where programs share a tile, by the last to arrive. Eviction hints (W first, x last)
reach the hardware where W goes straight to registers; Triton drops them from cp.async.
"""

from dataclasses import replace
from functools import partial

import torch

from kernels.compile import LAUNCH_OPTIONS, TRITON_ARCHS, TritonVariant
from kernels.configs.config import LinearConfig
from kernels.configs.dispatch import choose_config, configuration, device_arch
from kernels.linear import TORCH_LINEAR
from kernels.operands import LinearSizes, Workspace, check_operands, dtype_name, linear_signature, shared_workspace
from kernels.triton_utils import TensorDescriptor, gated, missing_triton_launch, prefetch, stall, tl, triton
from specs.errors import UserError
from specs.gpus import DEPENDENT_LAUNCH_ARCHS
from specs.units import ITEMSIZE

SUPPORTED_TOKENS = range(1, 65)


@triton.jit
def _on_matrix_units(
    x: tl.tensor,
    weight: tl.tensor,
    tiles: tl.tensor_descriptor,
    first: int,
    begin: int,
    end: int,
    tokens: int,
    n: int,
    k: int,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    DEPTH: tl.constexpr,
    STAGES: tl.constexpr,
    EVEN: tl.constexpr,
) -> tl.tensor:
    row, token, column = first + tl.arange(0, ROWS), tl.arange(0, TOKENS), tl.arange(0, DEPTH)
    weight_row = weight + row.to(tl.int64)[:, None] * k  # int64: n * k passes 2^31 in lm_heads
    x_row = x + token[None, :] * k
    total = tl.zeros([ROWS, TOKENS], tl.float32)
    for start in tl.range(begin, end, DEPTH, num_stages=STAGES):
        here = start + column
        given = (token < tokens)[None, :]
        if tiles is not None:
            weights = tiles.load([first, start])  # zeros beyond n and k
        elif EVEN:
            weights = tl.load(weight_row + here[None, :])
        else:
            weights = tl.load(weight_row + here[None, :], mask=(row < n)[:, None] & (here < k)[None, :], other=0.0)
        if not EVEN:
            given = given & (here < k)[:, None]
        values = tl.load(x_row + here[:, None], mask=given, other=0.0)
        total = tl.dot(weights, values, total, input_precision="ieee")  # else fp32 is rounded to tf32: 5e-4
    return total


@triton.jit
def _with_multiply_adds(
    x: tl.tensor,
    weight: tl.tensor,
    first: int,
    begin: int,
    end: int,
    tokens: int,
    n: int,
    k: int,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    DEPTH: tl.constexpr,
    STAGES: tl.constexpr,
    EVEN: tl.constexpr,
) -> tl.tensor:
    # Axes: token, row of W, chunk of 16 bytes, element of the chunk. The last one stays within a thread.
    CHUNK: tl.constexpr = 128 // weight.dtype.element_ty.primitive_bitwidth
    row = (first + tl.arange(0, ROWS))[None, :, None, None]
    token = tl.arange(0, TOKENS)[:, None, None, None]
    column = tl.arange(0, DEPTH // CHUNK)[:, None] * CHUNK + tl.arange(0, CHUNK)[None, :]
    weight_row = weight + row.to(tl.int64) * k
    x_row = x + token * k
    total = tl.zeros([TOKENS, ROWS, DEPTH // CHUNK], tl.float32)
    for start in tl.range(begin, end, DEPTH, num_stages=STAGES):
        here = (start + column)[None, None, :, :]
        if EVEN:
            weights = tl.load(weight_row + here, eviction_policy="evict_first")
            values = tl.load(x_row + here, mask=token < tokens, other=0.0, eviction_policy="evict_last")
        else:
            weights = tl.load(weight_row + here, mask=(row < n) & (here < k), other=0.0, eviction_policy="evict_first")
            given = (token < tokens) & (here < k)
            values = tl.load(x_row + here, mask=given, other=0.0, eviction_policy="evict_last")
        total += tl.sum(weights.to(tl.float32) * values.to(tl.float32), axis=3)
    return tl.trans(tl.sum(total, axis=2))


@triton.jit(do_not_specialize=["tokens"])
def _skinny(
    x: tl.tensor,
    weight: tl.tensor,
    tiles: tl.tensor_descriptor,
    out: tl.tensor,
    partials: tl.tensor,
    arrived: tl.tensor,
    tokens: int,
    n: int,
    k: int,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    DEPTH: tl.constexpr,
    SPLIT: tl.constexpr,
    STAGES: tl.constexpr,
    MATRIX: tl.constexpr,
    EVEN: tl.constexpr,
    PREFETCH: tl.constexpr,
    SWIGLU: tl.constexpr,
    DELAY: tl.constexpr,
) -> None:
    tile, part = tl.program_id(0) // SPLIT, tl.program_id(0) % SPLIT
    first = tile * ROWS
    steps = tl.cdiv(tl.cdiv(k, DEPTH), SPLIT)
    begin = part * steps * DEPTH
    end = tl.minimum(begin + steps * DEPTH, k)
    if PREFETCH:
        tl.extra.cuda.gdc_launch_dependents()  # first thing: the next kernel's programs may wait beside this one's
        prefetch(weight, first + tl.arange(0, ROWS), begin, n, k, PREFETCH)
        tl.extra.cuda.gdc_wait()
    if MATRIX:
        total = _on_matrix_units(x, weight, tiles, first, begin, end, tokens, n, k, ROWS, TOKENS, DEPTH, STAGES, EVEN)
    else:
        total = _with_multiply_adds(x, weight, first, begin, end, tokens, n, k, ROWS, TOKENS, DEPTH, STAGES, EVEN)
    FOLD: tl.constexpr = 2 if SWIGLU else 1  # rows of W that make a column of out
    row, token = first // FOLD + tl.arange(0, ROWS // FOLD), tl.arange(0, TOKENS)
    target = out + token[None, :] * (n // FOLD) + row[:, None]
    inside = (row < n // FOLD)[:, None] & (token < tokens)[None, :]
    if SPLIT == 1:
        tl.store(target, gated(total, ROWS, TOKENS) if SWIGLU else total, mask=inside)
    else:
        cell = tl.arange(0, ROWS)[:, None] * TOKENS + token[None, :]
        own = partials + tile.to(tl.int64) * (SPLIT * ROWS * TOKENS) + cell
        if DELAY:
            stall(DELAY)
        tl.store(own + part * (ROWS * TOKENS), total)
        tl.debug_barrier()  # one thread counts the program in, and its release covers what all have stored
        if tl.atomic_add(arrived + tile, 1, sem="acq_rel", scope="gpu") == SPLIT - 1:
            whole = tl.zeros([ROWS, TOKENS], tl.float32)
            for one in tl.static_range(SPLIT):
                whole += tl.load(own + one * (ROWS * TOKENS), cache_modifier=".cg")  # L1 knows nothing of the others
            tl.store(target, gated(whole, ROWS, TOKENS) if SWIGLU else whole, mask=inside)
            tl.store(arrived + tile, 0)


def constexprs(
    config: LinearConfig, *, itemsize: int, even: bool, dependent: bool, swiglu: bool, delay: int = 0
) -> dict[str, int]:
    """Return the kernel's compile-time arguments."""
    ahead = config.depth * itemsize * max(1, config.stages - 1)
    return {
        "ROWS": config.rows,
        "TOKENS": config.tokens,
        "DEPTH": config.depth,
        "SPLIT": config.split,
        "STAGES": config.stages,
        "MATRIX": config.matrix,
        "EVEN": even,
        "PREFETCH": (1 << ahead.bit_length() - 1) if dependent else 0,
        "SWIGLU": swiglu,
        "DELAY": delay,
    }


def variant(
    config: LinearConfig, dtype: str, *, even: bool = True, dependent: bool = False, swiglu: bool = False
) -> TritonVariant:
    """Return the compiled form of a configuration; `even`: n and k are whole tiles."""
    sizes = constexprs(config, itemsize=ITEMSIZE[dtype], even=even, dependent=dependent, swiglu=swiglu)
    signature = linear_signature(dtype) | {"partials": "*fp32", "arrived": "*i32"}
    if config.tma:
        signature["tiles"] = f"tensordesc<{dtype}[{config.rows}, {config.depth}]>"
    given = sizes if config.tma else sizes | {"tiles": None}
    return TritonVariant(_skinny, signature, given, config.warps, config.stages)


def launch(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    config: LinearConfig,
    *,
    dependent: bool = False,
    swiglu: bool = False,
    scratch: Workspace | None = None,
    delay: int = 0,
) -> None:
    """Run one configuration.

    Args:
        x: x[tokens, k]; all three are contiguous and of one dtype.
        weight: weight[n, k].
        out: out[tokens, n], or out[tokens, n / 2] with swiglu.
        config: cut of the work.
        dependent: start before the previous kernel on the stream has ended (sm_90 and later).
        swiglu: rows of W alternate between gate and up, and out is silu(gate) · up.
        scratch: own workspace; without it calls on a device share a workspace, and must be on one stream.
        delay: nanoseconds that programs wait at random before they pass their partial sums on, for tests.

    Raises:
        UserError: operands that are strided or of mismatched shapes, or more tokens than the configuration holds.
    """
    sizes = check_operands(x, weight, out, swiglu=swiglu)
    if sizes.tokens > config.tokens:
        raise UserError(f"{sizes.tokens} tokens; this configuration holds {config.tokens}: {config}")
    _launch_checked(x, weight, out, sizes, config, scratch or shared_workspace(x.device), dependent, swiglu, delay)


def _launch_checked(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    sizes: LinearSizes,
    config: LinearConfig,
    scratch: Workspace,
    dependent: bool,
    swiglu: bool,
    delay: int = 0,
) -> None:
    tokens, n, k = sizes
    partials, arrived = scratch.next_buffers(config.partial_elements(n), triton.cdiv(n, config.rows))
    tiles = None
    if config.tma and (k * x.element_size() | weight.data_ptr()) % 16 == 0:  # descriptors need this alignment
        tiles = TensorDescriptor.from_tensor(weight, [config.rows, config.depth])
    itemsize, even = x.element_size(), config.even(n, k)
    constants = constexprs(config, itemsize=itemsize, even=even, dependent=dependent, swiglu=swiglu, delay=delay)
    options = {"num_warps": config.warps, "num_stages": config.stages, **LAUNCH_OPTIONS}
    if dependent:
        options["launch_pdl"] = True
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _skinny[(config.programs(n),)](x, weight, tiles, out, partials, arrived, tokens, n, k, **constants, **options)


def run(
    x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, *, dependent: bool = False, swiglu: bool = False
) -> None:
    """Run one launch, with the tuned or ruled configuration for this shape.

    Calls on a device share a workspace. `dependent` and `swiglu` are those of `launch`.

    Raises:
        UserError: more than 64 tokens, an unsupported dtype, or operands that are strided or of mismatched shapes.
    """
    sizes = check_operands(x, weight, out, swiglu=swiglu)
    tokens, n, k = sizes
    if tokens not in SUPPORTED_TOKENS:
        raise UserError(f"{tokens} tokens; triton_skinny takes 1 to {SUPPORTED_TOKENS[-1]}, so use triton_gemm")
    dtype = dtype_name(x, "triton_skinny")
    config = choose_config(device_arch(x.device), dtype, tokens=tokens, n=n, k=k).config
    _launch_checked(x, weight, out, sizes, config, shared_workspace(x.device), dependent, swiglu)


TRITON_SKINNY = replace(
    TORCH_LINEAR,
    name="triton_skinny",
    implementation="triton",
    run=run,
    archs=TRITON_ARCHS,
    missing=missing_triton_launch,
    tokens=SUPPORTED_TOKENS,
    configuration=configuration,
)

TRITON_SKINNY_PDL = replace(
    TRITON_SKINNY,
    name="triton_skinny_pdl",
    implementation="triton-pdl",
    run=partial(run, dependent=True),
    archs=DEPENDENT_LAUNCH_ARCHS,
)

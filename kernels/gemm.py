"""The linear in Triton for 65 tokens and more, on the matrix units.

It computes y[tokens, n] = x[tokens, k] · W[n, k]ᵀ. At 128 and 256 tokens the time is still that of reading W, beyond
that of the multiply-adds. Three losses add to it: idle SMs, loads that wait for the epilogue of the previous tile, and
repeated reads of W or x from memory.
- A tile is computed as y = x · Wᵀ: columns of the accumulator are neighbours in y, so whole lines are stored.
- Programs are persistent: one grid fills the SMs, and each program takes tile after tile. The order is groups of row
  blocks by all tokens, so concurrent programs share W and x in L2.
- Where tiles would leave SMs idle, `split` programs share a tile, each with its part of k, by the protocol of
  kernels/skinny.py. The last to arrive adds the partial sums in the order of k, so two calls give the same bits.
- Where the arch has it and rows begin at 16 bytes, the bulk tensor copy engine fetches x and W and stores y.
- The epilogue takes a tile in pieces of 64 columns: a whole staged tile would take the room of a pipeline stage.
"""

from dataclasses import replace
from functools import cache

import torch

from kernels.compile import LAUNCH_OPTIONS, TRITON_ARCHS, TritonVariant
from kernels.configs.config import LinearConfig
from kernels.configs.cost_model import gemm_programs_per_sm
from kernels.configs.dispatch import choose_config, configuration, device_arch
from kernels.linear import TORCH_LINEAR
from kernels.operands import LinearSizes, Workspace, check_operands, dtype_name, linear_signature, shared_workspace
from kernels.triton_utils import TensorDescriptor, gated, missing_triton_launch, stall, tl, triton
from specs.gpus import find_arch

# Device code for one tile: its place, the product, and the store piece by piece.


@triton.jit
def place(tile: int, row_blocks: int, token_blocks: int, GROUP: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Row block and token block of a tile: all tokens of GROUP row blocks before the next rows."""
    group, within = tile // (GROUP * token_blocks), tile % (GROUP * token_blocks)
    height = tl.minimum(row_blocks - group * GROUP, GROUP)
    return group * GROUP + within % height, within // height


@triton.jit
def product(
    x: tl.tensor,
    weight: tl.tensor,
    x_tiles: tl.tensor_descriptor,
    weight_tiles: tl.tensor_descriptor,
    first_token: int,
    first_row: int,
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
    """x[TOKENS, k] · W[ROWS, k]ᵀ over k from `begin` to `end`, in fp32; through descriptors where there are any."""
    # Beyond the edge the last token and row stand in: no mask, and what they give is not stored.
    token = tl.minimum(first_token + tl.arange(0, TOKENS), tokens - 1).to(tl.int64)  # int64: tokens * k passes 2^31
    row = tl.minimum(first_row + tl.arange(0, ROWS), n - 1).to(tl.int64)
    column = tl.arange(0, DEPTH)
    x_row, weight_row = x + token[:, None] * k, weight + row[:, None] * k
    total = tl.zeros([TOKENS, ROWS], tl.float32)
    for start in tl.range(begin, end, DEPTH, num_stages=STAGES):
        if weight_tiles is not None:
            values = x_tiles.load([first_token, start])  # zeros beyond the edges
            weights = weight_tiles.load([first_row, start])
        elif EVEN:
            values = tl.load(x_row + (start + column)[None, :])
            weights = tl.load(weight_row + (start + column)[None, :])
        else:
            given = (start + column < k)[None, :]
            values = tl.load(x_row + (start + column)[None, :], mask=given, other=0.0)
            weights = tl.load(weight_row + (start + column)[None, :], mask=given, other=0.0)
        total = tl.dot(values, tl.trans(weights), total, input_precision="ieee")  # else fp32 is rounded to tf32: 5e-4
    return total


@triton.jit
def store(
    total: tl.tensor,
    out: tl.tensor,
    out_tiles: tl.tensor_descriptor,
    first_token: int,
    first_row: int,
    tokens: int,
    n: int,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    PIECE: tl.constexpr,
    SWIGLU: tl.constexpr,
) -> None:
    """Write a tile to out[tokens, n], its SwiGLU to out[tokens, n / 2]; halved until it is PIECE columns wide."""
    if ROWS > PIECE:
        left, right = tl.split(tl.permute(tl.reshape(total, [TOKENS, 2, ROWS // 2]), (0, 2, 1)))
        store(left, out, out_tiles, first_token, first_row, tokens, n, ROWS // 2, TOKENS, PIECE, SWIGLU)
        store(right, out, out_tiles, first_token, first_row + ROWS // 2, tokens, n, ROWS // 2, TOKENS, PIECE, SWIGLU)
    else:
        PARTS: tl.constexpr = 2 if SWIGLU else 1
        if SWIGLU:
            total = tl.trans(gated(tl.trans(total), ROWS, TOKENS))
        result = total.to(out.dtype.element_ty)
        if out_tiles is not None:
            out_tiles.store([first_token, first_row // PARTS], result)  # nothing beyond the edges
        else:
            token, column = first_token + tl.arange(0, TOKENS), first_row // PARTS + tl.arange(0, ROWS // PARTS)
            inside = (token < tokens)[:, None] & (column < n // PARTS)[None, :]
            tl.store(out + token.to(tl.int64)[:, None] * (n // PARTS) + column[None, :], result, mask=inside)


SUPPORTED_TOKENS = range(65, 2**31)

GROUP_ROW_BLOCKS = 8
"""Row blocks per group.

8 x 256 rows by the 16 x 128 tokens that 132 SMs take at a time are a square.
"""

EPILOGUE_COLUMNS = 64
"""Columns of y that the epilogue takes at a time.

They are 128 bytes, the most that the copy engine stores of a row.
"""

PROGRAMS_WITHOUT_GPU = 3
"""Programs under the interpreter: few, so that each takes several tiles."""


@triton.jit(do_not_specialize=["tokens"])
def _gemm(
    x: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    x_tiles: tl.tensor_descriptor,
    weight_tiles: tl.tensor_descriptor,
    out_tiles: tl.tensor_descriptor,
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
    GROUP: tl.constexpr,
    PIECE: tl.constexpr,
    EVEN: tl.constexpr,
    SWIGLU: tl.constexpr,
    DELAY: tl.constexpr,
) -> None:
    row_blocks, token_blocks = tl.cdiv(n, ROWS), tl.cdiv(tokens, TOKENS)
    steps = tl.cdiv(tl.cdiv(k, DEPTH), SPLIT)
    units = row_blocks * token_blocks * SPLIT
    # Flattened, a loop asks for the next tile while it stores this one; pointers would cost it registers.
    for unit in tl.range(tl.program_id(0), units, tl.num_programs(0), flatten=weight_tiles is not None):
        tile, part = unit // SPLIT, unit % SPLIT
        row_block, token_block = place(tile, row_blocks, token_blocks, GROUP)
        first_row, first_token = row_block * ROWS, token_block * TOKENS
        begin = part * steps * DEPTH
        end = tl.minimum(begin + steps * DEPTH, k)
        total = product(
            x, weight, x_tiles, weight_tiles, first_token, first_row, begin, end, tokens, n, k,
            ROWS, TOKENS, DEPTH, STAGES, EVEN,
        )  # fmt: skip
        if SPLIT == 1:
            store(total, out, out_tiles, first_token, first_row, tokens, n, ROWS, TOKENS, PIECE, SWIGLU)
        else:
            own = partials + tl.cast(tile, tl.int64) * (SPLIT * ROWS * TOKENS) + tl.arange(0, TOKENS)[:, None] * ROWS
            if DELAY:
                stall(DELAY)
            tl.store(own + part * (ROWS * TOKENS) + tl.arange(0, ROWS)[None, :], total)
            tl.debug_barrier()  # one thread counts the program in, and its release covers what all have stored
            if tl.atomic_add(arrived + tile, 1, sem="acq_rel", scope="gpu") == SPLIT - 1:
                for left in tl.range(0, ROWS, PIECE):
                    piece = own + left + tl.arange(0, PIECE)[None, :]
                    whole = tl.zeros([TOKENS, PIECE], tl.float32)
                    for one in tl.range(SPLIT, num_stages=1):
                        whole += tl.load(piece + one * (ROWS * TOKENS), cache_modifier=".cg")  # not of this SM's L1
                    store(whole, out, out_tiles, first_token, first_row + left, tokens, n, PIECE, TOKENS, PIECE, SWIGLU)
                tl.store(arrived + tile, 0)


def variant(
    config: LinearConfig, dtype: str, *, even: bool = True, fetched: bool | None = None, swiglu: bool = False
) -> TritonVariant:
    """Return the compiled form of a configuration.

    Args:
        config: cut of the work.
        dtype: dtype of the operands.
        even: k is a whole number of steps, or fetched: nothing is masked.
        fetched: operands go through descriptors; None for the configuration's choice, which odd rows cannot have.
        swiglu: with the epilogue of gate and up.
    """
    constants = constexprs(config, even=even, swiglu=swiglu)
    signature = linear_signature(dtype) | {"partials": "*fp32", "arrived": "*i32"}
    if config.tma if fetched is None else fetched:
        kinds = {
            name: f"tensordesc<{dtype}[{', '.join(map(str, block))}]>"
            for name, block in _descriptor_blocks(config, swiglu).items()
        }
        return TritonVariant(_gemm, signature | kinds, constants, config.warps, config.stages)
    absent = dict.fromkeys(_descriptor_blocks(config, swiglu))
    return TritonVariant(_gemm, signature, constants | absent, config.warps, config.stages)


def constexprs(config: LinearConfig, *, even: bool, swiglu: bool, delay: int = 0) -> dict[str, int]:
    """Return the kernel's compile-time arguments."""
    return {
        "ROWS": config.rows,
        "TOKENS": config.tokens,
        "DEPTH": config.depth,
        "SPLIT": config.split,
        "STAGES": config.stages,
        "GROUP": GROUP_ROW_BLOCKS,
        "PIECE": EPILOGUE_COLUMNS,
        "EVEN": even,
        "SWIGLU": swiglu,
        "DELAY": delay,
    }


def _descriptor_blocks(config: LinearConfig, swiglu: bool) -> dict[str, list[int]]:
    """Return the rows (tokens, or rows of W) and columns that a descriptor moves."""
    return {
        "x_tiles": [config.tokens, config.depth],
        "weight_tiles": [config.rows, config.depth],
        "out_tiles": [config.tokens, EPILOGUE_COLUMNS // 2 if swiglu else EPILOGUE_COLUMNS],
    }


def launch(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    config: LinearConfig,
    *,
    swiglu: bool = False,
    programs: int | None = None,
    scratch: Workspace | None = None,
    delay: int = 0,
) -> None:
    """Run one configuration.

    Args:
        x: x[tokens, k]; all three are contiguous and of one dtype.
        weight: weight[n, k].
        out: out[tokens, n], with swiglu out[tokens, n / 2].
        config: cut of the work.
        swiglu: rows of W are gates and ups in turn, and out = silu(gate) · up.
        programs: number of persistent programs; None for as many as the GPU holds at a time.
        scratch: own workspace; without it calls on a device share a workspace, and must be on one stream.
        delay: nanoseconds that programs wait at random before they pass their partial sums on, for tests.

    Raises:
        UserError: operands that are strided or of mismatched shapes, or an unsupported dtype.
    """
    sizes = check_operands(x, weight, out, swiglu=swiglu)
    _launch_checked(x, weight, out, sizes, config, swiglu, scratch or shared_workspace(x.device), programs, delay)


def _launch_checked(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    sizes: LinearSizes,
    config: LinearConfig,
    swiglu: bool,
    scratch: Workspace,
    programs: int | None = None,
    delay: int = 0,
) -> None:
    tokens, n, k = sizes
    units = config.programs(n, tokens)
    partials, arrived = scratch.next_buffers(config.partial_elements(n, tokens), units // config.split)
    tiles: dict[str, TensorDescriptor | None] = dict.fromkeys(_descriptor_blocks(config, swiglu))
    operands = {"x_tiles": x, "weight_tiles": weight, "out_tiles": out}
    if config.tma and not any((one.stride(0) * one.element_size() | one.data_ptr()) % 16 for one in operands.values()):
        blocks = _descriptor_blocks(config, swiglu)
        tiles = {name: TensorDescriptor.from_tensor(one, blocks[name]) for name, one in operands.items()}
    even = tiles["weight_tiles"] is not None or k % config.depth == 0
    constants = constexprs(config, even=even, swiglu=swiglu, delay=delay)
    options = {"num_warps": config.warps, "num_stages": config.stages, **LAUNCH_OPTIONS}
    at_once = min(units, programs or _resident_programs(x.device, config, dtype_name(x, "triton_gemm")))
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _gemm[(at_once,)](
            x, weight, out, **tiles, partials=partials, arrived=arrived, tokens=tokens, n=n, k=k, **constants, **options
        )  # fmt: skip


@cache
def _resident_programs(device: torch.device, config: LinearConfig, dtype: str) -> int:
    """Return the number of programs that the GPU holds at a time.

    Each program is persistent, and its stride over the tiles is this number.
    """
    if device.type != "cuda":
        return PROGRAMS_WITHOUT_GPU
    per_sm = gemm_programs_per_sm(find_arch(device_arch(device)), config, dtype)
    return max(1, per_sm) * torch.cuda.get_device_properties(device).multi_processor_count


def run(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, *, swiglu: bool = False) -> None:
    """Run one launch, with the tuned or ruled configuration for this shape.

    Calls on a device share a workspace.

    Raises:
        UserError: an unsupported dtype, or operands that are strided or of mismatched shapes.
    """
    sizes = check_operands(x, weight, out, swiglu=swiglu)
    tokens, n, k = sizes
    config = choose_config(
        device_arch(x.device), dtype_name(x, "triton_gemm"), tokens=max(tokens, SUPPORTED_TOKENS[0]), n=n, k=k
    ).config
    _launch_checked(x, weight, out, sizes, config, swiglu, shared_workspace(x.device))


TRITON_GEMM = replace(
    TORCH_LINEAR,
    name="triton_gemm",
    implementation="triton",
    run=run,
    archs=TRITON_ARCHS,
    missing=missing_triton_launch,
    tokens=SUPPORTED_TOKENS,
    configuration=configuration,
)

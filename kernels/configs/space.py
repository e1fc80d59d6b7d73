"""The configurations of the skinny linear that are worth a try for a shape; which of any lie next to each other."""

from collections.abc import Iterator
from itertools import product
from typing import TypeVar

from kernels.configs.config import LinearConfig, compiles_well, token_class
from kernels.configs.cost_model import gemm_programs_per_sm, skinny_programs_per_sm
from specs.gpus import WARP_SIZE, Arch
from specs.units import ITEMSIZE

# The configurations of the GEMM that are worth a try for a shape.

GEMM_BLOCK_SIZES = (64, 128, 256)
"""Rows of W and tokens of a tile: matrix instructions of sm_90 take 64 at least, the copy engine 256 at most."""
GEMM_SPLIT_K = (1, 2, 3, 4, 6, 8, 12)
GEMM_STAGES = (3, 4, 6)
FP32_GEMM_CONFIG = LinearConfig(64, 32, 32, 1, 8, 3)
"""No matrix unit multiplies true fp32: plain multiply-adds, whose operands have to fit into registers."""
GEMM_MIN_ACCUMULATORS, GEMM_MAX_ACCUMULATORS = 16, 128
"""Fp32 sums a thread: with fewer it has little to do, more of them spill."""
WARPGROUP_MAX_ACCUMULATORS = 64
"""From sm_90 on four warps multiply as one group, which with more sums than these would wait for its own loads."""


def gemm_candidates(arch: Arch, dtype: str, *, tokens: int, n: int, k: int) -> list[LinearConfig]:
    """Configurations that an SM of `arch` has room for and that leave no part of k without work.

    Where the arch has descriptors all use them: they take fewer registers, and loads run on under the epilogue.
    """
    if dtype == "fp32":
        return [FP32_GEMM_CONFIG]
    return [
        config
        for config in _gemm_tilings(arch, tokens)
        if _is_split_useful(arch, config, tokens, n, k) and gemm_programs_per_sm(arch, config, dtype)
    ]


def _gemm_tilings(arch: Arch, tokens: int) -> Iterator[LinearConfig]:
    """Tiles no wider than the tokens need, with as many sums a thread as its warps are for."""
    by_warps = arch.matrix == "HMMA"
    depths = (32, 64) if by_warps else (64,)  # half a line where shared memory is short of two programs
    for rows, side, depth, parts, warps, stages in product(
        GEMM_BLOCK_SIZES, GEMM_BLOCK_SIZES, depths, GEMM_SPLIT_K, (4, 8), GEMM_STAGES
    ):
        sums = rows * side // (WARP_SIZE * warps)
        most = GEMM_MAX_ACCUMULATORS if by_warps or warps == 8 else WARPGROUP_MAX_ACCUMULATORS
        if GEMM_MIN_ACCUMULATORS <= sums <= most and 16 * warps <= side < 2 * max(GEMM_BLOCK_SIZES[0], tokens):
            yield LinearConfig(rows, side, depth, parts, warps, stages, tma=arch.tma)


def _is_split_useful(arch: Arch, config: LinearConfig, tokens: int, n: int, k: int) -> bool:
    """Whether the last part of k has work, and parts serve to fill the SMs: two rounds of tiles fill them well."""
    last = config.steps(k) * config.depth * (config.split - 1)
    tiles = config.programs(n, tokens) // config.split
    return last < k and (config.split == 1 or tiles <= 2 * (arch.representative.sms or 1))


SKINNY_BLOCK_N = {True: (64, 128, 256), False: (2, 4, 8)}
"""Rows of W a program, on the matrix units and with multiply-adds."""
SKINNY_WARPS = {True: (4, 8), False: (2, 4, 8)}
SKINNY_SPLIT_K = (1, 2, 3, 4, 6, 8)
SKINNY_STAGES = {True: (3, 4, 6), False: (1, 3)}
BLOCK_K_BYTES = (128, 256)
"""Of a row of W a stage, on the matrix units: a whole line, or two."""
CHUNKS_PER_THREAD = (1, 2)
"""Pieces of 16 bytes that a thread has of a row, with multiply-adds."""
MAX_MULTIPLY_ADD_TOKENS = 4
SKINNY_MAX_ACCUMULATORS = 64
"""Fp32 sums a thread; more of them spill beside the operands."""


def skinny_candidates(arch: Arch, dtype: str, *, tokens: int, n: int, k: int) -> list[LinearConfig]:
    """Configurations that an SM has room for, that leave no program without work, and that Triton compiles well.

    Where some cut W into whole tiles only those are taken: masks cost instructions and registers.
    """
    fitting = list(_skinny_tilings(arch, dtype, tokens, k))
    return [config for config in fitting if config.even(n, k)] or fitting


def _skinny_tilings(arch: Arch, dtype: str, tokens: int, k: int) -> Iterator[LinearConfig]:
    tile = token_class(tokens)
    for config in (*_matrix_unit_tilings(arch, dtype, max(16, tile)), *_multiply_add_tilings(dtype, tile)):
        has_work = config.steps(k) * config.depth * (config.split - 1) < k
        if has_work and skinny_programs_per_sm(arch, config, dtype) > 0 and compiles_well(config):
            yield config


def _matrix_unit_tilings(arch: Arch, dtype: str, tile: int) -> Iterator[LinearConfig]:
    if dtype == "fp32":  # no matrix unit multiplies true fp32, and the operands of multiply-adds must fit registers
        yield from (LinearConfig(64, tile, 32, parts, 4 if tile == 16 else 8, 3) for parts in SKINNY_SPLIT_K)
        return
    copies = (False, True) if arch.tma else (False,)
    for rows, size, parts, warps, stages, tma in product(
        SKINNY_BLOCK_N[True], BLOCK_K_BYTES, SKINNY_SPLIT_K, SKINNY_WARPS[True], SKINNY_STAGES[True], copies
    ):
        if rows * tile <= SKINNY_MAX_ACCUMULATORS * warps * WARP_SIZE and rows >= 16 * warps:
            yield LinearConfig(rows, tile, size // ITEMSIZE[dtype], parts, warps, stages, tma=tma)


def _multiply_add_tilings(dtype: str, tile: int) -> Iterator[LinearConfig]:
    if tile > MAX_MULTIPLY_ADD_TOKENS:
        return
    for rows, chunks, parts, warps, stages in product(
        SKINNY_BLOCK_N[False], CHUNKS_PER_THREAD, SKINNY_SPLIT_K, SKINNY_WARPS[False], SKINNY_STAGES[False]
    ):
        depth = chunks * warps * WARP_SIZE * 16 // ITEMSIZE[dtype]
        if rows * chunks * max(2, tile) <= SKINNY_MAX_ACCUMULATORS // 2:
            yield LinearConfig(rows, tile, depth, parts, warps, stages, matrix=False)


ConfigTuple = TypeVar("ConfigTuple", bound=tuple[float, ...])


def neighbours(config: ConfigTuple, candidates: list[ConfigTuple]) -> list[ConfigTuple]:
    """Those of `candidates` that differ from `config` in one field, the nearest values of numbers first."""
    return sorted(
        (one for one in candidates if config_distance(config, one)[0] == 1),
        key=lambda one: config_distance(config, one),
    )


def config_distance(config: ConfigTuple, other: ConfigTuple) -> tuple[int, float]:
    """In how many fields two configurations differ, and by how much in all."""
    changed = [(old, new) for old, new in zip(config, other, strict=True) if old != new]
    return len(changed), sum(abs(float(new) - float(old)) / max(float(old), 1.0) for old, new in changed)

"""Candidate configurations of the skinny linear and of the GEMM for a shape."""

from collections.abc import Iterator
from itertools import product
from typing import TypeVar

from kernels.configs.config import LinearConfig, compiles_well, token_class
from kernels.configs.cost_model import gemm_programs_per_sm, skinny_programs_per_sm
from specs.gpus import WARP_SIZE, Arch
from specs.units import ITEMSIZE

# Candidate configurations of the GEMM.

GEMM_BLOCK_SIZES = (64, 128, 256)
"""Rows of W and tokens of a tile.

Matrix instructions of sm_90 take at least 64, the copy engine at most 256.
"""
GEMM_SPLIT_K = (1, 2, 3, 4, 6, 8, 12)
GEMM_STAGES = (3, 4, 6)
FP32_GEMM_CONFIG = LinearConfig(64, 32, 32, 1, 8, 3)
"""Configuration for fp32, which no matrix unit multiplies exactly.

The operands of plain multiply-adds have to fit into registers.
"""
GEMM_MIN_ACCUMULATORS, GEMM_MAX_ACCUMULATORS = 16, 128
"""Fp32 sums of a thread: fewer give it little to do, more spill."""
WARPGROUP_MAX_ACCUMULATORS = 64
"""Most sums of a thread where four warps multiply as one group, from sm_90 on.

With more sums the group would wait for its own loads.
"""


def gemm_candidates(arch: Arch, dtype: str, *, tokens: int, n: int, k: int) -> list[LinearConfig]:
    """Return configurations that fit an SM of `arch` and give every part of k work.

    Where the arch has descriptors all use them: they take fewer registers, and loads continue under the epilogue.
    """
    if dtype == "fp32":
        return [FP32_GEMM_CONFIG]
    return [
        config
        for config in _gemm_tilings(arch, tokens)
        if _is_split_useful(arch, config, tokens, n, k) and gemm_programs_per_sm(arch, config, dtype)
    ]


def _gemm_tilings(arch: Arch, tokens: int) -> Iterator[LinearConfig]:
    """Yield tiles no wider than the tokens need.

    A thread has as many sums as its warps are for.
    """
    by_warps = arch.matrix == "HMMA"
    depths = (32, 64) if by_warps else (64,)  # 32: half a line where shared memory is too small for two programs
    for rows, side, depth, parts, warps, stages in product(
        GEMM_BLOCK_SIZES, GEMM_BLOCK_SIZES, depths, GEMM_SPLIT_K, (4, 8), GEMM_STAGES
    ):
        sums = rows * side // (WARP_SIZE * warps)
        most = GEMM_MAX_ACCUMULATORS if by_warps or warps == 8 else WARPGROUP_MAX_ACCUMULATORS
        if GEMM_MIN_ACCUMULATORS <= sums <= most and 16 * warps <= side < 2 * max(GEMM_BLOCK_SIZES[0], tokens):
            yield LinearConfig(rows, side, depth, parts, warps, stages, tma=arch.tma)


def _is_split_useful(arch: Arch, config: LinearConfig, tokens: int, n: int, k: int) -> bool:
    """Return whether the last part of k has work, and a split serves to fill the SMs.

    Two rounds of tiles fill them well.
    """
    last = config.steps(k) * config.depth * (config.split - 1)
    tiles = config.programs(n, tokens) // config.split
    return last < k and (config.split == 1 or tiles <= 2 * (arch.representative.sms or 1))


SKINNY_BLOCK_N = {True: (64, 128, 256), False: (2, 4, 8)}
"""Rows of W of a program, on the matrix units and with multiply-adds."""
SKINNY_WARPS = {True: (4, 8), False: (2, 4, 8)}
SKINNY_SPLIT_K = (1, 2, 3, 4, 6, 8)
SKINNY_STAGES = {True: (3, 4, 6), False: (1, 3)}
BLOCK_K_BYTES = (128, 256)
"""Bytes of a row of W per stage, on the matrix units: a whole line, or two."""
CHUNKS_PER_THREAD = (1, 2)
"""Pieces of 16 bytes that a thread takes of a row, with multiply-adds."""
MAX_MULTIPLY_ADD_TOKENS = 4
SKINNY_MAX_ACCUMULATORS = 64
"""Most fp32 sums of a thread; more spill besides the operands."""


def skinny_candidates(arch: Arch, dtype: str, *, tokens: int, n: int, k: int) -> list[LinearConfig]:
    """Return configurations that fit an SM, give all programs work, and compile well.

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
    """Return `candidates` that differ from `config` in one field, nearest first."""
    return sorted(
        (one for one in candidates if config_distance(config, one)[0] == 1),
        key=lambda one: config_distance(config, one),
    )


def config_distance(config: ConfigTuple, other: ConfigTuple) -> tuple[int, float]:
    """Return in how many fields two configurations differ, and the total difference."""
    changed = [(old, new) for old, new in zip(config, other, strict=True) if old != new]
    return len(changed), sum(abs(float(new) - float(old)) / max(float(old), 1.0) for old, new in changed)

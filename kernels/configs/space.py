"""The configurations of the skinny linear that are worth a try for a shape; which of any lie next to each other."""

from collections.abc import Iterator
from itertools import product
from typing import TypeVar

from kernels.configs.config import Config, compiles_well, token_tile
from kernels.configs.cost_model import gemm_resident, skinny_resident
from specs.gpus import WARP, Arch
from specs.units import ITEMSIZE

# The configurations of the GEMM that are worth a try for a shape.

SIDES = (64, 128, 256)
"""Rows of W and tokens of a tile: matrix instructions of sm_90 take 64 at least, the copy engine 256 at most."""
GEMM_PARTS = (1, 2, 3, 4, 6, 8, 12)
GEMM_STAGES = (3, 4, 6)
FP32 = Config(64, 32, 32, 1, 8, 3)
"""No matrix unit multiplies true fp32: plain multiply-adds, whose operands have to fit into registers."""
LEAST_SUMS, MOST_SUMS = 16, 128
"""Fp32 sums a thread: with fewer it has little to do, more of them spill."""
SUMS_OF_ONE_GROUP = 64
"""From sm_90 on four warps multiply as one group, which with more sums than these would wait for its own loads."""


def gemm_candidates(on: Arch, dtype: str, *, tokens: int, n: int, k: int) -> list[Config]:
    """Configurations that an SM of `on` has room for and that leave no part of k without work.

    Where the arch has descriptors all use them: they take fewer registers, and loads run on under the epilogue.
    """
    if dtype == "fp32":
        return [FP32]
    return [
        config
        for config in _fitting_gemm(on, tokens)
        if _in_use(on, config, tokens, n, k) and gemm_resident(on, config, dtype)
    ]


def _fitting_gemm(on: Arch, tokens: int) -> Iterator[Config]:
    """Tiles no wider than the tokens need, with as many sums a thread as its warps are for."""
    by_warps = on.matrix == "HMMA"
    depths = (32, 64) if by_warps else (64,)  # half a line where shared memory is short of two programs
    for rows, side, depth, parts, warps, stages in product(SIDES, SIDES, depths, GEMM_PARTS, (4, 8), GEMM_STAGES):
        sums = rows * side // (WARP * warps)
        most = MOST_SUMS if by_warps or warps == 8 else SUMS_OF_ONE_GROUP
        if LEAST_SUMS <= sums <= most and 16 * warps <= side < 2 * max(SIDES[0], tokens):
            yield Config(rows, side, depth, parts, warps, stages, tma=on.tma)


def _in_use(on: Arch, config: Config, tokens: int, n: int, k: int) -> bool:
    """Whether the last part of k has work, and parts serve to fill the SMs: two rounds of tiles fill them well."""
    last = config.steps(k) * config.depth * (config.split - 1)
    tiles = config.programs(n, tokens) // config.split
    return last < k and (config.split == 1 or tiles <= 2 * (on.representative.sms or 1))


ROWS = {True: (64, 128, 256), False: (2, 4, 8)}
"""Rows of W a program, on the matrix units and with multiply-adds."""
WARPS = {True: (4, 8), False: (2, 4, 8)}
SKINNY_PARTS = (1, 2, 3, 4, 6, 8)
SKINNY_STAGES = {True: (3, 4, 6), False: (1, 3)}
DEPTH_BYTES = (128, 256)
"""Of a row of W a stage, on the matrix units: a whole line, or two."""
CHUNKS = (1, 2)
"""Pieces of 16 bytes that a thread has of a row, with multiply-adds."""
MOST_MULTIPLY_ADD_TOKENS = 4
SUMS_PER_THREAD = 64
"""Fp32 sums a thread; more of them spill beside the operands."""


def skinny_candidates(on: Arch, dtype: str, *, tokens: int, n: int, k: int) -> list[Config]:
    """Configurations that an SM has room for, that leave no program without work, and that Triton compiles well.

    Where some cut W into whole tiles only those are taken: masks cost instructions and registers.
    """
    fitting = list(_fitting_skinny(on, dtype, tokens, k))
    return [config for config in fitting if config.even(n, k)] or fitting


def _fitting_skinny(on: Arch, dtype: str, tokens: int, k: int) -> Iterator[Config]:
    tile = token_tile(tokens)
    for config in (*_on_matrix_units(on, dtype, max(16, tile)), *_with_multiply_adds(dtype, tile)):
        has_work = config.steps(k) * config.depth * (config.split - 1) < k
        if has_work and skinny_resident(on, config, dtype) > 0 and compiles_well(config):
            yield config


def _on_matrix_units(on: Arch, dtype: str, tile: int) -> Iterator[Config]:
    if dtype == "fp32":  # no matrix unit multiplies true fp32, and the operands of multiply-adds must fit registers
        yield from (Config(64, tile, 32, parts, 4 if tile == 16 else 8, 3) for parts in SKINNY_PARTS)
        return
    copies = (False, True) if on.tma else (False,)
    for rows, size, parts, warps, stages, tma in product(
        ROWS[True], DEPTH_BYTES, SKINNY_PARTS, WARPS[True], SKINNY_STAGES[True], copies
    ):
        if rows * tile <= SUMS_PER_THREAD * warps * WARP and rows >= 16 * warps:
            yield Config(rows, tile, size // ITEMSIZE[dtype], parts, warps, stages, tma=tma)


def _with_multiply_adds(dtype: str, tile: int) -> Iterator[Config]:
    if tile > MOST_MULTIPLY_ADD_TOKENS:
        return
    for rows, chunks, parts, warps, stages in product(
        ROWS[False], CHUNKS, SKINNY_PARTS, WARPS[False], SKINNY_STAGES[False]
    ):
        depth = chunks * warps * WARP * 16 // ITEMSIZE[dtype]
        if rows * chunks * max(2, tile) <= SUMS_PER_THREAD // 2:
            yield Config(rows, tile, depth, parts, warps, stages, matrix=False)


Numbers = TypeVar("Numbers", bound=tuple[float, ...])


def neighbours(config: Numbers, among: list[Numbers]) -> list[Numbers]:
    """Those of `among` that differ from `config` in one field, the nearest values of numbers first."""
    return sorted((one for one in among if apart(config, one)[0] == 1), key=lambda one: apart(config, one))


def apart(config: Numbers, other: Numbers) -> tuple[int, float]:
    """In how many fields two configurations differ, and by how much in all."""
    changed = [(old, new) for old, new in zip(config, other, strict=True) if old != new]
    return len(changed), sum(abs(float(new) - float(old)) / max(float(old), 1.0) for old, new in changed)

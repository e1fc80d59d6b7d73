"""The configurations of the skinny linear that are worth a try for a shape; which of any lie next to each other."""

from collections.abc import Iterator
from itertools import product
from typing import TypeVar

from kernels.tuning.compiler import compiles_well
from kernels.tuning.config import Config, token_tile
from kernels.tuning.model import resident
from specs.gpus import WARP, Arch
from specs.units import ITEMSIZE

ROWS = {True: (64, 128, 256), False: (2, 4, 8)}
"""Rows of W a program, on the matrix units and with multiply-adds."""
WARPS = {True: (4, 8), False: (2, 4, 8)}
PARTS = (1, 2, 3, 4, 6, 8)
STAGES = {True: (3, 4, 6), False: (1, 3)}
DEPTH_BYTES = (128, 256)
"""Of a row of W a stage, on the matrix units: a whole line, or two."""
CHUNKS = (1, 2)
"""Pieces of 16 bytes that a thread has of a row, with multiply-adds."""
MOST_MULTIPLY_ADD_TOKENS = 4
SUMS_PER_THREAD = 64
"""Fp32 sums a thread; more of them spill beside the operands."""


def candidates(on: Arch, dtype: str, *, tokens: int, n: int, k: int) -> list[Config]:
    """Configurations that an SM has room for, that leave no program without work, and that Triton compiles well.

    Where some cut W into whole tiles only those are taken: masks cost instructions and registers.
    """
    fitting = list(_fitting(on, dtype, tokens, k))
    return [config for config in fitting if config.even(n, k)] or fitting


def _fitting(on: Arch, dtype: str, tokens: int, k: int) -> Iterator[Config]:
    tile = token_tile(tokens)
    for config in (*_on_matrix_units(on, dtype, max(16, tile)), *_with_multiply_adds(dtype, tile)):
        has_work = config.steps(k) * config.depth * (config.split - 1) < k
        if has_work and resident(on, config, dtype) > 0 and compiles_well(config):
            yield config


def _on_matrix_units(on: Arch, dtype: str, tile: int) -> Iterator[Config]:
    if dtype == "fp32":  # no matrix unit multiplies true fp32, and the operands of multiply-adds must fit registers
        yield from (Config(64, tile, 32, parts, 4 if tile == 16 else 8, 3) for parts in PARTS)
        return
    copies = (False, True) if on.tma else (False,)
    for rows, size, parts, warps, stages, tma in product(
        ROWS[True], DEPTH_BYTES, PARTS, WARPS[True], STAGES[True], copies
    ):
        if rows * tile <= SUMS_PER_THREAD * warps * WARP and rows >= 16 * warps:
            yield Config(rows, tile, size // ITEMSIZE[dtype], parts, warps, stages, tma=tma)


def _with_multiply_adds(dtype: str, tile: int) -> Iterator[Config]:
    if tile > MOST_MULTIPLY_ADD_TOKENS:
        return
    for rows, chunks, parts, warps, stages in product(ROWS[False], CHUNKS, PARTS, WARPS[False], STAGES[False]):
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

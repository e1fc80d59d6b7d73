"""The configurations of the GEMM that are worth a try for a shape."""

from collections.abc import Iterator
from itertools import product

from kernels.tuning.config import Config
from kernels.tuning.gemm_model import resident
from specs.gpus import WARP, Arch

SIDES = (64, 128, 256)
"""Rows of W and tokens of a tile: matrix instructions of sm_90 take 64 at least, the copy engine 256 at most."""
PARTS = (1, 2, 3, 4, 6, 8, 12)
STAGES = (3, 4, 6)
FP32 = Config(64, 32, 32, 1, 8, 3)
"""No matrix unit multiplies true fp32: plain multiply-adds, whose operands have to fit into registers."""
LEAST_SUMS, MOST_SUMS = 16, 128
"""Fp32 sums a thread: with fewer it has little to do, more of them spill."""
SUMS_OF_ONE_GROUP = 64
"""From sm_90 on four warps multiply as one group, which with more sums than these would wait for its own loads."""


def candidates(on: Arch, dtype: str, *, tokens: int, n: int, k: int) -> list[Config]:
    """Configurations that an SM of `on` has room for and that leave no part of k without work.

    Where the arch has descriptors all use them: they take fewer registers, and loads run on under the epilogue.
    """
    if dtype == "fp32":
        return [FP32]
    return [
        config for config in _fitting(on, tokens) if _in_use(on, config, tokens, n, k) and resident(on, config, dtype)
    ]


def _fitting(on: Arch, tokens: int) -> Iterator[Config]:
    """Tiles no wider than the tokens need, with as many sums a thread as its warps are for."""
    by_warps = on.matrix == "HMMA"
    depths = (32, 64) if by_warps else (64,)  # half a line where shared memory is short of two programs
    for rows, side, depth, parts, warps, stages in product(SIDES, SIDES, depths, PARTS, (4, 8), STAGES):
        sums = rows * side // (WARP * warps)
        most = MOST_SUMS if by_warps or warps == 8 else SUMS_OF_ONE_GROUP
        if LEAST_SUMS <= sums <= most and 16 * warps <= side < 2 * max(SIDES[0], tokens):
            yield Config(rows, side, depth, parts, warps, stages, tma=on.tma)


def _in_use(on: Arch, config: Config, tokens: int, n: int, k: int) -> bool:
    """Whether the last part of k has work, and parts serve to fill the SMs: two rounds of tiles fill them well."""
    last = config.steps(k) * config.depth * (config.split - 1)
    tiles = config.programs(n, tokens) // config.split
    return last < k and (config.split == 1 or tiles <= 2 * (on.representative.sms or 1))

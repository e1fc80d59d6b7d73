"""A linear's configuration, compiler limits on it, and the tuned shapes."""

import re
from collections.abc import Sequence
from functools import cache
from math import ceil
from typing import NamedTuple

from specs.layer import DEFAULT_MODEL, TP_DEGREES, AttentionShard, attention_shard
from specs.models import find_model
from specs.parallel import Shard, Split
from specs.units import ITEMSIZE

SKINNY_MAX_TOKENS = 64
"""Most tokens of the skinny linear; the GEMM takes more."""
MAX_TOKEN_CLASS = 8192
"""Largest class of tokens.

Twice as many tokens make twice as many tiles, so no configuration would change.
"""

UNPIPELINED_DIVISOR = 3
"""Divisor of a tile for bytes in flight without a pipeline.

The compiler asks for about a third of a tile ahead: 6 loads of 18, 12 of 20.
"""


class LinearConfig(NamedTuple):
    """One way to cut y[tokens, n] = x[tokens, k] · W[n, k]ᵀ into programs.

    Attributes:
        rows: rows of W that a program owns.
        tokens: tokens of the tile: at least those of the call up to 64 tokens, 16 or more for the matrix units.
        depth: elements of k that a program takes at a time.
        split: programs that share a tile, each with its part of k.
        warps: warps of a program.
        stages: depth of the software pipeline; 1 loads straight into registers.
        matrix: multiply on the matrix units, or with plain multiply-adds.
        tma: use the bulk tensor copy engine: for W up to 64 tokens, beyond for x, W and y.

    As text, `matrix 128x16x64 /4 w4 s5 tma` is rows x tokens x depth in 4 parts, 4 warps, 5 stages.
    """

    rows: int
    tokens: int
    depth: int
    split: int
    warps: int
    stages: int
    matrix: bool = True
    tma: bool = False

    def __str__(self) -> str:
        path = "matrix" if self.matrix else "multiply-add"
        parts = f" /{self.split}" if self.split > 1 else ""
        fetch = " tma" if self.tma else ""
        return f"{path} {self.rows}x{self.tokens}x{self.depth}{parts} w{self.warps} s{self.stages}{fetch}"

    def even(self, n: int, k: int) -> bool:
        """Return whether n and k are whole tiles, so that W needs no mask."""
        return n % self.rows == 0 and k % self.depth == 0

    @property
    def pipeline_barriers(self) -> int:
        """Barriers that an iteration needs for the pipeline; 0 without a pipeline.

        Threads wait for the copies that they use, and for each other before a copy overwrites data that they have read.
        With the copy engine Triton 3.6 places up to two for each operand, and 3.7 one fewer.
        """
        return 0 if self.stages == 1 else 4 if self.tma else 2

    def steps(self, k: int) -> int:
        """Return the steps along k of the longest part."""
        return ceil(ceil(k / self.depth) / self.split)

    def in_flight_bytes(self, dtype: str, k: int | None = None) -> int:
        """Return the bytes of W that a program has in flight.

        With a pipeline that is every stage but the current one. Without a pipeline it is the part of a tile whose loads
        the compiler issues before it uses the first. A part of k (None: a long part) with fewer steps than stages asks
        for no more than it reads.
        """
        tile = self.rows * (self.depth if k is None else min(self.depth, k)) * ITEMSIZE[dtype]
        if self.stages == 1:
            return tile // UNPIPELINED_DIVISOR
        return tile * (self.stages - 1 if k is None else min(self.stages - 1, self.steps(k)))

    def programs(self, n: int, tokens: int = 1) -> int:
        """Return the parts of tiles in one call with n rows of W.

        Up to 64 tokens each part has a program; beyond, programs share the parts.
        """
        return -(-n // self.rows) * -(-tokens // self.tokens) * self.split

    def partial_elements(self, n: int, tokens: int = 1) -> int:
        """Return the fp32 partial sums that one call passes between programs.

        0 where a program owns its tile.
        """
        return self.programs(n, tokens) * self.rows * self.tokens if self.split > 1 else 0


def token_class(tokens: int) -> int:
    """Return the class of shapes for `tokens` tokens.

    Up to 64 it is the tile that holds them: 1, 2 or 4 for multiply-adds, 16, 32 or 64 for the matrix units. Beyond 64
    it is the next power of two, at most MAX_TOKEN_CLASS.
    """
    power = 1 << (tokens - 1).bit_length()
    return power if power <= 4 else min(max(16, power), MAX_TOKEN_CLASS)


# Configurations that the installed Triton compiles badly; they are neither tried nor run.
#
# Before 3.7 Triton changes the layout of multiply-adds without a pipeline in each iteration: through shared memory,
# with up to 64 barriers, and some of them spill. From 3.7 on their loop has no barrier. Both compile forms with a
# pipeline alike.

ONE_STAGE_MIN_VERSION = (3, 7)
"""First Triton in which multiply-adds without a pipeline stay in registers."""


def compiles_well(config: LinearConfig) -> bool:
    """Return whether the installed Triton compiles `config`'s loop well.

    Its loop must have no needless barriers.
    """
    return compiles_well_with(triton_version(), config)


def compiles_well_with(version: str | None, config: LinearConfig) -> bool:
    """Return whether a version of Triton, such as 3.6.0, does so; True for None."""
    if version is None or config.matrix or config.stages > 1:
        return True
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2]) >= ONE_STAGE_MIN_VERSION


@cache
def triton_version() -> str | None:
    """Return the installed Triton's version; None where there is none."""
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)


# Shapes that are tuned and inspected: a layer under several degrees of tensor parallelism.

SKINNY_TOKEN_CLASSES = (1, 2, 4, 16, 32, 64)
"""Classes of the skinny linear, which holds all tokens in a tile."""
GEMM_TOKEN_CLASSES = (128, 256, 512, 1024, 2048, 4096, 8192)
"""Classes of the GEMM: each covers all counts from its half on.

The last class covers all larger counts too.
"""
TOKEN_CLASSES = (*SKINNY_TOKEN_CLASSES, *GEMM_TOKEN_CLASSES)
ATTENTION_BATCHES = (1, 32, 128)
ATTENTION_CONTEXTS = (1024, 8192, 32768)


def layer_shards(name: str = DEFAULT_MODEL, tp: Sequence[int] = TP_DEGREES) -> list[Shard]:
    """Return one rank's linears of a layer, for each degree in turn.

    The LM head is no part of a layer.

    Raises:
        UserError: an unknown model, or a degree that does not divide it.
    """
    found = [shard for degree in tp for shard in Split(find_model(name), degree).linears.values()]
    return [shard for shard in found if shard.layer != "lm_head"]


def attention_shards(shards: Sequence[Shard]) -> list[AttentionShard]:
    """Return one rank's attention heads between these linears.

    Each model and degree occurs once; models with another kind of attention are left out.
    """
    cuts = dict.fromkeys((shard.model, shard.tp) for shard in shards)
    return [attention_shard(Split(find_model(slug), tp)) for slug, tp in cuts if find_model(slug).heads]

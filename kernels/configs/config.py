"""A configuration of a linear: how the work is cut, and what that asks of an SM."""

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
"""What the skinny linear takes; beyond it is the GEMM's."""
MAX_TOKEN_CLASS = 8192
"""Twice as many tokens are twice as many tiles: nothing that a configuration could change."""

UNPIPELINED_DIVISOR = 3
"""Of a tile that goes straight to registers the compiler asks for about a third ahead: 6 loads of 18, 12 of 20."""


class LinearConfig(NamedTuple):
    """One way to cut y[tokens, n] = x[tokens, k] · W[n, k]ᵀ into programs.

    Attributes:
        rows: rows of W that a program owns.
        tokens: of the tile: at least those of the call up to 64 tokens, 16 or more for the matrix units.
        depth: elements of k that a program takes at a time.
        split: programs that share a tile, each with its part of k.
        warps: of a program.
        stages: depth of the software pipeline; 1 loads straight into registers.
        matrix: multiply on the matrix units, or with plain multiply-adds.
        tma: use the bulk tensor copy engine: for W up to 64 tokens, beyond for x, W and y.

    As text: `matrix 128x16x64 /4 w4 s5 tma` is rows x tokens x depth in 4 parts, 4 warps, 5 stages.
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
        """Whether n and k are whole tiles, so that nothing of W has to be masked."""
        return n % self.rows == 0 and k % self.depth == 0

    @property
    def pipeline_barriers(self) -> int:
        """Barriers that an iteration needs for the pipeline: none where loads go straight to registers.

        Threads wait for the copies that they use, and for each other before a copy overwrites what they have read. With
        the copy engine Triton 3.6 places up to two for each operand, and 3.7 one fewer.
        """
        return 0 if self.stages == 1 else 4 if self.tma else 2

    def steps(self, k: int) -> int:
        """Steps along k that the longest part takes."""
        return ceil(ceil(k / self.depth) / self.split)

    def in_flight_bytes(self, dtype: str, k: int | None = None) -> int:
        """Bytes of W that a program has asked for and not yet got: every stage but the one that it works on.

        Without a pipeline that is the part of a tile whose loads the compiler issues before it uses the first. A part
        of k (None: a long one) with fewer steps than stages has no more to ask for than it reads.
        """
        tile = self.rows * (self.depth if k is None else min(self.depth, k)) * ITEMSIZE[dtype]
        if self.stages == 1:
            return tile // UNPIPELINED_DIVISOR
        return tile * (self.stages - 1 if k is None else min(self.stages - 1, self.steps(k)))

    def programs(self, n: int, tokens: int = 1) -> int:
        """Parts of tiles in one call with n rows of W: up to 64 tokens a program each, beyond what programs share."""
        return -(-n // self.rows) * -(-tokens // self.tokens) * self.split

    def partial_elements(self, n: int, tokens: int = 1) -> int:
        """Fp32 partial sums that one call passes between programs; none where a program owns its tile."""
        return self.programs(n, tokens) * self.rows * self.tokens if self.split > 1 else 0


def token_class(tokens: int) -> int:
    """The class of shapes that `tokens` tokens belong to.

    Up to 64 it is the tile that holds them: 1, 2 or 4 for multiply-adds, 16, 32 or 64 for the matrix units. Beyond it
    is the next power of two, and MOST_TOKENS for all that are more.
    """
    power = 1 << (tokens - 1).bit_length()
    return power if power <= 4 else min(max(16, power), MAX_TOKEN_CLASS)


# Configurations that the installed Triton compiles badly, and which are therefore neither tried nor run.
#
# Before 3.7 Triton lays multiply-adds without a pipeline out anew in each iteration: through shared memory, with up to
# 64 barriers, and some of them spill. From 3.7 on their loop has no barrier. Forms with a pipeline are alike on both.

ONE_STAGE_MIN_VERSION = (3, 7)
"""The version of Triton from which multiply-adds without a pipeline stay in registers."""


def compiles_well(config: LinearConfig) -> bool:
    """Whether the installed Triton makes a loop of `config` without needless barriers."""
    return compiles_well_with(triton_version(), config)


def compiles_well_with(version: str | None, config: LinearConfig) -> bool:
    """Whether a version of Triton, such as 3.6.0, does so; None where there is none to say no."""
    if version is None or config.matrix or config.stages > 1:
        return True
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2]) >= ONE_STAGE_MIN_VERSION


@cache
def triton_version() -> str | None:
    """The installed Triton's version; None where there is none."""
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)


# The shapes that are tuned and inspected: of a layer under several degrees of tensor parallelism.

SKINNY_TOKEN_CLASSES = (1, 2, 4, 16, 32, 64)
"""Of the skinny linear, which holds all tokens in a tile."""
GEMM_TOKEN_CLASSES = (128, 256, 512, 1024, 2048, 4096, 8192)
"""Of the GEMM: each stands for all counts from its half on, the last one for all beyond it too."""
TOKEN_CLASSES = (*SKINNY_TOKEN_CLASSES, *GEMM_TOKEN_CLASSES)
ATTENTION_BATCHES = (1, 32, 128)
ATTENTION_CONTEXTS = (1024, 8192, 32768)


def layer_shards(name: str = DEFAULT_MODEL, tp: Sequence[int] = TP_DEGREES) -> list[Shard]:
    """One rank's linears of a layer, each degree after the other; the LM head is no part of a layer.

    Raises:
        UserError: an unknown model, or a degree that does not divide it.
    """
    found = [shard for degree in tp for shard in Split(find_model(name), degree).linears.values()]
    return [shard for shard in found if shard.layer != "lm_head"]


def attention_shards(shards: Sequence[Shard]) -> list[AttentionShard]:
    """One rank's heads of attention between these linears, once for each model and degree; of some models none."""
    cuts = dict.fromkeys((shard.model, shard.tp) for shard in shards)
    return [attention_shard(Split(find_model(slug), tp)) for slug, tp in cuts if find_model(slug).heads]

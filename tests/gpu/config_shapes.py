"""Configurations that a table of an architecture holds, by the kernel that takes them, and tokens to try each with."""

from kernels.configs.config import SKINNY_MAX_TOKENS

TOKENS_BY_TILE = {1: 1, 2: 2, 4: 3, 16: 7, 32: 31, 64: 64}
"""Tokens by the tokens of a configuration: its whole tile, or less."""


def skinny_configs(table):
    """Of up to 64 tokens."""
    return {row.config for row in table.rows if row.tokens <= SKINNY_MAX_TOKENS}


def gemm_configs(table):
    """Of more tokens."""
    return {row.config for row in table.rows if row.tokens > SKINNY_MAX_TOKENS}


def ragged_skinny(config):
    """2 rows beyond three tiles and 8 elements beyond four steps."""
    tokens, depth = TOKENS_BY_TILE[config.tokens], 4 * config.depth * config.split + 8
    return {"tokens": tokens, "n": 3 * config.rows + 2, "k": depth}


def ragged_gemm(config):
    """One token beyond a tile, 16 rows beyond two, 8 elements beyond a step."""
    return {"tokens": config.tokens + 1, "n": 2 * config.rows + 16, "k": 4 * config.depth * config.split + 8}

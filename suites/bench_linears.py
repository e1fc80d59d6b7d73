"""How close does each linear of a sharded layer come to the machine's floor, in decode and in prefill?"""

import pytest

from kernels.registry import select_linear
from specs.parallel import Shard
from suites.axes import add_run_configs, add_shards
from suites.case import RunConfig
from suites.collect import Measure

DECODE_TOKEN_RANGE, PREFILL_TOKEN_RANGE = range(1, 257), range(257, 2**31)
"""Tokens of a decode batch, and of a prompt.

The LM head sees one token per sequence: it is a decode linear.
"""
DECODE_TOKENS = {"cpu": (1, 16), "cuda": (1, 4, 8, 16, 32, 64, 128, 256)}
PREFILL_TOKENS = {"cpu": (512,), "cuda": (512, 2048, 8192)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench functions below their axes."""
    if metafunc.function is bench_decode:
        add_shards(metafunc, DECODE_TOKENS, DECODE_TOKEN_RANGE, lm_head=True)
    else:
        add_shards(metafunc, PREFILL_TOKENS, PREFILL_TOKEN_RANGE)
    add_run_configs(metafunc)


def bench_decode(measure: Measure, shard: Shard, tokens: int, how: RunConfig) -> None:
    measure(select_linear(how.implementation, tokens), "decode", how, shard, tokens=tokens, n=shard.n, k=shard.k)


def bench_prefill(measure: Measure, shard: Shard, tokens: int, how: RunConfig) -> None:
    measure(select_linear(how.implementation, tokens), "prefill", how, shard, tokens=tokens, n=shard.n, k=shard.k)

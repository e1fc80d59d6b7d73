"""Do 125 tokens take as long as 1000? Time of each linear from 1 token to 4096."""

import pytest

from kernels.registry import select_linear
from specs.parallel import Shard
from suites.axes import add_run_configs, add_shards
from suites.case import RunConfig
from suites.collect import Measure

TOKENS = {
    "cpu": (1, 2, 16, 64, 125, 256, 1000),
    "cuda": (1, 2, 4, 8, 16, 32, 64, 125, 128, 129, 192, 256, 257, 512, 1000, 2048, 4096),
}
"""Powers of two, the claim's 125 and 1000, and one token past common tile edges."""

SPLITS = {"cpu": ((1, 1),), "cuda": ((8, 1), (1, 8))}


DTYPES = {"cpu": ("bf16",), "cuda": ("bf16",)}
"""Default dtypes: one, as a long sweep in fp32 would take a CPU's whole budget."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench function below its axes."""
    add_shards(metafunc, TOKENS, default_splits=SPLITS)
    add_run_configs(metafunc, default_dtypes=DTYPES)


def bench_sweep(measure: Measure, shard: Shard, tokens: int, how: RunConfig) -> None:
    measure(select_linear(how.implementation, tokens), "sweep", how, shard, tokens=tokens, n=shard.n, k=shard.k)

"""How close does decode attention come to streaming its KV cache, and what does prefill attention cost?"""

from collections.abc import Mapping, Sequence

import pytest

from kernels.registry import DECODE_ATTENTION, PREFILL_ATTENTION, find_kernel
from kernels.timing.device import current_device
from specs import layer
from specs.layer import AttentionShard, attention_shard
from suites import bench_linears
from suites.axes import DEFAULT_SPLITS, add_run_configs, requested_splits
from suites.case import RunConfig
from suites.collect import Measure
from suites.options import read_options

BATCHES = {"cpu": (1, 16), "cuda": (1, 32, 128)}
CONTEXTS = {"cpu": (512,), "cuda": (1024, 8192, 32768)}
PROMPTS = {"cpu": (512,), "cuda": (2048, 8192)}
ATTENTION_SPLITS = DEFAULT_SPLITS | {"cpu": ((1, 1),)}
DTYPES = {"cpu": ("bf16",), "cuda": ("bf16",)}
"""Default dtypes: one. A CPU shows a context's cost; the linears get the time."""
DECODE_IMPLEMENTATIONS = {"cpu": ("torch", "triton"), "cuda": layer.ATTENTION_IMPLEMENTATIONS}
PREFILL_IMPLEMENTATIONS = {"cpu": ("torch",), "cuda": tuple(kernel.implementation for kernel in PREFILL_ATTENTION)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench functions below their axes."""
    options, kind = read_options(metafunc.config), current_device().kind
    if metafunc.function is bench_decode_attention:
        _add_heads(metafunc, BATCHES, bench_linears.DECODE_TOKEN_RANGE)
        contexts = options.context or CONTEXTS[kind]
        metafunc.parametrize("context", contexts, ids=[f"{context}ctx" for context in contexts])
        add_run_configs(metafunc, default_dtypes=DTYPES, implementations=DECODE_IMPLEMENTATIONS)
    else:
        _add_heads(metafunc, PROMPTS, bench_linears.PREFILL_TOKEN_RANGE)
        add_run_configs(metafunc, default_dtypes=DTYPES, implementations=PREFILL_IMPLEMENTATIONS)


def _add_heads(metafunc: pytest.Metafunc, tokens: Mapping[str, Sequence[int]], within: range) -> None:
    options, kind = read_options(metafunc.config), current_device().kind
    asked = options.layer is None or layer.ATTENTION in options.layer
    cuts = [
        attention_shard(one)
        for one in requested_splits(options, ATTENTION_SPLITS[kind], kind)
        if asked and one.model.heads
    ]
    metafunc.parametrize("heads", cuts, ids=[f"{one.model}-tp{one.tp}-pp{one.pp}-{one.layer}" for one in cuts])
    counts = [count for count in options.tokens or tokens[kind] if count in within]
    metafunc.parametrize("tokens", counts, ids=[f"{count}tok" for count in counts])


def bench_decode_attention(measure: Measure, heads: AttentionShard, tokens: int, context: int, how: RunConfig) -> None:
    kernel, sizes = find_kernel(DECODE_ATTENTION, how.implementation), _head_shape(heads)
    if how.implementation in layer.PAGED_IMPLEMENTATIONS:
        sizes["page_size"] = layer.PAGE_SIZE
    measure(kernel, "attention", how, heads, batch=tokens, context=context, **sizes)


def bench_prefill_attention(measure: Measure, heads: AttentionShard, tokens: int, how: RunConfig) -> None:
    measure(
        find_kernel(PREFILL_ATTENTION, how.implementation), "attention", how, heads, tokens=tokens, **_head_shape(heads)
    )


def _head_shape(heads: AttentionShard) -> dict[str, int]:
    return {"heads": heads.heads, "kv_heads": heads.kv_heads, "head_dim": heads.head_dim}

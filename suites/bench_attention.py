"""How close does decode attention come to streaming its KV cache, and what does prefill attention cost?"""

from collections.abc import Mapping, Sequence

import pytest

from kernels.registry import DECODE, PREFILL, pick
from kernels.timing.device import current_device
from specs import layer
from specs.layer import Heads, heads_of
from suites import bench_linears
from suites.axes import SPLITS, add_how, splits
from suites.case import How
from suites.collect import Measure
from suites.options import read_options

BATCHES = {"cpu": (1, 16), "cuda": (1, 32, 128)}
CONTEXTS = {"cpu": (512,), "cuda": (1024, 8192, 32768)}
PROMPTS = {"cpu": (512,), "cuda": (2048, 8192)}
ATTENTION_SPLITS = SPLITS | {"cpu": ((1, 1),)}
DTYPES = {"cpu": ("bf16",), "cuda": ("bf16",)}
"""One of each on a CPU: it shows the cost of a context, and the time belongs to the linears."""
DECODE_RIVALS = {"cpu": ("torch", "triton"), "cuda": layer.ATTENTION_IMPLEMENTATIONS}
PREFILL_RIVALS = {"cpu": ("torch",), "cuda": tuple(kernel.implementation for kernel in PREFILL)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench functions below their axes."""
    options, kind = read_options(metafunc.config), current_device().kind
    if metafunc.function is bench_decode_attention:
        _add_heads(metafunc, BATCHES, bench_linears.DECODE)
        contexts = options.context or CONTEXTS[kind]
        metafunc.parametrize("context", contexts, ids=[f"{context}ctx" for context in contexts])
        add_how(metafunc, default_dtypes=DTYPES, rivals=DECODE_RIVALS)
    else:
        _add_heads(metafunc, PROMPTS, bench_linears.PREFILL)
        add_how(metafunc, default_dtypes=DTYPES, rivals=PREFILL_RIVALS)


def _add_heads(metafunc: pytest.Metafunc, tokens: Mapping[str, Sequence[int]], within: range) -> None:
    options, kind = read_options(metafunc.config), current_device().kind
    asked = options.layer is None or layer.ATTENTION in options.layer
    cuts = [heads_of(one) for one in splits(options, ATTENTION_SPLITS[kind], kind) if asked and one.model.heads]
    metafunc.parametrize("heads", cuts, ids=[f"{one.model}-tp{one.tp}-pp{one.pp}-{one.layer}" for one in cuts])
    counts = [count for count in options.tokens or tokens[kind] if count in within]
    metafunc.parametrize("tokens", counts, ids=[f"{count}tok" for count in counts])


def bench_decode_attention(measure: Measure, heads: Heads, tokens: int, context: int, how: How) -> None:
    kernel, sizes = pick(DECODE, how.implementation), _sizes(heads)
    if how.implementation in layer.PAGED:
        sizes["page_size"] = layer.PAGE_SIZE
    measure(kernel, "attention", how, heads, batch=tokens, context=context, **sizes)


def bench_prefill_attention(measure: Measure, heads: Heads, tokens: int, how: How) -> None:
    measure(pick(PREFILL, how.implementation), "attention", how, heads, tokens=tokens, **_sizes(heads))


def _sizes(heads: Heads) -> dict[str, int]:
    return {"heads": heads.heads, "kv_heads": heads.kv_heads, "head_dim": heads.head_dim}

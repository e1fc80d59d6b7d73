"""Axes of the kernel and layer suites: the options, or defaults by device kind."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import pytest

from kernels.timing.device import current_device
from specs.layer import (
    FUSED_GATE_UP,
    FUSING_IMPLEMENTATIONS,
    LAYER_IMPLEMENTATIONS,
    LAYER_PARTS,
    LINEAR_IMPLEMENTATIONS,
    WHOLE_LAYER,
    LayerPart,
    layer_part,
    why_unsupported_layer,
)
from specs.models import find_model
from specs.parallel import Split
from suites.case import RunConfig
from suites.options import Options, read_options

DEFAULT_MODELS = {"cpu": ("llama-3.2-1b",), "cuda": ("llama-3-70b",)}
DEFAULT_SPLITS = {"cpu": ((1, 1), (2, 1)), "cuda": ((8, 1), (1, 8))}
"""Default (tp, pp): on a CPU a split in two; on a GPU one rank of TP 8 or PP 8."""
DEFAULT_DTYPES = {"cpu": ("bf16", "fp32"), "cuda": ("bf16",)}
DEFAULT_LAUNCHES = {"cpu": ("eager",), "cuda": ("graph",)}
DEFAULT_IMPLEMENTATIONS = {"cpu": ("torch", "triton"), "cuda": LINEAR_IMPLEMENTATIONS}
"""Default implementations by device kind.

On a CPU a Triton kernel stands for all kernels that need a GPU.
"""


def requested_splits(options: Options, default: Sequence[tuple[int, int]], kind: str) -> list[Split]:
    """Every requested model under every requested (tp, pp).

    Raises:
        UserError: a split that the model does not allow.
    """
    asked = options.tp is not None or options.pp is not None
    degrees = list(product(options.tp or (1,), options.pp or (1,))) if asked else default
    return [Split(find_model(name), tp, pp) for name in options.model or DEFAULT_MODELS[kind] for tp, pp in degrees]


def add_shards(
    metafunc: pytest.Metafunc,
    tokens: Mapping[str, Sequence[int]],
    within: range = range(1, 2**31),
    default_splits: Mapping[str, Sequence[tuple[int, int]]] = DEFAULT_SPLITS,
    lm_head: bool = False,
) -> None:
    """Parametrise `shard` and `tokens`.

    Args:
        metafunc: pytest's view of the bench function.
        tokens: default token counts by device kind.
        within: token counts of the question; requested counts outside it belong to other suites.
        default_splits: (tp, pp) by device kind, if the options name none.
        lm_head: whether the question includes the LM head.
    """
    options, kind = read_options(metafunc.config), current_device().kind
    shards = [
        shard
        for split in requested_splits(options, default_splits[kind], kind)
        for layer, shard in split.linears.items()
        if (lm_head or layer != "lm_head") and (options.layer is None or layer in options.layer)
    ]
    metafunc.parametrize("shard", shards, ids=[f"{s.model}-tp{s.tp}-pp{s.pp}-{s.layer}" for s in shards])
    counts = [count for count in options.tokens or tokens[kind] if count in within]
    metafunc.parametrize("tokens", counts, ids=[f"{count}tok" for count in counts])


def add_run_configs(
    metafunc: pytest.Metafunc,
    fixed: Mapping[str, Sequence[str]] | None = None,
    default_dtypes: Mapping[str, Sequence[str]] = DEFAULT_DTYPES,
    implementations: Mapping[str, Sequence[str]] = DEFAULT_IMPLEMENTATIONS,
) -> None:
    """Parametrise `how`, implementations innermost: rivals must be adjacent.

    Args:
        metafunc: pytest's view of the bench function.
        fixed: axes of `RunConfig` that the question fixes; options do not change them.
        default_dtypes: dtypes by device kind, if the options name none.
        implementations: implementations by device kind, if the options name none. Options may name any of a GPU's.
    """
    options, kind = read_options(metafunc.config), current_device().kind
    axes = {
        "dtype": options.dtype or default_dtypes[kind],
        "cache": options.cache or ("cold",),
        "launch": options.launch or DEFAULT_LAUNCHES[kind],
        "implementation": requested_implementations(options, implementations, kind),
    }
    hows = [RunConfig(*values) for values in product(*(axes | dict(fixed or {})).values())]
    metafunc.parametrize("how", hows, ids=["-".join(how) for how in hows])


def requested_implementations(
    options: Options, implementations: Mapping[str, Sequence[str]], kind: str
) -> Sequence[str]:
    """Requested implementations of the question, or its defaults."""
    return (
        implementations[kind]
        if options.impl is None
        else [name for name in options.impl if name in implementations["cuda"]]
    )


# Axes of the suite on whole layers: split, batch or prompt, whole layer or parts

LAYER_SPLITS = {"cpu": ((2, 1),), "cuda": ((8, 1), (1, 8))}
"""Default (tp, pp) of whole layers.

A CPU runs one of two ranks: half the time of a whole layer, and a shard, as under TP.
"""
LAYER_DTYPES = ("bf16",)
LAYER_LAUNCHES = {"cpu": ("eager",), "cuda": ("graph", "eager")}
DEFAULT_LAYER_IMPLEMENTATIONS = {"cpu": ("torch", "torch-compile"), "cuda": LAYER_IMPLEMENTATIONS}
CONTEXTS = {"cpu": (512,), "cuda": (2048,)}
PROMPT_TOKEN_COUNTS = range(257, 2**31)
"""Requested token counts that are a prompt's; in decode any count is a batch."""

BatchShape = Mapping[str, int]


def add_layers(metafunc: pytest.Metafunc, tokens: Mapping[str, Sequence[int]], *, decode: bool, parts: bool) -> None:
    """Parametrise `part` and `how`, implementations innermost: rivals are adjacent.

    Args:
        metafunc: pytest's view of the bench function.
        tokens: default token counts by device kind: of a batch in decode, else of a prompt.
        decode: whether each sequence adds one token to its context.
        parts: whether to measure each part alone, or else the whole layer.
    """
    options, kind = read_options(metafunc.config), current_device().kind
    found: list[tuple[LayerPart, RunConfig]] = []
    for split in requested_splits(options, LAYER_SPLITS[kind], kind):
        if parts and why_unsupported_layer(split.model):
            continue  # the whole layer's case gives the reason
        for point in _batch_shapes(options, kind, tokens[kind], decode=decode):
            found += (
                _layer_part_cases(split, point, options, kind)
                if parts
                else _whole_layer_cases(split, point, options, kind)
            )
    metafunc.parametrize(("part", "how"), found, ids=[f"{part}-{'-'.join(how)}" for part, how in found])


def _batch_shapes(options: Options, kind: str, usual: Sequence[int], *, decode: bool) -> Iterator[BatchShape]:
    if decode:
        for tokens, context in product(options.tokens or usual, options.context or CONTEXTS[kind]):
            yield {"tokens": tokens, "batch": tokens, "context": context}
        return
    for tokens in (
        usual if options.tokens is None else [count for count in options.tokens if count in PROMPT_TOKEN_COUNTS]
    ):
        yield {"tokens": tokens, "batch": 1, "context": tokens}


def _whole_layer_cases(
    split: Split, point: BatchShape, options: Options, kind: str
) -> Iterator[tuple[LayerPart, RunConfig]]:
    """Whole layer with each launch; none if the options name parts."""
    if options.layer is not None:
        return
    part = layer_part(split, WHOLE_LAYER, **point)
    for dtype, cache, launch, implementation in product(
        options.dtype or LAYER_DTYPES,
        options.cache or ("cold",),
        options.launch or LAYER_LAUNCHES[kind],
        requested_implementations(options, DEFAULT_LAYER_IMPLEMENTATIONS, kind),
    ):
        yield part, RunConfig(dtype, cache, launch, implementation)


def _layer_part_cases(
    split: Split, point: BatchShape, options: Options, kind: str
) -> Iterator[tuple[LayerPart, RunConfig]]:
    """Parts of a layer in device time: in a CUDA graph, if there is a GPU.

    There are none if the options exclude that launch.
    """
    launch = LAYER_LAUNCHES[kind][0]
    if options.launch is not None and launch not in options.launch:
        return
    asked = [name for name in (*LAYER_PARTS, FUSED_GATE_UP) if options.layer is None or name in options.layer]
    for name, dtype, cache in product(asked, options.dtype or LAYER_DTYPES, options.cache or ("cold",)):
        for implementation in requested_implementations(options, DEFAULT_LAYER_IMPLEMENTATIONS, kind):
            if implementation == "torch-compile" or (
                name == FUSED_GATE_UP and implementation not in FUSING_IMPLEMENTATIONS
            ):
                continue  # torch-compile's parts are torch's; torch fuses nothing by itself
            yield layer_part(split, name, **point), RunConfig(dtype, cache, launch, implementation)

"""The axes of the suite on whole layers: which rank's layer, at which batch or prompt, as a whole or part by part."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import pytest

from kernels.timing.device import current_device
from specs.layer import FUSED, FUSING, LAYER_IMPLEMENTATIONS, LAYER_PARTS, WHOLE, LayerPart, part_of, why_no_layer
from specs.parallel import Split
from suites.axes import asked_for, splits
from suites.how import How
from suites.options import Options, read_options

SPLITS = {"cpu": ((2, 1),), "cuda": ((8, 1), (1, 8))}
"""On a CPU one of two ranks: half the time of a whole layer, and a shard, which is what TP is about."""
DTYPES = ("bf16",)
LAUNCHES = {"cpu": ("eager",), "cuda": ("graph", "eager")}
RIVALS = {"cpu": ("torch", "torch-compile"), "cuda": LAYER_IMPLEMENTATIONS}
CONTEXTS = {"cpu": (512,), "cuda": (2048,)}
PROMPT = range(257, 2**31)
"""Tokens that are a prompt's, where the options name some; in decode any count is a batch."""

Point = Mapping[str, int]


def add_layers(metafunc: pytest.Metafunc, tokens: Mapping[str, Sequence[int]], *, decode: bool, parts: bool) -> None:
    """Parametrise `part` and `how`, implementations innermost: rivals must stand next to each other.

    Args:
        metafunc: pytest's view of the bench function.
        tokens: default token counts by device kind: of a batch in decode, else of a prompt.
        decode: whether each sequence adds one token to its context.
        parts: each part alone, or the layer as a whole.
    """
    options, kind = read_options(metafunc.config), current_device().kind
    found: list[tuple[LayerPart, How]] = []
    for split in splits(options, SPLITS[kind], kind):
        if parts and why_no_layer(split.model):
            continue  # the whole layer stands for them, and says why
        for point in _points(options, kind, tokens[kind], decode=decode):
            found += _alone(split, point, options, kind) if parts else _whole(split, point, options, kind)
    metafunc.parametrize(("part", "how"), found, ids=[f"{part}-{'-'.join(how)}" for part, how in found])


def _points(options: Options, kind: str, usual: Sequence[int], *, decode: bool) -> Iterator[Point]:
    if decode:
        for tokens, context in product(options.tokens or usual, options.context or CONTEXTS[kind]):
            yield {"tokens": tokens, "batch": tokens, "context": context}
        return
    for tokens in usual if options.tokens is None else [count for count in options.tokens if count in PROMPT]:
        yield {"tokens": tokens, "batch": 1, "context": tokens}


def _whole(split: Split, point: Point, options: Options, kind: str) -> Iterator[tuple[LayerPart, How]]:
    """The layer in each way to launch it; where parts are named, it is none of them."""
    if options.layer is not None:
        return
    part = part_of(split, WHOLE, **point)
    for dtype, cache, launch, implementation in product(
        options.dtype or DTYPES,
        options.cache or ("cold",),
        options.launch or LAUNCHES[kind],
        asked_for(options, RIVALS, kind),
    ):
        yield part, How(dtype, cache, launch, implementation)


def _alone(split: Split, point: Point, options: Options, kind: str) -> Iterator[tuple[LayerPart, How]]:
    """Each part by itself in device time, in a graph where there is one; none where that launch is not asked for."""
    launch = LAUNCHES[kind][0]
    if options.launch is not None and launch not in options.launch:
        return
    asked = [name for name in (*LAYER_PARTS, FUSED) if options.layer is None or name in options.layer]
    for name, dtype, cache in product(asked, options.dtype or DTYPES, options.cache or ("cold",)):
        for implementation in asked_for(options, RIVALS, kind):
            if implementation == "torch-compile" or (name == FUSED and implementation not in FUSING):
                continue  # its parts are torch's; torch fuses nothing by itself
            yield part_of(split, name, **point), How(dtype, cache, launch, implementation)

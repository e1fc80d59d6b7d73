"""What does a whole decoder layer cost beyond its weights: in a graph, launched one by one, and as the sum of parts?"""

import pytest

from kernels.decoder_layer import compiled_layer, layer_kernel, unavailable_layer
from kernels.decoder_layer import part_kernel as part_alone
from specs.layer import LayerPart, layer_shape, why_unsupported_layer
from specs.models import find_model
from specs.parallel import Split
from suites.axes import add_layers
from suites.case import RunConfig
from suites.collect import Measure

BATCHES = {"cpu": (1, 125, 1000), "cuda": (1, 125, 1000)}
"""Decode batches by device kind, with the claim's 125 and 1000 tokens."""
PROMPTS = {"cpu": (300,), "cuda": (2048,)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench functions below their axes."""
    decode = metafunc.function in (bench_layer, bench_part)
    parts = metafunc.function in (bench_part, bench_prompt_part)
    add_layers(metafunc, BATCHES if decode else PROMPTS, decode=decode, parts=parts)


def bench_layer(measure: Measure, part: LayerPart, how: RunConfig) -> None:
    _measure_whole(measure, part, how)


def bench_part(measure: Measure, part: LayerPart, how: RunConfig) -> None:
    _measure_part(measure, part, how)


def bench_prompt(measure: Measure, part: LayerPart, how: RunConfig) -> None:
    _measure_whole(measure, part, how)


def bench_prompt_part(measure: Measure, part: LayerPart, how: RunConfig) -> None:
    _measure_part(measure, part, how)


def _measure_whole(measure: Measure, part: LayerPart, how: RunConfig) -> None:
    split, shape = _split(part), {"tokens": part.tokens, "batch": part.batch, "context": part.context}
    if reason := why_unsupported_layer(split.model):
        kernel = unavailable_layer(how.implementation, reason)
    elif how.implementation == "torch-compile":
        kernel = compiled_layer(layer_shape(split), **shape)
    else:
        kernel = layer_kernel(how.implementation, layer_shape(split), **shape)
    measure(kernel, "layer", how, part, **shape)


def _measure_part(measure: Measure, part: LayerPart, how: RunConfig) -> None:
    shape = {"tokens": part.tokens, "batch": part.batch, "context": part.context}
    alone = part_alone(part.layer, how.implementation, layer_shape(_split(part)), **shape)
    measure(alone.kernel, "layer", how, part, **alone.shape)


def _split(part: LayerPart) -> Split:
    return Split(find_model(part.model), part.tp, part.pp)

"""The axes of the experiment: every deployment at every batch, or at every length of prompts."""

from collections.abc import Iterator
from itertools import product

import pytest

from comm.backends.torch_distributed import NCCL
from kernels.timing.device import Device, current_device
from specs.errors import UserError
from specs.layer import why_no_layer
from specs.models import model
from specs.parallel import Deployment
from suites.axes import MODELS, asked_for
from suites.how import StepHow
from suites.layer_axes import PROMPT
from suites.options import Options, read_options
from suites.rank_axes import ranks_of
from suites.steps.deployments import asked, deployments
from suites.steps.part import StepPart
from suites.steps.room import SHARE, layers_that_fit

BATCHES = {"cpu": (1, 16, 64, 256), "cuda": (1, 16, 64, 256, 1024)}
"""A step of 1024 sequences takes a CPU a second, of which there would be two dozen."""
CONTEXTS = {"cpu": (128,), "cuda": (2048,)}
PROMPTS = {"cpu": (32, 64), "cuda": (512, 4096)}
PROMPT_BATCH = {"cpu": 4, "cuda": 8}
DTYPES = ("bf16",)
DEFAULT_RIVALS = ("torch",)
RIVALS = {"cpu": DEFAULT_RIVALS, "cuda": ("torch", "triton")}
"""What can be asked for; the question is the split, so without being asked for there are no others."""
BACKENDS = {"cpu": "gloo", "cuda": NCCL.name}
LEAST_LAYERS = 2
"""On a CPU: one for each of two stages."""

Step = tuple[Deployment, StepPart, StepHow]
Point = tuple[int, int, int]
"""Tokens, batch, context."""


def add_steps(metafunc: pytest.Metafunc, *, decode: bool) -> None:
    """Parametrise `deployment`, `part` and `how`: rivals next to each other, then the deployments of one batch.

    Args:
        metafunc: pytest's view of the bench function.
        decode: whether each sequence adds one token to its context; else it is a prompt.
    """
    options, device = read_options(metafunc.config), current_device()
    cases = list(steps(options, device, ranks_of(metafunc, device.kind).count, decode=decode))
    ids = [f"{part}-{deployment}-{how.dtype}-{how.implementation}" for deployment, part, how in cases]
    metafunc.parametrize(("deployment", "part", "how"), cases, ids=ids)


def steps(options: Options, device: Device, ranks: int, *, decode: bool) -> Iterator[Step]:
    """Every case of the experiment, in decode or in prefill."""
    implementations = DEFAULT_RIVALS if options.impl is None else asked_for(options, RIVALS, device.kind)
    chosen = _batches(options, device.kind) if decode else _prompts(options, device.kind)
    points = chosen if ranks > 1 else chosen[:1]  # one rank has nothing to compare, and says so once
    for name, dtype in product(options.model or MODELS[device.kind], options.dtype or DTYPES):
        layers = options.layers or default_layers(options, device, name, dtype, ranks)
        for point, deployment in product(points, deployments(options, ranks, device.kind)):
            part = StepPart(name, layers, *point)
            if asked(options) or not deployment.why_not(ranks, part.batch):
                for implementation in implementations:
                    yield deployment, part, StepHow(dtype, implementation, BACKENDS[device.kind])


def _batches(options: Options, kind: str) -> list[Point]:
    batches, contexts = options.batch or options.tokens or BATCHES[kind], options.context or CONTEXTS[kind]
    return [(batch, batch, context) for context, batch in product(contexts, batches)]


def _prompts(options: Options, kind: str) -> list[Point]:
    lengths = PROMPTS[kind] if options.tokens is None else [count for count in options.tokens if count in PROMPT]
    chosen = options.prompts or [(PROMPT_BATCH[kind], length) for length in lengths]
    return [(batch * length, batch, length) for batch, length in chosen]


def default_layers(options: Options, device: Device, name: str, dtype: str, ranks: int) -> int:
    """How many layers of a model are kept: on a GPU as many as fit under TP at every batch and prompt of the run.

    By the memory that a GPU has, not by what is free of it: every rank has to find the same.
    """
    one = model(name)
    if device.kind == "cpu":
        return min(one.layers, max(LEAST_LAYERS, ranks))
    if why_no_layer(one):
        return one.layers  # refused for that
    points = [*_batches(options, device.kind), *_prompts(options, device.kind)]
    try:
        room, tp = int(SHARE * device.total_bytes()), Deployment(tp=ranks)
        return min(layers_that_fit(tp, StepPart(name, one.layers, *point), dtype, room) for point in points)
    except UserError:
        return one.layers  # TP cannot cut it, and the case says why

"""What the GEMM is meant to reach: the same 16 shapes of Llama-3-70B on H200, at 128 tokens and more."""

from collections.abc import Sequence
from itertools import product

from reports.decode.points import Point
from reports.decode.targets import Key, Target, every, key, mean
from specs.layer import LAYERS, MODEL, TP
from specs.models import model
from specs.parallel import Split

BATCHES, PROMPTS = (128, 256), (512, 2048, 8192)
"""Tokens where the time is still that of reading the weights, and where it is that of the multiply-adds."""
NARROW_N = 5120
"""Rows of W up to which tiles alone are too few for the SMs."""
BATCH_MEAN, NARROW_MEAN = 1.04, 1.10
PROMPT_LEAST, PROMPT_MEAN = 0.90, 0.95

SHAPES = [(layer, tp) for layer, tp in product(LAYERS, TP)]
NARROW = [(layer, tp) for layer, tp in SHAPES if Split(model(MODEL), tp).linear(layer).n <= NARROW_N]


def judge(points: Sequence[Point], ours: Sequence[str]) -> list[Target]:
    """Every target, held against the best of `ours`."""
    batches, narrow, prompts = _keys(SHAPES, BATCHES), _keys(NARROW, BATCHES), _keys(SHAPES, PROMPTS)
    ratios = [(point, speedup) for point in points if (speedup := point.speedup(ours))]
    of_batches = [pair for pair in ratios if key(pair[0]) in batches]
    of_narrow = [pair for pair in ratios if key(pair[0]) in narrow]
    of_prompts = [pair for pair in ratios if key(pair[0]) in prompts]
    batch, prompt = "M " + ", ".join(map(str, BATCHES)), "M " + ", ".join(map(str, PROMPTS))
    return [
        mean(f"{batch}: geometric mean ≥ {BATCH_MEAN}x", BATCH_MEAN, of_batches, len(batches)),
        mean(f"{batch}, n ≤ {NARROW_N}: geometric mean ≥ {NARROW_MEAN:.2f}x", NARROW_MEAN, of_narrow, len(narrow)),
        every(f"{prompt}: every point ≥ {PROMPT_LEAST:.2f}x", PROMPT_LEAST, of_prompts, len(prompts)),
        mean(f"{prompt}: geometric mean ≥ {PROMPT_MEAN}x", PROMPT_MEAN, of_prompts, len(prompts)),
    ]


def _keys(shapes: Sequence[tuple[str, int]], tokens: Sequence[int]) -> frozenset[Key]:
    return frozenset((layer, tp, count) for (layer, tp), count in product(shapes, tokens))

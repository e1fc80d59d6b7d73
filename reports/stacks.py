"""What adds up to a whole layer and to a whole model, by each implementation that has all of it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from reports.evidence import Evidence, Series
from specs.measurement import Measurement
from specs.models import MODELS

LINEARS = (("qkv",), ("o",), ("gate_up", "up"), ("down",))
"""The linears of a dense layer: one of each group."""


@dataclass(frozen=True)
class Stack:
    """What one implementation adds up: series, and how often each is run."""

    series: Sequence[Series]
    counts: Sequence[int] = (1,)

    def maybe_hot(self, *tokens: int) -> bool:
        """Whether any of it may have been read from a cache at these tokens."""
        return any(one.points[count].maybe_hot for one in self.series for count in tokens if count in one.points)

    def doubted(self, *tokens: int) -> bool:
        """Whether any of it is odd at these tokens: a linter's mark, such as more time than more tokens take."""
        return any(one.points[count].doubts for one in self.series for count in tokens if count in one.points)

    def sums(self, measurements: Sequence[Measurement]) -> list[tuple[float]]:
        """Sum of the means of one measurement of each series, pass by pass: parts of a whole add up in means."""
        passes = min(len(one.seconds) for one in measurements)
        parts = list(zip(measurements, self.counts, strict=True))
        return [(sum(count * fmean(one.seconds[turn]) for one, count in parts),) for turn in range(passes)]


def scopes(evidence: Evidence) -> Iterator[tuple[str, str, list[Stack]]]:
    """Model, scope, and what each implementation adds up: whole models, whole layers, then each linear alone."""
    splits: dict[tuple[str, int], dict[str, dict[str, Series]]] = defaultdict(lambda: defaultdict(dict))
    for one in evidence.series:
        splits[one.model, one.tp][one.implementation][one.layer] = one
    for (slug, tp), implementations in splits.items():
        for scope, build in (("model", _model), ("layer", _layer)):
            stacks = [stack for linears in implementations.values() if (stack := build(slug, linears))]
            if stacks:
                yield slug, f"{scope} tp{tp}", stacks
    for (slug, part), alike in evidence.parts.items():
        yield slug, part, [Stack([one]) for one in alike]


def _layer(_: str, linears: Mapping[str, Series]) -> Stack | None:
    """The linears of a layer; None if one is missing."""
    found = [next((linears[name] for name in group if name in linears), None) for group in LINEARS]
    series = [one for one in found if one]
    return Stack(series, [1] * len(series)) if all(found) else None


def _model(slug: str, linears: Mapping[str, Series]) -> Stack | None:
    """All layers and the LM head; None if one linear is missing, or the model's layers are not known."""
    layer = _layer(slug, linears)
    if not layer or "lm_head" not in linears or slug not in MODELS:
        return None
    return Stack([*layer.series, linears["lm_head"]], [*(MODELS[slug].layers for _ in layer.series), 1])

"""Prefill put together from parts: one prompt through TP, and prompts one behind the other through stages."""

from dataclasses import dataclass
from functools import lru_cache

from reports.plan.basis import Basis
from reports.plan.cost import FIGURES, Cost, Pick, total
from reports.plan.parts import ALL_REDUCE, Parts
from reports.planned.subject import Span
from specs.parallel import Deployment

PROMPTS = 8
"""Prompts of a one-shot prefill, each a micro-batch of its own."""
MANY = (PROMPTS, 16, 32, 64)
"""Prompts by which it is judged who reads them faster: the more there are, the less filling and draining counts."""
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True)
class Prompt:
    """One prompt under TP: what a layer takes, and all of the model with one token's logits."""

    layer: Cost
    all_reduce: Cost
    whole: Cost
    basis: Basis


@dataclass(frozen=True)
class Pipelined:
    """Prompts through stages: seconds from the first start to the last end, and of what they are made.

    Attributes:
        all, first: until the last prompt's token, and until the first one's.
        sync: with one prompt in the pipeline at a time.
        exposed: how much shorter it were without hops, as a share.
        busy: share of their time that stages compute.
    """

    all: Span
    first: Span
    sync: Span
    exposed: Span
    busy: Span
    basis: Basis


@lru_cache(4096)
def through_tp(parts: Parts, tp: int, tokens: int) -> Prompt:
    """One prompt.

    Raises:
        MissingError: a part was not measured with so many tokens.
    """
    found, head = parts.prompt_parts(tp, tokens), parts.head_parts(tp, 1, tp)
    layer = total(found.values())
    whole = total([layer.times(parts.asked.cut.layers), *head.values()])
    return Prompt(layer, found[ALL_REDUCE], whole, Basis.of({**head, **found}))


@lru_cache(4096)
def through_stages(parts: Parts, deployment: Deployment, tokens: int) -> Pipelined:
    """As many prompts as there are micro-batches, one behind the other.

    All are alike, so a stage starts one as soon as the slowest stage lets it: the last one ends after its way through
    all stages and as many turns of the slowest as there are prompts before it.

    Raises:
        MissingError: a part was not measured with so many tokens.
    """
    prompts = deployment.micro_batches
    stages, hop, basis = _stages(parts, deployment.split(parts.asked.cut).stage_layers(), tokens)

    def last(pick: Pick, hop_pick: Pick, prompts: int) -> float:
        times = [pick(one) for one in stages]
        return sum(times) + (len(stages) - 1) * hop_pick(hop) + (prompts - 1) * max(times)

    walks = [last(pick, pick, prompts) for pick in FIGURES]
    firsts = [last(pick, pick, 1) for pick in FIGURES]
    middle, *doubts = FIGURES
    bare = last(middle, _nothing, prompts)
    hops = [1 - bare / last(middle, pick, prompts) for pick in doubts]
    working = sum(one.seconds for one in stages) * prompts / len(stages)
    return Pipelined(
        all=Span(*walks),
        first=Span(*firsts),
        sync=Span(*(prompts * one for one in firsts)),
        exposed=Span(1 - bare / walks[0], *hops),
        busy=Span(working / walks[0], *(working / last(middle, pick, prompts) for pick in reversed(doubts))),
        basis=basis,
    )


@lru_cache(4096)
def _stages(parts: Parts, layers: tuple[int, ...], tokens: int) -> tuple[list[Cost], Cost, Basis]:
    """What each stage takes for a prompt, and the hop between two of them."""
    found, head = parts.prompt_parts(1, tokens), parts.head_parts(1, 1, len(layers))
    layer = total(found.values())
    stages = [layer.times(count) for count in layers]
    stages[-1] = total([stages[-1], *head.values()])
    hop = parts.messages.hop(round(tokens * parts.asked.cut.hidden * parts.itemsize))
    return stages, hop, Basis.of({**head, **found, "hop": hop})


def _nothing(_: Cost) -> float:
    return 0.0

"""The claims on prefill: how much of it is communication under TP and under PP, and who reads prompts faster."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import inf

from reports import formatting
from reports.claims.evidence import DECIDED, Evidence, Finding, Verdict
from reports.claims.measured_steps import within
from reports.claims.planned_subject import Rows, Span, Subject, also, slow, subjects
from reports.deployment_names import listed
from reports.plan.estimate import FIGURES, Basis, Cost, MissingError, Pick, total
from reports.plan.step import ALL_REDUCE, Parts
from reports.tp_vs_pp.compare import Load
from specs.parallel import Deployment

# Prefill put together from parts: one prompt through TP, and prompts one behind the other through stages.

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


LEAST, MOST = 0.20, 0.30
PP_MOST = 0.01
Found = tuple[Span, Basis]


def judge_tp_share(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The share of all-reduces in a layer that reads a prompt under TP, by its length."""
    for subject in subjects(evidences):
        rows, tp = Rows(subject, "share"), subject.asked.gpus
        for tokens, found in _by_length(rows, partial(_tp_share, tp)):
            verdict = within(found[0][1:], LEAST, MOST)
            rows.add(subject.setting(decode=False), Load(tokens, 1), f"tp{tp}", verdict, found)
        yield from rows.findings()


def judge_pp_share(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The share of hops that nothing hides, of eight prompts one behind the other; the bubble is counted apart."""
    for subject in subjects(evidences):
        rows, pp = Rows(subject, "share"), _pp(subject, PROMPTS)
        for tokens, found in _by_length(rows, partial(_pp_share, pp)):
            bubble = 1 - subject.over(partial(_busy, pp, tokens))[0].value
            verdict, said = within(found[0][1:], 0, PP_MOST), f"fill and drain {formatting.percent(bubble)} beside it"
            rows.add(subject.setting(decode=False), Load(tokens, PROMPTS), str(pp), verdict, found, said)
        yield from rows.findings()


def judge_winner(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """t(TP) / t(async PP) of several prompts: TP reads one after another, PP has each as a micro-batch.

    Filling and draining the pipeline costs the same whatever their number, so what decides is how many there are.
    """
    for subject in subjects(evidences):
        rows, tp = Rows(subject, "ratio"), subject.asked.gpus
        said: dict[int, dict[int, Verdict]] = {}
        limit = slow(subject)
        for prompts in MANY:
            pp = _pp(subject, prompts)
            for tokens, found in _by_length(rows, partial(_ratio, tp, pp)):
                if _held(subject, pp, tokens):
                    verdict = said.setdefault(tokens, {})[prompts] = within(found[0][1:], 1, inf)
                    condition = also(_times(subject, pp, tokens), limit)
                    setting, load = subject.setting(decode=False), Load(tokens, prompts)
                    rows.add(setting, load, f"tp{tp}/pp{tp}", verdict, found, condition)
                else:
                    rows.lacking.append(f"memory does not hold {prompts} prompts of {tokens}")
        yield from rows.findings(also(from_how_many(said), limit))


def from_how_many(said: Mapping[int, Mapping[int, Verdict]]) -> str:
    """Of verdicts by length and number of prompts: from how many on PP is faster, lengths that are alike together.

    `from 16 prompts of 1024 and 2048 tokens on, from 16–32 of 4096 on, not with up to 64 of 8192`: of two numbers PP
    may be faster from the first on and surely is from the second on.
    """
    alike: dict[tuple[str, str], list[int]] = {}
    for tokens, verdicts in said.items():
        alike.setdefault(_from(verdicts), []).append(tokens)
    texts: list[str] = []
    for (text, end), lengths in alike.items():
        which = _lengths(lengths, list(said))
        texts.append(f"{text} of {which}{end}" if texts else f"{text} prompts of {which} tokens{end}")
    return ", ".join(texts)


def _lengths(chosen: Sequence[int], among: Sequence[int]) -> str:
    start = among.index(chosen[0])
    if len(chosen) > 2 and list(chosen) == list(among[start : start + len(chosen)]):
        return f"{chosen[0]} to {chosen[-1]}"
    return listed([str(one) for one in chosen])


def _from(verdicts: Mapping[int, Verdict]) -> tuple[str, str]:
    """What comes before the prompts and what after them."""
    surely = next((count for count, one in verdicts.items() if one == "HOLDS"), None)
    maybe = next((count for count, one in verdicts.items() if one == "HOLDS" or one not in DECIDED), None)
    most = max(verdicts)
    full = "" if most == MANY[-1] else ", more of which memory does not hold"
    if maybe is None:
        return f"not with up to {most}", full
    if surely is None:
        return f"not surely with up to {most}", full
    return f"from {surely}" if maybe == surely else f"from {maybe}–{surely}", " on"


def _held(subject: Subject, pp: Deployment, tokens: int) -> bool:
    """Whether memory holds keys and values of all prompts either way."""
    there = subject.asking(replace(subject.asked, context=tokens))
    return all(there.fits(one, pp.micro_batches) for one in (Deployment(tp=subject.asked.gpus), pp))


def _by_length(rows: Rows, figure: Callable[[int, Parts], Found]) -> Iterator[tuple[int, Found]]:
    """At each length of a prompt that tables reach."""
    for tokens in LENGTHS:
        try:
            yield tokens, rows.subject.over(partial(figure, tokens))
        except MissingError as error:
            rows.lacking.append(str(error))


def _pp(subject: Subject, prompts: int) -> Deployment:
    return Deployment(pp=subject.asked.gpus, schedule="async", micro_batches=prompts)


def _tp_share(tp: int, tokens: int, parts: Parts) -> Found:
    one = through_tp(parts, tp, tokens)
    part = one.all_reduce.seconds
    return Span(part / one.layer.seconds, part / one.layer.high, part / one.layer.low), one.basis


def _pp_share(pp: Deployment, tokens: int, parts: Parts) -> Found:
    one = through_stages(parts, pp, tokens)
    return one.exposed, one.basis


def _busy(pp: Deployment, tokens: int, parts: Parts) -> Found:
    one = through_stages(parts, pp, tokens)
    return one.busy, one.basis


def _ratio(tp: int, pp: Deployment, tokens: int, parts: Parts) -> Found:
    one, walk = through_tp(parts, tp, tokens), through_stages(parts, pp, tokens)
    a, b = one.whole.times(pp.micro_batches), walk.all
    return Span(a.seconds / b.value, a.low / b.high, a.high / b.low), Basis.joined([one.basis, walk.basis])


def _times(subject: Subject, pp: Deployment, tokens: int) -> str:
    """Tokens a second, and how long the first and the last prompt wait."""
    tp, prompts = subject.asked.gpus, pp.micro_batches

    def of_tp(parts: Parts) -> Found:
        one = through_tp(parts, tp, tokens)
        return Span(one.whole.seconds, one.whole.low, one.whole.high), one.basis

    def of_pp(name: str, parts: Parts) -> Found:
        walk = through_stages(parts, pp, tokens)
        return getattr(walk, name), walk.basis

    one = subject.over(of_tp)[0].value
    everything, first, sync = (subject.over(partial(of_pp, name))[0].value for name in ("all", "first", "sync"))
    rates = [formatting.digits(prompts * tokens / seconds) for seconds in (prompts * one, everything, sync)]
    waits = [formatting.one(formatting.SECONDS, seconds) for seconds in (one, first, prompts * one, everything)]
    return also(
        f"{rates[0]} tokens a second by TP, {rates[1]} by async and {rates[2]} by sync PP",
        f"first token after {waits[0]} and {waits[1]}, the last prompt's after {waits[2]} and {waits[3]}",
    )

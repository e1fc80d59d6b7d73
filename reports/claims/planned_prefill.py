"""Claims on prefill, judged by estimates: communication shares, and the winner."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import inf

from reports import formatting
from reports.claims.evidence import Evidence, Finding
from reports.claims.planned_subject import (
    Estimate,
    PlannedFindings,
    PlannedGpu,
    SourcedEstimate,
    join_clauses,
    planned_gpus,
    slow_all_reduce_note,
)
from reports.claims.verdict import DECIDED_VERDICTS, Verdict, verdict_within
from reports.deployment_names import join_with_and
from reports.plan.estimate import COST_FIELDS, Cost, CostField, MissingMeasurementError, Provenance, sum_costs
from reports.plan.step import ALL_REDUCE, PartCosts
from reports.tp_vs_pp.compare import Load
from specs.parallel import Deployment

# Estimated prefill: one prompt under TP, and consecutive prompts through the stages of PP.

ONE_SHOT_PROMPTS = 8
"""Prompts of a one-shot prefill, each a microbatch of its own."""
PROMPT_COUNTS = (ONE_SHOT_PROMPTS, 16, 32, 64)
"""Numbers of prompts at which the winner is judged.

The more prompts there are, the less filling and draining count.
"""
PROMPT_LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True)
class TpPrefill:
    """Costs of one prompt under TP: a layer, and the model with one token's logits."""

    layer: Cost
    all_reduce: Cost
    whole: Cost
    provenance: Provenance


@dataclass(frozen=True)
class PpPrefill:
    """Prompts through stages: seconds from the first start to the last end.

    Attributes:
        all, first: time to the last prompt's token, and to the first prompt's.
        sync: time with one prompt in the pipeline at a time.
        exposed: share of the time that would be saved without hops.
        busy: share of their time that stages compute.
    """

    all: Estimate
    first: Estimate
    sync: Estimate
    exposed: Estimate
    busy: Estimate
    provenance: Provenance


@lru_cache(4096)
def estimate_tp_prefill(parts: PartCosts, tp: int, tokens: int) -> TpPrefill:
    """Estimate one prompt under TP.

    Raises:
        MissingMeasurementError: a part was not measured with so many tokens.
    """
    found, head = parts.prompt_parts(tp, tokens), parts.head_parts(tp, 1, tp)
    layer = sum_costs(found.values())
    whole = sum_costs([layer.scaled(parts.query.truncated_model.layers), *head.values()])
    return TpPrefill(layer, found[ALL_REDUCE], whole, Provenance.from_costs({**head, **found}))


@lru_cache(4096)
def estimate_pp_prefill(parts: PartCosts, deployment: Deployment, tokens: int) -> PpPrefill:
    """Estimate consecutive prompts through PP, each a microbatch.

    All prompts are alike, so a stage starts one as soon as the slowest stage allows. The last prompt ends after its way
    through all stages, plus a turn of the slowest stage for each prompt before it.

    Raises:
        MissingMeasurementError: a part was not measured with so many tokens.
    """
    prompts = deployment.micro_batches
    stages, hop, basis = _stage_costs(parts, deployment.split(parts.query.truncated_model).stage_layers(), tokens)

    def last(pick: CostField, hop_pick: CostField, prompts: int) -> float:
        times = [pick(one) for one in stages]
        return float(sum(times) + (len(stages) - 1) * hop_pick(hop) + (prompts - 1) * max(times))

    walks = [last(pick, pick, prompts) for pick in COST_FIELDS]
    firsts = [last(pick, pick, 1) for pick in COST_FIELDS]
    middle, *doubts = COST_FIELDS
    bare = last(middle, _zero_cost, prompts)
    hops = [1 - bare / last(middle, pick, prompts) for pick in doubts]
    working = sum(one.seconds for one in stages) * prompts / len(stages)
    return PpPrefill(
        all=Estimate(*walks),
        first=Estimate(*firsts),
        sync=Estimate(*(prompts * one for one in firsts)),
        exposed=Estimate(1 - bare / walks[0], *hops),
        busy=Estimate(working / walks[0], *(working / last(middle, pick, prompts) for pick in reversed(doubts))),
        provenance=basis,
    )


@lru_cache(4096)
def _stage_costs(parts: PartCosts, layers: tuple[int, ...], tokens: int) -> tuple[list[Cost], Cost, Provenance]:
    """Return the cost of a prompt per stage, the cost of a hop, and provenance."""
    found, head = parts.prompt_parts(1, tokens), parts.head_parts(1, 1, len(layers))
    layer = sum_costs(found.values())
    stages = [layer.scaled(count) for count in layers]
    stages[-1] = sum_costs([stages[-1], *head.values()])
    hop = parts.comm_costs.hop(round(tokens * parts.query.truncated_model.hidden * parts.residual_itemsize))
    return stages, hop, Provenance.from_costs({**head, **found, "hop": hop})


def _zero_cost(_: Cost) -> float:
    return 0.0


MIN_TP_SHARE, MAX_TP_SHARE = 0.20, 0.30
MAX_PP_SHARE = 0.01


def judge_tp_share(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge the share of all-reduces in a prefill layer under TP, by prompt length."""
    for subject in planned_gpus(evidences):
        rows, tp = PlannedFindings(subject, "share"), subject.query.gpus
        for tokens, found in _estimates_by_length(rows, partial(_tp_share, tp)):
            verdict = verdict_within(found[0][1:], MIN_TP_SHARE, MAX_TP_SHARE)
            rows.add(subject.setting(decode=False), Load(tokens, 1), f"tp{tp}", verdict, found)
        yield from rows.findings()


def judge_pp_share(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge the share of exposed hops for eight consecutive prompts.

    The bubble is counted separately.
    """
    for subject in planned_gpus(evidences):
        rows, pp = PlannedFindings(subject, "share"), _pp_deployment(subject, ONE_SHOT_PROMPTS)
        for tokens, found in _estimates_by_length(rows, partial(_pp_share, pp)):
            bubble = 1 - subject.estimate(partial(_busy_share, pp, tokens))[0].value
            verdict, said = (
                verdict_within(found[0][1:], 0, MAX_PP_SHARE),
                f"fill and drain {formatting.percent(bubble)} beside it",
            )
            rows.add(subject.setting(decode=False), Load(tokens, ONE_SHOT_PROMPTS), str(pp), verdict, found, said)
        yield from rows.findings()


def judge_prefill_winner(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge t(TP) / t(async PP) of several prompts.

    TP reads the prompts one after another, PP has each as a microbatch. Filling and draining cost the same for any
    number of prompts, so that number decides.
    """
    for subject in planned_gpus(evidences):
        rows, tp = PlannedFindings(subject, "ratio"), subject.query.gpus
        said: dict[int, dict[int, Verdict]] = {}
        limit = slow_all_reduce_note(subject)
        for prompts in PROMPT_COUNTS:
            pp = _pp_deployment(subject, prompts)
            for tokens, found in _estimates_by_length(rows, partial(_tp_over_pp, tp, pp)):
                if _fits_memory(subject, pp, tokens):
                    verdict = said.setdefault(tokens, {})[prompts] = verdict_within(found[0][1:], 1, inf)
                    condition = join_clauses(_rates_text(subject, pp, tokens), limit)
                    setting, load = subject.setting(decode=False), Load(tokens, prompts)
                    rows.add(setting, load, f"tp{tp}/pp{tp}", verdict, found, condition)
                else:
                    rows.missing.append(f"memory does not hold {prompts} prompts of {tokens}")
        yield from rows.findings(join_clauses(prompts_needed_text(said), limit))


def prompts_needed_text(said: Mapping[int, Mapping[int, Verdict]]) -> str:
    """Return from how many prompts on PP is faster, by prompt length.

    The verdicts are by length and number of prompts; lengths of the same text are grouped. Example:
    `from 16 prompts of 1024 and 2048 tokens on, from 16–32 of 4096 on, not with up to 64 of 8192`. Of two numbers, PP
    may be faster from the first on and surely is from the second on.
    """
    alike: dict[tuple[str, str], list[int]] = {}
    for tokens, verdicts in said.items():
        alike.setdefault(_prompts_needed(verdicts), []).append(tokens)
    texts: list[str] = []
    for (text, end), lengths in alike.items():
        which = _lengths_text(lengths, list(said))
        texts.append(f"{text} of {which}{end}" if texts else f"{text} prompts of {which} tokens{end}")
    return ", ".join(texts)


def _lengths_text(chosen: Sequence[int], among: Sequence[int]) -> str:
    start = among.index(chosen[0])
    if len(chosen) > 2 and list(chosen) == list(among[start : start + len(chosen)]):
        return f"{chosen[0]} to {chosen[-1]}"
    return join_with_and([str(one) for one in chosen])


def _prompts_needed(verdicts: Mapping[int, Verdict]) -> tuple[str, str]:
    """Return the text before the prompts and the text after them."""
    surely = next((count for count, one in verdicts.items() if one == "HOLDS"), None)
    maybe = next((count for count, one in verdicts.items() if one == "HOLDS" or one not in DECIDED_VERDICTS), None)
    most = max(verdicts)
    full = "" if most == PROMPT_COUNTS[-1] else ", more of which memory does not hold"
    if maybe is None:
        return f"not with up to {most}", full
    if surely is None:
        return f"not surely with up to {most}", full
    return f"from {surely}" if maybe == surely else f"from {maybe}–{surely}", " on"


def _fits_memory(subject: PlannedGpu, pp: Deployment, tokens: int) -> bool:
    """Return whether memory holds the KV cache of all prompts under TP and PP."""
    there = subject.with_query(replace(subject.query, context=tokens))
    return all(there.fits(one, pp.micro_batches) for one in (Deployment(tp=subject.query.gpus), pp))


def _estimates_by_length(
    rows: PlannedFindings, figure: Callable[[int, PartCosts], SourcedEstimate]
) -> Iterator[tuple[int, SourcedEstimate]]:
    """Yield the estimate at each prompt length that the tables reach."""
    for tokens in PROMPT_LENGTHS:
        try:
            yield tokens, rows.subject.estimate(partial(figure, tokens))
        except MissingMeasurementError as error:
            rows.missing.append(str(error))


def _pp_deployment(subject: PlannedGpu, prompts: int) -> Deployment:
    return Deployment(pp=subject.query.gpus, schedule="async", micro_batches=prompts)


def _tp_share(tp: int, tokens: int, parts: PartCosts) -> SourcedEstimate:
    one = estimate_tp_prefill(parts, tp, tokens)
    part = one.all_reduce.seconds
    return Estimate(part / one.layer.seconds, part / one.layer.high, part / one.layer.low), one.provenance


def _pp_share(pp: Deployment, tokens: int, parts: PartCosts) -> SourcedEstimate:
    one = estimate_pp_prefill(parts, pp, tokens)
    return one.exposed, one.provenance


def _busy_share(pp: Deployment, tokens: int, parts: PartCosts) -> SourcedEstimate:
    one = estimate_pp_prefill(parts, pp, tokens)
    return one.busy, one.provenance


def _tp_over_pp(tp: int, pp: Deployment, tokens: int, parts: PartCosts) -> SourcedEstimate:
    one, walk = estimate_tp_prefill(parts, tp, tokens), estimate_pp_prefill(parts, pp, tokens)
    a, b = one.whole.scaled(pp.micro_batches), walk.all
    return Estimate(a.seconds / b.value, a.low / b.high, a.high / b.low), Provenance.merge(
        [one.provenance, walk.provenance]
    )


def _rates_text(subject: PlannedGpu, pp: Deployment, tokens: int) -> str:
    """Return tokens/s, and the waiting times of the first and the last prompt."""
    tp, prompts = subject.query.gpus, pp.micro_batches

    def of_tp(parts: PartCosts) -> SourcedEstimate:
        one = estimate_tp_prefill(parts, tp, tokens)
        return Estimate(one.whole.seconds, one.whole.low, one.whole.high), one.provenance

    def of_pp(name: str, parts: PartCosts) -> SourcedEstimate:
        walk = estimate_pp_prefill(parts, pp, tokens)
        return getattr(walk, name), walk.provenance

    one = subject.estimate(of_tp)[0].value
    everything, first, sync = (subject.estimate(partial(of_pp, name))[0].value for name in ("all", "first", "sync"))
    rates = [formatting.three_digits(prompts * tokens / seconds) for seconds in (prompts * one, everything, sync)]
    waits = [formatting.with_unit(formatting.SECONDS, seconds) for seconds in (one, first, prompts * one, everything)]
    return join_clauses(
        f"{rates[0]} tokens a second by TP, {rates[1]} by async and {rates[2]} by sync PP",
        f"first token after {waits[0]} and {waits[1]}, the last prompt's after {waits[2]} and {waits[3]}",
    )

"""Answer of a plan in sentences: TP against PP, and better splits."""

from collections.abc import Iterator, Sequence

from reports import formatting
from reports.deployment_names import deployment_name
from reports.formatting import pluralize
from reports.plan.crossover import PlannedCrossover
from reports.plan.planner import Plan, PlanPoint
from reports.plan.query import PlanQuery
from reports.plan.step import ALL_REDUCE
from specs.measurement import Measurement

CUSTOM = "custom"
"""Implementation of an engine's own all-reduces."""


def answer_sentence(plan: Plan) -> str:
    """State where TP leads, where async PP leads for good, and what beats both."""
    found = "; ".join((_crossover_clause(plan), *_better_deployments(plan)))
    said = f"On {plan.query.gpus} x {plan.profile.name} ({query_description(plan.query)}): {found}."
    reduces = all_reduce_names(plan)
    return f"{said} All-reduces by {' and '.join(reduces)}." if reduces else said


def all_reduce_names(plan: Plan) -> list[str]:
    """Names of the all-reduces in the plan's middle figures: `custom kernels of vllm`, `nccl`; empty where none is."""
    found: dict[str, dict[str, None]] = {}
    for one in all_reduces_used(plan):
        engines = found.setdefault(one.case.implementation, {})
        if one.framework and one.case.implementation == CUSTOM:
            engines[one.framework] = None
    return [f"{name} kernels of {', '.join(sorted(engines))}" if engines else name for name, engines in found.items()]


def all_reduces_used(plan: Plan) -> list[Measurement]:
    """All-reduces behind the plan's middle figures, in the order of its points."""
    known = {one.case.name: one for one in plan.profile.measurements_by_op.get("all_reduce", ())}
    names = (name for one in plan.points if one.breakdown for name in one.breakdown.cases.get(ALL_REDUCE, ()))
    return [known[name] for name in dict.fromkeys(names) if name in known]


def short_answer(plan: Plan, name: str) -> str:
    """State the answer for a named system in few words, after `short_answers_intro`."""
    return f"On {plan.query.gpus} x {name}: {'; '.join((_short_crossover(plan), *_better_deployments(plan)))}."


def short_answers_intro(query: PlanQuery) -> str:
    """Introduction to the short answers of several systems."""
    return (
        f"Planned over {query.gpus} GPUs ({query_description(query)}), which is ahead at which batches, PP for good; "
        "between two "
        "figures the lead depends on whose kernels run, and may change at tile sizes:"
    )


def query_description(query: PlanQuery) -> str:
    """Description of the query, and that its steps are estimated, not run."""
    kind = "modelled for other links" if query.interconnect.is_hypothetical else "put together from parts, not run"
    model = f"{query.model} cut to {query.layers} layers" if query.layers else query.model
    return f"{model}, {query.dtype}, context {query.context}; {kind}"


def _short_crossover(plan: Plan) -> str:
    found, gpus = plan.crossover, plan.query.gpus
    tp, pp = f"TP {gpus}", f"async PP {gpus}"
    if found is None:
        return _why_no_crossover(plan)
    if found.verdict == "crossover":
        below = f"{tp} below a batch of {found.low}, " if _tp_leads_first(found) else ""
        return f"{below}{pp} from {found.high} on{_median_clause(found)}"
    if found.verdict == "ambiguous":
        return _ambiguous_clause(found, tp, pp, "")
    return f"{tp if found.verdict == 'tp' else pp} at every batch from {found.batch_range[0]} to {found.batch_range[1]}"


def _crossover_clause(plan: Plan) -> str:
    found, gpus = plan.crossover, plan.query.gpus
    if found is None:
        return _why_no_crossover(plan)
    tp, pp = f"TP {gpus}", f"async PP {gpus}"
    first, last = found.batch_range
    bound = f" ({found.bound_by})" if found.bound_by and found.verdict != "crossover" else ""
    if found.verdict == "tp":
        return f"{tp} is faster at every batch from {first} to {last}{bound}"
    if found.verdict == "pp":
        return f"{pp} gives more tokens a second at every batch from {first} to {last}"
    if found.verdict == "ambiguous":
        return _ambiguous_clause(found, tp, pp, bound)
    below = f"{tp} is faster below a batch of {found.low}" if _tp_leads_first(found) else ""
    more = f"{pp} gives more tokens a second for good from {found.high} on{_median_clause(found)}"
    return ", ".join(filter(None, (below, more, _uncertain_range_clause(found))))


def _why_no_crossover(plan: Plan) -> str:
    """Text on why there is no crossover, with the first reason of TP or PP."""
    gpus = plan.query.gpus
    if gpus == 1:
        return "one GPU leaves nothing to cut"
    alone = [one for one in plan.unplannable if gpus in (one.deployment.tp, one.deployment.pp)]
    why = f" ({alone[0].why.partition(';')[0]})" if alone else ""
    return f"TP {gpus} and PP {gpus} cannot both be planned{why}"


def _tp_leads_first(found: PlannedCrossover) -> bool:
    """Return whether TP surely leads at any batch searched."""
    return found.low is not None and found.low > found.batch_range[0]


def _median_clause(found: PlannedCrossover) -> str:
    return f" (about {found.batch} in the middle of the variants)" if found.low != found.high else ""


def _uncertain_range_clause(found: PlannedCrossover) -> str:
    """Clause on batches where PP may lead but does not surely; empty without any."""
    if found.low == found.high:
        return ""
    least = "" if _tp_leads_first(found) else ", the least looked at,"
    return (
        f"and between {found.low}{least} and {found.high} the lead depends on whose kernels run and may change at tile "
        "sizes"
    )


def _ambiguous_clause(found: PlannedCrossover, tp: str, pp: str, bound: str) -> str:
    """Clause where some variants cross and others do not."""
    never = sum(1 for one in found.leads_from.values() if one is None)
    lead = f"{tp} is faster below a batch of {found.low}" if _tp_leads_first(found) else ""
    rest = (
        f"{'beyond it ' if lead else ''}nothing is certain up to {found.batch_range[1]}{bound}: {pp} takes the lead "
        f"for good in {len(found.leads_from) - never} of {len(found.leads_from)} variants"
    )
    return ", ".join(filter(None, (lead, rest)))


def _better_deployments(plan: Plan) -> Iterator[str]:
    """Yield the deployment that beats TP and PP nearest the crossover, if any.

    Without a crossover, yield the best deployments.
    """
    if plan.crossover is None:
        yield from _best_deployments(plan)
        return
    for batch in batches_near_crossover(plan):
        if found := better_than_both(plan, batch):
            best, tp, pp = found
            rates = f"{rate_text(best)} tokens a second against {rate_text(tp)} and {rate_text(pp)}"
            surely = "" if is_surely_faster(best, (tp, pp)) else " (intervals overlap)"
            yield f"at a batch of {batch}, {_deployment_gives(best)} more than both: {rates}{surely}"
            return


def _best_deployments(plan: Plan) -> Iterator[str]:
    """Yield the best deployment at the median and at the largest requested batch."""
    batches = plan.batches
    for batch in dict.fromkeys((batches[(len(batches) - 1) // 2], batches[-1])):
        there = plan.at(batch)
        best = max(there, key=lambda one: one.tokens_per_second)
        near = sum(1 for one in there if one is not best and not is_surely_faster(best, [one]))
        tied = f" ({pluralize(near, 'other')} cannot be told from it)" if near else ""
        yield f"at a batch of {batch}, {_deployment_gives(best)} the most tokens a second: {rate_text(best)}{tied}"


def better_than_both(plan: Plan, batch: int) -> tuple[PlanPoint, PlanPoint, PlanPoint] | None:
    """Fastest point of a batch, and TP and async PP over all GPUs.

    None where TP or PP is the fastest, or was not planned.
    """
    there = plan.at(batch)
    best = max(there, key=lambda one: one.tokens_per_second)
    tp, pp = tp_and_pp_points(plan, there)
    return (best, tp, pp) if tp and pp and best.deployment not in (tp.deployment, pp.deployment) else None


def _deployment_gives(one: PlanPoint) -> str:
    return f"{deployment_name(one.deployment)} {'give' if one.deployment.replicas > 1 else 'gives'}"


def tp_and_pp_points(plan: Plan, points: Sequence[PlanPoint]) -> tuple[PlanPoint | None, PlanPoint | None]:
    """TP and the fastest async PP over all GPUs, among points of one batch."""
    gpus = plan.query.gpus
    tp = next((one for one in points if one.deployment.tp == gpus), None)
    stages = [one for one in points if one.deployment.pp == gpus and one.deployment.schedule == "async"]
    return tp, min(stages, key=lambda one: one.seconds, default=None)


def is_surely_faster(best: PlanPoint, others: Sequence[PlanPoint]) -> bool:
    """Return whether the bounds of `best` lie below those of all `others`."""
    return all(best.high < one.low for one in others)


def batches_near_crossover(plan: Plan) -> list[int]:
    """Requested batches, those nearest the crossover first.

    There TP and PP are alike, and a third deployment matters most.
    """
    batches = plan.batches
    at = plan.crossover.batch if plan.crossover and plan.crossover.batch else batches[-1]
    return sorted(batches, key=lambda batch: abs(batch - at))


def rate_text(one: PlanPoint) -> str:
    """Tokens a second of a point, to three digits."""
    return formatting.three_digits(one.tokens_per_second)

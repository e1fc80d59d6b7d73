"""What a plan says of TP against PP, in a sentence."""

from collections.abc import Iterator, Sequence

from reports import formatting
from reports.deployment_names import spoken
from reports.formatting import counted
from reports.plan.crossover import Crossover
from reports.plan.planner import Plan, Point
from reports.plan.query import Asked


def sentence(plan: Plan) -> str:
    """Below which batch TP is faster, from which on async PP gives more tokens a second for good, what beats both."""
    found = "; ".join((_crossing(plan), *_others(plan)))
    return f"On {plan.asked.gpus} x {plan.system.name} ({setting(plan.asked)}): {found}."


def brief(plan: Plan, name: str) -> str:
    """The same of a system by this name in few words, after `lead`."""
    return f"On {plan.asked.gpus} x {name}: {'; '.join((_shortly(plan), *_others(plan)))}."


def lead(asked: Asked) -> str:
    """What comes before the brief answers of several systems."""
    return (
        f"Planned over {asked.gpus} GPUs ({setting(asked)}), which is ahead at which batches, PP for good; between two "
        "figures the lead depends on whose kernels run, and may change at tile sizes:"
    )


def setting(asked: Asked) -> str:
    """What is asked, and that nothing of it was run."""
    kind = "modelled for other links" if asked.fabric.imagined else "put together from parts, not run"
    model = f"{asked.model} cut to {asked.layers} layers" if asked.layers else asked.model
    return f"{model}, {asked.dtype}, context {asked.context}; {kind}"


def _shortly(plan: Plan) -> str:
    found, gpus = plan.crossover, plan.asked.gpus
    tp, pp = f"TP {gpus}", f"async PP {gpus}"
    if found is None:
        return _neither(plan)
    if found.verdict == "crossover":
        below = f"{tp} below a batch of {found.low}, " if _is_tp_first(found) else ""
        return f"{below}{pp} from {found.high} on{_middle(found)}"
    if found.verdict == "ambiguous":
        return _undecided(found, tp, pp, "")
    return f"{tp if found.verdict == 'tp' else pp} at every batch from {found.looked_at[0]} to {found.looked_at[1]}"


def _crossing(plan: Plan) -> str:
    found, gpus = plan.crossover, plan.asked.gpus
    if found is None:
        return _neither(plan)
    tp, pp = f"TP {gpus}", f"async PP {gpus}"
    first, last = found.looked_at
    bound = f" ({found.bound_by})" if found.bound_by and found.verdict != "crossover" else ""
    if found.verdict == "tp":
        return f"{tp} is faster at every batch from {first} to {last}{bound}"
    if found.verdict == "pp":
        return f"{pp} gives more tokens a second at every batch from {first} to {last}"
    if found.verdict == "ambiguous":
        return _undecided(found, tp, pp, bound)
    below = f"{tp} is faster below a batch of {found.low}" if _is_tp_first(found) else ""
    more = f"{pp} gives more tokens a second for good from {found.high} on{_middle(found)}"
    return ", ".join(filter(None, (below, more, _between(found))))


def _neither(plan: Plan) -> str:
    """Where there is no crossover, and what the first of the two that cannot be planned has none of."""
    gpus = plan.asked.gpus
    if gpus == 1:
        return "one GPU leaves nothing to cut"
    alone = [one for one in plan.left_out if gpus in (one.deployment.tp, one.deployment.pp)]
    why = f" ({alone[0].why.partition(';')[0]})" if alone else ""
    return f"TP {gpus} and PP {gpus} cannot both be planned{why}"


def _is_tp_first(found: Crossover) -> bool:
    """Whether TP surely leads at any batch that was looked at."""
    return found.low is not None and found.low > found.looked_at[0]


def _middle(found: Crossover) -> str:
    return f" (about {found.batch} in the middle of the variants)" if found.low != found.high else ""


def _between(found: Crossover) -> str:
    """What holds where PP may lead and does not yet surely."""
    if found.low == found.high:
        return ""
    least = "" if _is_tp_first(found) else ", the least looked at,"
    return (
        f"and between {found.low}{least} and {found.high} the lead depends on whose kernels run and may change at tile "
        "sizes"
    )


def _undecided(found: Crossover, tp: str, pp: str, bound: str) -> str:
    """Where some variants cross and others do not."""
    never = sum(1 for one in found.by.values() if one is None)
    lead = f"{tp} is faster below a batch of {found.low}" if _is_tp_first(found) else ""
    rest = (
        f"{'beyond it ' if lead else ''}nothing is certain up to {found.looked_at[1]}{bound}: {pp} takes the lead "
        f"for good in {len(found.by) - never} of {len(found.by)} variants"
    )
    return ", ".join(filter(None, (lead, rest)))


def _others(plan: Plan) -> Iterator[str]:
    """What beats both at the batch nearest to the crossover where anything does; without a crossover what is best."""
    if plan.crossover is None:
        yield from _best(plan)
        return
    for batch in telling(plan):
        if found := third(plan, batch):
            best, tp, pp = found
            rates = f"{_rate(best)} tokens a second against {_rate(tp)} and {_rate(pp)}"
            surely = "" if surely_ahead(best, (tp, pp)) else " (intervals overlap)"
            yield f"at a batch of {batch}, {_gives(best)} more than both: {rates}{surely}"
            return


def _best(plan: Plan) -> Iterator[str]:
    """At the middle one and the largest of the batches asked for."""
    batches = plan.batches
    for batch in dict.fromkeys((batches[(len(batches) - 1) // 2], batches[-1])):
        there = plan.at(batch)
        best = max(there, key=lambda one: one.tokens_per_second)
        near = sum(1 for one in there if one is not best and not surely_ahead(best, [one]))
        tied = f" ({counted(near, 'other')} cannot be told from it)" if near else ""
        yield f"at a batch of {batch}, {_gives(best)} the most tokens a second: {_rate(best)}{tied}"


def third(plan: Plan, batch: int) -> tuple[Point, Point, Point] | None:
    """The fastest of a batch, TP and async PP over all GPUs; None where the fastest is one of these two."""
    there = plan.at(batch)
    best = max(there, key=lambda one: one.tokens_per_second)
    tp, pp = both(plan, there)
    return (best, tp, pp) if tp and pp and best.deployment not in (tp.deployment, pp.deployment) else None


def _gives(one: Point) -> str:
    return f"{spoken(one.deployment)} {'give' if one.deployment.replicas > 1 else 'gives'}"


def both(plan: Plan, points: Sequence[Point]) -> tuple[Point | None, Point | None]:
    """TP over all GPUs and the fastest async PP over all of them, among points of one batch."""
    gpus = plan.asked.gpus
    tp = next((one for one in points if one.deployment.tp == gpus), None)
    stages = [one for one in points if one.deployment.pp == gpus and one.deployment.schedule == "async"]
    return tp, min(stages, key=lambda one: one.seconds, default=None)


def surely_ahead(best: Point, others: Sequence[Point]) -> bool:
    """Whether its bounds lie below all of theirs."""
    return all(best.high < one.low for one in others)


def telling(plan: Plan) -> list[int]:
    """The batches asked for, those near the crossover first: there the two are alike and a third matters most."""
    batches = plan.batches
    at = plan.crossover.batch if plan.crossover and plan.crossover.batch else batches[-1]
    return sorted(batches, key=lambda batch: abs(batch - at))


def _rate(one: Point) -> str:
    return formatting.digits(one.tokens_per_second)

"""The project's question, answered for the machine that was measured and for each GPU that a plan can be made for."""

from collections.abc import Iterator, Sequence

from reports.answer import Answer
from reports.experiment import answer as experiments
from reports.experiment.chapter import Chapter as Experiments
from reports.plan.answer import surely_ahead, telling, third
from reports.plan.chapter import Chapter as Plans
from reports.plan.chapter import Planned
from reports.plan.plan import Plan

QUESTION = "Tensor parallel or pipeline parallel?"
NOTHING = (
    "Not measured: no file here has steps of a whole model, or the parts of one on a known GPU.",
    "Run `pytest suites/bench_tp_vs_pp.py`, or `python -m reports import aiconfigurator`.",
)


def answer(ran: Experiments, plans: Plans) -> Answer:
    """In one line who leads where, then a sentence for each experiment and for each plan."""
    said = [*_measured(ran), *_planned(plans.planned)]
    details = [*ran.sentences(), *plans.sentences()]
    if said:
        text = "; ".join(said)
        return Answer(f"{text[0].upper()}{text[1:]}.", details)
    return Answer(details[0], details[1:]) if details else Answer(NOTHING[0], NOTHING[1:])


def _measured(ran: Experiments) -> Iterator[str]:
    """Of each machine's first experiment who wins at which loads."""
    for one in ran.ran:
        if won := experiments.winners(one.experiments[0]):
            yield f"measured on {one.name}, {'; '.join(won)}"


def _planned(planned: Sequence[Planned]) -> Iterator[str]:
    """Of all plans together: from where to where PP overtakes, and where it does not."""
    by: dict[str, list[Planned]] = {}
    for one in planned:
        if one.plan.crossover:
            by.setdefault(one.plan.crossover.verdict, []).append(one)
    if not by:
        return
    gpus = planned[0].plan.asked.gpus
    words = {
        "crossover": f"TP {gpus} is faster at small batches and async PP {gpus} at large ones, for good from",
        "tp": f"TP {gpus} is faster at every batch on",
        "pp": f"async PP {gpus} gives more tokens a second at every batch on",
        "ambiguous": "it is open on",
    }
    found = [
        f"{text} {_spread(by[verdict]) if verdict == 'crossover' else _names(by[verdict])}"
        for verdict, text in words.items()
        if verdict in by
    ]
    yield f"planned over {gpus} GPUs, {'; '.join(found)}"


def _spread(planned: Sequence[Planned]) -> str:
    """`about 88 (l40s) to 1496 (h100_sxm) in the middle of …; replicas of … beat both on 6 of 6 …`."""
    middles = sorted((one.plan.crossover.batch or 0, one.name) for one in planned if one.plan.crossover)
    ends = dict.fromkeys((middles[0], middles[-1]))
    from_to = f"about {' to '.join(f'{batch} ({name})' for batch, name in ends)} in the middle of what is in doubt"
    return f"{from_to}{_thirds([one.plan for one in planned])}"


def _thirds(plans: Sequence[Plan]) -> str:
    """On how many another split is surely ahead of both at the asked batch that is nearest to the crossover."""
    there = [found for one in plans if (found := third(one, telling(one)[0]))]
    ahead = [best.deployment for best, *others in there if surely_ahead(best, others)]
    if not ahead:
        return ""
    what = "replicas of a smaller split beat" if all(one.replicas > 1 for one in ahead) else "other splits beat"
    return f"; {what} both on {len(ahead)} of {len(plans)} at the asked batch nearest to that"


def _names(planned: Sequence[Planned]) -> str:
    return ", ".join(one.name for one in planned)

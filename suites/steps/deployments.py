"""Which ways to run a model are compared: what the options ask for, or else all that tell TP from PP on these ranks."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from specs.parallel import SCHEDULES, Deployment
from suites.options import Options


def asked(options: Options) -> bool:
    """Whether the options say which; a batch that these cannot take is then no reason to leave them out."""
    named = (options.tp, options.pp, options.replicas, options.schedule, options.micro_batches)
    return any(one is not None for one in named)


def deployments(options: Options, ranks: int, kind: str) -> list[Deployment]:
    """The deployments to compare, each once.

    Args:
        options: what was asked for.
        ranks: of the run.
        kind: cpu or cuda.
    """
    found = _asked(options, ranks) if asked(options) else default_deployments(ranks, kind)
    cuts = options.partition or ("even",)
    dealt = [replace(one, partition=cut) if one.pp > 1 else one for one in found for cut in cuts]
    return list(dict.fromkeys(dealt))


def default_deployments(ranks: int, kind: str) -> list[Deployment]:
    """All ranks under TP and as stages, both together, and replicas of each; of one rank it alone."""
    factor = next((one for one in range(2, ranks + 1) if ranks % one == 0), 1)
    rest = ranks // factor
    found = [Deployment(tp=ranks), *_stages(ranks)]
    if kind == "cuda":
        found += [one for one in _stages(ranks, micro_batches=2 * ranks) if one.schedule == "async"]
    if rest > 1:
        found += _stages(factor, tp=rest)
        found += [one for one in _stages(rest, tp=factor) if one.schedule == "async"]
        found += [Deployment(tp=rest, replicas=factor)]
        found += [one for one in _stages(rest, replicas=factor) if one.schedule == "async"]
    found += [Deployment(replicas=ranks)]
    return list(dict.fromkeys(found))


def _stages(pp: int, tp: int = 1, replicas: int = 1, micro_batches: int | None = None) -> list[Deployment]:
    """With the whole batch in one stage at a time, and with micro-batches under way, one a stage unless told."""
    if pp == 1:
        return []
    return [
        Deployment(tp, pp, replicas, "sync"),
        Deployment(tp, pp, replicas, "async", micro_batches or pp),
    ]


def _asked(options: Options, ranks: int) -> Iterator[Deployment]:
    """The product of what was asked for; what makes no sense together is left to say why not."""
    for tp, pp, replicas in _layouts(options, ranks):
        fitting = SCHEDULES[1:] if pp > 1 else SCHEDULES[:1]
        chosen = [one for one in options.schedule or fitting if one in fitting]
        if not chosen and (options.tp or options.pp):
            chosen = list(options.schedule or fitting)
        for schedule in chosen:
            several = options.micro_batches or (pp,)
            for micro_batches in several if schedule == "async" else _of_one_batch(options):
                yield Deployment(tp, pp, replicas, schedule, micro_batches)


def _layouts(options: Options, ranks: int) -> list[tuple[int, int, int]]:
    """tp, pp and replicas; where neither tp nor pp was asked for, all ranks of a replica under TP, and as stages."""
    found = []
    if options.tp or options.pp:
        for tp, pp in product(options.tp or (1,), options.pp or (1,)):
            left, over = divmod(ranks, tp * pp)
            found += [(tp, pp, replicas) for replicas in options.replicas or (1 if over else left,)]
        return found
    for replicas in options.replicas or (1,):
        each, over = divmod(ranks, replicas)
        found += [(1, 1, replicas)] if over else [(each, 1, replicas), (1, each, replicas)]
    return list(dict.fromkeys(found))


def _of_one_batch(options: Options) -> tuple[int, ...]:
    """One micro-batch, unless several were asked for under schedules that have none."""
    several = options.micro_batches and options.schedule and "async" not in options.schedule
    return options.micro_batches if options.micro_batches and several else (1,)

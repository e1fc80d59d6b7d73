"""From which batch on async PP gives more tokens a second than TP, as a range over everything that is in doubt.

Whoever's parts, elementwise kernels counted or not, and layers dealt evenly or balanced: each is a variant, and TP and
PP are compared within it. Where steps jump at tile sizes TP may come to the front again; the range spans that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from statistics import median
from typing import Literal

from reports.plan import step
from reports.plan.estimate import Bounds, MissingError, filled
from reports.plan.profile import System
from reports.plan.query import MICRO_BATCHES, Asked
from reports.plan.step import SAMPLED_LOGIT_BYTES, Parts, Variant, chunk_of, compose
from specs.errors import UserError
from specs.parallel import PARTITIONS, Deployment, Split

MOST = 8192
"""Sequences beyond which nobody looks."""
Verdict = Literal["crossover", "tp", "pp", "ambiguous"]


@dataclass(frozen=True)
class Crossover:
    """Where PP overtakes.

    Attributes:
        batch: from which on it leads, the middle over variants; None where it does not in all of them.
        low: from which on it may lead in some variant; None where it may in none.
        high: from which on it surely leads in every variant; None where it does not in all.
        verdict: crossover, where PP overtakes in every variant; tp or pp, where one leads at every batch in all of
            them; else ambiguous.
        looked_at: the smallest and the largest batch.
        bound_by: what ends the batches: memory, or what was measured, in words; empty where nothing does.
        by: of each variant the batch from which on PP leads; None where it does not.
    """

    batch: int | None
    low: int | None
    high: int | None
    verdict: Verdict
    looked_at: tuple[int, int]
    bound_by: str
    by: dict[tuple[Variant, str], int | None]


def find(parts: Sequence[Parts], system: System, asked: Asked) -> Crossover | None:
    """The crossover over all GPUs; None where TP or PP cannot be planned there."""
    if asked.gpus < 2:
        return None
    try:
        batches, bound = _batches(system, asked)
        found = {
            (one.variant, way): leads
            for one in parts
            for way, leads in _by_partition(one, system, batches).items()
            if leads
        }
    except UserError:
        return None
    if not found:
        return None
    return _over(found, batches, bound)


@dataclass(frozen=True)
class _Leads:
    """Of one variant: from which batch on PP leads, may lead, surely leads; and the last one that has its parts."""

    by: int | None
    maybe: int | None
    surely: int | None
    last: int


def _batches(system: System, asked: Asked) -> tuple[list[int], str]:
    """Multiples of the GPUs, so that micro-batches are equal, as far as memory holds them under both."""
    most, bound = MOST, ""
    for one in (_tp(asked), *(_pp(asked, way, 1) for way in PARTITIONS)):
        one.split(asked.cut)
        fit = step.most_sequences(one, asked, system)
        if fit < most:
            most, bound = fit, f"memory holds {fit} sequences of context {asked.context} under {one}"
    return list(range(asked.gpus, most + 1, asked.gpus)), bound


def _tp(asked: Asked) -> Deployment:
    return Deployment(tp=asked.gpus)


def _pp(asked: Asked, partition: str, factor: int) -> Deployment:
    return Deployment(1, asked.gpus, 1, "async", factor * asked.gpus, partition)


def _by_partition(parts: Parts, system: System, batches: Sequence[int]) -> dict[str, _Leads | None]:
    """Of each partition. The batches end where a part was not measured with as many tokens."""
    tp = _steps(parts, system, [_tp(parts.asked)], batches)
    if not tp:
        return {}
    found = {}
    for way in PARTITIONS:
        pp = _steps(parts, system, [_pp(parts.asked, way, factor) for factor in MICRO_BATCHES], batches)
        ratios = [(a.low / b.high, a.seconds / b.seconds, a.high / b.low) for a, b in zip(tp, pp, strict=False)]
        found[way] = _leads(batches, ratios) if ratios else None
    return found


def _leads(batches: Sequence[int], ratios: Sequence[tuple[float, float, float]]) -> _Leads:
    """Of t(TP) / t(PP) at each batch: the least that it may be, its figure, the most."""
    by = maybe = surely = None
    for batch, (least, middle, most) in zip(batches, ratios, strict=False):
        maybe = batch if maybe is None and most >= 1 else maybe
        by = None if middle <= 1 else by or batch
        surely = None if least <= 1 else surely or batch
    return _Leads(by, maybe, surely, batches[len(ratios) - 1])


def _steps(parts: Parts, system: System, ways: Sequence[Deployment], batches: Sequence[int]) -> list[Bounds]:
    """At each batch the fastest way, of those whose micro-batches are equal there."""
    split = ways[0].split(parts.asked.cut)
    found: dict[int, list[Bounds]] = {}
    for way in ways:
        grid = [batch for batch in batches if batch % way.micro_batches == 0]
        for batch, one in zip(grid, _along(parts, system, way, split, grid), strict=False):
            found.setdefault(batch, []).append(one)
    there = list(takewhile(found.__contains__, batches))
    return [Bounds(*map(min, zip(*found[batch], strict=True))) for batch in there]


def _along(parts: Parts, system: System, way: Deployment, split: Split, grid: Sequence[int]) -> list[Bounds]:
    """One way at each batch; without all-reduces once for all backends.

    What was published is one figure a size; intervals from passes bend where they like.
    """
    usual = replace(parts.asked, backend="best", launches=()) if way.tp == 1 else parts.asked
    key = parts.variant, usual, way, tuple(grid)
    if key not in system.walks:
        system.walks[key] = list(_walk(parts, system, way, split, grid))
    return system.walks[key]


def _walk(parts: Parts, system: System, way: Deployment, split: Split, grid: Sequence[int]) -> list[Bounds]:
    def at(batch: int) -> Bounds:
        step = compose(parts, way, split, batch)
        return Bounds(step.seconds, step.low, step.high)

    try:
        for batch in grid[:1]:  # so that its curves are there to be asked for their bends
            at(batch)
    except MissingError:
        return []
    return filled(at, grid, _bends(parts, system, way) if system.published else grid)


def _bends(parts: Parts, system: System, way: Deployment) -> set[float]:
    """Batches at which any curve that was looked up may bend, whether its sizes are tokens or bytes of a message."""
    asked, sizes = parts.asked, system.sizes
    row, chunk = asked.cut.hidden * parts.itemsize, chunk_of(asked.prefill_chunk, way).tokens
    rows = sizes | {size / row for size in sizes} | {size / (SAMPLED_LOGIT_BYTES * way.tp) for size in sizes}
    return {way.micro_batches * at for one in rows for at in (one, (one - chunk) / asked.rows_a_sequence)}


def _over(found: dict[tuple[Variant, str], _Leads], batches: Sequence[int], bound: str) -> Crossover:
    """All variants together."""
    by = {which: one.by for which, one in found.items()}
    known = [one for one in by.values() if one is not None]
    low = min((one.maybe for one in found.values() if one.maybe is not None), default=None)
    surely = [one.surely for one in found.values()]
    high = None if None in surely else max(one for one in surely if one is not None)
    verdict: Verdict = "ambiguous"
    if low is None:
        verdict = "tp"
    elif high is not None:
        verdict = "pp" if high == batches[0] else "crossover"
    batch = int(median(known)) if len(known) == len(by) else None
    last = min(one.last for one in found.values())
    if last < batches[-1]:
        bound = f"parts were measured for {last} sequences, not for {last + batches[0]}"
    return Crossover(batch, low, high, verdict, (batches[0], last), bound, by)

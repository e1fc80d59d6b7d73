"""Range of batches from which async PP gives more tokens/s than TP.

A variant is an implementation with elementwise kernels counted or not, and layers partitioned evenly or balanced. TP
and PP are compared within a variant. Where steps jump at tile sizes TP may lead again; the range spans such batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from statistics import median
from typing import Literal

from reports.plan import step
from reports.plan.estimate import MissingMeasurementError, StepBounds, evaluate_grid
from reports.plan.profile import HardwareProfile
from reports.plan.query import MICRO_BATCH_FACTORS, PlanQuery
from reports.plan.step import SAMPLED_LOGIT_BYTES, PartCosts, Variant, chunk_per_micro_batch, estimate_step
from specs.errors import UserError
from specs.parallel import PARTITIONS, Deployment, Split

MAX_BATCH = 8192
"""Search limit in sequences."""
CrossoverVerdict = Literal["crossover", "tp", "pp", "ambiguous"]


@dataclass(frozen=True)
class PlannedCrossover:
    """Batches from which PP leads.

    Attributes:
        batch: batch from which PP leads, the median over variants; None where PP does not lead in all variants.
        low: batch from which PP may lead in some variant; None where it may in none.
        high: batch from which PP surely leads in every variant; None where it does not in all.
        verdict: crossover: PP overtakes in every variant. tp or pp: that side leads at every batch in every variant.
            ambiguous: otherwise.
        batch_range: smallest and largest batch searched.
        bound_by: limit of the batches in words, memory or measurements; empty where the search limit applies.
        leads_from: batch from which PP leads in each variant; None where it does not lead.
    """

    batch: int | None
    low: int | None
    high: int | None
    verdict: CrossoverVerdict
    batch_range: tuple[int, int]
    bound_by: str
    leads_from: dict[tuple[Variant, str], int | None]


def find_crossover(parts: Sequence[PartCosts], profile: HardwareProfile, query: PlanQuery) -> PlannedCrossover | None:
    """Find the crossover over all GPUs; None where TP or PP cannot be planned."""
    if query.gpus < 2:
        return None
    try:
        batches, bound = _searched_batches(profile, query)
        found = {
            (one.variant, way): leads
            for one in parts
            for way, leads in _leads_by_partition(one, profile, batches).items()
            if leads
        }
    except UserError:
        return None
    if not found:
        return None
    return _combine_variants(found, batches, bound)


@dataclass(frozen=True)
class _LeadBatches:
    """Batches of a variant from which PP leads, may lead, and surely leads.

    `last`: last batch for which all parts were measured.
    """

    leads_from: int | None
    earliest: int | None
    certain: int | None
    last: int


def _searched_batches(profile: HardwareProfile, query: PlanQuery) -> tuple[list[int], str]:
    """Batches to search, and their limit in words.

    The batches are multiples of the GPUs, so that microbatches are equal. Memory has to hold them under both TP and PP.
    """
    most, bound = MAX_BATCH, ""
    for one in (_tp_deployment(query), *(_pp_deployment(query, way, 1) for way in PARTITIONS)):
        one.split(query.truncated_model)
        fit = step.max_sequences(one, query, profile)
        if fit < most:
            most, bound = fit, f"memory holds {fit} sequences of context {query.context} under {one}"
    return list(range(query.gpus, most + 1, query.gpus)), bound


def _tp_deployment(query: PlanQuery) -> Deployment:
    return Deployment(tp=query.gpus)


def _pp_deployment(query: PlanQuery, partition: str, factor: int) -> Deployment:
    return Deployment(1, query.gpus, 1, "async", factor * query.gpus, partition)


def _leads_by_partition(
    parts: PartCosts, profile: HardwareProfile, batches: Sequence[int]
) -> dict[str, _LeadBatches | None]:
    """Lead batches of a variant by partition.

    The batches end where a part was not measured with as many tokens.
    """
    tp = _fastest_steps(parts, profile, [_tp_deployment(parts.query)], batches)
    if not tp:
        return {}
    found = {}
    for partition in PARTITIONS:
        pp = _fastest_steps(
            parts, profile, [_pp_deployment(parts.query, partition, factor) for factor in MICRO_BATCH_FACTORS], batches
        )
        ratios = [(a.low / b.high, a.seconds / b.seconds, a.high / b.low) for a, b in zip(tp, pp, strict=False)]
        found[partition] = _lead_batches(batches, ratios) if ratios else None
    return found


def _lead_batches(batches: Sequence[int], ratios: Sequence[tuple[float, float, float]]) -> _LeadBatches:
    """Lead batches from t(TP) / t(PP) at each batch.

    A ratio has a lower bound, an estimate and an upper bound.
    """
    by = maybe = surely = None
    for batch, (least, middle, most) in zip(batches, ratios, strict=False):
        maybe = batch if maybe is None and most >= 1 else maybe
        by = None if middle <= 1 else by or batch
        surely = None if least <= 1 else surely or batch
    return _LeadBatches(by, maybe, surely, batches[len(ratios) - 1])


def _fastest_steps(
    parts: PartCosts, profile: HardwareProfile, deployments: Sequence[Deployment], batches: Sequence[int]
) -> list[StepBounds]:
    """Fastest step at each batch, among deployments with equal microbatches there."""
    split = deployments[0].split(parts.query.truncated_model)
    found: dict[int, list[StepBounds]] = {}
    for deployment in deployments:
        grid = [batch for batch in batches if batch % deployment.micro_batches == 0]
        for batch, one in zip(grid, _cached_steps(parts, profile, deployment, split, grid), strict=False):
            found.setdefault(batch, []).append(one)
    there = list(takewhile(found.__contains__, batches))
    return [StepBounds(*map(min, zip(*found[batch], strict=True))) for batch in there]


def _cached_steps(
    parts: PartCosts, profile: HardwareProfile, deployment: Deployment, split: Split, grid: Sequence[int]
) -> list[StepBounds]:
    """Steps of one deployment at each batch.

    Without all-reduces (tp 1) all backends share them. Published curves have one figure per size and bend only there.
    Intervals from passes may bend anywhere.
    """
    usual = replace(parts.query, backend="best", launches=()) if deployment.tp == 1 else parts.query
    key = parts.variant, usual, deployment, tuple(grid)
    if key not in profile.cached_steps:
        profile.cached_steps[key] = list(_interpolated_steps(parts, profile, deployment, split, grid))
    return profile.cached_steps[key]


def _interpolated_steps(
    parts: PartCosts, profile: HardwareProfile, deployment: Deployment, split: Split, grid: Sequence[int]
) -> list[StepBounds]:
    def at(batch: int) -> StepBounds:
        step = estimate_step(parts, deployment, split, batch)
        return StepBounds(step.seconds, step.low, step.high)

    try:
        for batch in grid[:1]:  # builds the curves whose bends are needed below
            at(batch)
    except MissingMeasurementError:
        return []
    return evaluate_grid(at, grid, _breakpoints(parts, profile, deployment) if profile.published else grid)


def _breakpoints(parts: PartCosts, profile: HardwareProfile, deployment: Deployment) -> set[float]:
    """Batches at which any used curve may bend, over tokens or over message bytes."""
    query, sizes = parts.query, profile.sizes
    row, chunk = (
        query.truncated_model.hidden * parts.residual_itemsize,
        chunk_per_micro_batch(query.prefill_chunk, deployment).tokens,
    )
    rows = sizes | {size / row for size in sizes} | {size / (SAMPLED_LOGIT_BYTES * deployment.tp) for size in sizes}
    return {deployment.micro_batches * at for one in rows for at in (one, (one - chunk) / query.rows_per_sequence)}


def _combine_variants(
    found: dict[tuple[Variant, str], _LeadBatches], batches: Sequence[int], bound: str
) -> PlannedCrossover:
    """Combine the lead batches of all variants into one crossover."""
    by = {which: one.leads_from for which, one in found.items()}
    known = [one for one in by.values() if one is not None]
    low = min((one.earliest for one in found.values() if one.earliest is not None), default=None)
    surely = [one.certain for one in found.values()]
    high = None if None in surely else max(one for one in surely if one is not None)
    verdict: CrossoverVerdict = "ambiguous"
    if low is None:
        verdict = "tp"
    elif high is not None:
        verdict = "pp" if high == batches[0] else "crossover"
    batch = int(median(known)) if len(known) == len(by) else None
    last = min(one.last for one in found.values())
    if last < batches[-1]:
        bound = f"parts were measured for {last} sequences, not for {last + batches[0]}"
    return PlannedCrossover(batch, low, high, verdict, (batches[0], last), bound, by)

"""Range of batches from which async PP gives more tokens/s than TP.

A variant is an implementation with elementwise kernels counted or not, and layers partitioned evenly or balanced. TP
and PP are compared within a variant. Where steps jump at tile sizes TP may lead again; the range spans such batches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reports.plan import capacity
from reports.plan.estimate import Floats, MissingMeasurementError
from reports.plan.profile import HardwareProfile
from reports.plan.query import MICRO_BATCH_FACTORS, PlanQuery
from reports.plan.step import Batches, PartCosts, Variant, estimate_steps
from specs.errors import UserError
from specs.parallel import PARTITIONS, Deployment

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
            (one.variant, partition): leads for one in parts for partition, leads in _leads_by_partition(one, batches)
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


def _searched_batches(profile: HardwareProfile, query: PlanQuery) -> tuple[Batches, str]:
    """Batches to search, and their limit in words.

    The batches are multiples of the GPUs, so that microbatches are equal. Memory has to hold them under both TP and PP.
    """
    most, bound = MAX_BATCH, ""
    for one in (_tp_deployment(query), *(_pp_deployment(query, way, 1) for way in PARTITIONS)):
        one.split(query.truncated_model)
        fit = capacity.max_sequences(one, query, profile)
        if fit < most:
            most, bound = fit, f"memory holds {fit} sequences of context {query.context} under {one}"
    return np.arange(query.gpus, most + 1, query.gpus), bound


def _tp_deployment(query: PlanQuery) -> Deployment:
    return Deployment(tp=query.gpus)


def _pp_deployment(query: PlanQuery, partition: str, factor: int) -> Deployment:
    return Deployment(1, query.gpus, 1, "async", factor * query.gpus, partition)


def _leads_by_partition(parts: PartCosts, batches: Batches) -> Iterator[tuple[str, _LeadBatches]]:
    """Yield each partition with the lead batches of a variant.

    The batches end where a part was not measured with as many tokens.
    """
    tp = _fastest_steps(parts, [_tp_deployment(parts.query)], batches)
    for partition in PARTITIONS:
        deployments = [_pp_deployment(parts.query, partition, factor) for factor in MICRO_BATCH_FACTORS]
        seconds, low, high = tp / _fastest_steps(parts, deployments, batches)[[0, 2, 1]]
        missing = np.flatnonzero(np.isnan(seconds))
        count = missing[0] if missing.size else batches.size
        if count:
            yield partition, _lead_batches(batches[:count], low[:count], seconds[:count], high[:count])


def _lead_batches(batches: Batches, low: Floats, seconds: Floats, high: Floats) -> _LeadBatches:
    """Lead batches from t(TP) / t(PP) at each batch: lower bound, estimate and upper bound."""
    return _LeadBatches(
        leads_from=_first_for_good(batches, seconds > 1),
        earliest=next((int(batch) for batch in batches[high >= 1]), None),
        certain=_first_for_good(batches, low > 1),
        last=int(batches[-1]),
    )


def _first_for_good(batches: Batches, leads: NDArray[np.bool_]) -> int | None:
    """Batch from which on all batches lead; None where the last one does not."""
    behind = np.flatnonzero(~leads)
    rest = batches[behind[-1] + 1 :] if behind.size else batches
    return int(rest[0]) if rest.size else None


def _fastest_steps(parts: PartCosts, deployments: Sequence[Deployment], batches: Batches) -> Floats:
    """Seconds, lower and upper bounds of the fastest step at each batch.

    Only deployments with equal microbatches at a batch count. Without any the figures are NaN.
    """
    split = deployments[0].split(parts.query.truncated_model)
    found = np.full((3, batches.size), np.nan)
    for deployment in deployments:
        equal = batches % deployment.micro_batches == 0
        if not np.any(equal):
            continue
        try:
            steps = estimate_steps(parts, deployment, split, batches[equal])
        except MissingMeasurementError:
            continue
        found[:, equal] = np.fmin(found[:, equal], (steps.seconds, steps.low, steps.high))
    return found


def _combine_variants(found: dict[tuple[Variant, str], _LeadBatches], batches: Batches, bound: str) -> PlannedCrossover:
    """Combine the lead batches of all variants into one crossover."""
    by = {which: one.leads_from for which, one in found.items()}
    known = [one for one in by.values() if one is not None]
    low = min((one.earliest for one in found.values() if one.earliest is not None), default=None)
    surely = [one.certain for one in found.values()]
    high = None if None in surely else max(one for one in surely if one is not None)
    first, most = int(batches[0]), int(batches[-1])
    verdict: CrossoverVerdict = "ambiguous"
    if low is None:
        verdict = "tp"
    elif high is not None:
        verdict = "pp" if high == first else "crossover"
    batch = int(median(known)) if len(known) == len(by) else None
    last = min(one.last for one in found.values())
    if last < most:
        bound = f"parts were measured for {last} sequences, not for {last + first}"
    return PlannedCrossover(batch, low, high, verdict, (first, last), bound, by)

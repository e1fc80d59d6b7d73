"""Decode step in a serving engine: kernels, all-reduces, waits for late ranks, and the host's time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reports.plan.estimate import sum_costs
from reports.plan.serving_constants import (
    FittedConstants,
    ServingConstants,
    constants_by_group,
)
from reports.plan.step import ALL_REDUCE, PartCosts, StepEstimate, chunk_per_micro_batch, estimate_step
from specs.parallel import Deployment, Split

PARTS = "parts timed on this GPU, see cases"


class StepTerm(NamedTuple):
    """Term of a step in seconds, its range, and its source."""

    name: str
    seconds: float
    low: float
    high: float
    source: str


@dataclass(frozen=True)
class EngineStep:
    """Step in a serving engine.

    Attributes:
        seconds: estimated time.
        low, high: bounds, by the errors of served runs that the engine's constants were not fitted on.
        terms: terms that add up to `seconds`.
        fitted: constants of the engine, with their origin.
    """

    seconds: float
    low: float
    high: float
    terms: Sequence[StepTerm]
    fitted: FittedConstants


def estimate_engine_step(
    parts: PartCosts, without: StepEstimate, deployment: Deployment, split: Split, batch: int
) -> EngineStep:
    """Estimate a step of an engine at this batch.

    The constants come from runs without PP. Under PP the host counts once a microbatch, on the first stage.

    Args:
        parts: part costs in an engine, see `PartCosts.in_engine`.
        without: the same step without waits for late ranks and without the host.
        deployment: how the model is cut and scheduled.
        split: the model's split.
        batch: sequences in total.

    Raises:
        MissingMeasurementError: a part was not measured.
    """
    step = estimate_step(parts, deployment, split, batch)
    chunk = chunk_per_micro_batch(parts.query.prefill_chunk, deployment)
    layers = split.model.layers / deployment.pp
    by_size = [parts.layer_parts(deployment.tp, size, chunk, deployment.busy_ranks) for size in step.sizes]
    reducing = sum_costs(one[ALL_REDUCE].scaled(layers) for one in by_size if ALL_REDUCE in one)

    def wait(constants: ServingConstants) -> float:
        return len(step.sizes) * layers * constants.late_seconds(deployment.tp)

    def host(constants: ServingConstants) -> float:
        return sum(map(constants.host_seconds, step.sizes))

    fitted = parts.fitted
    if fitted is None:
        raise ValueError(f"{parts.variant}: not the parts of an engine")
    engine, source = parts.variant.implementation, f"fitted on {fitted.source}"
    added = [
        StepTerm("late ranks", wait(fitted.constants), *_engine_range(engine, wait), source),
        StepTerm("host", host(fitted.constants), *_engine_range(engine, host), source),
    ]
    kernels = step.seconds - reducing.seconds - sum(one.seconds for one in added)
    bare = without.seconds - reducing.seconds
    low, high = (max(0.0, kernels + end - bare) for end in (without.low - reducing.low, without.high - reducing.high))
    terms = [
        StepTerm("kernels", kernels, low, high, PARTS),
        StepTerm("all-reduces", reducing.seconds, *reducing.bounds, PARTS),
        *added,
    ]
    low, high = (step.seconds * (1 + sign * fitted.tpot_range) for sign in (-1, 1))
    return EngineStep(step.seconds, low, high, terms, fitted)


def _engine_range(engine: str, seconds: Callable[[ServingConstants], float]) -> tuple[float, float]:
    """Least and most that a term takes with the constants of any of the engine's groups."""
    found = [seconds(one) for (name, *_), one in constants_by_group().items() if name == engine]
    return min(found), max(found)

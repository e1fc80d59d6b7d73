"""Decode step in a serving engine: kernels, all-reduces, waits for late ranks, and the host's time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from reports.plan.estimate import COST_FIELDS, CostField, element
from reports.plan.serving_constants import FittedConstants, ServingConstants, constants_by_group
from reports.plan.step import (
    LATE_RANKS,
    CostByPart,
    MicroBatches,
    PartCosts,
    StepEstimate,
    StepEstimates,
    all_reduce_seconds,
    estimate_steps,
)
from specs.parallel import Deployment, Split

PARTS = "parts of the plan, see cases"


class StepTerm(NamedTuple):
    """Term of a step in seconds, its range, and its source."""

    name: str
    seconds: float
    low: float
    high: float
    source: str


@dataclass(frozen=True)
class EngineStep:
    """Step in a serving engine at one batch.

    Attributes:
        seconds: estimated time.
        low, high: bounds, by the TPOT errors of served runs that the engine's constants were not fitted on.
        terms: terms that add up to `seconds`, each the mean over stages.
        fitted: constants of the engine, with their origin.
        extrapolated: True where a microbatch has more sequences than any run behind the constants.
    """

    seconds: float
    low: float
    high: float
    terms: Sequence[StepTerm]
    fitted: FittedConstants
    extrapolated: bool


@dataclass(frozen=True)
class EngineSteps:
    """Steps in a serving engine at several batches.

    The constants come from runs without PP. Under PP the host counts once a microbatch, on the first stage.

    Attributes:
        engine: name of the engine.
        deployment: how the model is cut and scheduled.
        fitted: constants of the engine, with their origin.
        steps: steps that hold the waits for late ranks and the host.
    """

    engine: str
    deployment: Deployment
    fitted: FittedConstants
    steps: StepEstimates

    @classmethod
    def estimate(cls, parts: PartCosts, deployment: Deployment, split: Split, batches: Sequence[int]) -> "EngineSteps":
        """Estimate the step at each batch from the parts of an engine, see `PartCosts.in_engine`.

        Raises:
            MissingMeasurementError: a part was not measured for any of the batches.
        """
        if parts.fitted is None:
            raise ValueError(f"{parts.variant}: not the parts of an engine")
        steps = estimate_steps(parts, deployment, split, batches)
        return cls(parts.variant.implementation, deployment, parts.fitted, steps)

    def at(self, place: int, without: StepEstimate) -> EngineStep:
        """Step at one batch, with its terms.

        Args:
            place: place of the batch.
            without: the same step without waits for late ranks and without the host.
        """
        step = self.steps.at(place)
        kinds = [one for one in self.steps.kinds if one.counts[place]]
        largest = max(int(one.sizes[place]) for one in kinds)

        def per_stage(seconds: Callable[[MicroBatches], float]) -> float:
            return sum(int(one.counts[place]) * seconds(one) for one in kinds) / self.deployment.pp

        def reduces(pick: CostField) -> float:
            return per_stage(lambda kind: float(element(all_reduce_seconds(kind, self.steps.layers, pick), place)))

        def wait(constants: ServingConstants) -> float:
            late = self.steps.layers * constants.late_seconds(self.deployment.tp)
            return per_stage(lambda kind: late if _occurs(kind.layer, LATE_RANKS, place) else 0.0)

        def host(constants: ServingConstants) -> float:
            return per_stage(lambda kind: constants.host_seconds(int(kind.sizes[place])))

        source = f"fitted on {self.fitted.source}"
        others = [
            StepTerm("all-reduces", reduces(COST_FIELDS[0]), reduces(COST_FIELDS[1]), reduces(COST_FIELDS[2]), PARTS),
            StepTerm("late ranks", wait(self.fitted.constants), *self._range(wait), source),
            StepTerm("host", host(self.fitted.constants), *self._range(host), source),
        ]
        for name, share in (("hops", self.steps.shares.hop), ("bubble", self.steps.shares.bubble)):
            if seconds := float(share[place]) * step.seconds:
                others.append(StepTerm(name, seconds, seconds, seconds, "schedule of the plan"))
        kernels = step.seconds - sum(one.seconds for one in others)
        low, high = (kernels * bound / without.seconds for bound in (without.low, without.high))
        terms = [StepTerm("kernels", kernels, low, high, PARTS), *others]
        low, high = (step.seconds * (1 + sign * self.fitted.tpot_range) for sign in (-1, 1))
        return EngineStep(step.seconds, low, high, terms, self.fitted, largest > self.fitted.most_sequences)

    def _range(self, seconds: Callable[[ServingConstants], float]) -> tuple[float, float]:
        """Least and most that a term takes with the constants of any group that counts."""
        found = [*map(seconds, self._ranging)]
        return min(found), max(found)

    @cached_property
    def _ranging(self) -> Sequence[ServingConstants]:
        """Constants of the engine's groups, over which a term ranges.

        Groups of all engines count where the engine has one, or has none for this GPU, format and model.
        """
        fitted = constants_by_group()
        same = [one for (engine, *_), one in fitted.items() if engine == self.engine]
        return same if self.fitted.own and len(same) > 1 else [*fitted.values()]


def _occurs(parts: CostByPart, name: str, place: int) -> bool:
    return name in parts and parts[name].origin_at(place) is not None

"""Decode step in a serving engine: kernels, all-reduces, waits for late ranks, and the host's time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reports.plan.estimate import COST_FIELDS, element, sum_costs
from reports.plan.serving_constants import FittedConstants, ServingConstants, constants_by_group
from reports.plan.step import ALL_REDUCE, PartCosts, StepEstimate, StepEstimates, estimate_steps
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
    """Step in a serving engine at one batch.

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
        step, layers = self.steps.at(place), self.steps.layers / self.deployment.pp
        found = [(int(kind.sizes[place]), int(kind.counts[place]), kind.layer) for kind in self.steps.kinds]
        count = sum(count for _, count, _ in found)

        def wait(constants: ServingConstants) -> float:
            return count * layers * constants.late_seconds(self.deployment.tp)

        def host(constants: ServingConstants) -> float:
            return sum(count * constants.host_seconds(size) for size, count, _ in found)

        source = f"fitted on {self.fitted.source}"
        added = [
            StepTerm("late ranks", wait(self.fitted.constants), *_engine_range(self.engine, wait), source),
            StepTerm("host", host(self.fitted.constants), *_engine_range(self.engine, host), source),
        ]
        reducing = sum_costs(
            parts[ALL_REDUCE].scaled(layers * count) for _, count, parts in found if count and ALL_REDUCE in parts
        )
        seconds, low, high = (float(element(pick(reducing), place)) for pick in COST_FIELDS)
        reduces = StepTerm("all-reduces", seconds, low, high, PARTS)
        kernels = step.seconds - reduces.seconds - sum(one.seconds for one in added)
        bare = without.seconds - reduces.seconds
        low, high = (max(0.0, kernels + end - bare) for end in (without.low - reduces.low, without.high - reduces.high))
        terms = [StepTerm("kernels", kernels, low, high, PARTS), reduces, *added]
        low, high = (step.seconds * (1 + sign * self.fitted.tpot_range) for sign in (-1, 1))
        return EngineStep(step.seconds, low, high, terms, self.fitted)


def _engine_range(engine: str, seconds: Callable[[ServingConstants], float]) -> tuple[float, float]:
    """Least and most that a term takes with the constants of any of the engine's groups."""
    found = [seconds(one) for (name, *_), one in constants_by_group().items() if name == engine]
    return min(found), max(found)

"""Does the composition predict what a whole model takes? Planned steps against those that the same machine has run.

A plan is made of the parts in the experiment's own file: what a rank's shares take, and its all-reduces and hops.
Nothing of the experiment itself goes into it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from statistics import median

from reports.experiment import replayed
from reports.experiment.collect import Experiment, Load, crowd
from reports.plan.asked import Asked
from reports.plan.missing import MissingError
from reports.plan.parts import Parts, Variant
from reports.plan.step import Step, compose
from reports.plan.system import gather
from reports.plan.words import kind
from specs.errors import UserError
from specs.measurement import Measurement
from specs.parallel import Deployment

CLEAR = 0.15
"""By how much two splits have to differ before a plan has to name the right one."""


@dataclass(frozen=True)
class Predicted:
    """One run beside its plan; `error` is of the plan, as a share of what was measured."""

    load: Load
    deployment: Deployment
    measured: Measurement
    step: Step

    @property
    def error(self) -> float:
        """Above 0 where the plan is too long."""
        return self.step.seconds / self.measured.median - 1

    @cached_property
    def event_model_error(self) -> float | None:
        """Of the event model fed with the run's own timeline, against that; None where it does not show enough."""
        found = replayed.replay(self.measured)
        return found[1] / found[0] - 1 if found else None


@dataclass(frozen=True)
class Check:
    """All runs of an experiment that can be planned.

    Attributes:
        experiment: what ran.
        rows: by rising load.
        missing: by run why it cannot be planned.
    """

    experiment: Experiment
    rows: Sequence[Predicted]
    missing: Sequence[str]

    @property
    def cut(self) -> Sequence[Predicted]:
        """Runs in which ranks share a model; replicas of a whole one send no messages, and are easier to foretell."""
        return [one for one in self.rows if one.deployment.tp * one.deployment.pp > 1]

    @property
    def median_error(self) -> float | None:
        """Of the absolute errors of those that are cut; None where none is."""
        return median(abs(one.error) for one in self.cut) if self.cut else None

    @property
    def whole(self) -> Sequence[Predicted]:
        """Runs of whole models, one a rank."""
        return [one for one in self.rows if one not in self.cut]

    @property
    def bias(self) -> Mapping[str, float]:
        """Of those that are cut by kind the error in the middle, with its sign: below 0 where plans are too short."""
        kinds = dict.fromkeys(kind(one.deployment) for one in self.cut)
        return {name: median(one.error for one in self.cut if kind(one.deployment) == name) for name in kinds}

    @property
    def clear(self) -> Sequence[tuple[Predicted, Predicted]]:
        """Pairs of cut runs at one load whose measured steps differ by more than `CLEAR`, the faster first."""
        found = []
        for a, b in combinations(self.cut, 2):
            first, second = sorted((a, b), key=lambda one: one.measured.median)
            if a.load == b.load and second.measured.median > (1 + CLEAR) * first.measured.median:
                found.append((first, second))
        return found

    @property
    def right(self) -> int:
        """Of the clear pairs those in which the plan names the faster one."""
        return sum(first.step.seconds < second.step.seconds for first, second in self.clear)


def check(experiment: Experiment) -> Check | None:
    """Of decode on ranks that do not take turns; None for anything else, and where no run can be planned."""
    setting = experiment.setting
    if not setting.decode or setting.context is None or crowd(experiment.file, setting.ranks):
        return None
    try:
        system = gather([experiment.file], setting.dtype)
        parts = Parts(system, _asked(experiment), Variant(setting.implementation))
    except UserError:
        return None
    rows, missing = [], []
    for load, runs in experiment.loads.items():
        for deployment, measured in runs.items():
            try:
                split = deployment.split(parts.asked.cut)
                rows.append(Predicted(load, deployment, measured, compose(parts, deployment, split, load.batch)))
            except MissingError as error:
                missing.append(f"{deployment} at {load.batch}: {error}")
    return Check(experiment, rows, missing) if rows else None


def _asked(experiment: Experiment) -> Asked:
    setting = experiment.setting
    return Asked(
        model=setting.model,
        gpus=setting.ranks,
        context=setting.context or 1,
        batches=sorted({load.batch for load in experiment.loads}),
        dtype=setting.dtype,
        layers=setting.layers,
    )

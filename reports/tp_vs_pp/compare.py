"""Comparison of measured TP and PP over the same ranks, at each load.

In decode the loop is closed: at a fixed batch, a shorter step improves latency and throughput. PP stands for its best
schedule, partition and number of microbatches at that load.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from reports.formatting import pluralize
from reports.results import ResultFile, deployment_of
from specs import measurement, statistics
from specs.measurement import Measurement
from specs.parallel import PARTITIONS, SCHEDULES, Deployment

# Experiments in a file: steps of all deployments over the same ranks, by load.


class Load(NamedTuple):
    """Batch, and tokens of each sequence in a step: 1 in decode, else the prompt's."""

    prompt: int
    batch: int


class Setting(NamedTuple):
    """Properties that compared deployments share.

    `context`: context of decode; None for prefill, where the prompt is the context.
    """

    model: str
    layers: int
    vocab: int | None
    dtype: str
    implementation: str
    backend: str
    ranks: int
    decode: bool
    context: int | None


RunsByDeployment = Mapping[Deployment, Measurement]
"""Steps at one load: TP, then by stages, schedule, microbatches, then replicas."""


@dataclass(frozen=True)
class Experiment:
    """Steps of one model on the same ranks, in decode or in prefill, by rising load."""

    file: ResultFile
    setting: Setting
    loads: Mapping[Load, RunsByDeployment]


def oversubscription(file: ResultFile, ranks: int) -> str:
    """Text where ranks outnumber cores: `4 ranks share 2 cores`; else empty.

    Such ranks take turns. Their steps show that the ranks work together and where each waits. They say nothing of TP
    against PP.
    """
    cores, hosts = file.machine.get("cores"), file.machine.get("hosts") or 1
    if file.machine.get("device") != "cpu" or not isinstance(cores, int) or not isinstance(hosts, int):
        return ""
    together = cores * max(1, hosts)
    return f"{ranks} ranks share {pluralize(together, 'core')}" if ranks > together else ""


def is_experiment_step(one: Measurement) -> bool:
    """Return whether a measurement is a step that ran, not a modelled step."""
    return one.case.op == measurement.STEP_OP and one.provenance == "measured"


def collect_experiments(file: ResultFile) -> list[Experiment]:
    """Experiments of a file, decode before prefill."""
    found: dict[Setting, dict[Load, dict[Deployment, Measurement]]] = {}
    for one in file.measurements:
        if is_experiment_step(one):
            by_load = found.setdefault(_setting_of(one), {}).setdefault(_load_of(one), {})
            by_load.setdefault(deployment_of(one), one)
    settings = sorted(found, key=lambda setting: not setting.decode)
    return [
        Experiment(file, one, {load: _sort_runs(found[one][load]) for load in sorted(found[one])}) for one in settings
    ]


def _setting_of(one: Measurement) -> Setting:
    case = one.case
    decode = measurement.is_decode(case.tokens, case.batch)
    who = case.dtype, case.implementation, case.backend or "unknown", case.ranks
    return Setting(case.model or "", case.layers or 1, case.vocab, *who, decode, case.context if decode else None)


def _load_of(one: Measurement) -> Load:
    return Load((one.case.tokens or 1) // (one.case.batch or 1), one.case.batch or 1)


def _sort_runs(runs: RunsByDeployment) -> RunsByDeployment:
    return {one: runs[one] for one in sorted(runs, key=_deployment_order)}


def _deployment_order(one: Deployment) -> tuple[int, int, int, int, int]:
    return one.replicas, one.pp, SCHEDULES.index(one.schedule), one.micro_batches, PARTITIONS.index(one.partition)


Interval = tuple[float, float]
ERROR_RATE = 0.05
"""Chance that luck alone makes the fastest of several beat another deployment."""


@dataclass(frozen=True)
class StepRatio:
    """Ratio t(other) / t(base), with its interval.

    The interval is wider where `other` is the fastest of `among`: it may also be the luckiest.
    """

    base: Measurement
    other: Measurement
    among: int = 1

    @property
    def value(self) -> float:
        """Ratio of the medians."""
        return self.other.median / self.base.median

    @cached_property
    def interval(self) -> Interval | None:
        """Interval at 95 % over all `among` comparisons (Bonferroni).

        None where either measurement has a single pass.
        """
        return statistics.ratio_interval(self.base.seconds, self.other.seconds, 1 - ERROR_RATE / self.among)


@dataclass(frozen=True)
class TpPpComparison:
    """TP and the best PP deployment at one load."""

    load: Load
    tp: Deployment
    pp: Deployment
    ratio: StepRatio

    @property
    def winner(self) -> Literal["tp", "pp"] | None:
        """Side with the shorter step; None where the interval holds 1 or is missing."""
        low, high = self.ratio.interval or (1, 1)
        return "tp" if low > 1 else "pp" if high < 1 else None


def compare_tp_pp(experiment: Experiment) -> list[TpPpComparison]:
    """Compare TP and PP at each load at which both ran over all ranks."""
    found = []
    for load, runs in experiment.loads.items():
        alone = {one: of for one, of in runs.items() if one.replicas == 1}
        tp = {one: of for one, of in alone.items() if one.pp == 1}
        pp = {one: of for one, of in alone.items() if one.tp == 1 and one.pp > 1}
        if tp and pp:
            a, b = fastest_deployment(tp), fastest_deployment(pp)
            found.append(TpPpComparison(load, a, b, StepRatio(tp[a], pp[b], among=len(pp))))
    return found


def fastest_deployment(runs: RunsByDeployment) -> Deployment:
    """Deployment with the shortest median step."""
    return min(runs, key=lambda one: runs[one].median)


def tied_fastest(runs: RunsByDeployment) -> list[Deployment]:
    """Fastest deployment and all that are not significantly slower.

    The list is empty without intervals, or without another deployment.
    """
    first = fastest_deployment(runs)
    others = {one: StepRatio(runs[first], of, among=len(runs) - 1) for one, of in runs.items() if one != first}
    if not others or any(ratio.interval is None for ratio in others.values()):
        return []
    return [first, *(one for one, ratio in others.items() if ratio.interval and ratio.interval[0] <= 1)]


@dataclass(frozen=True)
class MeasuredCrossover:
    """Batches between which PP overtakes TP.

    Attributes:
        after: last batch at which TP leads; None where TP leads at no batch.
        by: first batch from which PP leads; None where PP leads at no batch.
        why: reason why there is no crossover; empty where there is one.
    """

    after: int | None
    by: int | None
    why: str = ""


def find_crossover(found: Sequence[TpPpComparison]) -> MeasuredCrossover:
    """Find where PP overtakes TP in decode, from the batches with a winner."""
    decided = [(one.load.batch, one.winner) for one in found if one.winner]
    if not decided:
        return MeasuredCrossover(None, None, "they cannot be told apart at any batch")
    batches: Mapping[str, list[int]] = {
        who: [batch for batch, winner in decided if winner == who] for who in ("tp", "pp")
    }
    after, by = max(batches["tp"], default=None), min(batches["pp"], default=None)
    if after is not None and by is not None and by < after:
        return MeasuredCrossover(None, None, f"PP is ahead at {by} and TP again at {after}")
    return MeasuredCrossover(after, by, "" if after and by else f"{'PP' if after else 'TP'} is ahead at no batch")

"""What a file holds of whole models: the steps of all deployments over the same ranks, load by load."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from reports.experiment.sound import deployment
from reports.files import ResultFile
from reports.units import counted
from specs import measurement
from specs.measurement import Measurement
from specs.parallel import PARTITIONS, SCHEDULES, Deployment


class Load(NamedTuple):
    """What a step gets through: a batch, and the tokens of each of its sequences: one in decode, else a prompt's."""

    prompt: int
    batch: int


class Setting(NamedTuple):
    """What deployments share that are held against each other.

    `context` is that of decode; None for prompts, which are it themselves.
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


Runs = Mapping[Deployment, Measurement]
"""Steps of one load, TP first, then by stages, schedule and micro-batches, then replicas."""


@dataclass(frozen=True)
class Experiment:
    """One model on the same ranks in decode or in prefill, by rising load."""

    file: ResultFile
    setting: Setting
    loads: Mapping[Load, Runs]


def crowd(file: ResultFile, ranks: int) -> str:
    """`4 ranks share 2 cores`, where there are more ranks than cores: what would run at once takes turns.

    Such steps show that the ranks work together and where each waits; of TP against PP they say nothing.
    """
    cores, hosts = file.machine.get("cores"), file.machine.get("hosts") or 1
    if file.machine.get("device") != "cpu" or not isinstance(cores, int) or not isinstance(hosts, int):
        return ""
    together = cores * max(1, hosts)
    return f"{ranks} ranks share {counted(together, 'core')}" if ranks > together else ""


def belongs(one: Measurement) -> bool:
    """Whether it is of an experiment: a step that was run, not modelled."""
    return one.case.op == measurement.OP and one.provenance == "measured"


def collect(file: ResultFile) -> list[Experiment]:
    """Every experiment of a file, decode before prefill."""
    found: dict[Setting, dict[Load, dict[Deployment, Measurement]]] = {}
    for one in file.measurements:
        if belongs(one):
            by_load = found.setdefault(_setting(one), {}).setdefault(_load(one), {})
            by_load.setdefault(deployment(one), one)
    settings = sorted(found, key=lambda setting: not setting.decode)
    return [
        Experiment(file, one, {load: _ordered(found[one][load]) for load in sorted(found[one])}) for one in settings
    ]


def _setting(one: Measurement) -> Setting:
    case = one.case
    decode = measurement.is_decode(case.tokens, case.batch)
    who = case.dtype, case.implementation, case.backend or "unknown", case.ranks
    return Setting(case.model or "", case.layers or 1, case.vocab, *who, decode, case.context if decode else None)


def _load(one: Measurement) -> Load:
    return Load((one.case.tokens or 1) // (one.case.batch or 1), one.case.batch or 1)


def _ordered(runs: Runs) -> Runs:
    return {one: runs[one] for one in sorted(runs, key=_place)}


def _place(one: Deployment) -> tuple[int, int, int, int, int]:
    return one.replicas, one.pp, SCHEDULES.index(one.schedule), one.micro_batches, PARTITIONS.index(one.partition)

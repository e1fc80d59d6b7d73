"""The claims on communication by ledgers of steps that ran: all-reduces of decode and prefill in TP, hops in PP."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from statistics import fmean

from reports import units
from reports.evidence import Evidence
from reports.experiment.collect import Experiment
from reports.experiment.rows import Row, row, summed_up, within
from reports.finding import Finding
from specs import measurement, statistics
from specs.parallel import Deployment

MOST = 0.30
PREFILL = 0.20, 0.30
HOPS = 0.0, 0.01
BESIDE = {"all-reduce": "skew", "hop": "idle"}
"""What is waited for before either."""
WAITING = {"all-reduce": "waiting for the last rank", "hop": "fill and drain"}
SUITE = "run suites/bench_tp_vs_pp.py with both"
NO_TP = f"no {{}} under TP alone with its ledger: {SUITE}"
NO_PP = f"no prefill in stages with its ledger: {SUITE}"


def judge_all_reduces(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The share of all-reduces in a decode step of TP, waiting for the last rank to come not counted."""
    yield from _judge_tp(evidences, decode=True, limits=(0.0, MOST))


def judge_nvlink(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """What ran on a CPU has no NVLink."""
    for evidence in evidences:
        if evidence.steps and not evidence.known:
            via = evidence.steps[0].setting.backend
            condition = f"no NVLink: its ranks are joined by {via}; import published tables of GPUs"
            yield replace(evidence.blank("share"), condition=condition)


def judge_prefill_all_reduces(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The share of all-reduces in prefill under TP."""
    yield from _judge_tp(evidences, decode=False, limits=PREFILL)


def judge_prefill_hops(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The share of hops in prefill under PP: sending, and waiting for what was sent; the bubble is counted apart."""
    for evidence in evidences:
        if evidence.steps:
            rows = [
                made
                for experiment in evidence.steps
                if not experiment.setting.decode
                for made in _rows(evidence, experiment, "hop", HOPS)
            ]
            yield from summed_up(evidence, "share", rows, lacking=NO_PP)


def _judge_tp(evidences: Iterable[Evidence], *, decode: bool, limits: tuple[float, float]) -> Iterator[Finding]:
    for evidence in evidences:
        if evidence.steps:
            rows = [
                made
                for experiment in evidence.steps
                if experiment.setting.decode == decode
                for made in _rows(evidence, experiment, "all-reduce", limits)
            ]
            yield from summed_up(evidence, "share", rows, lacking=NO_TP.format("decode" if decode else "prefill"))


def _rows(evidence: Evidence, experiment: Experiment, item: str, limits: tuple[float, float]) -> Iterator[Row]:
    """Of each load those deployments in which the item is all communication that there is."""
    for load, runs in experiment.loads.items():
        for one, of in runs.items():
            if _has(one, item) and of.ledgers:
                shares = measurement.share_by_pass(of.ledgers, item)
                interval = statistics.mean_interval(shares)
                beside = fmean(measurement.share_by_pass(of.ledgers, BESIDE[item]))
                said = f"{WAITING[item]} {units.percent(beside)} beside it"
                figure = fmean(shares), interval, "share"
                yield row(evidence, experiment.setting, load, str(one), within(interval, *limits), figure, [of], said)


def _has(one: Deployment, item: str) -> bool:
    alone = one.replicas == 1 and min(one.tp, one.pp) == 1
    return alone and (one.tp if item == "all-reduce" else one.pp) > 1

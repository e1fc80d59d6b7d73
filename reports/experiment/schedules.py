"""The claims on PP alone: one request lights one stage, micro-batches are of no use, stages are busy all the time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import inf
from statistics import fmean

from reports.evidence import Evidence
from reports.experiment.collect import Experiment, Load, Runs
from reports.experiment.duel import Ratio, fastest
from reports.experiment.rows import Row, row, summed_up, within
from reports.finding import Finding
from reports.ratios import AS_LONG
from specs import measurement, statistics
from specs.measurement import Measurement
from specs.parallel import Deployment

ALL_OF_IT = 1.05
"""A share this many times 1/P still counts as 1/P."""
MOST = 0.95
"""Share of its time from which on a stage counts as used all the time."""
SUITE = "run suites/bench_tp_vs_pp.py with"
NO_SINGLE = f"no decode of one sequence in stages: {SUITE} --batch 1"
NO_PAIR = f"no batch with both sync and async PP: {SUITE} both"
NO_FULL = f"no async PP in decode with as many micro-batches as stages: {SUITE} it"


def judge_single(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The share of a step that a rank computes while a single sequence decodes, with as many stages as ranks."""
    for evidence in evidences:
        if evidence.steps:
            rows = [
                _share(evidence, experiment, load, one, of, measurement.COMPUTE, (0, ALL_OF_IT / one.pp))
                for experiment, load, runs in _decoding(evidence)
                for one, of in runs.items()
                if load.batch == 1 and one.pp == experiment.setting.ranks and of.ledgers
            ]
            yield from summed_up(evidence, "share", rows, lacking=NO_SINGLE)


def judge_micro_batches(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """t(sync) / t(async at its best m) of a decode step at each batch: within 1.25 either way they are the same."""
    for evidence in evidences:
        if evidence.steps:
            rows = [
                made
                for experiment, load, runs in _decoding(evidence)
                for sync in runs
                if sync.schedule == "sync" and (made := _gain(evidence, experiment, load, runs, sync))
            ]
            yield from summed_up(evidence, "ratio", rows, lacking=NO_PAIR)


def judge_utilisation(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """All but idle and skew, of async PP with at least P micro-batches; decode decides, prefill stands beside it."""
    for evidence in evidences:
        if evidence.steps:
            rows = [
                _share(evidence, experiment, load, one, of, measurement.BUSY, (MOST, inf))
                for experiment in evidence.steps
                for load, runs in experiment.loads.items()
                for one, of in runs.items()
                if one.schedule == "async" and one.micro_batches >= one.pp and of.ledgers
            ]
            yield from summed_up(evidence, "share", [_beside(one) for one in rows], lacking=NO_FULL)


def _decoding(evidence: Evidence) -> list[tuple[Experiment, Load, Runs]]:
    decoding = [one for one in evidence.steps if one.setting.decode]
    return [(one, load, runs) for one in decoding for load, runs in one.loads.items()]


def _share(
    evidence: Evidence,
    experiment: Experiment,
    load: Load,
    one: Deployment,
    of: Measurement,
    items: Sequence[str],
    limits: tuple[float, float],
) -> Row:
    """The share of some items together, judged by whether it lies within the limits."""
    shares = measurement.share_by_pass(of.ledgers, *items)
    interval = statistics.mean_interval(shares)
    figure = fmean(shares), interval, "share"
    if items is measurement.COMPUTE:
        condition = f"1/{one.pp} is {1 / one.pp:.0%}"
    else:
        condition = f"computing {fmean(measurement.share_by_pass(of.ledgers, *measurement.COMPUTE)):.0%}"
    return row(evidence, experiment.setting, load, str(one), within(interval, *limits), figure, [of], condition)


def _beside(one: Row) -> Row:
    """Prefill fills and drains the pipeline, which the claim leaves out: it is shown and decides nothing."""
    if one.setting.decode:
        return one
    finding = replace(one.finding, condition="; ".join(filter(None, (one.finding.condition, "fill and drain in it"))))
    return replace(one, finding=finding, decides=False)


def _gain(evidence: Evidence, experiment: Experiment, load: Load, runs: Runs, sync: Deployment) -> Row | None:
    """Sync over the fastest async of the same cut and partition; None where there is none."""
    alike = {
        one: of
        for one, of in runs.items()
        if one.schedule == "async" and replace(one, schedule="sync", micro_batches=1) == sync
    }
    if not alike:
        return None
    best = fastest(alike)
    ratio = Ratio(alike[best], runs[sync], among=len(alike))
    usual = replace(best, micro_batches=best.pp)
    condition = f"m = {best.micro_batches}"
    if usual in alike and usual != best:
        condition += f"; {runs[sync].median / alike[usual].median:.2f} with m = {best.pp}"
    figure = ratio.value, ratio.interval, "ratio"
    verdict = within(ratio.interval, 1 / AS_LONG, AS_LONG)
    what = str(sync).replace("-sync", "")
    return row(evidence, experiment.setting, load, what, verdict, figure, [runs[sync], alike[best]], condition)

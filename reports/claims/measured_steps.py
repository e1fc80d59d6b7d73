"""Claims on whole models under TP and PP, judged by measured steps.

All deployments use the same ranks. The claims cover schedules, communication, decode and prefill.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import fmean

from reports import formatting
from reports.claims import evidence as claims_evidence
from reports.claims.evidence import OVERALL, Evidence, Finding
from reports.claims.tokens import SAME_TIME_FACTOR
from reports.claims.verdict import DECIDED_VERDICTS, Interval, Verdict, joint_verdict, verdict_within
from reports.deployment_names import deployment_name, describe_loads, distinguishing_label, load_label
from reports.tp_vs_pp.compare import (
    Experiment,
    Load,
    RunsByDeployment,
    Setting,
    StepRatio,
    TpPpComparison,
    compare_tp_pp,
    fastest_deployment,
    find_crossover,
    oversubscription,
)
from specs import measurement, statistics
from specs.measurement import Measurement
from specs.parallel import Deployment

# Findings at single loads, and the overall finding on a machine.

NEEDS_PASSES = "a single pass gives no interval"
TAKE_TURNS = " and take turns"


@dataclass(frozen=True)
class StepFinding:
    """A finding at one load.

    `what` names the deployment. `decides` marks the findings that set the overall finding.
    """

    setting: Setting
    load: Load
    what: str
    finding: Finding
    decides: bool = True


def step_finding(
    evidence: Evidence,
    setting: Setting,
    load: Load,
    what: str,
    verdict: Verdict,
    figure: tuple[float, Interval, str],
    used: Sequence[Measurement],
    condition: str = "",
) -> StepFinding:
    """Return a row with its finding; `figure` is value, interval and unit."""
    value, interval, unit = figure
    crowded = next((why for one in evidence.steps if (why := oversubscription(one.file, setting.ranks))), "")
    if crowded:
        verdict, condition = "UNDERPOWERED", "; ".join(filter(None, (f"{crowded}{TAKE_TURNS}", condition)))
    low, high = interval or (None, None)
    alike = [one.setting for one in evidence.steps if one.setting.decode == setting.decode]
    finding = replace(
        evidence.blank_finding(unit),
        verdict=verdict,
        value=value,
        low=low,
        high=high,
        condition=condition if interval else "; ".join(filter(None, (NEEDS_PASSES, condition))),
        cases=tuple(one.case.name for one in used),
        scope=f"{what} {load_label(load)} {distinguishing_label(setting, alike)}".rstrip(),
        model=setting.model,
    )
    return StepFinding(setting, load, what, finding)


def summarise(evidence: Evidence, unit: str, rows: Sequence[StepFinding], *, missing: str) -> Iterator[Finding]:
    """Yield the overall finding, then the findings of the rows.

    `joint_verdict` judges the overall finding; where it depends on the load, the condition names the loads. `missing`
    says what to run where there are no rows.
    """
    deciding = [one for one in rows if one.decides]
    if not deciding:
        yield replace(evidence.blank_finding(unit), condition=missing)
    else:
        whole = claims_evidence.merge_findings(evidence, [one.finding for one in deciding], unit)
        verdict = joint_verdict([one.finding.verdict for one in deciding])
        if verdict == "UNDERPOWERED":
            whole = replace(whole, low=None, high=None)
        yield replace(whole, verdict=verdict, condition=_overall_condition(verdict, deciding))
    yield from (one.finding for one in rows)


def _overall_condition(verdict: Verdict, rows: Sequence[StepFinding]) -> str:
    """Return, per series of loads, where the claim holds and where it is undecided."""
    series: dict[tuple[Setting, str], list[StepFinding]] = {}
    for one in rows:
        series.setdefault((one.setting, one.what), []).append(one)
    said: dict[str, list[str]] = {}
    for (setting, what), alike in series.items():
        name = f"{what} {distinguishing_label(setting, {one for one, _ in series})}".rstrip()
        said.setdefault(_series_condition(verdict, alike), []).append(name)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in said.items())


def _series_condition(verdict: Verdict, rows: Sequence[StepFinding]) -> str:
    among = [one.load for one in rows]
    holding = [one.load for one in rows if one.finding.verdict == "HOLDS"]
    open_ones = [one.load for one in rows if one.finding.verdict not in DECIDED_VERDICTS]
    said = []
    if verdict == "HOLDS_IF":
        said.append(describe_loads(holding, among) if holding else "nowhere")
    elif verdict != "UNDERPOWERED" and len(open_ones) < len(among):
        said.append(describe_loads([load for load in among if load not in open_ones], among))
    if open_ones:
        reasons = {_shared_reason(one.finding.condition) for one in rows if one.load in open_ones}
        said.append(
            reasons.pop()
            if len(reasons) == 1 and "" not in reasons
            else f"cannot be told {describe_loads(open_ones, among, 'any')}"
        )
    return "; ".join(said)


def _shared_reason(condition: str) -> str:
    """Return the reason that leaves a finding open regardless of its figures.

    Empty where the figures themselves are the reason.
    """
    return next((part for part in condition.split("; ") if part == NEEDS_PASSES or part.endswith(TAKE_TURNS)), "")


# Claims on PP alone: one request uses one stage, microbatches are useless, stages are always busy.

SHARE_TOLERANCE = 1.05
"""Factor by which a share may exceed 1/P and still count as 1/P."""
FULL_USE_SHARE = 0.95
"""Minimum share of its time for which a stage counts as always busy."""
RUN_SUITE_WITH = "run suites/bench_tp_vs_pp.py with"
NO_SINGLE_SEQUENCE = f"no decode of one sequence in stages: {RUN_SUITE_WITH} --batch 1"
NO_SYNC_AND_ASYNC = f"no batch with both sync and async PP: {RUN_SUITE_WITH} both"
NO_FULL_PIPELINE = f"no async PP in decode with as many micro-batches as stages: {RUN_SUITE_WITH} it"


def judge_single_request(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge the share of a step that a rank computes for a single sequence.

    Only deployments with as many stages as ranks count.
    """
    for evidence in evidences:
        if evidence.steps:
            rows = [
                _share_finding(
                    evidence, experiment, load, one, of, measurement.COMPUTE_ITEMS, (0, SHARE_TOLERANCE / one.pp)
                )
                for experiment, load, runs in _decode_runs(evidence)
                for one, of in runs.items()
                if load.batch == 1 and one.pp == experiment.setting.ranks and of.ledgers
            ]
            yield from summarise(evidence, "share", rows, missing=NO_SINGLE_SEQUENCE)


def judge_micro_batches(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge t(sync) / t(async at its best m) of a decode step at each batch.

    Ratios within 1.25 either way count as the same time.
    """
    for evidence in evidences:
        if evidence.steps:
            rows = [
                made
                for experiment, load, runs in _decode_runs(evidence)
                for sync in runs
                if sync.schedule == "sync" and (made := _sync_over_async(evidence, experiment, load, runs, sync))
            ]
            yield from summarise(evidence, "ratio", rows, missing=NO_SYNC_AND_ASYNC)


def judge_utilisation(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge the busy share of async PP with at least P microbatches.

    Busy is everything but idle and skew. Decode decides; prefill stands beside it.
    """
    for evidence in evidences:
        if evidence.steps:
            rows = [
                _share_finding(evidence, experiment, load, one, of, measurement.BUSY_ITEMS, (FULL_USE_SHARE, inf))
                for experiment in evidence.steps
                for load, runs in experiment.loads.items()
                for one, of in runs.items()
                if one.schedule == "async" and one.micro_batches >= one.pp and of.ledgers
            ]
            yield from summarise(evidence, "share", [_without_decision(one) for one in rows], missing=NO_FULL_PIPELINE)


def _decode_runs(evidence: Evidence) -> list[tuple[Experiment, Load, RunsByDeployment]]:
    decoding = [one for one in evidence.steps if one.setting.decode]
    return [(one, load, runs) for one in decoding for load, runs in one.loads.items()]


def _share_finding(
    evidence: Evidence,
    experiment: Experiment,
    load: Load,
    one: Deployment,
    of: Measurement,
    items: Sequence[str],
    limits: tuple[float, float],
) -> StepFinding:
    """Return the finding on the summed share of some items, judged by the limits."""
    shares = measurement.share_by_pass(of.ledgers, *items)
    interval = statistics.mean_interval(shares)
    figure = fmean(shares), interval, "share"
    if items is measurement.COMPUTE_ITEMS:
        condition = f"1/{one.pp} is {1 / one.pp:.0%}"
    else:
        condition = f"computing {fmean(measurement.share_by_pass(of.ledgers, *measurement.COMPUTE_ITEMS)):.0%}"
    return step_finding(
        evidence, experiment.setting, load, str(one), verdict_within(interval, *limits), figure, [of], condition
    )


def _without_decision(one: StepFinding) -> StepFinding:
    """Return a prefill finding as one that decides nothing.

    Prefill fills and drains the pipeline, which the claim excludes. Decode findings stay as they are.
    """
    if one.setting.decode:
        return one
    finding = replace(one.finding, condition="; ".join(filter(None, (one.finding.condition, "fill and drain in it"))))
    return replace(one, finding=finding, decides=False)


def _sync_over_async(
    evidence: Evidence, experiment: Experiment, load: Load, runs: RunsByDeployment, sync: Deployment
) -> StepFinding | None:
    """Return sync over the fastest async of the same split and partition.

    None where there is no async run of that kind.
    """
    alike = {
        one: of
        for one, of in runs.items()
        if one.schedule == "async" and replace(one, schedule="sync", micro_batches=1) == sync
    }
    if not alike:
        return None
    best = fastest_deployment(alike)
    ratio = StepRatio(alike[best], runs[sync], among=len(alike))
    usual = replace(best, micro_batches=best.pp)
    condition = f"m = {best.micro_batches}"
    if usual in alike and usual != best:
        condition += f"; {runs[sync].median / alike[usual].median:.2f} with m = {best.pp}"
    figure = ratio.value, ratio.interval, "ratio"
    verdict = verdict_within(ratio.interval, 1 / SAME_TIME_FACTOR, SAME_TIME_FACTOR)
    what = str(sync).replace("-sync", "")
    return step_finding(evidence, experiment.setting, load, what, verdict, figure, [runs[sync], alike[best]], condition)


# Claims on communication, judged by ledgers of measured steps: all-reduces of TP, and hops of PP.

MAX_ALL_REDUCE_SHARE = 0.30
PREFILL_LIMITS = 0.20, 0.30
HOP_LIMITS = 0.0, 0.01
WAITING_ITEMS = {"all-reduce": "skew", "hop": "idle"}
"""Item of waiting before each communication item."""
WAITING_NAMES = {"all-reduce": "waiting for the last rank", "hop": "fill and drain"}
RUN_SUITE_WITH_BOTH = "run suites/bench_tp_vs_pp.py with both"
NO_TP = f"no {{}} under TP alone with its ledger: {RUN_SUITE_WITH_BOTH}"
NO_PP = f"no prefill in stages with its ledger: {RUN_SUITE_WITH_BOTH}"


def judge_all_reduces(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge the share of all-reduces in a decode step under TP.

    Waiting for the last rank is not counted.
    """
    yield from _judge_tp(evidences, decode=True, limits=(0.0, MAX_ALL_REDUCE_SHARE))


def judge_nvlink(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Yield NOT_MEASURED for steps that ran on a CPU, which has no NVLink."""
    for evidence in evidences:
        if evidence.steps and not evidence.datasheet:
            via = evidence.steps[0].setting.backend
            condition = f"no NVLink: its ranks are joined by {via}; import published tables of GPUs"
            yield replace(evidence.blank_finding("share"), condition=condition)


def judge_prefill_all_reduces(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge the share of all-reduces in prefill under TP."""
    yield from _judge_tp(evidences, decode=False, limits=PREFILL_LIMITS)


def judge_prefill_hops(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge the share of hops in prefill under PP.

    A hop is sending, and waiting for what was sent. The bubble is counted separately.
    """
    for evidence in evidences:
        if evidence.steps:
            rows = [
                made
                for experiment in evidence.steps
                if not experiment.setting.decode
                for made in _communication_findings(evidence, experiment, "hop", HOP_LIMITS)
            ]
            yield from summarise(evidence, "share", rows, missing=NO_PP)


def _judge_tp(evidences: Iterable[Evidence], *, decode: bool, limits: tuple[float, float]) -> Iterator[Finding]:
    for evidence in evidences:
        if evidence.steps:
            rows = [
                made
                for experiment in evidence.steps
                if experiment.setting.decode == decode
                for made in _communication_findings(evidence, experiment, "all-reduce", limits)
            ]
            yield from summarise(evidence, "share", rows, missing=NO_TP.format("decode" if decode else "prefill"))


def _communication_findings(
    evidence: Evidence, experiment: Experiment, item: str, limits: tuple[float, float]
) -> Iterator[StepFinding]:
    """Yield, per load, findings on deployments whose only communication is the item."""
    for load, runs in experiment.loads.items():
        for one, of in runs.items():
            if _is_pure_tp_or_pp(one, item) and of.ledgers:
                shares = measurement.share_by_pass(of.ledgers, item)
                interval = statistics.mean_interval(shares)
                beside = fmean(measurement.share_by_pass(of.ledgers, WAITING_ITEMS[item]))
                said = f"{WAITING_NAMES[item]} {formatting.percent(beside)} beside it"
                figure = fmean(shares), interval, "share"
                yield step_finding(
                    evidence, experiment.setting, load, str(one), verdict_within(interval, *limits), figure, [of], said
                )


def _is_pure_tp_or_pp(one: Deployment, item: str) -> bool:
    alone = one.replicas == 1 and min(one.tp, one.pp) == 1
    return alone and (one.tp if item == "all-reduce" else one.pp) > 1


UNIT = "sequences"
LARGE_BATCH = 1000
"""Sequences from which on a decode batch is large, by the note."""
NO_RUNS = "no {} of TP and of PP over all ranks: run suites/bench_tp_vs_pp.py with both"


def judge_latency(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge t(PP at its best) / t(TP) of a decode step at each batch.

    Above 1, TP has the lower latency.
    """
    yield from _judge_comparisons(evidences, decode=True)


def judge_prefill(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge t(TP) / t(PP at its best) of a whole prefill.

    Fill and drain are included. Above 1, PP has the higher throughput.
    """
    yield from _judge_comparisons(evidences, decode=False)


def judge_crossover(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge from which decode batch on PP is faster, for each measured series.

    The shorter step also gives more tokens/s.
    """
    for evidence in evidences:
        if evidence.steps:
            decoding = [one for one in evidence.steps if one.setting.decode and compare_tp_pp(one)]
            found = [_crossover_finding(evidence, one) for one in decoding]
            if len(found) == 1:
                yield replace(found[0], scope=OVERALL, model=None)
            elif found:
                yield _combine_series(evidence, found)
            else:
                yield replace(evidence.blank_finding(UNIT), condition=NO_RUNS.format("decode"))
            yield from found


def _crossover_finding(evidence: Evidence, experiment: Experiment) -> Finding:
    """Return the finding on one series.

    The crossover lies between the last batch at which TP leads and the first at which PP leads.
    """
    found = compare_tp_pp(experiment)
    setting, at = experiment.setting, find_crossover(found)
    crowded = oversubscription(experiment.file, setting.ranks)
    alike = [one.setting for one in evidence.steps if one.setting.decode]
    blank = replace(
        evidence.blank_finding(UNIT),
        cases=tuple(of.case.name for one in found for of in (one.ratio.base, one.ratio.other)),
        scope=f"tp{found[0].tp.tp}/pp{found[0].pp.pp} {distinguishing_label(setting, alike)}".rstrip(),
        model=setting.model,
    )
    if crowded or all(one.ratio.interval is None for one in found):
        return replace(blank, verdict="UNDERPOWERED", condition=f"{crowded}{TAKE_TURNS}" if crowded else NEEDS_PASSES)
    if at.after and at.by:
        said = f"from a batch between {at.after} and {at.by} on; {_fastest_pp_text(found, at.by)}"
        return replace(blank, verdict="HOLDS_IF", value=at.by, low=at.after, high=at.by, condition=said)
    return replace(blank, verdict=_no_crossover_verdict(found), condition=_leads_text(found))


def _no_crossover_verdict(found: Sequence[TpPpComparison]) -> Verdict:
    """Return the verdict where no crossover was found.

    The claim is on large batches, so the largest batch must be large and decided.
    """
    winners = {one.winner for one in found if one.winner}
    if winners == {"tp"} and found[-1].winner and found[-1].load.batch >= LARGE_BATCH:
        return "REFUTED"
    if winners == {"pp"} and found[-1].winner:
        return "HOLDS" if all(one.winner for one in found) else "HOLDS_IF"
    return "UNDERPOWERED"


def _leads_text(found: Sequence[TpPpComparison]) -> str:
    """Return the loads at which each side leads, and the undecided loads."""
    loads = [one.load for one in found]
    won = {who: [one.load for one in found if one.winner == who] for who in ("tp", "pp")}
    even = [one.load for one in found if one.winner is None]
    said = [f"{who.upper()} is ahead {describe_loads(at, loads)}" for who, at in won.items() if at]
    said += [f"cannot be told {describe_loads(even, loads, 'any')}"] if even else []
    said += [f"no batch of {LARGE_BATCH} or more ran"] if loads[-1].batch < LARGE_BATCH else []
    return "; ".join(said)


def _fastest_pp_text(found: Sequence[TpPpComparison], batch: int) -> str:
    """Return the fastest PP deployment at this batch, in words."""
    return f"by {next(deployment_name(one.pp) for one in found if one.load.batch == batch)}"


def _combine_series(evidence: Evidence, found: Sequence[Finding]) -> Finding:
    """Merge the findings of several series; the range spans their crossovers."""
    whole = claims_evidence.merge_findings(evidence, found, UNIT)
    verdict = joint_verdict([one.verdict for one in found])
    return replace(whole, verdict=verdict, condition="; ".join(f"{one.scope}: {one.condition}" for one in found))


def _judge_comparisons(evidences: Iterable[Evidence], *, decode: bool) -> Iterator[Finding]:
    missing = NO_RUNS.format("decode" if decode else "prefill")
    for evidence in evidences:
        if evidence.steps:
            rows = [
                _comparison_finding(evidence, experiment, one)
                for experiment in evidence.steps
                if experiment.setting.decode == decode
                for one in compare_tp_pp(experiment)
            ]
            yield from summarise(evidence, "ratio", rows, missing=missing)


def _comparison_finding(evidence: Evidence, experiment: Experiment, one: TpPpComparison) -> StepFinding:
    value, interval = one.ratio.value, one.ratio.interval
    tp, pp = one.ratio.base, one.ratio.other
    if experiment.setting.decode:
        holds, condition = one.winner == "tp", f"the best of PP is {deployment_name(one.pp)}"
    else:
        holds = one.winner == "pp"
        value, interval = 1 / value, (1 / interval[1], 1 / interval[0]) if interval else None
        times = [formatting.with_unit(formatting.SECONDS, of.median) for of in (pp, tp)]
        condition = (
            f"time to first token {times[0]} with {deployment_name(one.pp)}, {times[1]} with {deployment_name(one.tp)}"
        )
    verdict: Verdict = "UNDERPOWERED" if one.winner is None else "HOLDS" if holds else "REFUTED"
    what = f"tp{one.tp.tp}/pp{one.pp.pp}"
    return step_finding(
        evidence, experiment.setting, one.load, what, verdict, (value, interval, "ratio"), [tp, pp], condition
    )

"""The claims on who wins, by steps over the same ranks: latency in decode, tokens a second there, and prefill."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import fmean

from reports import formatting
from reports.claims import evidence as claims_evidence
from reports.claims.evidence import DECIDED, OVERALL, Evidence, Finding, Verdict
from reports.claims.tokens import AS_LONG
from reports.deployment_names import apart, at, spoken, where
from reports.tp_vs_pp.compare import Duel, Experiment, Load, Ratio, Runs, Setting, crossover, crowd, duels, fastest
from specs import measurement, statistics
from specs.measurement import Measurement
from specs.parallel import Deployment

# From findings at single loads to the one on a machine: where a claim on whole models holds.

SINGLE = "a single pass gives no interval"
TURNS = " and take turns"
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Row:
    """A finding at one load; `what` is what ran there, `decides` whether the overall finding goes by it."""

    setting: Setting
    load: Load
    what: str
    finding: Finding
    decides: bool = True


def row(
    evidence: Evidence,
    setting: Setting,
    load: Load,
    what: str,
    verdict: Verdict,
    figure: tuple[float, Interval, str],
    used: Sequence[Measurement],
    condition: str = "",
) -> Row:
    """A row with its finding; `figure` is a value, its interval and its unit."""
    value, interval, unit = figure
    crowded = next((why for one in evidence.steps if (why := crowd(one.file, setting.ranks))), "")
    if crowded:
        verdict, condition = "UNDERPOWERED", "; ".join(filter(None, (f"{crowded}{TURNS}", condition)))
    low, high = interval or (None, None)
    alike = [one.setting for one in evidence.steps if one.setting.decode == setting.decode]
    finding = replace(
        evidence.blank(unit),
        verdict=verdict,
        value=value,
        low=low,
        high=high,
        condition=condition if interval else "; ".join(filter(None, (SINGLE, condition))),
        cases=tuple(one.case.name for one in used),
        scope=f"{what} {at(load)} {apart(setting, alike)}".rstrip(),
        model=setting.model,
    )
    return Row(setting, load, what, finding)


def within(interval: Interval, least: float, most: float) -> Verdict:
    """HOLDS where the whole interval lies within these limits, REFUTED where all of it lies outside."""
    if interval is None:
        return "UNDERPOWERED"
    low, high = interval
    if least <= low and high <= most:
        return "HOLDS"
    return "REFUTED" if high < least or low > most else "UNDERPOWERED"


def summed_up(evidence: Evidence, unit: str, rows: Sequence[Row], *, lacking: str) -> Iterator[Finding]:
    """The overall finding, then those of the rows; `lacking` says what would have to run where there are none.

    It holds or is refuted where all rows are; where they differ, or some cannot be told, it says which.
    """
    deciding = [one for one in rows if one.decides]
    if not deciding:
        yield replace(evidence.blank(unit), condition=lacking)
    else:
        whole = claims_evidence.merged(evidence, [one.finding for one in deciding], unit)
        verdict = joint([one.finding.verdict for one in deciding])
        if verdict == "UNDERPOWERED":
            whole = replace(whole, low=None, high=None)
        yield replace(whole, verdict=verdict, condition=_condition(verdict, deciding))
    yield from (one.finding for one in rows)


def joint(found: Sequence[Verdict]) -> Verdict:
    """Some that hold beside others that do not, or that cannot be told, make it conditional."""
    decided = {verdict for verdict in found if verdict in DECIDED}
    if not decided:
        return "UNDERPOWERED"
    if decided == {"REFUTED"}:
        return "REFUTED"
    return "HOLDS" if set(found) == {"HOLDS"} else "HOLDS_IF"


def _condition(verdict: Verdict, rows: Sequence[Row]) -> str:
    """Of each series of loads where it holds, and where that cannot be told."""
    series: dict[tuple[Setting, str], list[Row]] = {}
    for one in rows:
        series.setdefault((one.setting, one.what), []).append(one)
    said: dict[str, list[str]] = {}
    for (setting, what), alike in series.items():
        name = f"{what} {apart(setting, {one for one, _ in series})}".rstrip()
        said.setdefault(_of_series(verdict, alike), []).append(name)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in said.items())


def _of_series(verdict: Verdict, rows: Sequence[Row]) -> str:
    among = [one.load for one in rows]
    holding = [one.load for one in rows if one.finding.verdict == "HOLDS"]
    open_ones = [one.load for one in rows if one.finding.verdict not in DECIDED]
    said = []
    if verdict == "HOLDS_IF":
        said.append(where(holding, among) if holding else "nowhere")
    elif verdict != "UNDERPOWERED" and len(open_ones) < len(among):
        said.append(where([load for load in among if load not in open_ones], among))
    if open_ones:
        reasons = {_shared_reason(one.finding.condition) for one in rows if one.load in open_ones}
        said.append(
            reasons.pop()
            if len(reasons) == 1 and "" not in reasons
            else f"cannot be told {where(open_ones, among, 'any')}"
        )
    return "; ".join(said)


def _shared_reason(condition: str) -> str:
    """What keeps a finding open whatever was measured; empty where it is the figures."""
    return next((part for part in condition.split("; ") if part == SINGLE or part.endswith(TURNS)), "")


# The claims on PP alone: one request lights one stage, micro-batches are of no use, stages are busy all the time.

ALL_OF_IT = 1.05
"""A share this many times 1/P still counts as 1/P."""
MOST_OF_TIME = 0.95
"""Share of its time from which on a stage counts as used all the time."""
RUN_SUITE_WITH = "run suites/bench_tp_vs_pp.py with"
NO_SINGLE = f"no decode of one sequence in stages: {RUN_SUITE_WITH} --batch 1"
NO_PAIR = f"no batch with both sync and async PP: {RUN_SUITE_WITH} both"
NO_FULL = f"no async PP in decode with as many micro-batches as stages: {RUN_SUITE_WITH} it"


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
                _share(evidence, experiment, load, one, of, measurement.BUSY, (MOST_OF_TIME, inf))
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


# The claims on communication by ledgers of steps that ran: all-reduces of decode and prefill in TP, hops in PP.

MOST_SHARE = 0.30
PREFILL = 0.20, 0.30
HOPS = 0.0, 0.01
BESIDE = {"all-reduce": "skew", "hop": "idle"}
"""What is waited for before either."""
WAITING = {"all-reduce": "waiting for the last rank", "hop": "fill and drain"}
RUN_SUITE_WITH_BOTH = "run suites/bench_tp_vs_pp.py with both"
NO_TP = f"no {{}} under TP alone with its ledger: {RUN_SUITE_WITH_BOTH}"
NO_PP = f"no prefill in stages with its ledger: {RUN_SUITE_WITH_BOTH}"


def judge_all_reduces(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The share of all-reduces in a decode step of TP, waiting for the last rank to come not counted."""
    yield from _judge_tp(evidences, decode=True, limits=(0.0, MOST_SHARE))


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
                said = f"{WAITING[item]} {formatting.percent(beside)} beside it"
                figure = fmean(shares), interval, "share"
                yield row(evidence, experiment.setting, load, str(one), within(interval, *limits), figure, [of], said)


def _has(one: Deployment, item: str) -> bool:
    alone = one.replicas == 1 and min(one.tp, one.pp) == 1
    return alone and (one.tp if item == "all-reduce" else one.pp) > 1


UNIT = "sequences"
LARGE = 1000
"""Sequences from which on a decode batch is a large one, as the note has it."""
LACKING = "no {} of TP and of PP over all ranks: run suites/bench_tp_vs_pp.py with both"


def judge_latency(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """t(PP at its best) / t(TP) of a decode step at each batch: above 1 TP has the lower latency."""
    yield from _judge(evidences, decode=True)


def judge_prefill(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """t(TP) / t(PP at its best) of a whole prefill, fill and drain in it: above 1 PP has the higher throughput."""
    yield from _judge(evidences, decode=False)


def judge_crossover(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """From which decode batch on PP has the shorter step, and so more tokens a second, of each series that ran."""
    for evidence in evidences:
        if evidence.steps:
            decoding = [one for one in evidence.steps if one.setting.decode and duels(one)]
            found = [_crossing(evidence, one) for one in decoding]
            if len(found) == 1:
                yield replace(found[0], scope=OVERALL, model=None)
            elif found:
                yield _together(evidence, found)
            else:
                yield replace(evidence.blank(UNIT), condition=LACKING.format("decode"))
            yield from found


def _crossing(evidence: Evidence, experiment: Experiment) -> Finding:
    """Of one series: between the last batch at which TP is ahead and the first at which PP is."""
    found = duels(experiment)
    setting, at = experiment.setting, crossover(found)
    crowded = crowd(experiment.file, setting.ranks)
    alike = [one.setting for one in evidence.steps if one.setting.decode]
    blank = replace(
        evidence.blank(UNIT),
        cases=tuple(of.case.name for one in found for of in (one.ratio.base, one.ratio.other)),
        scope=f"tp{found[0].tp.tp}/pp{found[0].pp.pp} {apart(setting, alike)}".rstrip(),
        model=setting.model,
    )
    if crowded or all(one.ratio.interval is None for one in found):
        return replace(blank, verdict="UNDERPOWERED", condition=f"{crowded}{TURNS}" if crowded else SINGLE)
    if at.after and at.by:
        said = f"from a batch between {at.after} and {at.by} on; {_by(found, at.by)}"
        return replace(blank, verdict="HOLDS_IF", value=at.by, low=at.after, high=at.by, condition=said)
    return replace(blank, verdict=_without(found), condition=_said(found))


def _without(found: Sequence[Duel]) -> Verdict:
    """The verdict where nobody overtakes: it is about large batches, so the largest one has to be large and decided."""
    winners = {one.winner for one in found if one.winner}
    if winners == {"tp"} and found[-1].winner and found[-1].load.batch >= LARGE:
        return "REFUTED"
    if winners == {"pp"} and found[-1].winner:
        return "HOLDS" if all(one.winner for one in found) else "HOLDS_IF"
    return "UNDERPOWERED"


def _said(found: Sequence[Duel]) -> str:
    """Who is ahead where, and where that cannot be told."""
    loads = [one.load for one in found]
    won = {who: [one.load for one in found if one.winner == who] for who in ("tp", "pp")}
    even = [one.load for one in found if one.winner is None]
    said = [f"{who.upper()} is ahead {where(at, loads)}" for who, at in won.items() if at]
    said += [f"cannot be told {where(even, loads, 'any')}"] if even else []
    said += [f"no batch of {LARGE} or more ran"] if loads[-1].batch < LARGE else []
    return "; ".join(said)


def _by(found: Sequence[Duel], batch: int) -> str:
    """What of PP was the fastest at this batch."""
    return f"by {next(spoken(one.pp) for one in found if one.load.batch == batch)}"


def _together(evidence: Evidence, found: Sequence[Finding]) -> Finding:
    """Several series: their range where each has a crossover."""
    whole = claims_evidence.merged(evidence, found, UNIT)
    verdict = joint([one.verdict for one in found])
    return replace(whole, verdict=verdict, condition="; ".join(f"{one.scope}: {one.condition}" for one in found))


def _judge(evidences: Iterable[Evidence], *, decode: bool) -> Iterator[Finding]:
    lacking = LACKING.format("decode" if decode else "prefill")
    for evidence in evidences:
        if evidence.steps:
            rows = [
                _row(evidence, experiment, one)
                for experiment in evidence.steps
                if experiment.setting.decode == decode
                for one in duels(experiment)
            ]
            yield from summed_up(evidence, "ratio", rows, lacking=lacking)


def _row(evidence: Evidence, experiment: Experiment, one: Duel) -> Row:
    value, interval = one.ratio.value, one.ratio.interval
    tp, pp = one.ratio.base, one.ratio.other
    if experiment.setting.decode:
        holds, condition = one.winner == "tp", f"the best of PP is {spoken(one.pp)}"
    else:
        holds = one.winner == "pp"
        value, interval = 1 / value, (1 / interval[1], 1 / interval[0]) if interval else None
        times = [formatting.one(formatting.SECONDS, of.median) for of in (pp, tp)]
        condition = f"time to first token {times[0]} with {spoken(one.pp)}, {times[1]} with {spoken(one.tp)}"
    verdict: Verdict = "UNDERPOWERED" if one.winner is None else "HOLDS" if holds else "REFUTED"
    what = f"tp{one.tp.tp}/pp{one.pp.pp}"
    return row(evidence, experiment.setting, one.load, what, verdict, (value, interval, "ratio"), [tp, pp], condition)

"""The claims on who wins, by steps over the same ranks: latency in decode, tokens a second there, and prefill."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from reports import overall, units
from reports.evidence import Evidence
from reports.experiment.collect import Experiment, crowd
from reports.experiment.duel import Duel, crossover, duels
from reports.experiment.rows import SINGLE, TURNS, Row, joint, row, summed_up
from reports.experiment.words import apart, spoken, where
from reports.finding import OVERALL, Finding, Verdict

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
    whole = overall.merged(evidence, found, UNIT)
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
        times = [units.one(units.SECONDS, of.median) for of in (pp, tp)]
        condition = f"time to first token {times[0]} with {spoken(one.pp)}, {times[1]} with {spoken(one.tp)}"
    verdict: Verdict = "UNDERPOWERED" if one.winner is None else "HOLDS" if holds else "REFUTED"
    what = f"tp{one.tp.tp}/pp{one.pp.pp}"
    return row(evidence, experiment.setting, one.load, what, verdict, (value, interval, "ratio"), [tp, pp], condition)

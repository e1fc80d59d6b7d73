"""The claims that TP has the lower decode latency and that PP wins prefill: their steps over the same ranks."""

from collections.abc import Iterable, Iterator

from reports import units
from reports.evidence import Evidence
from reports.experiment.collect import Experiment
from reports.experiment.duel import Duel, duels
from reports.experiment.rows import Row, row, summed_up
from reports.experiment.words import spoken
from reports.finding import Finding, Verdict

LACKING = "no {} of TP and of PP over all ranks: run suites/bench_tp_vs_pp.py with both"


def judge_latency(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """t(PP at its best) / t(TP) of a decode step at each batch: above 1 TP has the lower latency."""
    yield from _judge(evidences, decode=True)


def judge_prefill(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """t(TP) / t(PP at its best) of a whole prefill, fill and drain in it: above 1 PP has the higher throughput."""
    yield from _judge(evidences, decode=False)


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

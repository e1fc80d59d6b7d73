"""The claims on schedules and on latency, by composed decode steps of TP and of PP over all GPUs."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import product
from math import inf
from statistics import fmean

from reports import pipeline
from reports.evidence import Evidence
from reports.experiment.collect import Load
from reports.experiment.rows import within
from reports.experiment.schedules import ALL_OF_IT, MOST
from reports.experiment.words import spoken
from reports.finding import Finding
from reports.plan.asked import BATCHES
from reports.plan.basis import Basis
from reports.plan.cost import FIGURES, Pick
from reports.plan.deployments import MICRO_BATCHES
from reports.plan.missing import MissingError
from reports.plan.parts import Parts
from reports.plan.step import Step, by_stage
from reports.planned.prompts import LENGTHS, PROMPTS, through_stages
from reports.planned.rows import Rows
from reports.planned.subject import Composed, Span, Subject, subjects
from reports.ratios import AS_LONG
from specs.parallel import PARTITIONS, Deployment

Found = tuple[Span, Basis]
MANY = (8, 64, 256, 1000, 2048, 4096)
"""Batches of micro-batches; 1000 is the note's."""


def judge_latency(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """t(PP at its best) / t(TP) of a step at each batch that fits: above 1 TP has the lower latency."""
    for subject in subjects(evidences):
        rows, tp = Rows(subject, "ratio"), Deployment(tp=subject.asked.gpus)
        for batch in BATCHES:
            ways = [one for one in (_sync(subject), *_async(subject, batch)) if subject.fits(one, batch)]
            if ways and subject.fits(tp, batch):
                what, said = (
                    f"tp{tp.tp}/pp{tp.tp}",
                    f"the best of PP is {spoken(_best(subject, ways, batch) or ways[0])}",
                )
                _add(rows, batch, what, (1, inf), partial(_ratio, subject, [tp], ways, batch), said)
        yield from rows.findings()


def judge_micro_batches(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """t(sync) / t(async at its best m) of a decode step at each batch."""
    for subject in subjects(evidences):
        rows, sync = Rows(subject, "ratio"), _sync(subject)
        for batch in MANY:
            ways = [one for one in _async(subject, batch) if subject.fits(one, batch)]
            if ways and subject.fits(sync, batch):
                best = _best(subject, ways, batch) or ways[0]
                figure = partial(_ratio, subject, ways, [sync], batch)
                _add(rows, batch, f"pp{sync.pp}", (1 / AS_LONG, AS_LONG), figure, f"m = {best.micro_batches}")
        yield from rows.findings()


def judge_utilisation(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The share of a step that stages of async PP are busy; prefill stands beside it."""
    for subject in subjects(evidences):
        rows = Rows(subject, "share")
        for way in PARTITIONS:
            for batch in MANY:
                one = Deployment(1, subject.asked.gpus, 1, "async", subject.asked.gpus, way)
                if subject.fits(one, batch):
                    _add(rows, batch, str(one), (MOST, inf), partial(_busy, subject, one, batch))
        _add_prefill(rows)
        yield from rows.findings()


def judge_single(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The share of a step that a GPU is busy while a single sequence walks from stage to stage."""
    for subject in subjects(evidences):
        rows, sync = Rows(subject, "share"), _sync(subject)
        if subject.fits(sync, 1):
            said = f"1/{sync.pp} is {1 / sync.pp:.1%}"
            _add(rows, 1, str(sync), (0, ALL_OF_IT / sync.pp), partial(_busy, subject, sync, 1), said)
        yield from rows.findings()


def _add(
    rows: Rows, batch: int, what: str, limits: tuple[float, float], figure: partial[Found], condition: str = ""
) -> None:
    """A row, or why there is none."""
    try:
        found = rows.subject.over(figure)
    except MissingError as error:
        rows.lacking.append(str(error))
        return
    rows.add(rows.subject.setting(), Load(1, batch), what, within(found[0][1:], *limits), found, condition)


def _add_prefill(rows: Rows) -> None:
    """One-shot prefill fills and drains the pipeline, which the claim leaves out: it decides nothing."""
    one = Deployment(pp=rows.subject.asked.gpus, schedule="async", micro_batches=PROMPTS)
    tokens = LENGTHS[0]

    def busy(parts: Parts) -> Found:
        walk = through_stages(parts, one, tokens)
        return walk.busy, walk.basis

    try:
        found = rows.subject.over(busy)
    except MissingError:
        return
    setting, load = rows.subject.setting(decode=False), Load(tokens, PROMPTS)
    verdict = within(found[0][1:], MOST, inf)
    rows.add(setting, load, str(one), verdict, found, "fill and drain in it", decides=False)


def _sync(subject: Subject) -> Deployment:
    return Deployment(pp=subject.asked.gpus, schedule="sync")


def _async(subject: Subject, batch: int) -> list[Deployment]:
    """With as many micro-batches as stages, and twice as many, where they come out equal."""
    gpus = subject.asked.gpus
    return [Deployment(1, gpus, 1, "async", one * gpus) for one in MICRO_BATCHES if not batch % (one * gpus)]


def _ratio(
    subject: Subject, base: Sequence[Deployment], other: Sequence[Deployment], batch: int, parts: Parts
) -> Found:
    """Time of the fastest of `other` over that of the fastest of `base`, by the same parts."""
    a, b = _fastest(subject, parts, base, batch), _fastest(subject, parts, other, batch)
    span = Span(b.step.seconds / a.step.seconds, b.step.low / a.step.high, b.step.high / a.step.low)
    return span, Basis.joined([a.basis, b.basis])


def _fastest(subject: Subject, parts: Parts, ways: Sequence[Deployment], batch: int) -> Composed:
    return min((subject.composed(parts, one, batch) for one in ways), key=lambda one: one.step.seconds)


def _best(subject: Subject, ways: Sequence[Deployment], batch: int) -> Deployment | None:
    """The fastest by the first whose parts are there."""
    for parts in subject.parts:
        try:
            return min(ways, key=lambda one: subject.composed(parts, one, batch).step.seconds)
        except MissingError:
            continue
    return None


def _busy(subject: Subject, deployment: Deployment, batch: int, parts: Parts) -> Found:
    """Of all stages in the mean, whatever is in doubt of stages and of hops."""
    made = subject.composed(parts, deployment, batch)
    shares = [_busy_share(made.step, *picks) for picks in product(FIGURES, FIGURES)]
    return Span(shares[0], min(shares), max(shares)), made.basis


def _busy_share(step: Step, stage_pick: Pick, hop_pick: Pick) -> float:
    busy = by_stage(step.sizes, step.stages, stage_pick)
    return fmean(map(sum, busy)) / pipeline.period(busy, by_stage(step.sizes, step.hops, hop_pick))

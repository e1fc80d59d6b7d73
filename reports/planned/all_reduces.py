"""The claims on all-reduces in decode: up to 30 % of a step under TP, 38 % of one over NVLink."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from reports import units
from reports.evidence import Evidence
from reports.experiment.collect import Load, Setting
from reports.experiment.rows import within
from reports.experiment.words import listed, where
from reports.finding import DECIDED, Finding, Verdict
from reports.plan.asked import BATCHES
from reports.plan.basis import Basis
from reports.plan.missing import MissingError
from reports.plan.parts import Parts
from reports.planned.links import slow
from reports.planned.rows import Rows, also
from reports.planned.subject import Span, Subject, subjects
from specs.parallel import Deployment

MOST, REACHED = 0.30, 0.38
Way = tuple[str, str]
"""Whose kernel, and how it is launched."""
WAYS: Mapping[Way, str] = {
    ("custom", "graph"): "custom kernel in a graph",
    ("custom", "eager"): "custom kernel launched eagerly",
    ("nccl", "graph"): "NCCL in a graph",
    ("nccl", "eager"): "NCCL launched eagerly",
}
SHOWN = (1, 64, 256, 1024)
Shares = dict[int, tuple[Span, Basis]]


def judge_most(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The share of all-reduces at each batch, by backend and launch."""
    for subject in subjects(evidences):
        rows = Rows(subject, "share")
        said: dict[str, str] = {}
        for way in WAYS:
            limit = slow(_asking(subject, way))
            verdicts: dict[Load, Verdict] = {}
            for batch, found in _shares(subject, way, SHOWN, rows.lacking).items():
                verdict = verdicts[Load(1, batch)] = within(found[0][1:], 0, MOST)
                rows.add(_setting(subject, way), Load(1, batch), str(_tp(subject)), verdict, found, limit)
            if verdicts:
                said[f"{WAYS[way]} ({limit})" if limit else WAYS[way]] = _by_batch(verdicts)
        yield from rows.findings(_grouped(said, ": "))


def judge_reached(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The largest share at any batch that fits, and from which batch on it is large enough; over NVLink alone."""
    for subject in subjects(evidences):
        gpu = subject.evidence.known
        if gpu and not gpu.link.startswith("NVLink"):
            yield replace(
                subject.evidence.blank("share"), condition=f"no NVLink: its link is {gpu.link}", provenance=""
            )
            continue
        rows, said = Rows(subject, "share"), {}
        for way, name in WAYS.items():
            if shares := _shares(subject, way, BATCHES, rows.lacking):
                said[name] = _add(rows, _setting(subject, way), shares)
        yield from rows.findings(_grouped(said, " "))


def _add(rows: Rows, setting: Setting, shares: Shares) -> str:
    """A row at the batch with the largest share, and what it says."""
    spans = {batch: span for batch, (span, _) in shares.items()}
    batch = max(spans, key=lambda one: spans[one].value)
    largest = Span(*(max(ends) for ends in zip(*spans.values(), strict=True)))
    reached = _reached(spans)
    said = reached or f"at most {units.percent(largest.high)} up to a batch of {max(spans)}"
    verdict: Verdict = "HOLDS_IF" if reached else "REFUTED"
    basis = Basis.joined(one for _, one in shares.values())
    rows.add(setting, Load(1, batch), str(_tp(rows.subject)), verdict, (largest, basis), said)
    return said


def _grouped(said: Mapping[str, str], link: str) -> str:
    """What is said of each way, those of which it is the same together."""
    ways: dict[str, list[str]] = {}
    for name, text in said.items():
        ways.setdefault(text, []).append(name)
    return also(*(f"{listed(names)}{link}{text}" for text, names in ways.items()))


def _by_batch(verdicts: Mapping[Load, Verdict]) -> str:
    """At which batches all-reduces are no more than that, at which more, at which it is open."""
    among = list(verdicts)
    holding, more = ([load for load, one in verdicts.items() if one == kind] for kind in ("HOLDS", "REFUTED"))
    undecided = [load for load, one in verdicts.items() if one not in DECIDED]
    said = [f"up to {units.percent(MOST)} {where(holding, among)}"] if holding else []
    said += [f"more {where(more, among)}"] if more else []
    said += [f"cannot be told {where(undecided, among, 'any')}"] if undecided else []
    return ", ".join(said)


def _reached(spans: Mapping[int, Span]) -> str:
    """At which batches, going by the most that a share may be, and by the least; empty if at none."""
    maybe = [batch for batch, span in spans.items() if span.high >= REACHED]
    surely = next((batch for batch, span in spans.items() if span.low >= REACHED), None)
    if not maybe:
        return ""
    first = f"{maybe[0]}–{surely}" if surely and surely > maybe[0] else f"{maybe[0]}"
    between = [batch for batch in spans if maybe[0] <= batch <= maybe[-1] and batch not in maybe]
    if len(maybe) == 1 and maybe[0] != max(spans):
        text = f"at a batch of {maybe[0]}"
    elif maybe[-1] == max(spans):
        text = f"from a batch of {first} on"
    else:
        text = f"at batches of {first} to {maybe[-1]}"
    text += f" but for {listed([str(batch) for batch in between])}" if between else ""
    return text if surely else f"{text} in some implementations"


def _asking(subject: Subject, way: Way) -> Subject:
    backend, launch = way
    return subject.asking(replace(subject.asked, backend=backend, launches=(launch,)))


def _setting(subject: Subject, way: Way) -> Setting:
    return subject.setting(backend=" ".join(way))


def _shares(subject: Subject, way: Way, batches: Iterable[int], lacking: list[str]) -> Shares:
    """Of TP over all GPUs, at those batches that fit and that there are all-reduces for."""
    this, tp = _asking(subject, way), _tp(subject)
    found: Shares = {}

    def share(batch: int, parts: Parts) -> tuple[Span, Basis]:
        made = this.composed(parts, tp, batch)
        part, step = made.account.all_reduce_share, made.step
        return Span(part, part * step.seconds / step.high, min(1.0, part * step.seconds / step.low)), made.basis

    for batch in batches:
        if subject.fits(tp, batch):
            try:
                found[batch] = this.over(partial(share, batch))
            except MissingError as error:
                lacking.append(str(error))
    return found


def _tp(subject: Subject) -> Deployment:
    return Deployment(tp=subject.asked.gpus)

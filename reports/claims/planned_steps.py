"""The claims on schedules and on latency, by composed decode steps of TP and of PP over all GPUs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from math import inf
from statistics import fmean

from reports import formatting, pipeline_model
from reports.claims.evidence import DECIDED, OVERALL, Evidence, Finding, Verdict
from reports.claims.measured_steps import ALL_OF_IT, LARGE, MOST_OF_TIME, within
from reports.claims.planned_prefill import LENGTHS, PROMPTS, through_stages
from reports.claims.planned_subject import Composed, Rows, Span, Subject, also, finding_of, slow, subjects
from reports.claims.tokens import AS_LONG
from reports.deployment_names import apart, listed, spoken, where
from reports.plan import planner, step
from reports.plan.answer import both, surely_ahead, telling, third
from reports.plan.crossover import MOST as CROSSOVER_MOST
from reports.plan.crossover import Crossover
from reports.plan.estimate import FIGURES, Basis, MissingError, Pick
from reports.plan.planner import Plan, Point
from reports.plan.query import BATCHES, MICRO_BATCHES
from reports.plan.step import Parts, Step, by_stage
from reports.tp_vs_pp.compare import Load, Setting
from specs.parallel import PARTITIONS, Deployment

# The claims on all-reduces in decode: up to 30 % of a step under TP, 38 % of one over NVLink.

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
                said[name] = _add_share(rows, _setting(subject, way), shares)
        yield from rows.findings(_grouped(said, " "))


def _add_share(rows: Rows, setting: Setting, shares: Shares) -> str:
    """A row at the batch with the largest share, and what it says."""
    spans = {batch: span for batch, (span, _) in shares.items()}
    batch = max(spans, key=lambda one: spans[one].value)
    largest = Span(*(max(ends) for ends in zip(*spans.values(), strict=True)))
    reached = _reached(spans)
    said = reached or f"at most {formatting.percent(largest.high)} up to a batch of {max(spans)}"
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
    said = [f"up to {formatting.percent(MOST)} {where(holding, among)}"] if holding else []
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
                _add_figure(rows, batch, what, (1, inf), partial(_ratio, subject, [tp], ways, batch), said)
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
                _add_figure(rows, batch, f"pp{sync.pp}", (1 / AS_LONG, AS_LONG), figure, f"m = {best.micro_batches}")
        yield from rows.findings()


def judge_utilisation(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The share of a step that stages of async PP are busy; prefill stands beside it."""
    for subject in subjects(evidences):
        rows = Rows(subject, "share")
        for way in PARTITIONS:
            for batch in MANY:
                one = Deployment(1, subject.asked.gpus, 1, "async", subject.asked.gpus, way)
                if subject.fits(one, batch):
                    _add_figure(rows, batch, str(one), (MOST_OF_TIME, inf), partial(_busy, subject, one, batch))
        _add_prefill(rows)
        yield from rows.findings()


def judge_single(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The share of a step that a GPU is busy while a single sequence walks from stage to stage."""
    for subject in subjects(evidences):
        rows, sync = Rows(subject, "share"), _sync(subject)
        if subject.fits(sync, 1):
            said = f"1/{sync.pp} is {1 / sync.pp:.1%}"
            _add_figure(rows, 1, str(sync), (0, ALL_OF_IT / sync.pp), partial(_busy, subject, sync, 1), said)
        yield from rows.findings()


def _add_figure(
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
    verdict = within(found[0][1:], MOST_OF_TIME, inf)
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
    return fmean(map(sum, busy)) / pipeline_model.period(busy, by_stage(step.sizes, step.hops, hop_pick))


# The question: from which decode batch on async PP gives more tokens a second than TP.

UNIT = "sequences"
LONG = 2048
"""Tokens of context at which memory ends sooner."""
VERDICTS: dict[str, Verdict] = {"crossover": "HOLDS_IF", "tp": "REFUTED", "pp": "HOLDS", "ambiguous": "UNDERPOWERED"}


def judge(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """The crossover over everybody's parts and both partitions; then by all-reduce, and for a longer context."""
    for subject in subjects(evidences):
        usual = subject.asked
        others = [
            *(replace(usual, backend=one) for one in ("custom", "nccl")),
            replace(usual, context=LONG),
        ]
        settings = [subject.asking(one).setting(backend=_backend(one.backend)) for one in (usual, *others)]
        plan = planner.planned(subject.evidence.file)
        yield _overall(subject, plan)
        if plan and plan.crossover:
            for asked, setting in zip(others, settings[1:], strict=True):
                yield _row(subject.asking(asked), apart(setting, settings), plan)


def _backend(name: str) -> str:
    return "" if name == "best" else name


def _overall(subject: Subject, plan: Plan | None) -> Finding:
    found = plan.crossover if plan else None
    if plan is None or found is None:
        why = [one.why for one in plan.left_out if one.deployment.tp == plan.asked.gpus] if plan else []
        lacking = why[0] if why else f"TP and PP over {subject.asked.gpus} GPUs cannot both be planned"
        return replace(subject.evidence.blank(UNIT), condition=lacking, provenance="")
    said = also(_from(subject, found), _third(plan), slow(subject))
    return replace(_finding(subject, found, plan, said), scope=OVERALL)


def _row(subject: Subject, what: str, plan: Plan) -> Finding:
    gpus = subject.asked.gpus
    scope = f"tp{gpus}/pp{gpus} {what}"
    found = planner.crossing(subject.evidence.file, subject.asked)
    if found is None:
        lacking = f"TP and PP over {gpus} GPUs cannot both be planned so"
        blank = subject.evidence.blank(UNIT)
        return replace(blank, condition=lacking, scope=scope, model=subject.asked.model, provenance="")
    said = also(_from(subject, found), slow(subject))
    return replace(_finding(subject, found, plan, said), scope=scope, model=subject.asked.model)


def _finding(subject: Subject, found: Crossover, plan: Plan, said: str) -> Finding:
    """With the cases of both ways as far as the plan has points of them."""
    sides = [one for batch in plan.asked.batches for one in both(plan, plan.at(batch)) if one and one.account]
    basis = Basis.joined(Basis(one.account.provenance, one.account.cases) for one in sides if one.account)
    verdict: Verdict = VERDICTS[found.verdict] if not _too_few(found) else "UNDERPOWERED"
    made = finding_of(subject, UNIT, verdict, (Span(0.0, 0.0, 0.0), basis), said)
    if found.batch is None or found.low is None or found.high is None or verdict == "HOLDS":
        return replace(made, value=None, low=None, high=None)
    return replace(made, value=found.batch, low=found.low, high=found.high)


def _too_few(found: Crossover) -> bool:
    """Whether TP leads as far as anybody looked, which was not as far as large batches."""
    return found.verdict == "tp" and found.looked_at[1] < LARGE


def _ended(subject: Subject, found: Crossover) -> str:
    """What ends the batches: memory, and under which of the ways first; else what the search says."""
    gpus, context = subject.asked.gpus, subject.asked.context
    fit = {
        name: step.most_sequences(one, subject.asked, subject.system)
        for name, one in {
            f"TP {gpus}": Deployment(tp=gpus),
            **{f"PP {gpus} with {way} stages": Deployment(1, gpus, 1, "async", gpus, way) for way in PARTITIONS},
        }.items()
    }
    first = min(fit, key=lambda one: fit[one])
    if fit[first] >= found.looked_at[1] + gpus or fit[first] >= CROSSOVER_MOST:
        return found.bound_by
    others = ", ".join(f"{count} under {name}" for name, count in fit.items() if name != first)
    return f"memory ends at {fit[first]} sequences of context {context} under {first} ({others})"


def _from(subject: Subject, found: Crossover) -> str:
    """Where PP leads, and what ends the batches."""
    first, last = found.looked_at
    never = sum(1 for one in found.by.values() if one is None)
    if found.verdict == "crossover":
        span = str(found.low) if found.low == found.high else f"{found.low}–{found.high}"
        text = f"for good from a batch of {span} on"
    elif found.verdict == "ambiguous":
        text = f"PP takes the lead for good in {len(found.by) - never} of {len(found.by)} variants, up to {last}"
        text += f"; TP leads below {found.low}" if found.low and found.low > first else ""
    else:
        text = f"{found.verdict.upper()} leads at every batch from {first} to {last}"
    few = f"no batch of {LARGE} or more was looked at" if _too_few(found) else ""
    return also(text, few, _ended(subject, found))


def _third(plan: Plan) -> str:
    """What gives more than both at the batch nearest to the crossover where anything does, as in the plan's answer."""
    for batch in telling(plan):
        if found := third(plan, batch):
            return _more(*found)
    return ""


def _more(best: Point, tp: Point, pp: Point) -> str:
    give = "give" if best.deployment.replicas > 1 else "gives"
    rates = f"{_rate(best)} tokens a second against {_rate(tp)} and {_rate(pp)}"
    surely = "" if surely_ahead(best, (tp, pp)) else "; intervals overlap"
    return f"{spoken(best.deployment)} {give} more than both at {best.batch} ({rates}{surely})"


def _rate(one: Point) -> str:
    return formatting.digits(one.tokens_per_second)

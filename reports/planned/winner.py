"""The question: from which decode batch on async PP gives more tokens a second than TP."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from reports import units
from reports.evidence import Evidence
from reports.experiment.winners import LARGE
from reports.experiment.words import apart, spoken
from reports.finding import OVERALL, Finding, Verdict
from reports.plan import room, shared
from reports.plan.answer import both, surely_ahead, telling, third
from reports.plan.basis import Basis
from reports.plan.crossover import MOST, Crossover
from reports.plan.plan import Plan
from reports.plan.point import Point
from reports.planned.links import slow
from reports.planned.rows import also, finding_of
from reports.planned.subject import Span, Subject, subjects
from specs.parallel import PARTITIONS, Deployment

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
        plan = shared.planned(subject.evidence.file)
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
    found = shared.crossing(subject.evidence.file, subject.asked)
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
        name: room.most_sequences(one, subject.asked, subject.system)
        for name, one in {
            f"TP {gpus}": Deployment(tp=gpus),
            **{f"PP {gpus} with {way} stages": Deployment(1, gpus, 1, "async", gpus, way) for way in PARTITIONS},
        }.items()
    }
    first = min(fit, key=lambda one: fit[one])
    if fit[first] >= found.looked_at[1] + gpus or fit[first] >= MOST:
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
    return units.digits(one.tokens_per_second)

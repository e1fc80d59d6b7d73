"""What claims are judged on where nobody ran whole models: a GPU whose parts were measured, and the usual question."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from reports import formatting
from reports.claims.evidence import Evidence, Finding, Verdict
from reports.claims.measured_steps import Row, summed_up
from reports.deployment_names import apart, at
from reports.plan import planner, step
from reports.plan.estimate import Basis, MissingError
from reports.plan.profile import System
from reports.plan.query import Asked
from reports.plan.step import Account, Parts, Step, account, compose
from reports.tp_vs_pp.compare import Load, Setting
from specs import traffic
from specs.parallel import Deployment
from specs.units import binary_bytes


class Span(NamedTuple):
    """A figure and what it may be: over everybody's parts, elementwise kernels counted or not, and over all doubts."""

    value: float
    low: float
    high: float


class Composed(NamedTuple):
    """A step and where it goes."""

    step: Step
    account: Account

    @property
    def basis(self) -> Basis:
        """What it rests on."""
        return Basis(self.account.provenance, self.account.cases)


@dataclass(frozen=True)
class Subject:
    """One GPU.

    Attributes:
        evidence: of its file, on whole layers, with nothing in it that ran.
        asked: the question.
    """

    evidence: Evidence
    asked: Asked = planner.QUESTION

    @cached_property
    def system(self) -> System:
        """What its file holds."""
        return planner.system(self.evidence.file, self.asked.dtype)

    @property
    def parts(self) -> Sequence[Parts]:
        """By everybody whose linears were measured."""
        return planner.parts(self.evidence.file, self.asked)

    def asking(self, asked: Asked) -> "Subject":
        """The same GPU asked something else."""
        return replace(self, asked=asked)

    def setting(self, *, decode: bool = True, backend: str = "") -> Setting:
        """How its findings are spoken of."""
        cut = self.asked.cut
        context = self.asked.context if decode else None
        return Setting(cut.slug, cut.layers, cut.vocab, self.asked.dtype, "", backend, self.asked.gpus, decode, context)

    def fits(self, deployment: Deployment, batch: int) -> bool:
        """Whether it can be run so, and memory holds it."""
        return not deployment.why_not(self.asked.gpus, batch) and not step.why_not(
            deployment, self.asked, self.system, batch
        )

    def over(self, figure: Callable[[Parts], tuple[Span, Basis]]) -> tuple[Span, Basis]:
        """A figure over everybody's parts: its middle where elementwise kernels count, as points of a plan have it.

        Raises:
            MissingError: nobody has all that it needs.
        """
        found: list[tuple[bool, Span, Basis]] = []
        lacking: list[MissingError] = []
        for one in self.parts:
            try:
                span, basis = figure(one)
            except MissingError as error:
                lacking.append(error)
            else:
                found.append((one.variant.elementwise, span, basis))
        if not found:
            raise lacking[0]
        counted = sorted(span.value for elementwise, span, _ in found if elementwise) or [found[0][1].value]
        ends = min(span.low for _, span, _ in found), max(span.high for _, span, _ in found)
        return Span(counted[(len(counted) - 1) // 2], *ends), Basis.joined(basis for _, _, basis in found)

    def composed(self, parts: Parts, deployment: Deployment, batch: int) -> "Composed":
        """One step by one's parts.

        Raises:
            MissingError: one of them was not measured.
        """
        split = deployment.split(self.asked.cut)
        step = compose(parts, deployment, split, batch)
        return Composed(step, account(parts, deployment, split, step))


def subjects(evidences: Iterable[Evidence]) -> Iterator[Subject]:
    """GPUs that can be planned for, each file once; where whole models ran, what ran decides."""
    all_of = list(evidences)
    ran = {one.path for one in all_of if one.steps}
    seen = set()
    for one in all_of:
        usual = one.dtype == planner.QUESTION.dtype and one.architecture != "moe"
        if usual and one.path not in ran and one.path not in seen and planner.parts(one.file, planner.QUESTION):
            seen.add(one.path)
            yield Subject(replace(one, architecture="whole", series=(), singles=(), steps=()))


# Whether all-reduces make use of the link: where they hardly do, a finding is on that system and not on its link.

LEAST = 0.1
"""Of the link's rate by datasheet, under which what was measured is far from what the link can do."""
TOKENS = 1024
"""Whose message is so large, 16 MiB with 8192 elements of two bytes, that latency hardly counts."""


def slow(subject: Subject) -> str:
    """`all-reduces of 16 MiB at 5–6% of the link`, of those that are asked for; empty where none is that slow."""
    gpu, ranks = subject.system.gpu, subject.asked.gpus
    message = TOKENS * subject.asked.cut.hidden * subject.system.itemsize
    found = []
    for parts in subject.parts if gpu else ():
        try:
            found.append(traffic.busbw("all_reduce", ranks, message, parts.messages.all_reduce(ranks, message).seconds))
        except MissingError:
            continue
    shares = sorted(one / gpu.link_bytes_per_second for one in found if one and gpu)
    if not shares or shares[0] >= LEAST:
        return ""
    low, high = (formatting.percent(one) for one in (shares[0], shares[-1]))
    span = low if low == high else f"{low.removesuffix('%')}–{high}"
    return f"all-reduces of {binary_bytes(message)} at {span} of the link"


# Findings on plans at single loads, and the one over all of them.


@dataclass(frozen=True)
class Rows:
    """Of one claim on one GPU; `lacking` says why there are none."""

    subject: Subject
    unit: str
    lacking: list[str] = field(default_factory=list)
    _rows: list[tuple[Row, Basis]] = field(default_factory=list)

    def add(
        self,
        setting: Setting,
        load: Load,
        what: str,
        verdict: Verdict,
        found: tuple[Span, Basis],
        condition: str = "",
        *,
        decides: bool = True,
    ) -> None:
        """One more; `what` ran at a load."""
        finding = finding_of(self.subject, self.unit, verdict, found, condition)
        scoped = replace(finding, scope=f"{what} {at(load)}", model=setting.model)
        self._rows.append((Row(setting, load, what, scoped, decides), found[1]))

    def findings(self, condition: str = "") -> Iterator[Finding]:
        """The overall one, which says what is assumed, then the rows.

        Args:
            condition: of the overall one, in place of what is put together from the rows.
        """
        named = [self._named(row) for row, _ in self._rows]
        lacking = self.lacking[0] if self.lacking else "nothing of it can be planned"
        whole, *rest = summed_up(self.subject.evidence, self.unit, named, lacking=lacking)
        provenance = whole.provenance if self._rows else ""
        said = condition if condition and self._rows else whole.condition
        yield replace(whole, condition=also(said, self.assumed), provenance=provenance)
        yield from rest

    def _named(self, row: Row) -> Row:
        """With what tells its setting from others of its phase."""
        alike = {one.setting for one, _ in self._rows if one.setting.decode == row.setting.decode}
        scope = f"{row.finding.scope} {apart(row.setting, alike)}".rstrip()
        return replace(row, finding=replace(row.finding, scope=scope))

    @property
    def assumed(self) -> str:
        """What all rows assume together."""
        return Basis.joined(basis for _, basis in self._rows).assumed


def finding_of(subject: Subject, unit: str, verdict: Verdict, found: tuple[Span, Basis], condition: str) -> Finding:
    """A finding by a plan: modelled at best, with the cases of all its parts."""
    (value, low, high), basis = found
    return replace(
        subject.evidence.blank(unit),
        verdict=verdict,
        value=value,
        low=low,
        high=high,
        condition=also(condition, basis.assumed),
        cases=basis.cases,
        provenance=basis.provenance,
    )


def also(*texts: str) -> str:
    """Those that say something, one after another."""
    return "; ".join(filter(None, texts))

"""What claims are judged on where nobody ran whole models: a GPU whose parts were measured, and the usual question."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from reports.evidence import Evidence
from reports.experiment.collect import Setting
from reports.plan import room, shared
from reports.plan.account import Account, account
from reports.plan.asked import Asked
from reports.plan.basis import Basis
from reports.plan.missing import MissingError
from reports.plan.parts import Parts
from reports.plan.step import Step, compose
from reports.plan.system import System
from specs.parallel import Deployment


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
    asked: Asked = shared.QUESTION

    @cached_property
    def system(self) -> System:
        """What its file holds."""
        return shared.system(self.evidence.file, self.asked.dtype)

    @property
    def parts(self) -> Sequence[Parts]:
        """By everybody whose linears were measured."""
        return shared.parts(self.evidence.file, self.asked)

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
        return not deployment.why_not(self.asked.gpus, batch) and not room.why_not(
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
        usual = one.dtype == shared.QUESTION.dtype and one.architecture != "moe"
        if usual and one.path not in ran and one.path not in seen and shared.parts(one.file, shared.QUESTION):
            seen.add(one.path)
            yield Subject(replace(one, architecture="whole", series=(), singles=(), steps=()))

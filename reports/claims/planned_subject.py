"""What claims are judged on where nobody ran whole models: a GPU whose parts were measured, and the usual question."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from reports import formatting
from reports.claims.evidence import Evidence, Finding, Verdict
from reports.claims.measured_steps import StepFinding, summarise
from reports.deployment_names import distinguishing_label, load_label
from reports.plan import planner, step
from reports.plan.estimate import MissingMeasurementError, Provenance
from reports.plan.profile import HardwareProfile
from reports.plan.query import PlanQuery
from reports.plan.step import PartCosts, StepBreakdown, StepEstimate, break_down, estimate_step
from reports.tp_vs_pp.compare import Load, Setting
from specs import traffic
from specs.parallel import Deployment
from specs.units import format_bytes


class Estimate(NamedTuple):
    """A figure and what it may be: over everybody's parts, elementwise kernels counted or not, and over all doubts."""

    value: float
    low: float
    high: float


class StepWithBreakdown(NamedTuple):
    """A step and where it goes."""

    step: StepEstimate
    breakdown: StepBreakdown

    @property
    def provenance(self) -> Provenance:
        """What it rests on."""
        return Provenance(self.breakdown.provenance, self.breakdown.cases)


@dataclass(frozen=True)
class PlannedGpu:
    """One GPU.

    Attributes:
        evidence: of its file, on whole layers, with nothing in it that ran.
        query: the question.
    """

    evidence: Evidence
    query: PlanQuery = planner.REPORT_QUERY

    @cached_property
    def profile(self) -> HardwareProfile:
        """What its file holds."""
        return planner.profile_for_file(self.evidence.file, self.query.dtype)

    @property
    def parts(self) -> Sequence[PartCosts]:
        """By everybody whose linears were measured."""
        return planner.part_costs_for_file(self.evidence.file, self.query)

    def with_query(self, query: PlanQuery) -> "PlannedGpu":
        """The same GPU asked something else."""
        return replace(self, query=query)

    def setting(self, *, decode: bool = True, backend: str = "") -> Setting:
        """How its findings are spoken of."""
        cut = self.query.truncated_model
        context = self.query.context if decode else None
        return Setting(cut.slug, cut.layers, cut.vocab, self.query.dtype, "", backend, self.query.gpus, decode, context)

    def fits(self, deployment: Deployment, batch: int) -> bool:
        """Whether it can be run so, and memory holds it."""
        return not deployment.why_not(self.query.gpus, batch) and not step.why_not_fit(
            deployment, self.query, self.profile, batch
        )

    def estimate(self, figure: Callable[[PartCosts], tuple[Estimate, Provenance]]) -> tuple[Estimate, Provenance]:
        """A figure over everybody's parts: its middle where elementwise kernels count, as points of a plan have it.

        Raises:
            MissingError: nobody has all that it needs.
        """
        found: list[tuple[bool, Estimate, Provenance]] = []
        missing: list[MissingMeasurementError] = []
        for one in self.parts:
            try:
                span, basis = figure(one)
            except MissingMeasurementError as error:
                missing.append(error)
            else:
                found.append((one.variant.elementwise, span, basis))
        if not found:
            raise missing[0]
        counted = sorted(span.value for elementwise, span, _ in found if elementwise) or [found[0][1].value]
        ends = min(span.low for _, span, _ in found), max(span.high for _, span, _ in found)
        return Estimate(counted[(len(counted) - 1) // 2], *ends), Provenance.merge(basis for _, _, basis in found)

    def compose_step(self, parts: PartCosts, deployment: Deployment, batch: int) -> "StepWithBreakdown":
        """One step by one's parts.

        Raises:
            MissingError: one of them was not measured.
        """
        split = deployment.split(self.query.truncated_model)
        step = estimate_step(parts, deployment, split, batch)
        return StepWithBreakdown(step, break_down(parts, deployment, split, step))


def planned_gpus(evidences: Iterable[Evidence]) -> Iterator[PlannedGpu]:
    """GPUs that can be planned for, each file once; where whole models ran, what ran decides."""
    all_of = list(evidences)
    ran = {one.path for one in all_of if one.steps}
    seen = set()
    for one in all_of:
        usual = one.dtype == planner.REPORT_QUERY.dtype and one.architecture != "moe"
        if (
            usual
            and one.path not in ran
            and one.path not in seen
            and planner.part_costs_for_file(one.file, planner.REPORT_QUERY)
        ):
            seen.add(one.path)
            yield PlannedGpu(replace(one, architecture="whole", series=(), single_token=(), steps=()))


# Whether all-reduces make use of the link: where they hardly do, a finding is on that system and not on its link.

MIN_LINK_SHARE = 0.1
"""Of the link's rate by datasheet, under which what was measured is far from what the link can do."""
MESSAGE_TOKENS = 1024
"""Whose message is so large, 16 MiB with 8192 elements of two bytes, that latency hardly counts."""


def slow_all_reduce_note(subject: PlannedGpu) -> str:
    """`all-reduces of 16 MiB at 5–6% of the link`, of those that are asked for; empty where none is that slow."""
    gpu, ranks = subject.profile.gpu, subject.query.gpus
    message = MESSAGE_TOKENS * subject.query.truncated_model.hidden * subject.profile.itemsize
    found = []
    for parts in subject.parts if gpu else ():
        try:
            found.append(
                traffic.busbw("all_reduce", ranks, message, parts.comm_costs.all_reduce(ranks, message).seconds)
            )
        except MissingMeasurementError:
            continue
    shares = sorted(one / gpu.link_bytes_per_second for one in found if one and gpu)
    if not shares or shares[0] >= MIN_LINK_SHARE:
        return ""
    low, high = (formatting.percent(one) for one in (shares[0], shares[-1]))
    span = low if low == high else f"{low.removesuffix('%')}–{high}"
    return f"all-reduces of {format_bytes(message)} at {span} of the link"


# Findings on plans at single loads, and the one over all of them.


@dataclass(frozen=True)
class PlannedFindings:
    """Of one claim on one GPU; `missing` says why there are none."""

    subject: PlannedGpu
    unit: str
    missing: list[str] = field(default_factory=list)
    _rows: list[tuple[StepFinding, Provenance]] = field(default_factory=list)

    def add(
        self,
        setting: Setting,
        load: Load,
        what: str,
        verdict: Verdict,
        found: tuple[Estimate, Provenance],
        condition: str = "",
        *,
        decides: bool = True,
    ) -> None:
        """One more; `what` ran at a load."""
        finding = planned_finding(self.subject, self.unit, verdict, found, condition)
        scoped = replace(finding, scope=f"{what} {load_label(load)}", model=setting.model)
        self._rows.append((StepFinding(setting, load, what, scoped, decides), found[1]))

    def findings(self, condition: str = "") -> Iterator[Finding]:
        """The overall one, which says what is assumed, then the rows.

        Args:
            condition: of the overall one, in place of what is put together from the rows.
        """
        named = [self._with_scope(row) for row, _ in self._rows]
        missing = self.missing[0] if self.missing else "nothing of it can be planned"
        whole, *rest = summarise(self.subject.evidence, self.unit, named, missing=missing)
        provenance = whole.provenance if self._rows else ""
        said = condition if condition and self._rows else whole.condition
        yield replace(whole, condition=join_clauses(said, self.assumptions_text), provenance=provenance)
        yield from rest

    def _with_scope(self, row: StepFinding) -> StepFinding:
        """With what tells its setting from others of its phase."""
        alike = {one.setting for one, _ in self._rows if one.setting.decode == row.setting.decode}
        scope = f"{row.finding.scope} {distinguishing_label(row.setting, alike)}".rstrip()
        return replace(row, finding=replace(row.finding, scope=scope))

    @property
    def assumptions_text(self) -> str:
        """What all rows assume together."""
        return Provenance.merge(basis for _, basis in self._rows).assumptions_text


def planned_finding(
    subject: PlannedGpu, unit: str, verdict: Verdict, found: tuple[Estimate, Provenance], condition: str
) -> Finding:
    """A finding by a plan: modelled at best, with the cases of all its parts."""
    (value, low, high), basis = found
    return replace(
        subject.evidence.blank_finding(unit),
        verdict=verdict,
        value=value,
        low=low,
        high=high,
        condition=join_clauses(condition, basis.assumptions_text),
        cases=basis.cases,
        provenance=basis.provenance,
    )


def join_clauses(*texts: str) -> str:
    """Those that say something, one after another."""
    return "; ".join(filter(None, texts))

"""GPUs that claims are judged on by estimates, and the findings on them.

Their parts were measured, but no whole model ran. The query is the report's usual one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

from reports import formatting
from reports.claims.evidence import Evidence, Finding
from reports.claims.measured_steps import StepFinding, summarise
from reports.claims.verdict import Verdict
from reports.deployment_names import distinguishing_label, load_label
from reports.plan import capacity, planner
from reports.plan.estimate import MissingMeasurementError, Provenance
from reports.plan.profile import HardwareProfile
from reports.plan.query import DEFAULT_BATCHES, PlanQuery
from reports.plan.step import PartCosts, StepBreakdown, StepEstimate, break_down, estimate_step, estimate_steps
from reports.tp_vs_pp.compare import Load, Setting
from specs import traffic
from specs.parallel import Deployment
from specs.units import format_bytes


class Estimate(NamedTuple):
    """A figure with bounds.

    The bounds cover all implementations' parts, with and without elementwise kernels, and all doubts.
    """

    value: float
    low: float
    high: float


SourcedEstimate = tuple[Estimate, Provenance]


PIPELINE_BATCHES = (8, 64, 256, 1000, 2048, 4096)
"""Batches at which pipelines are judged; 1000 is the note's."""
JUDGED_BATCHES = tuple(sorted({*DEFAULT_BATCHES, *PIPELINE_BATCHES}))


@dataclass(frozen=True)
class StepWithBreakdown:
    """An estimated step with its breakdown."""

    step: StepEstimate

    @cached_property
    def breakdown(self) -> StepBreakdown:
        """Shares of the step, and provenance by part."""
        return break_down(self.step)

    @property
    def provenance(self) -> Provenance:
        """Provenance of the step's parts, with their cases."""
        return Provenance(self.breakdown.provenance, self.breakdown.cases)


@dataclass(frozen=True)
class PlannedGpu:
    """A GPU with the query that it is planned for.

    Attributes:
        evidence: evidence of its file on whole layers, without measured steps.
        query: the planner's query.
    """

    evidence: Evidence
    query: PlanQuery = planner.REPORT_QUERY

    @cached_property
    def profile(self) -> HardwareProfile:
        """Hardware profile of the GPU's file."""
        return planner.profile_for_file(self.evidence.file, self.query.dtype)

    @property
    def parts(self) -> Sequence[PartCosts]:
        """Part costs of every implementation whose linears were measured."""
        return planner.part_costs_for_file(self.evidence.file, self.query)

    def with_query(self, query: PlanQuery) -> "PlannedGpu":
        """Return the same GPU with another query."""
        return replace(self, query=query)

    def setting(self, *, decode: bool = True, backend: str = "") -> Setting:
        """Return the setting that labels its findings."""
        cut = self.query.truncated_model
        context = self.query.context if decode else None
        return Setting(cut.slug, cut.layers, cut.vocab, self.query.dtype, "", backend, self.query.gpus, decode, context)

    def fits(self, deployment: Deployment, batch: int) -> bool:
        """Return whether a deployment is possible and fits in memory."""
        return not deployment.why_not(self.query.gpus, batch) and not capacity.why_not_fit(
            deployment, self.query, self.profile, batch
        )

    def estimate(self, figure: Callable[[PartCosts], SourcedEstimate]) -> SourcedEstimate:
        """Estimate a figure over all implementations' parts.

        The value is the median with elementwise kernels counted, as in the points of a plan.

        Raises:
            MissingMeasurementError: no implementation has all parts.
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
        """Estimate one step by the parts of one implementation.

        Raises:
            MissingMeasurementError: a part was not measured.
        """
        if there := _steps_at_judged_batches(parts, deployment).get(batch):
            return there
        split = deployment.split(self.query.truncated_model)
        return StepWithBreakdown(estimate_step(parts, deployment, split, batch))


@lru_cache(maxsize=1024)
def _steps_at_judged_batches(parts: PartCosts, deployment: Deployment) -> Mapping[int, StepWithBreakdown]:
    """Steps at all batches that claims are judged at, estimated together; those without measured parts are left out."""
    gpus = parts.query.gpus
    batches = [batch for batch in JUDGED_BATCHES if not deployment.why_not(gpus, batch)]
    try:
        found = estimate_steps(parts, deployment, deployment.split(parts.query.truncated_model), batches)
    except MissingMeasurementError:
        return {}
    return {batch: StepWithBreakdown(found.at(place)) for place, batch in enumerate(batches) if found.known[place]}


def planned_gpus(evidences: Iterable[Evidence]) -> Iterator[PlannedGpu]:
    """Yield the GPUs that can be planned for, each file once.

    Files with measured steps of whole models are left out: those steps decide.
    """
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


# Use of the link by all-reduces: where it is small, a finding is on the system and not on its link.

MIN_LINK_SHARE = 0.1
"""Share of the link's datasheet rate below which all-reduces count as slow."""
MESSAGE_TOKENS = 1024
"""Tokens of a message so large that latency hardly counts.

The message has 16 MiB with 8192 elements of two bytes.
"""


def slow_all_reduce_note(subject: PlannedGpu) -> str:
    """Return the link share of the query's all-reduces; empty where none is slow.

    Example: `all-reduces of 16 MiB at 5–6% of the link`.
    """
    gpu, ranks = subject.profile.gpu, subject.query.gpus
    message = MESSAGE_TOKENS * subject.query.truncated_model.hidden * subject.profile.residual_itemsize
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


# Findings of plans at single loads, and the overall finding.


@dataclass(frozen=True)
class PlannedFindings:
    """Findings on one claim and one GPU; `missing` says why there are none."""

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
        found: SourcedEstimate,
        condition: str = "",
        *,
        decides: bool = True,
    ) -> None:
        """Add a row; `what` names the deployment."""
        finding = planned_finding(self.subject, self.unit, verdict, found, condition)
        scoped = replace(finding, scope=f"{what} {load_label(load)}", model=setting.model)
        self._rows.append((StepFinding(setting, load, what, scoped, decides), found[1]))

    def findings(self, condition: str = "") -> Iterator[Finding]:
        """Yield the overall finding with its assumptions, then the rows.

        Args:
            condition: condition of the overall finding; empty to derive it from the rows.
        """
        named = [self._with_scope(row) for row, _ in self._rows]
        missing = self.missing[0] if self.missing else "nothing of it can be planned"
        whole, *rest = summarise(self.subject.evidence, self.unit, named, missing=missing)
        provenance = whole.provenance if self._rows else ""
        said = condition if condition and self._rows else whole.condition
        yield replace(whole, condition=join_clauses(said, self.assumptions_text), provenance=provenance)
        yield from rest

    def _with_scope(self, row: StepFinding) -> StepFinding:
        """Add to the scope what distinguishes the row's setting within its phase."""
        alike = {one.setting for one, _ in self._rows if one.setting.decode == row.setting.decode}
        scope = f"{row.finding.scope} {distinguishing_label(row.setting, alike)}".rstrip()
        return replace(row, finding=replace(row.finding, scope=scope))

    @property
    def assumptions_text(self) -> str:
        """Assumptions of all rows together, in words."""
        return Provenance.merge(basis for _, basis in self._rows).assumptions_text


def planned_finding(
    subject: PlannedGpu, unit: str, verdict: Verdict, found: SourcedEstimate, condition: str
) -> Finding:
    """Return a finding by a plan, with the cases of all its parts.

    Its provenance is modelled at best.
    """
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
    """Join the non-empty texts with semicolons."""
    return "; ".join(filter(None, texts))

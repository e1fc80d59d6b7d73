"""A plan: every deployment at every batch, where async PP overtakes TP, what is best for each latency, the front."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from reports import machine
from reports.plan import crossover, step
from reports.plan.cost import LAYER_LINEARS
from reports.plan.crossover import PlannedCrossover, find_crossover
from reports.plan.estimate import MissingMeasurementError
from reports.plan.profile import HardwareProfile, build_profile
from reports.plan.query import PlanQuery, all_deployments
from reports.plan.step import PartCosts, StepBreakdown, StepEstimate, Variant, break_down, estimate_step
from reports.results import ResultFile
from specs.errors import UserError
from specs.parallel import Deployment, Split

# A deployment at a batch: what its step takes, over all variants that were measured.


@dataclass(frozen=True)
class PlanPoint:
    """One row of a plan.

    Attributes:
        batch: sequences in all.
        deployment: how they are run.
        why: why it does not fit into memory; empty where it does.
        steps: by implementation the step, elementwise kernels counted; none where it does not fit.
        low, high: over all implementations, with and without elementwise kernels, and the doubts of their parts.
        implementation: whose step stands for all: the middle one.
        breakdown: of that.
    """

    batch: int
    deployment: Deployment
    why: str = ""
    steps: Mapping[str, StepEstimate] | None = None
    low: float = 0.0
    high: float = 0.0
    implementation: str = ""
    breakdown: StepBreakdown | None = None

    @property
    def fits(self) -> bool:
        """Whether memory holds it."""
        return not self.why

    @property
    def seconds(self) -> float:
        """Of the middle step."""
        return self.steps[self.implementation].seconds if self.steps else float("inf")

    @property
    def tokens_per_second(self) -> float:
        """Of the whole batch, a token for each sequence and step."""
        return self.batch / self.seconds


def plan_point(parts: Sequence[PartCosts], deployment: Deployment, split: Split, batch: int) -> PlanPoint:
    """The point that fits.

    Raises:
        MissingError: no variant has all its parts.
    """
    found, lacking = [], []
    for one in parts:
        try:
            found.append((one, estimate_step(one, deployment, split, batch)))
        except MissingMeasurementError as error:
            lacking.append(error)
    if not found:
        raise lacking[0]
    counted = sorted(((step.seconds, one) for one, step in found if one.variant.elementwise), key=lambda pair: pair[0])
    middle = counted[(len(counted) - 1) // 2][1]
    steps = {one.variant.implementation: step for one, step in found if one.variant.elementwise}
    name = middle.variant.implementation
    return PlanPoint(
        batch=batch,
        deployment=deployment,
        steps=steps,
        low=min(step.low for _, step in found),
        high=max(step.high for _, step in found),
        implementation=name,
        breakdown=break_down(middle, deployment, split, steps[name]),
    )


# What to choose among the batches asked for: of each latency the most tokens a second, and the front of both.
#
# A batch that nobody asked for may do better, or worse than its neighbours where a tile ends.


@dataclass(frozen=True)
class LatencyTarget:
    """A latency that is promised, the point with the most tokens a second within it, and those not told from it."""

    latency_seconds: float
    best: PlanPoint | None
    tied: Sequence[PlanPoint] = ()


def best_for_latencies(points: Sequence[PlanPoint], latencies: Sequence[float]) -> list[LatencyTarget]:
    """One for each latency. A point is within it where its figure is; tied are those whose bounds reach the best's."""
    found = []
    for latency in sorted(latencies):
        within = [one for one in points if one.seconds <= latency]
        best = max(within, key=lambda one: one.tokens_per_second, default=None)
        tied = [one for one in within if best and one is not best and _ties_with(one, best)]
        found.append(LatencyTarget(latency, best, tied))
    return found


def pareto_front(points: Sequence[PlanPoint]) -> list[PlanPoint]:
    """By rising latency those with more tokens a second than any faster one."""
    found: list[PlanPoint] = []
    for one in sorted(points, key=lambda point: (point.seconds, -point.tokens_per_second)):
        if not found or one.tokens_per_second > found[-1].tokens_per_second:
            found.append(one)
    return found


def _ties_with(one: PlanPoint, best: PlanPoint) -> bool:
    """Whether its tokens a second at best are as many as the best's at worst."""
    return one.batch / one.low >= best.batch / best.high


@dataclass(frozen=True)
class UnplannableDeployment:
    """A deployment that cannot be planned, at one batch or, where that is None, at any.

    `lacks_measurement` says that it could be run, and that no file holds a part of it.
    """

    deployment: Deployment
    batch: int | None
    why: str
    lacks_measurement: bool = False


@dataclass(frozen=True)
class Plan:
    """What was found.

    Attributes:
        query: the question.
        profile: the GPUs.
        points: those with figures, and those that memory has no room for.
        unplannable: those that cannot be cut so, or have a part that no file holds.
        crossover: where async PP over all GPUs overtakes TP over all of them; None where one of them cannot be planned.
        targets: for each latency the best point; None where nothing is as fast.
        front: what nothing beats in both latency and tokens a second.
    """

    query: PlanQuery
    profile: HardwareProfile
    points: Sequence[PlanPoint]
    unplannable: Sequence[UnplannableDeployment]
    crossover: PlannedCrossover | None
    targets: Sequence[LatencyTarget]
    front: Sequence[PlanPoint]

    @property
    def batches(self) -> list[int]:
        """Those at which anything fits."""
        return sorted({one.batch for one in self.points if one.fits})

    def at(self, batch: int) -> list[PlanPoint]:
        """What fits at a batch."""
        return [one for one in self.points if one.fits and one.batch == batch]


def plan_for_files(files: Sequence[ResultFile], query: PlanQuery) -> Plan:
    """Put together what the files hold.

    Raises:
        UserError: they are of several GPUs, or hold nothing that this can be planned by.
    """
    return plan_for_profile(build_profile(files, query.dtype), query)


def plan_for_profile(profile: HardwareProfile, query: PlanQuery) -> Plan:
    """The same of a system that is already there, whose curves serve several plans.

    Raises:
        UserError: it holds nothing that this can be planned by.
    """
    parts = part_costs_by_variant(profile, query)
    points: list[PlanPoint] = []
    unplannable: list[UnplannableDeployment] = []
    for deployment in all_deployments(query.gpus, query.partition):
        _plan_deployment(points, unplannable, parts, deployment, profile, query)
    there = [one for one in points if one.fits]
    if not there:
        raise UserError(_why_nothing_planned(points, unplannable, query))
    found = find_crossover(parts, profile, query)
    return Plan(
        query=query,
        profile=profile,
        points=points,
        unplannable=unplannable,
        crossover=found,
        targets=best_for_latencies(there, query.latencies),
        front=pareto_front(there),
    )


def part_costs_by_variant(profile: HardwareProfile, query: PlanQuery) -> list[PartCosts]:
    """Whoever's linears or layers of the model were measured, with elementwise kernels counted and without.

    Raises:
        UserError: nobody's were.
    """
    names: dict[str, set[str]] = {}
    for one in (*profile.measurements_by_op.get("linear", ()), *profile.measurements_by_op.get("layer", ())):
        if one.case.model == query.model and one.case.dtype == query.dtype:
            names.setdefault(one.case.implementation, set()).add(one.case.layer or "")
    whole = [name for name, layers in names.items() if {*LAYER_LINEARS} <= layers or "layer" in layers]
    if not whole:
        there = sorted({one.case.model for one in profile.measurements_by_op.get("linear", ()) if one.case.model})
        raise UserError(
            f"plan: no layer of {query.model} in {query.dtype} on {profile.name}; its files have "
            f"{', '.join(there) or 'none'}"
        )
    return [PartCosts(profile, query, Variant(name, counted)) for name in sorted(whole) for counted in (True, False)]


def _plan_deployment(
    points: list[PlanPoint],
    unplannable: list[UnplannableDeployment],
    parts: Sequence[PartCosts],
    deployment: Deployment,
    profile: HardwareProfile,
    query: PlanQuery,
) -> None:
    """The deployment at each batch, or why not."""
    try:
        split = deployment.split(query.truncated_model)
    except UserError as error:
        unplannable.append(UnplannableDeployment(deployment, None, str(error)))
        return
    for batch in query.batches:
        capped = _cap_micro_batches(deployment, batch)
        if why := capped.why_not(query.gpus, batch) or query.interconnect.why_straddles(capped.tp):
            unplannable.append(UnplannableDeployment(capped, batch, why))
        elif any((one.batch, one.deployment) == (batch, capped) for one in points):
            continue  # so few sequences that another number of micro-batches came to the same
        elif why := step.why_not_fit(capped, query, profile, batch):
            points.append(PlanPoint(batch, capped, why))
        else:
            try:
                points.append(plan_point(parts, capped, split, batch))
            except MissingMeasurementError as error:
                unplannable.append(UnplannableDeployment(capped, batch, str(error), lacks_measurement=True))


def _cap_micro_batches(deployment: Deployment, batch: int) -> Deployment:
    """With as many micro-batches as there are sequences, where these are fewer."""
    most = max(1, batch // deployment.replicas)
    return replace(deployment, micro_batches=min(deployment.micro_batches, most))


def _why_nothing_planned(
    points: Iterable[PlanPoint], unplannable: Sequence[UnplannableDeployment], query: PlanQuery
) -> str:
    """Why there is no point: the most frequent reason, and first of all one that something measured would help."""
    lacking = [one.why for one in unplannable if one.lacks_measurement]
    at_a_batch = [one.why for one in unplannable if one.batch is not None]
    reasons = lacking or [one.why for one in points] or at_a_batch or [one.why for one in unplannable]
    ((why, _),) = Counter(reasons).most_common(1)
    return f"plan: nothing of {query.model} can be planned over {query.gpus} GPUs: {why}"


# Plans that several parts of a report share: of each file and question one, made when it is first asked for.
#
# A plan of a published GPU takes seconds, and verdicts, the chapter and the page all look at the same one.

REPORT_QUERY = PlanQuery(model="llama-3-70b", gpus=8, context=256)
"""What every GPU is asked: a dense model of 70B over one host."""
CACHE_SIZE = 128


def plan_for_file(file: ResultFile, query: PlanQuery = REPORT_QUERY) -> Plan | None:
    """The plan for the GPU that a file is of; None where it is of none, or does not hold what the plan needs."""
    return _cached_plan(file, query) if machine.known_gpu(file) else None


def profile_for_file(file: ResultFile, dtype: str = REPORT_QUERY.dtype) -> HardwareProfile:
    """What a file holds, its curves shared by all plans.

    Raises:
        UserError: it has no linear in this format.
    """
    return _cached_profile(file, dtype)


def part_costs_for_file(file: ResultFile, query: PlanQuery) -> Sequence[PartCosts]:
    """Everybody's parts of the model, for what no plan holds; none where the file has none."""
    return _cached_part_costs(file, query) if machine.known_gpu(file) else ()


def crossover_for_file(file: ResultFile, query: PlanQuery) -> PlannedCrossover | None:
    """Where PP overtakes, without a plan around it."""
    found = part_costs_for_file(file, query)
    return crossover.find_crossover(found, profile_for_file(file, query.dtype), query) if found else None


@lru_cache(CACHE_SIZE)
def _cached_part_costs(file: ResultFile, query: PlanQuery) -> Sequence[PartCosts]:
    try:
        return part_costs_by_variant(_cached_profile(file, query.dtype), query)
    except UserError:
        return ()


@lru_cache(CACHE_SIZE)
def _cached_plan(file: ResultFile, query: PlanQuery) -> Plan | None:
    try:
        return plan_for_profile(_cached_profile(file, query.dtype), query)
    except UserError:
        return None


@lru_cache(CACHE_SIZE)
def _cached_profile(file: ResultFile, dtype: str) -> HardwareProfile:
    return build_profile([file], dtype)

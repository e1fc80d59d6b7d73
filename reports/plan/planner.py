"""Plan: every deployment at every batch, crossover, best splits, Pareto front."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isnan

from reports import machine
from reports.plan import capacity, crossover
from reports.plan.crossover import PlannedCrossover, find_crossover
from reports.plan.engine_step import EngineStep, EngineSteps
from reports.plan.estimate import MissingMeasurementError
from reports.plan.profile import HardwareProfile, build_profile
from reports.plan.query import PlanQuery, all_deployments
from reports.plan.step import (
    PROMPT_ATTENTION,
    PartCosts,
    StepBreakdown,
    StepEstimate,
    Variant,
    break_down,
    estimate_steps,
)
from reports.results import ResultFile
from specs.errors import UserError
from specs.layer import LAYER_LINEARS
from specs.parallel import Deployment, Split
from specs.units import AttentionFormat

# Points: the step of one deployment at one batch, over all measured variants.


@dataclass(frozen=True)
class PlanPoint:
    """Row of a plan.

    Attributes:
        batch: sequences in total.
        deployment: how the model is cut and scheduled.
        why: reason why the point does not fit into memory; empty where it fits.
        steps: step by implementation, elementwise kernels counted; None where the point does not fit.
        low, high: bounds over all implementations, with and without elementwise kernels, and over their parts'
            uncertainty.
        implementation: implementation with the median step, which represents all.
        breakdown: breakdown of that step.
        engine: that step in the engine whose kernels it runs; None where no served run of it was fitted.
    """

    batch: int
    deployment: Deployment
    why: str = ""
    steps: Mapping[str, StepEstimate] | None = None
    low: float = 0.0
    high: float = 0.0
    implementation: str = ""
    breakdown: StepBreakdown | None = None
    engine: EngineStep | None = None

    @property
    def fits(self) -> bool:
        """True where memory holds the deployment at this batch."""
        return not self.why

    @property
    def seconds(self) -> float:
        """Seconds of the median implementation's step; infinite where it does not fit."""
        return self.steps[self.implementation].seconds if self.steps else float("inf")

    @property
    def tokens_per_second(self) -> float:
        """Throughput of the whole batch in tokens/s, one token per sequence and step."""
        return self.batch / self.seconds


def plan_points(
    parts: Sequence[PartCosts], deployment: Deployment, split: Split, batches: Sequence[int]
) -> "Iterator[PlanPoint | UnplannableDeployment]":
    """Yield the point at each batch, all of which fit, or the reason why no variant has all its parts."""
    found, engines = [], {}
    for one in parts:
        try:
            steps = estimate_steps(one, deployment, split, batches)
        except MissingMeasurementError:
            continue
        found.append((one.variant, [steps.at(place) for place in range(len(batches))]))
        if one.variant.elementwise and one.in_engine:
            engines[one.variant.implementation] = EngineSteps.estimate(one.in_engine, deployment, split, batches)
    for place, batch in enumerate(batches):
        there = [(variant, steps[place]) for variant, steps in found if not isnan(steps[place].seconds)]
        if there:
            yield _plan_point(there, engines, deployment, batch, place)
        else:
            why = _why_missing(parts[0], deployment, split, batch)
            yield UnplannableDeployment(deployment, batch, why, lacks_measurement=True)


def _plan_point(
    found: Sequence[tuple[Variant, StepEstimate]],
    engines: Mapping[str, EngineSteps],
    deployment: Deployment,
    batch: int,
    place: int,
) -> PlanPoint:
    steps = {variant.implementation: step for variant, step in found if variant.elementwise}
    rising = sorted(steps, key=lambda name: steps[name].seconds)
    name = rising[(len(rising) - 1) // 2]
    return PlanPoint(
        batch=batch,
        deployment=deployment,
        steps=steps,
        low=min(step.low for _, step in found),
        high=max(step.high for _, step in found),
        implementation=name,
        breakdown=break_down(steps[name]),
        engine=engines[name].at(place, steps[name]) if name in engines else None,
    )


def _why_missing(parts: PartCosts, deployment: Deployment, split: Split, batch: int) -> str:
    try:
        estimate_steps(parts, deployment, split, [batch])
    except MissingMeasurementError as error:
        return str(error)
    raise ValueError(f"{deployment} at {batch}: all parts were measured")


# Best choices among the requested batches: the most tokens/s within each latency, and the Pareto front.
#
# Other batches may do better, or worse than their neighbours where a tile ends.


@dataclass(frozen=True)
class LatencyTarget:
    """Latency limit, the point with the most tokens/s within it, and tied points."""

    latency_seconds: float
    best: PlanPoint | None
    tied: Sequence[PlanPoint] = ()


def best_for_latencies(points: Sequence[PlanPoint], latencies: Sequence[float]) -> list[LatencyTarget]:
    """Best point for each latency, rising.

    A point is within a latency where its estimate is. Tied points are those whose bounds reach the best point's.
    """
    found = []
    for latency in sorted(latencies):
        within = [one for one in points if one.seconds <= latency]
        best = max(within, key=lambda one: one.tokens_per_second, default=None)
        tied = [one for one in within if best and one is not best and _ties_with(one, best)]
        found.append(LatencyTarget(latency, best, tied))
    return found


def pareto_front(points: Sequence[PlanPoint]) -> list[PlanPoint]:
    """Points with more tokens/s than any faster point, by rising latency."""
    found: list[PlanPoint] = []
    for one in sorted(points, key=lambda point: (point.seconds, -point.tokens_per_second)):
        if not found or one.tokens_per_second > found[-1].tokens_per_second:
            found.append(one)
    return found


def _ties_with(one: PlanPoint, best: PlanPoint) -> bool:
    """Return whether a point's best throughput reaches the best point's worst."""
    return one.batch / one.low >= best.batch / best.high


@dataclass(frozen=True)
class UnplannableDeployment:
    """Deployment that cannot be planned at a batch, or at any where `batch` is None.

    `lacks_measurement`: the deployment could run, but no file holds one of its parts.
    """

    deployment: Deployment
    batch: int | None
    why: str
    lacks_measurement: bool = False


@dataclass(frozen=True)
class Plan:
    """Result of a query.

    Attributes:
        query: the question.
        profile: the GPUs and their measurements.
        points: points with figures, and points that do not fit into memory.
        unplannable: deployments that cannot be cut this way, or have a part that no file holds.
        crossover: where async PP over all GPUs overtakes TP over all GPUs; None where one of the two cannot be planned.
        targets: best point for each latency; the point is None where nothing is as fast.
        front: points that no other point beats in both latency and tokens/s.
        notes: formats of parts, and parts taken from other formats or shapes.
    """

    query: PlanQuery
    profile: HardwareProfile
    points: Sequence[PlanPoint]
    unplannable: Sequence[UnplannableDeployment]
    crossover: PlannedCrossover | None
    targets: Sequence[LatencyTarget]
    front: Sequence[PlanPoint]
    notes: Sequence[str] = ()

    @property
    def batches(self) -> list[int]:
        """Batches at which any deployment fits."""
        return sorted({one.batch for one in self.points if one.fits})

    def at(self, batch: int) -> list[PlanPoint]:
        """Points that fit at a batch."""
        return [one for one in self.points if one.fits and one.batch == batch]


def plan_for_files(files: Sequence[ResultFile], query: PlanQuery, *, imported: bool = False) -> Plan:
    """Plan a query from the measurements in files; `imported` as in `build_profile`.

    Raises:
        UserError: the files are of several GPUs, or hold no measurement that the query needs.
    """
    return plan_for_profile(build_profile(files, query.dtype, imported=imported), query)


def plan_for_profile(profile: HardwareProfile, query: PlanQuery) -> Plan:
    """Plan a query for an existing profile, whose curves serve several plans.

    Raises:
        UserError: the profile holds no measurement that the query needs.
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
        notes=list(_plan_notes(parts, there, profile, query)),
    )


def _plan_notes(
    parts: Sequence[PartCosts], points: Sequence[PlanPoint], profile: HardwareProfile, query: PlanQuery
) -> Iterator[str]:
    """Yield the formats of parts where they differ, and parts taken from other formats or shapes."""
    widths = sorted({one.deployment.tp for one in points})
    if not profile.number_format.is_uniform:
        yield from _format_notes(points, widths, profile, query)
    halved: dict[str, list[int]] = {}
    for tp in widths:
        for name in dict.fromkeys(name for one in parts for name in one.halved_linears(tp)):
            halved.setdefault(name, []).append(tp)
    for name, tps in halved.items():
        yield f"{name} at {_tp_list(tps)} as two calls of half its width, which no file has whole"


def _format_notes(
    points: Sequence[PlanPoint], widths: Sequence[int], profile: HardwareProfile, query: PlanQuery
) -> Iterator[str]:
    """Yield the formats of a quantized model's parts."""
    formats, head = profile.number_format, profile.head_format(query.model)
    yield f"linears in {formats.weights}, LM head in {head}, residual stream and messages in {formats.residual}"
    attending: dict[AttentionFormat, list[int]] = {}
    for tp in widths:
        attending.setdefault(profile.decode_format(query.model, tp, query.context), []).append(tp)
    for pair, tps in attending.items():
        why = "" if pair == formats.attention[0] else f"; no file has {_attention_name(formats.attention[0])} there"
        yield f"{_attention_name(pair)} at {_tp_list(tps)}{why}"
    cases = {one.case.name: one.case for one in profile.measurements_by_op.get("attention", ())}
    used = {cases[name] for one in points if one.breakdown for name in one.breakdown.cases.get(PROMPT_ATTENTION, ())}
    for pair in sorted({AttentionFormat(case.dtype, case.kv_dtype or case.dtype) for case in used} - {*attending}):
        yield f"attention of some prompts with {_attention_name(pair)}"


def _attention_name(one: AttentionFormat) -> str:
    return f"queries in {one.queries} over a KV cache in {one.kv_cache}"


def _tp_list(widths: Iterable[int]) -> str:
    return f"tp {', '.join(map(str, widths))}"


def part_costs_by_variant(profile: HardwareProfile, query: PlanQuery) -> list[PartCosts]:
    """Part costs of each implementation with measured linears or layers of the model.

    Each implementation appears with elementwise kernels counted and without.

    Raises:
        UserError: no implementation was measured.
    """
    names: dict[str, set[str]] = {}
    for op, model, layer, implementation in profile.measurements_by_layer if query.dtype == profile.dtype else ():
        if op in ("linear", "layer") and model == query.model:
            names.setdefault(implementation, set()).add(layer or "")
    whole = [name for name, layers in names.items() if {*LAYER_LINEARS} <= layers or "layer" in layers]
    if not whole:
        there = sorted({one.case.model for one in profile.measurements_by_op.get("linear", ()) if one.case.model})
        raise UserError(
            f"plan: no layer of {query.model} in {query.dtype} on {profile.name}; its files have "
            f"{', '.join(there) or 'none'}; choose one of them by --model, or measure or import this one"
        )
    counted = [PartCosts(profile, query, Variant(name)) for name in sorted(whole)]
    return [one for parts in counted for one in (parts, parts.as_variant(replace(parts.variant, elementwise=False)))]


def _plan_deployment(
    points: list[PlanPoint],
    unplannable: list[UnplannableDeployment],
    parts: Sequence[PartCosts],
    deployment: Deployment,
    profile: HardwareProfile,
    query: PlanQuery,
) -> None:
    """Add the deployment's point at each batch, or the reason why there is none."""
    try:
        split = deployment.split(query.truncated_model)
    except UserError as error:
        unplannable.append(UnplannableDeployment(deployment, None, str(error)))
        return
    planned = {(one.batch, one.deployment) for one in points}
    fitting: dict[Deployment, list[int]] = {}
    found: list[PlanPoint | UnplannableDeployment] = []
    for batch in query.batches:
        capped = _cap_micro_batches(deployment, batch)
        if why := capped.why_not(query.gpus, batch) or query.interconnect.why_straddles(capped.tp):
            found.append(UnplannableDeployment(capped, batch, why))
            continue
        if (batch, capped) in planned:
            continue  # capped to the same microbatches as an earlier deployment
        planned.add((batch, capped))
        if why := capacity.why_not_fit(capped, query, profile, batch):
            found.append(PlanPoint(batch, capped, why))
        else:
            fitting.setdefault(capped, []).append(batch)
    for capped, batches in fitting.items():
        found += plan_points(parts, capped, split, batches)
    for one in sorted(found, key=lambda one: query.batches.index(one.batch)):
        if isinstance(one, PlanPoint):
            points.append(one)
        else:
            unplannable.append(one)


def _cap_micro_batches(deployment: Deployment, batch: int) -> Deployment:
    """Deployment with at most as many microbatches as a replica has sequences."""
    most = max(1, batch // deployment.replicas)
    return replace(deployment, micro_batches=min(deployment.micro_batches, most))


def _why_nothing_planned(
    points: Iterable[PlanPoint], unplannable: Sequence[UnplannableDeployment], query: PlanQuery
) -> str:
    """Reason why no point was planned: the most frequent reason.

    Missing measurements take precedence, because measuring would help.
    """
    lacking = [one.why for one in unplannable if one.lacks_measurement]
    at_a_batch = [one.why for one in unplannable if one.batch is not None]
    reasons = lacking or [one.why for one in points] or at_a_batch or [one.why for one in unplannable]
    ((why, _),) = Counter(reasons).most_common(1)
    return f"plan: nothing of {query.model} can be planned over {query.gpus} GPUs: {why}"


# Plans cached by file and query, each made on first use.
#
# The claims, the report section and the page share a plan, and all plans of a file share its curves.

REPORT_QUERY = PlanQuery(model="llama-3-70b", gpus=8, context=256)
"""Query for every GPU: a dense model of 70B over one host."""
CACHE_SIZE = 128


def plan_for_file(file: ResultFile, query: PlanQuery = REPORT_QUERY) -> Plan | None:
    """Plan for a file's GPU; None for an unknown GPU or without needed measurements."""
    return _cached_plan(file, query) if machine.known_gpu(file) else None


def profile_for_file(file: ResultFile, dtype: str = REPORT_QUERY.dtype) -> HardwareProfile:
    """Profile of a file; all plans share its curves.

    Raises:
        UserError: the file has no linear in this format.
    """
    return _cached_profile(file, dtype)


def part_costs_for_file(file: ResultFile, query: PlanQuery) -> Sequence[PartCosts]:
    """Part costs of all variants in a file; empty where the file has none.

    They serve figures that no plan holds.
    """
    return _cached_part_costs(file, query) if machine.known_gpu(file) else ()


def crossover_for_file(file: ResultFile, query: PlanQuery) -> PlannedCrossover | None:
    """Crossover of TP and PP without a plan; None where it cannot be planned."""
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

"""Claims on whole models in decode, judged by estimated steps.

The steps are of TP and PP over all GPUs. The claims cover all-reduces, schedules, latency and the crossover.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from math import inf
from statistics import fmean

from reports import formatting, pipeline_model
from reports.claims.evidence import OVERALL, Evidence, Finding
from reports.claims.measured_steps import FULL_USE_SHARE, LARGE_BATCH, SHARE_TOLERANCE
from reports.claims.planned_prefill import ONE_SHOT_PROMPTS, PROMPT_LENGTHS, estimate_pp_prefill
from reports.claims.planned_subject import (
    PIPELINE_BATCHES,
    Estimate,
    PlannedFindings,
    PlannedGpu,
    SourcedEstimate,
    StepWithBreakdown,
    join_clauses,
    planned_finding,
    planned_gpus,
    slow_all_reduce_note,
)
from reports.claims.tokens import SAME_TIME_FACTOR
from reports.claims.verdict import DECIDED_VERDICTS, Verdict, verdict_within
from reports.deployment_names import deployment_name, describe_loads, distinguishing_label, join_with_and
from reports.plan import capacity, planner
from reports.plan.answer import batches_near_crossover, better_than_both, is_surely_faster, rate_text, tp_and_pp_points
from reports.plan.crossover import MAX_BATCH as CROSSOVER_MOST
from reports.plan.crossover import PlannedCrossover
from reports.plan.estimate import COST_FIELDS, CostField, MissingMeasurementError, Provenance
from reports.plan.planner import Plan, PlanPoint
from reports.plan.query import DEFAULT_BATCHES, MICRO_BATCH_FACTORS
from reports.plan.step import PartCosts, StepEstimate
from reports.tp_vs_pp.compare import Load, Setting
from specs.parallel import PARTITIONS, Deployment

# Claims on all-reduces in decode: up to 30 % of a step under TP, and 38 % over NVLink.

MAX_SHARE, NVLINK_SHARE = 0.30, 0.38
AllReduceMode = tuple[str, str]
"""Family and launch of an all-reduce kernel."""
ALL_REDUCE_MODES: Mapping[AllReduceMode, str] = {
    ("custom", "graph"): "custom kernel in a graph",
    ("custom", "eager"): "custom kernel launched eagerly",
    ("nccl", "graph"): "NCCL in a graph",
    ("nccl", "eager"): "NCCL launched eagerly",
}
SHOWN_BATCHES = (1, 64, 256, 1024)
SharesByBatch = dict[int, tuple[Estimate, Provenance]]


def judge_all_reduce_share(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge the share of all-reduces at each batch, by backend and launch."""
    for subject in planned_gpus(evidences):
        rows = PlannedFindings(subject, "share")
        said: dict[str, str] = {}
        for mode in ALL_REDUCE_MODES:
            limit = slow_all_reduce_note(_with_mode(subject, mode))
            verdicts: dict[Load, Verdict] = {}
            for batch, found in _all_reduce_shares(subject, mode, SHOWN_BATCHES, rows.missing).items():
                verdict = verdicts[Load(1, batch)] = verdict_within(found[0][1:], 0, MAX_SHARE)
                rows.add(
                    _mode_setting(subject, mode), Load(1, batch), str(_tp_deployment(subject)), verdict, found, limit
                )
            if verdicts:
                said[f"{ALL_REDUCE_MODES[mode]} ({limit})" if limit else ALL_REDUCE_MODES[mode]] = _share_text(verdicts)
        yield from rows.findings(_group_modes(said, ": "))


def judge_nvlink_share(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge the largest all-reduce share over NVLink, at any batch that fits.

    The condition names the batches whose share is large enough.
    """
    for subject in planned_gpus(evidences):
        gpu = subject.evidence.datasheet
        if gpu and not gpu.link.startswith("NVLink"):
            yield replace(
                subject.evidence.blank_finding("share"), condition=f"no NVLink: its link is {gpu.link}", provenance=""
            )
            continue
        rows, said = PlannedFindings(subject, "share"), {}
        for mode, name in ALL_REDUCE_MODES.items():
            if shares := _all_reduce_shares(subject, mode, DEFAULT_BATCHES, rows.missing):
                said[name] = _add_largest_share(rows, _mode_setting(subject, mode), shares)
        yield from rows.findings(_group_modes(said, " "))


def _add_largest_share(rows: PlannedFindings, setting: Setting, shares: SharesByBatch) -> str:
    """Add a row at the batch with the largest share, and return its condition."""
    spans = {batch: span for batch, (span, _) in shares.items()}
    batch = max(spans, key=lambda one: spans[one].value)
    largest = Estimate(*(max(ends) for ends in zip(*spans.values(), strict=True)))
    reached = _reached_text(spans)
    said = reached or f"at most {formatting.percent(largest.high)} up to a batch of {max(spans)}"
    verdict: Verdict = "HOLDS_IF" if reached else "REFUTED"
    basis = Provenance.merge(one for _, one in shares.values())
    rows.add(setting, Load(1, batch), str(_tp_deployment(rows.subject)), verdict, (largest, basis), said)
    return said


def _group_modes(said: Mapping[str, str], link: str) -> str:
    """Join the conditions of all modes, grouping modes of the same text."""
    ways: dict[str, list[str]] = {}
    for name, text in said.items():
        ways.setdefault(text, []).append(name)
    return join_clauses(*(f"{join_with_and(names)}{link}{text}" for text, names in ways.items()))


def _share_text(verdicts: Mapping[Load, Verdict]) -> str:
    """Return the batches within the limit, above the limit, and undecided."""
    among = list(verdicts)
    holding, more = ([load for load, one in verdicts.items() if one == kind] for kind in ("HOLDS", "REFUTED"))
    undecided = [load for load, one in verdicts.items() if one not in DECIDED_VERDICTS]
    said = [f"up to {formatting.percent(MAX_SHARE)} {describe_loads(holding, among)}"] if holding else []
    said += [f"more {describe_loads(more, among)}"] if more else []
    said += [f"cannot be told {describe_loads(undecided, among, 'any')}"] if undecided else []
    return ", ".join(said)


def _reached_text(spans: Mapping[int, Estimate]) -> str:
    """Return the batches that reach the claimed share; empty where none does.

    The upper bound of the share gives the first batch, the lower bound the sure one.
    """
    maybe = [batch for batch, span in spans.items() if span.high >= NVLINK_SHARE]
    surely = next((batch for batch, span in spans.items() if span.low >= NVLINK_SHARE), None)
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
    text += f" but for {join_with_and([str(batch) for batch in between])}" if between else ""
    return text if surely else f"{text} in some implementations"


def _with_mode(subject: PlannedGpu, mode: AllReduceMode) -> PlannedGpu:
    backend, launch = mode
    return subject.with_query(replace(subject.query, backend=backend, launches=(launch,)))


def _mode_setting(subject: PlannedGpu, mode: AllReduceMode) -> Setting:
    return subject.setting(backend=" ".join(mode))


def _all_reduce_shares(
    subject: PlannedGpu, mode: AllReduceMode, batches: Iterable[int], missing: list[str]
) -> SharesByBatch:
    """Return the all-reduce share of TP over all GPUs, by batch.

    Only batches that fit, and that have all-reduce times, are included.
    """
    this, tp = _with_mode(subject, mode), _tp_deployment(subject)
    found: SharesByBatch = {}

    def share(batch: int, parts: PartCosts) -> tuple[Estimate, Provenance]:
        made = this.compose_step(parts, tp, batch)
        part, step = made.breakdown.all_reduce_share, made.step
        return Estimate(
            part, part * step.seconds / step.high, min(1.0, part * step.seconds / step.low)
        ), made.provenance

    for batch in batches:
        if subject.fits(tp, batch):
            try:
                found[batch] = this.estimate(partial(share, batch))
            except MissingMeasurementError as error:
                missing.append(str(error))
    return found


def _tp_deployment(subject: PlannedGpu) -> Deployment:
    return Deployment(tp=subject.query.gpus)


def judge_latency(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge t(PP at its best) / t(TP) of a step at each batch that fits.

    Above 1, TP has the lower latency.
    """
    for subject in planned_gpus(evidences):
        rows, tp = PlannedFindings(subject, "ratio"), Deployment(tp=subject.query.gpus)
        for batch in DEFAULT_BATCHES:
            pp_deployments = [
                one
                for one in (_sync_deployment(subject), *_async_deployments(subject, batch))
                if subject.fits(one, batch)
            ]
            if pp_deployments and subject.fits(tp, batch):
                what, said = (
                    f"tp{tp.tp}/pp{tp.tp}",
                    "the best of PP is "
                    f"{deployment_name(_fastest_deployment(subject, pp_deployments, batch) or pp_deployments[0])}",
                )
                _add_estimate(
                    rows, batch, what, (1, inf), partial(_step_ratio, subject, [tp], pp_deployments, batch), said
                )
        yield from rows.findings()


def judge_micro_batches(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge t(sync) / t(async at its best m) of a decode step at each batch."""
    for subject in planned_gpus(evidences):
        rows, sync = PlannedFindings(subject, "ratio"), _sync_deployment(subject)
        for batch in PIPELINE_BATCHES:
            async_deployments = [one for one in _async_deployments(subject, batch) if subject.fits(one, batch)]
            if async_deployments and subject.fits(sync, batch):
                best = _fastest_deployment(subject, async_deployments, batch) or async_deployments[0]
                figure = partial(_step_ratio, subject, async_deployments, [sync], batch)
                _add_estimate(
                    rows,
                    batch,
                    f"pp{sync.pp}",
                    (1 / SAME_TIME_FACTOR, SAME_TIME_FACTOR),
                    figure,
                    f"m = {best.micro_batches}",
                )
        yield from rows.findings()


def judge_utilisation(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge the busy share of async PP stages; prefill stands beside it."""
    for subject in planned_gpus(evidences):
        rows = PlannedFindings(subject, "share")
        for way in PARTITIONS:
            for batch in PIPELINE_BATCHES:
                one = Deployment(1, subject.query.gpus, 1, "async", subject.query.gpus, way)
                if subject.fits(one, batch):
                    _add_estimate(
                        rows, batch, str(one), (FULL_USE_SHARE, inf), partial(_busy_estimate, subject, one, batch)
                    )
        _add_prefill(rows)
        yield from rows.findings()


def judge_single_request(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge the busy share of a GPU while one sequence passes all stages."""
    for subject in planned_gpus(evidences):
        rows, sync = PlannedFindings(subject, "share"), _sync_deployment(subject)
        if subject.fits(sync, 1):
            said = f"1/{sync.pp} is {1 / sync.pp:.1%}"
            _add_estimate(
                rows, 1, str(sync), (0, SHARE_TOLERANCE / sync.pp), partial(_busy_estimate, subject, sync, 1), said
            )
        yield from rows.findings()


def _add_estimate(
    rows: PlannedFindings,
    batch: int,
    what: str,
    limits: tuple[float, float],
    figure: partial[SourcedEstimate],
    condition: str = "",
) -> None:
    """Add a row, or record why there is none."""
    try:
        found = rows.subject.estimate(figure)
    except MissingMeasurementError as error:
        rows.missing.append(str(error))
        return
    rows.add(rows.subject.setting(), Load(1, batch), what, verdict_within(found[0][1:], *limits), found, condition)


def _add_prefill(rows: PlannedFindings) -> None:
    """Add a row on one-shot prefill, which decides nothing.

    Prefill fills and drains the pipeline, which the claim excludes.
    """
    one = Deployment(pp=rows.subject.query.gpus, schedule="async", micro_batches=ONE_SHOT_PROMPTS)
    tokens = PROMPT_LENGTHS[0]

    def busy(parts: PartCosts) -> SourcedEstimate:
        walk = estimate_pp_prefill(parts, one, tokens)
        return walk.busy, walk.provenance

    try:
        found = rows.subject.estimate(busy)
    except MissingMeasurementError:
        return
    setting, load = rows.subject.setting(decode=False), Load(tokens, ONE_SHOT_PROMPTS)
    verdict = verdict_within(found[0][1:], FULL_USE_SHARE, inf)
    rows.add(setting, load, str(one), verdict, found, "fill and drain in it", decides=False)


def _sync_deployment(subject: PlannedGpu) -> Deployment:
    return Deployment(pp=subject.query.gpus, schedule="sync")


def _async_deployments(subject: PlannedGpu, batch: int) -> list[Deployment]:
    """Return async deployments with P and 2P microbatches of equal size."""
    gpus = subject.query.gpus
    return [Deployment(1, gpus, 1, "async", one * gpus) for one in MICRO_BATCH_FACTORS if not batch % (one * gpus)]


def _step_ratio(
    subject: PlannedGpu, base: Sequence[Deployment], other: Sequence[Deployment], batch: int, parts: PartCosts
) -> SourcedEstimate:
    """Return the fastest time of `other` over that of `base`, by the same parts."""
    a, b = _fastest_step(subject, parts, base, batch), _fastest_step(subject, parts, other, batch)
    span = Estimate(b.step.seconds / a.step.seconds, b.step.low / a.step.high, b.step.high / a.step.low)
    return span, Provenance.merge([a.provenance, b.provenance])


def _fastest_step(
    subject: PlannedGpu, parts: PartCosts, deployments: Sequence[Deployment], batch: int
) -> StepWithBreakdown:
    return min((subject.compose_step(parts, one, batch) for one in deployments), key=lambda one: one.step.seconds)


def _fastest_deployment(subject: PlannedGpu, deployments: Sequence[Deployment], batch: int) -> Deployment | None:
    """Return the fastest deployment by the first complete parts.

    None where no parts are complete.
    """
    for parts in subject.parts:
        try:
            return min(deployments, key=lambda one: subject.compose_step(parts, one, batch).step.seconds)
        except MissingMeasurementError:
            continue
    return None


def _busy_estimate(subject: PlannedGpu, deployment: Deployment, batch: int, parts: PartCosts) -> SourcedEstimate:
    """Return the mean busy share of all stages.

    The bounds cover the doubts of stages and of hops.
    """
    made = subject.compose_step(parts, deployment, batch)
    shares = [_busy_share(made.step, *picks) for picks in product(COST_FIELDS, COST_FIELDS)]
    return Estimate(shares[0], min(shares), max(shares)), made.provenance


def _busy_share(step: StepEstimate, stage_pick: CostField, hop_pick: CostField) -> float:
    busy, hop = step.tables(stage_pick, hop_pick)
    return fmean(map(sum, busy)) / pipeline_model.decode_step_seconds(busy, hop)


# Claim on the crossover: from which decode batch on async PP gives more tokens/s than TP.

UNIT = "sequences"
LONG_CONTEXT = 2048
"""Context length, in tokens, at which memory limits the batch sooner."""
CLAIM_VERDICTS: dict[str, Verdict] = {
    "crossover": "HOLDS_IF",
    "tp": "REFUTED",
    "pp": "HOLDS",
    "ambiguous": "UNDERPOWERED",
}


def judge_crossover(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge the crossover over all implementations and both partitions.

    Further findings are by all-reduce backend, and for a longer context.
    """
    for subject in planned_gpus(evidences):
        usual = subject.query
        others = [
            *(replace(usual, backend=one) for one in ("custom", "nccl")),
            replace(usual, context=LONG_CONTEXT),
        ]
        settings = [subject.with_query(one).setting(backend=_backend_label(one.backend)) for one in (usual, *others)]
        plan = planner.plan_for_file(subject.evidence.file)
        yield _overall_finding(subject, plan)
        if plan and plan.crossover:
            for query, setting in zip(others, settings[1:], strict=True):
                yield _variation_finding(subject.with_query(query), distinguishing_label(setting, settings), plan)


def _backend_label(name: str) -> str:
    return "" if name == "best" else name


def _overall_finding(subject: PlannedGpu, plan: Plan | None) -> Finding:
    found = plan.crossover if plan else None
    if plan is None or found is None:
        why = [one.why for one in plan.unplannable if one.deployment.tp == plan.query.gpus] if plan else []
        lacking = why[0] if why else f"TP and PP over {subject.query.gpus} GPUs cannot both be planned"
        return replace(subject.evidence.blank_finding(UNIT), condition=lacking, provenance="")
    said = join_clauses(_crossover_text(subject, found), _better_text(plan), slow_all_reduce_note(subject))
    return replace(_crossover_finding(subject, found, plan, said), scope=OVERALL)


def _variation_finding(subject: PlannedGpu, what: str, plan: Plan) -> Finding:
    gpus = subject.query.gpus
    scope = f"tp{gpus}/pp{gpus} {what}"
    found = planner.crossover_for_file(subject.evidence.file, subject.query)
    if found is None:
        lacking = f"TP and PP over {gpus} GPUs cannot both be planned so"
        blank = subject.evidence.blank_finding(UNIT)
        return replace(blank, condition=lacking, scope=scope, model=subject.query.model, provenance="")
    said = join_clauses(_crossover_text(subject, found), slow_all_reduce_note(subject))
    return replace(_crossover_finding(subject, found, plan, said), scope=scope, model=subject.query.model)


def _crossover_finding(subject: PlannedGpu, found: PlannedCrossover, plan: Plan, said: str) -> Finding:
    """Return the crossover finding, with the cases of TP and PP.

    The cases come from the points that the plan has.
    """
    sides = [
        one for batch in plan.query.batches for one in tp_and_pp_points(plan, plan.at(batch)) if one and one.breakdown
    ]
    basis = Provenance.merge(
        Provenance(one.breakdown.provenance, one.breakdown.cases) for one in sides if one.breakdown
    )
    verdict: Verdict = CLAIM_VERDICTS[found.verdict] if not _misses_large_batches(found) else "UNDERPOWERED"
    made = planned_finding(subject, UNIT, verdict, (Estimate(0.0, 0.0, 0.0), basis), said)
    if found.batch is None or found.low is None or found.high is None or verdict == "HOLDS":
        return replace(made, value=None, low=None, high=None)
    return replace(made, value=found.batch, low=found.low, high=found.high)


def _misses_large_batches(found: PlannedCrossover) -> bool:
    """Return whether TP leads over a search range without large batches."""
    return found.verdict == "tp" and found.batch_range[1] < LARGE_BATCH


def _batch_limit_text(subject: PlannedGpu, found: PlannedCrossover) -> str:
    """Return what limits the batches.

    The limit is memory, with the deployment that reaches it first; else the search's own limit.
    """
    gpus, context = subject.query.gpus, subject.query.context
    fit = {
        name: capacity.max_sequences(one, subject.query, subject.profile)
        for name, one in {
            f"TP {gpus}": Deployment(tp=gpus),
            **{f"PP {gpus} with {way} stages": Deployment(1, gpus, 1, "async", gpus, way) for way in PARTITIONS},
        }.items()
    }
    first = min(fit, key=lambda one: fit[one])
    if fit[first] >= found.batch_range[1] + gpus or fit[first] >= CROSSOVER_MOST:
        return found.bound_by
    others = ", ".join(f"{count} under {name}" for name, count in fit.items() if name != first)
    return f"memory ends at {fit[first]} sequences of context {context} under {first} ({others})"


def _crossover_text(subject: PlannedGpu, found: PlannedCrossover) -> str:
    """Return where PP leads, and what limits the batches."""
    first, last = found.batch_range
    never = sum(1 for one in found.leads_from.values() if one is None)
    if found.verdict == "crossover":
        span = str(found.low) if found.low == found.high else f"{found.low}–{found.high}"
        text = f"for good from a batch of {span} on"
    elif found.verdict == "ambiguous":
        text = (
            f"PP takes the lead for good in {len(found.leads_from) - never} of {len(found.leads_from)} variants, up "
            f"to {last}"
        )
        text += f"; TP leads below {found.low}" if found.low and found.low > first else ""
    else:
        text = f"{found.verdict.upper()} leads at every batch from {first} to {last}"
    few = f"no batch of {LARGE_BATCH} or more was looked at" if _misses_large_batches(found) else ""
    return join_clauses(text, few, _batch_limit_text(subject, found))


def _better_text(plan: Plan) -> str:
    """Return what beats both TP and PP near the crossover; empty if nothing does.

    The plan's answer uses the same batch and rule.
    """
    for batch in batches_near_crossover(plan):
        if found := better_than_both(plan, batch):
            return _gain_text(*found)
    return ""


def _gain_text(best: PlanPoint, tp: PlanPoint, pp: PlanPoint) -> str:
    give = "give" if best.deployment.replicas > 1 else "gives"
    rates = f"{rate_text(best)} tokens a second against {rate_text(tp)} and {rate_text(pp)}"
    surely = "" if is_surely_faster(best, (tp, pp)) else "; intervals overlap"
    return f"{deployment_name(best.deployment)} {give} more than both at {best.batch} ({rates}{surely})"

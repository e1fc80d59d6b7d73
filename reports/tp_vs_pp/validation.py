"""Validation of the event model and of planned steps against measured steps.

The event model replays a step from the executions and messages of its own timeline. A stage's execution lasts until its
microbatch is sent: a rank does one thing at a time and sends before it receives again. The message is then in flight
until the next stage begins to compute, if that stage waited. A message that arrived before the stage was ready has a
hop of zero, and receiving it is part of the execution.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from statistics import fmean, median
from typing import Any, NamedTuple

from reports import formatting, pipeline_model
from reports.deployment_names import deployment_name, load_phrase
from reports.formatting import DASH, pluralize
from reports.output import Column, Table
from reports.pipeline_model import StageTable
from reports.plan.estimate import MissingMeasurementError
from reports.plan.profile import build_profile
from reports.plan.query import PlanQuery
from reports.plan.step import PartCosts, StepEstimate, Variant, estimate_step
from reports.plan.tables import deployment_kind
from reports.results import deployment_of
from reports.tp_vs_pp.compare import Experiment, Load, oversubscription
from specs import measurement as specs_measurement
from specs.errors import UserError
from specs.measurement import Measurement, TimelineBlock
from specs.parallel import Deployment, RankPosition

COMPUTE_KINDS = ("compute", "all-reduce")
"""Kinds of blocks in an execution.

Gaps between them, spent waiting for other ranks of the same stage, belong to the execution.
"""
WAIT_THRESHOLD = 0.01
"""Least wait for a message already sent, as a share of the execution.

A shorter time counts as receiving the message.
"""


class ReplayTables(NamedTuple):
    """Decode flag and seconds of a timeline's step, and the event model's tables."""

    decode: bool
    seconds: float
    busy: StageTable
    hop: StageTable


class ObservedExecution(NamedTuple):
    """Execution of a microbatch on a stage, in seconds from the window's start.

    The stage is ready at `wait_start`, computes from `start` to `compute_end`, and has sent at `send_end`. The window
    cuts off earlier and later times.
    """

    wait_start: float
    start: float
    compute_end: float
    send_end: float


ObservedExecutions = Mapping[tuple[int, int], ObservedExecution]
"""Executions of one stage by (step, microbatch)."""


def replay(measurement: Measurement) -> tuple[float, float] | None:
    """Seconds of a step by its timeline and by the event model.

    None where `read_timeline` gives None.
    """
    walk = read_timeline(measurement)
    if walk is None:
        return None
    if walk.decode:
        return walk.seconds, pipeline_model.decode_step_seconds(walk.busy, walk.hop)
    return walk.seconds, pipeline_model.simulate_prefill(walk.busy, walk.hop).step_seconds


def read_timeline(measurement: Measurement) -> ReplayTables | None:
    """Tables of a timeline's executions and messages, each the mean over its steps.

    None for a step without stages, and for replicas: their timeline is cut to the steps of one replica. None also where
    the timeline does not show each microbatch's compute and send in full on each stage, or the send of an awaited
    message.
    """
    case, deployment = measurement.case, deployment_of(measurement)
    if (
        case.op != specs_measurement.STEP_OP
        or not measurement.timeline
        or deployment.pp == 1
        or deployment.replicas > 1
    ):
        return None
    blocks, window = specs_measurement.timeline_blocks(measurement.timeline), float(measurement.timeline["seconds"])
    decode = specs_measurement.is_decode(case.tokens, case.batch)
    ranks = [deployment.rank(RankPosition(0, stage, 0)) for stage in range(deployment.pp)]
    stages = [_observed_executions([block for block in blocks if block.rank == rank], window) for rank in ranks]
    busy, hop = ([[0.0] * deployment.micro_batches for _ in ranks] for _ in range(2))
    for stage, slot in product(range(deployment.pp), range(deployment.micro_batches)):
        met = _with_senders(stages, stage, slot, decode=decode)
        last = stage == deployment.pp - 1
        held = [_busy_seconds(*pair) for pair in met if _is_complete(pair[0], window, decode=decode, last=last)]
        after = stages[(stage + 1) % deployment.pp] if deployment.micro_batches == 1 and (decode or not last) else {}
        sent = [(turn, after.get((of + last, one))) for (of, one), turn in stages[stage].items() if one == slot]
        sending = [
            _send_seconds(*pair) for pair in sent if pair[0].send_end < window and (pair[0].compute_end > 0 or last)
        ]
        waits = [max(0.0, turn.start - sent.send_end) for turn, sent in met if sent and _had_to_wait(turn, sent)]
        unsent = (decode or not last) and not sending
        unseen = (decode or stage) and not waits and any(_had_to_wait(*pair) for pair in met)
        if not held or unsent or unseen:
            return None
        busy[stage][slot], hop[stage - 1][slot] = fmean(held) + _mean_or_zero(sending), _mean_or_zero(waits)
    ends = [turn for turn in stages[-1].values() if _is_complete(turn, window, decode=decode, last=True)]
    if decode:
        return ReplayTables(decode, window * deployment.micro_batches / len(ends), busy, hop)
    return ReplayTables(
        decode, max(turn.compute_end for turn in ends) - min(turn.start for turn in stages[0].values()), busy, hop
    )


def _observed_executions(blocks: Sequence[TimelineBlock], window: float) -> ObservedExecutions:
    """Executions of a stage's first rank, from its blocks.

    Where only the end of sending is within the window, the earlier times are 0.
    """
    by_place: dict[tuple[int, int], list[TimelineBlock]] = {}
    for block in blocks:
        by_place.setdefault((block.step, block.microbatch), []).append(block)
    found = {}
    for place, own in by_place.items():
        if computing := [block for block in own if block.kind in COMPUTE_KINDS]:
            found[place] = ObservedExecution(own[0].start, computing[0].start, computing[-1].end, own[-1].end)
        elif own[-1].kind == "hop" and own[-1].end < window:
            found[place] = ObservedExecution(0.0, 0.0, 0.0, own[-1].end)
    return found


def _is_complete(turn: ObservedExecution, window: float, *, decode: bool, last: bool) -> bool:
    """Return whether the execution was computed within the window.

    A decode window cuts executions at its edges and ends with the last stage's last execution. A prefill window
    contains only its own executions.
    """
    return (turn.start > 0 or not decode) and (turn.compute_end < window or last)


def _with_senders(
    stages: Sequence[ObservedExecutions], stage: int, slot: int, *, decode: bool
) -> list[tuple[ObservedExecution, ObservedExecution | None]]:
    """Executions of a microbatch on a stage, each with its sender's execution.

    The sender is None where the window does not show it.
    """
    before: ObservedExecutions = stages[stage - 1] if decode or stage else {}
    return [(turn, before.get((of - (stage == 0), one))) for (of, one), turn in stages[stage].items() if one == slot]


def _had_to_wait(turn: ObservedExecution, sent: ObservedExecution | None) -> bool:
    """Return whether the stage was ready before its message arrived."""
    late = sent is not None and turn.wait_start <= sent.send_end
    return late or turn.start - turn.wait_start > WAIT_THRESHOLD * (turn.compute_end - turn.start)


def _busy_seconds(turn: ObservedExecution, sent: ObservedExecution | None) -> float:
    """Seconds that an execution keeps the stage busy before it sends."""
    return turn.compute_end - (turn.start if _had_to_wait(turn, sent) else turn.wait_start)


def _send_seconds(turn: ObservedExecution, taken: ObservedExecution | None) -> float:
    """Seconds from the end of compute until the message is sent.

    The time ends earlier where the next stage already computes with the message. A sender may be held up beyond that.
    With a single microbatch in flight no stage waits for the sender then.
    """
    end = min(turn.send_end, taken.start) if taken and taken.start > turn.compute_end else turn.send_end
    return end - turn.compute_end


def _mean_or_zero(seconds: Sequence[float]) -> float:
    """Mean in seconds; 0 for an empty sequence."""
    return fmean(seconds) if seconds else 0.0


# Planned steps against measured steps of the same machine.
#
# A plan uses parts from the experiment's own file: shares of a layer, all-reduces and hops. No measured step of the
# experiment goes into the plan.

CLEAR_DIFFERENCE = 0.15
"""Relative difference of two splits above which a plan must name the faster."""


@dataclass(frozen=True)
class PlannedRun:
    """Measured run with its planned step."""

    load: Load
    deployment: Deployment
    measured: Measurement
    step: StepEstimate

    @property
    def error(self) -> float:
        """Relative error of the plan; above 0 where the planned step is too long."""
        return self.step.seconds / self.measured.median - 1

    @cached_property
    def event_model_error(self) -> float | None:
        """Relative error of the event model against the run's own timeline.

        None where the timeline does not show enough.
        """
        found = replay(self.measured)
        return found[1] / found[0] - 1 if found else None


@dataclass(frozen=True)
class PlanValidation:
    """Planned runs of an experiment.

    Attributes:
        experiment: measured runs.
        rows: planned runs by rising load.
        missing: reason for each run that cannot be planned.
    """

    experiment: Experiment
    rows: Sequence[PlannedRun]
    missing: Sequence[str]

    @property
    def cut(self) -> Sequence[PlannedRun]:
        """Runs in which ranks share a model.

        Replicas of a whole model send no messages and are easier to predict.
        """
        return [one for one in self.rows if one.deployment.tp * one.deployment.pp > 1]

    @property
    def median_error(self) -> float | None:
        """Median absolute error of `cut` runs; None without any."""
        return median(abs(one.error) for one in self.cut) if self.cut else None

    @property
    def replicas(self) -> Sequence[PlannedRun]:
        """Runs of whole models, one per rank."""
        return [one for one in self.rows if one not in self.cut]

    @property
    def median_error_by_kind(self) -> Mapping[str, float]:
        """Median signed error by kind, without replicas; below 0 where plans are short."""
        kinds = dict.fromkeys(deployment_kind(one.deployment) for one in self.cut)
        return {
            name: median(one.error for one in self.cut if deployment_kind(one.deployment) == name) for name in kinds
        }

    @property
    def clear_pairs(self) -> Sequence[tuple[PlannedRun, PlannedRun]]:
        """Pairs of `cut` runs at one load that differ by over `CLEAR_DIFFERENCE`.

        The faster run comes first.
        """
        found = []
        for a, b in combinations(self.cut, 2):
            first, second = sorted((a, b), key=lambda one: one.measured.median)
            if a.load == b.load and second.measured.median > (1 + CLEAR_DIFFERENCE) * first.measured.median:
                found.append((first, second))
        return found

    @property
    def correct_pairs(self) -> int:
        """Clear pairs in which the plan names the faster run."""
        return sum(first.step.seconds < second.step.seconds for first, second in self.clear_pairs)


def validate_plan(experiment: Experiment) -> PlanValidation | None:
    """Plan an experiment's decode steps and compare them with its runs.

    None for prefill, oversubscribed ranks, or where no run can be planned.
    """
    setting = experiment.setting
    if not setting.decode or setting.context is None or oversubscription(experiment.file, setting.ranks):
        return None
    try:
        system = build_profile([experiment.file], setting.dtype)
        parts = PartCosts(system, _plan_query(experiment), Variant(setting.implementation))
    except UserError:
        return None
    rows, missing = [], []
    for load, runs in experiment.loads.items():
        for deployment, measured in runs.items():
            try:
                split = deployment.split(parts.query.truncated_model)
                rows.append(PlannedRun(load, deployment, measured, estimate_step(parts, deployment, split, load.batch)))
            except MissingMeasurementError as error:
                missing.append(f"{deployment} at {load.batch}: {error}")
    return PlanValidation(experiment, rows, missing) if rows else None


def _plan_query(experiment: Experiment) -> PlanQuery:
    setting = experiment.setting
    return PlanQuery(
        model=setting.model,
        gpus=setting.ranks,
        context=setting.context or 1,
        batches=sorted({load.batch for load in experiment.loads}),
        dtype=setting.dtype,
        layers=setting.layers,
    )


# Errors of plans: a sentence, a table, JSON records.

NOTES = (
    "planned: put together from what ranks' own shares, all-reduces and hops took in this file, not from the steps",
    "event model: a timeline's own blocks through the schedule model, against the step of that one timeline; it may be "
    "off where a rank was held up in that window, which no schedule has",
)


def validation_sentence(check: PlanValidation) -> str:
    """State the median and worst error, and how often the plan names the faster run."""
    if check.median_error is None:
        return "No step of a model that is cut can be put together from its parts."
    worst, runs = max(check.cut, key=lambda one: abs(one.error)), pluralize(len(check.cut), "run")
    said = (
        f"Put together from its parts, a step is off by {check.median_error:.0%} in the middle of {runs} and by "
        f"{abs(worst.error):.0%} at worst ({deployment_name(worst.deployment)} {load_phrase(worst.load)})"
    )
    if not check.clear_pairs:
        return f"{said}; no two splits differ by more than {CLEAR_DIFFERENCE:.0%}."
    pairs = pluralize(len(check.clear_pairs), "pair")
    return (
        f"{said}; of {pairs} that differ by more than {CLEAR_DIFFERENCE:.0%} it names the faster in "
        f"{check.correct_pairs}."
    )


def validation_table(check: PlanValidation) -> Table:
    """Table of measured and planned steps, a row for each run."""
    seconds = [value for one in check.rows for value in (one.measured.median, one.step.seconds)]
    time = formatting.choose_scale(formatting.SECONDS, seconds)
    groups: dict[object, list[tuple[str, ...]]] = {}
    for one in check.rows:
        low, high = one.measured.interval or (None, None)
        row = (
            f"{one.load.batch}",
            str(one.deployment),
            time(one.measured.median),
            f"{time(low)}–{time(high)}" if low else DASH,
            time(one.step.seconds),
            f"{time(one.step.low)}–{time(one.step.high)}",
            f"{one.error:+.1%}",
            DASH if one.event_model_error is None else f"{one.event_model_error:+.2%}",
        )
        groups.setdefault(one.load, []).append(row)
    return Table(
        title="planned against run",
        columns=(
            Column("batch"),
            Column("deployment", number=False),
            Column(f"run\n{time.symbol}"),
            Column("95 %"),
            Column(f"planned\n{time.symbol}"),
            Column("range"),
            Column("plan\noff by"),
            Column("event model\noff by"),
        ),
        groups=tuple(map(tuple, groups.values())),
        caption=validation_sentence(check),
        notes=(*_bias_notes(check), *NOTES, *check.missing),
    ).without_empty(DASH)


def _bias_notes(check: PlanValidation) -> Iterator[str]:
    """Yield `planned steps come out, in the middle: TP 5.9% short, …`, then replicas.

    The caption does not count replicas.
    """
    if check.median_error_by_kind:
        said = ", ".join(f"{name} {_bias_text(error)}" for name, error in check.median_error_by_kind.items())
        yield f"planned steps come out, in the middle: {said}"
    if check.replicas:
        error = median(one.error for one in check.replicas)
        yield f"replicas of a whole model send no messages and are not in the caption's figures: {_bias_text(error)}"


def _bias_text(error: float) -> str:
    return f"{abs(error):.1%} {'short' if error < 0 else 'long'}"


def validation_record(check: PlanValidation | None) -> dict[str, Any] | None:
    """JSON record of the errors and of each run with its plan."""
    if check is None:
        return None
    return {
        "median_absolute_error": check.median_error,
        "median_error_by_kind": dict(check.median_error_by_kind),
        "clear_pairs": len(check.clear_pairs),
        "right_pairs": check.correct_pairs,
        "runs": [_run_record(one) for one in check.rows],
        "missing": list(check.missing),
    }


def _run_record(one: PlannedRun) -> dict[str, Any]:
    return {
        "case": one.measured.case.name,
        "batch": one.load.batch,
        "deployment": str(one.deployment),
        "measured_seconds": one.measured.median,
        "planned_seconds": one.step.seconds,
        "low": one.step.low,
        "high": one.step.high,
        "error": one.error,
        "event_model_error": one.event_model_error,
    }

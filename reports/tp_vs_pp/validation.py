"""The event model against what was measured: a step replayed from the turns and messages of its own timeline.

A stage's turn lasts until its micro-batch is sent, for a rank does one thing at a time and sends before it receives
again. From then on the message is under way until the next stage begins to compute, if that waited for it. One that was
there when the stage turned to it came in time: its hop counts as none, and taking it in is part of the turn.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from statistics import fmean, median
from typing import Any, NamedTuple

from reports import formatting, pipeline_model
from reports.deployment_names import of, spoken
from reports.formatting import NONE, counted
from reports.output import Column, Table
from reports.pipeline_model import StageTable
from reports.plan.estimate import MissingError
from reports.plan.profile import gather
from reports.plan.query import Asked
from reports.plan.step import Parts, Step, Variant, compose
from reports.plan.tables import kind
from reports.results import deployment_of
from reports.tp_vs_pp.compare import Experiment, Load, crowd
from specs import measurement as specs_measurement
from specs.errors import UserError
from specs.measurement import Block, Measurement
from specs.parallel import Deployment, Seat

COMPUTING = ("compute", "all-reduce")
"""Blocks of a turn, and with them what lies between: waiting for other ranks of the same stage."""
NOTICED = 0.01
"""Share of a turn from which on a stage that receives what was already sent waits, and does not merely take it in."""


class Walk(NamedTuple):
    """What a timeline says of a step: whether it is one of decode, its seconds, and the event model's tables."""

    decode: bool
    seconds: float
    busy: StageTable
    hop: StageTable


class Turn(NamedTuple):
    """A stage's part of a micro-batch in seconds from the window's start, cut off where the window is.

    The stage turns to it at `came`, computes from `start` to `done`, and has sent it at `left`.
    """

    came: float
    start: float
    done: float
    left: float


Turns = Mapping[tuple[int, int], Turn]
"""Of one stage, by step and slot."""


def replay(measurement: Measurement) -> tuple[float, float] | None:
    """Seconds of a step by its timeline, and by the event model; None where `read` gives None."""
    walk = read(measurement)
    if walk is None:
        return None
    if walk.decode:
        return walk.seconds, pipeline_model.period(walk.busy, walk.hop)
    return walk.seconds, pipeline_model.prefill(walk.busy, walk.hop).step_seconds


def read(measurement: Measurement) -> Walk | None:
    """Turns and messages of a timeline as tables, the mean of each over the steps in it.

    None of what is no step in stages, and of replicas, whose timeline is cut to the steps of one of them; and where it
    does not show whole how each slot is computed and sent on each stage, or not the sending of what was waited for.
    """
    case, laid = measurement.case, deployment_of(measurement)
    if case.op != specs_measurement.OP or not measurement.timeline or laid.pp == 1 or laid.replicas > 1:
        return None
    blocks, window = specs_measurement.blocks(measurement.timeline), float(measurement.timeline["seconds"])
    decode = specs_measurement.is_decode(case.tokens, case.batch)
    ranks = [laid.rank(Seat(0, stage, 0)) for stage in range(laid.pp)]
    stages = [_turns([block for block in blocks if block.rank == rank], window) for rank in ranks]
    busy, hop = ([[0.0] * laid.micro_batches for _ in ranks] for _ in range(2))
    for stage, slot in product(range(laid.pp), range(laid.micro_batches)):
        met = _met(stages, stage, slot, decode=decode)
        last = stage == laid.pp - 1
        held = [_held(*pair) for pair in met if _is_whole(pair[0], window, decode=decode, last=last)]
        after = stages[(stage + 1) % laid.pp] if laid.micro_batches == 1 and (decode or not last) else {}
        sent = [(turn, after.get((of + last, one))) for (of, one), turn in stages[stage].items() if one == slot]
        sending = [_sending(*pair) for pair in sent if pair[0].left < window and (pair[0].done > 0 or last)]
        waits = [max(0.0, turn.start - sent.left) for turn, sent in met if sent and _waited(turn, sent)]
        unsent = (decode or not last) and not sending
        unseen = (decode or stage) and not waits and any(_waited(*pair) for pair in met)
        if not held or unsent or unseen:
            return None
        busy[stage][slot], hop[stage - 1][slot] = fmean(held) + _mean(sending), _mean(waits)
    ends = [turn for turn in stages[-1].values() if _is_whole(turn, window, decode=decode, last=True)]
    if decode:
        return Walk(decode, window * laid.micro_batches / len(ends), busy, hop)
    return Walk(decode, max(turn.done for turn in ends) - min(turn.start for turn in stages[0].values()), busy, hop)


def _turns(blocks: Sequence[Block], window: float) -> Turns:
    """Of the first rank of a stage, by its blocks; of some only the end of sending is within the window."""
    by_place: dict[tuple[int, int], list[Block]] = {}
    for block in blocks:
        by_place.setdefault((block.step, block.slot), []).append(block)
    found = {}
    for place, own in by_place.items():
        if computing := [block for block in own if block.kind in COMPUTING]:
            found[place] = Turn(own[0].start, computing[0].start, computing[-1].end, own[-1].end)
        elif own[-1].kind == "hop" and own[-1].end < window:
            found[place] = Turn(0.0, 0.0, 0.0, own[-1].end)
    return found


def _is_whole(turn: Turn, window: float, *, decode: bool, last: bool) -> bool:
    """Whether it was computed within the window.

    One of decode cuts into turns at its edges, and ends where the last stage's last turn does; a prefill has no others.
    """
    return (turn.start > 0 or not decode) and (turn.done < window or last)


def _met(stages: Sequence[Turns], stage: int, slot: int, *, decode: bool) -> list[tuple[Turn, Turn | None]]:
    """Turns of a stage's slot, each with that which sent what it works on; None where that is out of sight."""
    before: Turns = stages[stage - 1] if decode or stage else {}
    return [(turn, before.get((of - (stage == 0), one))) for (of, one), turn in stages[stage].items() if one == slot]


def _waited(turn: Turn, sent: Turn | None) -> bool:
    """Whether the stage turned to it before its message was there."""
    late = sent is not None and turn.came <= sent.left
    return late or turn.start - turn.came > NOTICED * (turn.done - turn.start)


def _held(turn: Turn, sent: Turn | None) -> float:
    """Seconds that a turn keeps the stage busy before it sends."""
    return turn.done - (turn.start if _waited(turn, sent) else turn.came)


def _sending(turn: Turn, taken: Turn | None) -> float:
    """Seconds from the end of computing until the message is sent, or until the next stage computes with it.

    A sender may be held up beyond that. Where one micro-batch goes round, nobody waits for it then.
    """
    end = min(turn.left, taken.start) if taken and taken.start > turn.done else turn.left
    return end - turn.done


def _mean(seconds: Sequence[float]) -> float:
    """0 of none."""
    return fmean(seconds) if seconds else 0.0


# Does the composition predict what a whole model takes? Planned steps against those that the same machine has run.
#
# A plan is made of the parts in the experiment's own file: what a rank's shares take, and its all-reduces and hops.
# Nothing of the experiment itself goes into it.

CLEAR = 0.15
"""By how much two splits have to differ before a plan has to name the right one."""


@dataclass(frozen=True)
class Predicted:
    """One run beside its plan; `error` is of the plan, as a share of what was measured."""

    load: Load
    deployment: Deployment
    measured: Measurement
    step: Step

    @property
    def error(self) -> float:
        """Above 0 where the plan is too long."""
        return self.step.seconds / self.measured.median - 1

    @cached_property
    def event_model_error(self) -> float | None:
        """Of the event model fed with the run's own timeline, against that; None where it does not show enough."""
        found = replay(self.measured)
        return found[1] / found[0] - 1 if found else None


@dataclass(frozen=True)
class Check:
    """All runs of an experiment that can be planned.

    Attributes:
        experiment: what ran.
        rows: by rising load.
        missing: by run why it cannot be planned.
    """

    experiment: Experiment
    rows: Sequence[Predicted]
    missing: Sequence[str]

    @property
    def cut(self) -> Sequence[Predicted]:
        """Runs in which ranks share a model; replicas of a whole one send no messages, and are easier to foretell."""
        return [one for one in self.rows if one.deployment.tp * one.deployment.pp > 1]

    @property
    def median_error(self) -> float | None:
        """Of the absolute errors of those that are cut; None where none is."""
        return median(abs(one.error) for one in self.cut) if self.cut else None

    @property
    def whole(self) -> Sequence[Predicted]:
        """Runs of whole models, one a rank."""
        return [one for one in self.rows if one not in self.cut]

    @property
    def bias(self) -> Mapping[str, float]:
        """Of those that are cut by kind the error in the middle, with its sign: below 0 where plans are too short."""
        kinds = dict.fromkeys(kind(one.deployment) for one in self.cut)
        return {name: median(one.error for one in self.cut if kind(one.deployment) == name) for name in kinds}

    @property
    def clear(self) -> Sequence[tuple[Predicted, Predicted]]:
        """Pairs of cut runs at one load whose measured steps differ by more than `CLEAR`, the faster first."""
        found = []
        for a, b in combinations(self.cut, 2):
            first, second = sorted((a, b), key=lambda one: one.measured.median)
            if a.load == b.load and second.measured.median > (1 + CLEAR) * first.measured.median:
                found.append((first, second))
        return found

    @property
    def right(self) -> int:
        """Of the clear pairs those in which the plan names the faster one."""
        return sum(first.step.seconds < second.step.seconds for first, second in self.clear)


def check(experiment: Experiment) -> Check | None:
    """Of decode on ranks that do not take turns; None for anything else, and where no run can be planned."""
    setting = experiment.setting
    if not setting.decode or setting.context is None or crowd(experiment.file, setting.ranks):
        return None
    try:
        system = gather([experiment.file], setting.dtype)
        parts = Parts(system, _asked(experiment), Variant(setting.implementation))
    except UserError:
        return None
    rows, missing = [], []
    for load, runs in experiment.loads.items():
        for deployment, measured in runs.items():
            try:
                split = deployment.split(parts.asked.cut)
                rows.append(Predicted(load, deployment, measured, compose(parts, deployment, split, load.batch)))
            except MissingError as error:
                missing.append(f"{deployment} at {load.batch}: {error}")
    return Check(experiment, rows, missing) if rows else None


def _asked(experiment: Experiment) -> Asked:
    setting = experiment.setting
    return Asked(
        model=setting.model,
        gpus=setting.ranks,
        context=setting.context or 1,
        batches=sorted({load.batch for load in experiment.loads}),
        dtype=setting.dtype,
        layers=setting.layers,
    )


# How far plans are off from what was run, in a sentence, a table and for a machine.

NOTES = (
    "planned: put together from what ranks' own shares, all-reduces and hops took in this file, not from the steps",
    "event model: a timeline's own blocks through the schedule model, against the step of that one timeline; it may be "
    "off where a rank was held up in that window, which no schedule has",
)


def sentence(check: Check) -> str:
    """The error in the middle and at worst, and whether the plan would have chosen right."""
    if check.median_error is None:
        return "No step of a model that is cut can be put together from its parts."
    worst, runs = max(check.cut, key=lambda one: abs(one.error)), counted(len(check.cut), "run")
    said = (
        f"Put together from its parts, a step is off by {check.median_error:.0%} in the middle of {runs} and by "
        f"{abs(worst.error):.0%} at worst ({spoken(worst.deployment)} {of(worst.load)})"
    )
    if not check.clear:
        return f"{said}; no two splits differ by more than {CLEAR:.0%}."
    pairs = counted(len(check.clear), "pair")
    return f"{said}; of {pairs} that differ by more than {CLEAR:.0%} it names the faster in {check.right}."


def table(check: Check) -> Table:
    """A row for each run."""
    seconds = [value for one in check.rows for value in (one.measured.median, one.step.seconds)]
    time = formatting.scale(formatting.SECONDS, seconds)
    groups: dict[object, list[tuple[str, ...]]] = {}
    for one in check.rows:
        low, high = one.measured.interval or (None, None)
        row = (
            f"{one.load.batch}",
            str(one.deployment),
            time(one.measured.median),
            f"{time(low)}–{time(high)}" if low else NONE,
            time(one.step.seconds),
            f"{time(one.step.low)}–{time(one.step.high)}",
            f"{one.error:+.1%}",
            NONE if one.event_model_error is None else f"{one.event_model_error:+.2%}",
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
        caption=sentence(check),
        notes=(*_bias(check), *NOTES, *check.missing),
    ).without_empty(NONE)


def _bias(check: Check) -> Iterator[str]:
    """`planned steps come out, in the middle: TP 5.9% short, …`; apart those that the caption does not count."""
    if check.bias:
        said = ", ".join(f"{name} {_off(error)}" for name, error in check.bias.items())
        yield f"planned steps come out, in the middle: {said}"
    if check.whole:
        error = median(one.error for one in check.whole)
        yield f"replicas of a whole model send no messages and are not in the caption's figures: {_off(error)}"


def _off(error: float) -> str:
    return f"{abs(error):.1%} {'short' if error < 0 else 'long'}"


def record(check: Check | None) -> dict[str, Any] | None:
    """Each run beside its plan."""
    if check is None:
        return None
    return {
        "median_absolute_error": check.median_error,
        "median_error_by_kind": dict(check.bias),
        "clear_pairs": len(check.clear),
        "right_pairs": check.right,
        "runs": [_record(one) for one in check.rows],
        "missing": list(check.missing),
    }


def _record(one: Predicted) -> dict[str, Any]:
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

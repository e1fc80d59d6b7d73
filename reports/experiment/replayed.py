"""The event model against what was measured: a step replayed from the turns and messages of its own timeline.

A stage's turn lasts until its micro-batch is sent, for a rank does one thing at a time and sends before it receives
again. From then on the message is under way until the next stage begins to compute, if that waited for it. One that was
there when the stage turned to it came in time: its hop counts as none, and taking it in is part of the turn.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import NamedTuple

from reports import pipeline
from reports.experiment.sound import deployment
from reports.pipeline import Table
from specs import measurement as specs_measurement
from specs.measurement import Block, Measurement
from specs.parallel import Seat

COMPUTING = ("compute", "all-reduce")
"""Blocks of a turn, and with them what lies between: waiting for other ranks of the same stage."""
NOTICED = 0.01
"""Share of a turn from which on a stage that receives what was already sent waits, and does not merely take it in."""


class Walk(NamedTuple):
    """What a timeline says of a step: whether it is one of decode, its seconds, and the event model's tables."""

    decode: bool
    seconds: float
    busy: Table
    hop: Table


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
        return walk.seconds, pipeline.period(walk.busy, walk.hop)
    return walk.seconds, pipeline.prefill(walk.busy, walk.hop).step_seconds


def read(measurement: Measurement) -> Walk | None:
    """Turns and messages of a timeline as tables, the mean of each over the steps in it.

    None of what is no step in stages, and of replicas, whose timeline is cut to the steps of one of them; and where it
    does not show whole how each slot is computed and sent on each stage, or not the sending of what was waited for.
    """
    case, laid = measurement.case, deployment(measurement)
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

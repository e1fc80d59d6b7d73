"""Measures whole models and the shares that ranks have of them, in the same passes: what is held together lies near.

The parts of a share are timed in one walk: a layer's visit keeps what its walk gave of the head for the visit after.
A sample is the slowest rank's time. Ranks that share a layer wait for each other at each of its messages, so of them
the slowest counts anew in each stretch between two: what a stretch is late by, no later one brings back.
"""

from collections.abc import Sequence
from math import ceil
from statistics import fmean
from typing import Any, NamedTuple

from kernels.decoder_layer import RTOL
from kernels.timing.device import Patience
from kernels.timing.host import MOST_ROUNDS, contention, cpu_seconds
from specs.layer import HEAD, LAYER_SHARE, SHARE_PARTS
from suites.decoder.reference import rtol
from suites.entry import Entry
from suites.shares.case import ShareEntry
from suites.steps.bench import MOST_STEPS, StepBench
from suites.world.crew import Crew
from suites.world.ranks import Ranks
from suites.world.wire import Message

PATIENCE = {"cpu": Patience(5e-3, 0.1, 0.05, 30.0), "cuda": Patience(1e-3, 0.05, 0.005, 60.0)}


Step = Sequence[Sequence[float]]
"""Of each rank that computes the seconds of each stretch."""


class Walked(NamedTuple):
    """What a walk gave.

    Attributes:
        calls: steps that a sample spans.
        samples: by part for each sample the slowest ranks' seconds, and by how much one rank was ahead of another.
        clock: how it was taken.
        load: what went to others meanwhile.
    """

    calls: int
    samples: dict[str, list[tuple[float, float]]]
    clock: str
    load: dict[str, float] | None


class ModelBench(StepBench):
    """What visits to whole models and to shares have in common.

    Args:
        crew: all ranks.
        ranks: how many, and of what kind.
        entries: all cases.
    """

    def __init__(self, crew: Crew, ranks: Ranks, entries: Sequence[Any]) -> None:
        super().__init__(crew, ranks, entries)
        self._share_patience = PATIENCE[ranks.kind]
        self._errors: dict[object, Sequence[Message]] = {}
        self._once: dict[object, float] = {}
        self._kept: dict[tuple[object, str], list[Walked]] = {}

    def assemble(self) -> None:
        """Start the ranks unless they run; of ranks that are new nothing is known.

        Raises:
            RankLostError: one does not arrive.
        """
        if not self._crew.running:
            self._errors.clear()
            self._kept.clear()
        super().assemble()

    def visit(self, entry: Entry, share: float) -> tuple[float, ...]:
        """Samples of one visit; none where a result is wrong."""
        if not isinstance(entry, ShareEntry):
            return super().visit(entry, share)  # type: ignore[arg-type]
        self.assemble()
        kept = self._kept.get((entry.walk, entry.share.part))
        if not kept:
            told = {**entry.told(), "label": self._label(entry)}
            self._crew.ask("share", told, f"setting up {entry.title}")
        if not self._checked(entry) and not self._shown(entry):
            return ()
        walked = kept.pop(0) if kept else self._walk_share(entry, share)
        found = walked.samples[entry.share.part]
        entry.clock, self._in_a_row = walked.clock, 0
        entry.calls = walked.calls * entry.calls_a_step
        entry.note_load(walked.load)
        entry.skews += [walked.calls * skew for _, skew in found]
        return tuple(seconds / entry.calls_a_step for seconds, _ in found)

    def _shown(self, entry: ShareEntry) -> bool:
        """Whether this part of every rank's share is right."""
        if entry.walk not in self._errors:
            self._errors[entry.walk] = self._crew.ask("prove", {}, f"checking {entry.title}")
        part, dtype = entry.share.part, entry.case.dtype
        replies = [{"error": reply["errors"].get(part)} for reply in self._errors[entry.walk]]
        return self._right(entry, replies, RTOL[dtype] if part == LAYER_SHARE else rtol(dtype, 0))

    def _walk_share(self, entry: ShareEntry, share: float) -> Walked:
        """Samples of all parts; the others are kept for their own visits.

        A first visit learns from one step how long it takes; where that is all that a visit has time for, it counts.
        """
        patience, before = self._share_patience, cpu_seconds(self._crew.processes)
        first = None if entry.walk in self._once else self._steps(entry, 1)
        if first:
            self._once[entry.walk] = first[1]
        once = self._once[entry.walk]
        calls = min(MOST_STEPS, ceil(patience.span_seconds / once))
        rounds = max(1, min(MOST_ROUNDS, MOST_STEPS // calls, int(share * patience.visit_seconds / (calls * once))))
        warm = int(once < patience.visit_seconds)  # what a longer one has to load first is little of it
        clock, _, seconds = first if first and not warm else self._steps(entry, warm + calls * rounds)
        samples = {part: _samples(of[warm:], calls, entry.share.tp) for part, of in seconds.items()}
        load = contention(before, cpu_seconds(self._crew.processes)) if self._kind == "cpu" else None
        walked = Walked(calls, samples, clock, load)
        if entry.share.part == LAYER_SHARE:
            self._kept.setdefault((entry.walk, HEAD), []).append(walked)
        return walked

    def _steps(self, entry: ShareEntry, steps: int) -> tuple[str, float, dict[str, list[Step]]]:
        """The clock, seconds of a whole step, and by part the steps."""
        replies = self._crew.ask("walk", {"steps": steps}, f"timing {entry.title}")[: entry.share.ranks]
        seconds: dict[str, list[Step]] = {
            part: list(zip(*(reply["seconds"][part] for reply in replies), strict=True)) for part in SHARE_PARTS
        }
        return str(replies[0]["clock"]), max(reply["step_seconds"] for reply in replies), seconds


def _samples(steps: Sequence[Step], calls: int, tp: int) -> list[tuple[float, float]]:
    """Of so many steps each, the seconds of a step and its skew."""
    return [_sample(steps[start : start + calls], tp) for start in range(0, len(steps), calls)]


def _sample(steps: Sequence[Step], tp: int) -> tuple[float, float]:
    groups = [slice(first, first + tp) for first in range(0, len(steps[0]), tp)]
    waited = [fmean(sum(map(max, zip(*step[group], strict=True))) for step in steps) for group in groups]
    own = [fmean(map(sum, ranks)) for ranks in zip(*steps, strict=True)]
    return max(waited), max(own) - min(own)

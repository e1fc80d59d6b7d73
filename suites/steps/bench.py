"""Measures whole models: every rank walks the same steps, and what they trace is held together here.

A step's time is the slowest replica's. How many steps a sample spans and how many samples there are is decided here and
told to all, as with collectives.
"""

from collections.abc import Sequence
from math import ceil
from statistics import fmean

from kernels.timing.device import Patience
from kernels.timing.host import MOST_ROUNDS, contention, cpu_seconds
from specs import statistics
from suites.decoder.reference import rtol
from suites.steps.account import Account, account
from suites.steps.case import StepEntry
from suites.steps.trace import read_trace
from suites.world.crew import Crew
from suites.world.crew_bench import CrewBench
from suites.world.ranks import Ranks, transport

PATIENCE = {"cpu": Patience(5e-3, 0.1, 0.05, 50.0), "cuda": Patience(1e-3, 0.1, 0.005, 240.0)}
"""A visit has a fixed price besides: ranks are told, and send what they have traced."""
MOST_STEPS = 50
"""In a visit."""
MOST_SEGMENTS = 20_000
"""That a rank sends of a visit, at some 60 bytes each: reading them must not take longer than the steps."""
SEGMENTS_A_LAYER = 14
REMEDY = "try fewer --layers, a smaller --batch or --context"


class StepBench(CrewBench):
    """What visits to whole models share: the ranks, and which cases were proven.

    Args:
        crew: all ranks.
        ranks: how many, and of what kind.
        entries: all cases.
    """

    def __init__(self, crew: Crew, ranks: Ranks, entries: Sequence[StepEntry]) -> None:
        super().__init__(crew, ranks, entries, PATIENCE[ranks.kind], REMEDY)

    def visit(self, entry: StepEntry, share: float) -> tuple[float, ...]:
        """Samples of one visit; none where a result is wrong."""
        self.assemble()
        entry.transport = transport(self._ranks, self._crew.hosts, None)
        self._crew.ask("build", {**entry.told(), "label": self._label(entry)}, f"setting up {entry.title}")
        if not self._checked(entry) and not self._prove(entry):
            return ()
        before = cpu_seconds(self._crew.processes)
        calls, rounds, walked = self._walks(entry, share)
        if self._kind == "cpu":
            entry.note_load(contention(before, cpu_seconds(self._crew.processes)))
        entry.calls, self._in_a_row = calls, 0
        entry.note(walked.ledger, walked.timeline)
        return tuple(fmean(walked.seconds[calls * one : calls * (one + 1)]) for one in range(rounds))

    def _prove(self, entry: StepEntry) -> bool:
        """Whether a step on poisoned buffers gives every rank the reference's logits."""
        replies = self._crew.ask("prove", {}, f"checking {entry.title}")
        return self._right(entry, replies, rtol(entry.case.dtype, entry.part.layers))

    def _walks(self, entry: StepEntry, share: float) -> tuple[int, int, Account]:
        """Steps that a sample spans, samples, and what came of them.

        A first visit learns from one step how long it takes; where that is all that a visit has time for, it counts.
        """
        first = None if entry.seconds else self._walk(entry, 1)
        once = first.seconds[0] if first else statistics.pooled_median(entry.seconds)
        most = max(1, min(MOST_STEPS, MOST_SEGMENTS // _segments(entry) - _warm(entry) - _cool(entry)))
        calls = min(most, ceil(self.patience.span_seconds / once))
        rounds = max(1, min(MOST_ROUNDS, most // calls, int(share * self.patience.visit_seconds / (calls * once))))
        if first and calls * rounds == 1:
            return 1, 1, first
        return calls, rounds, self._walk(entry, calls * rounds)

    def _walk(self, entry: StepEntry, steps: int) -> Account:
        """So many steps, between those that fill the loop and those in which it drains."""
        warm, cool = _warm(entry), _cool(entry)
        replies = self._crew.ask("walk", {"steps": warm + steps + cool}, f"timing {entry.title}")
        entry.clock = str(replies[0]["clock"])
        traces = [read_trace(rank, reply["trace"]) for rank, reply in enumerate(replies)]
        return account(entry.deployment, traces, warm=warm, steps=steps, cool=cool, decode=entry.part.decode)


def _warm(entry: StepEntry) -> int:
    """Steps before those that count: the first of a closed loop fills it, and waits for no token to come back."""
    return int(entry.part.decode and entry.deployment.pp > 1)


def _cool(entry: StepEntry) -> int:
    """Steps behind them: without, the first stage would have nothing to do while the last micro-batches leave."""
    return int(entry.part.decode and entry.deployment.micro_batches > 1)


def _segments(entry: StepEntry) -> int:
    """About as many as a rank traces in a step."""
    return entry.deployment.micro_batches * (SEGMENTS_A_LAYER * -(-entry.part.layers // entry.deployment.pp) + 8)

"""Measures collectives: every rank is told the same, and the slowest of them makes the sample.

How many calls a sample spans and how many samples there are is decided here, from the slowest rank's time, and told to
all: ranks that calibrate themselves make different counts of calls, and wait for each other for ever.
"""

from collections.abc import Sequence
from math import ceil, log2
from statistics import median

from comm.collectives import COLLECTIVES
from kernels.timing.device import Patience
from kernels.timing.host import MOST_ROUNDS, contention, cpu_seconds
from specs import statistics
from suites.world.crew import Crew
from suites.world.crew_bench import CrewBench
from suites.world.rank_case import RankEntry
from suites.world.ranks import Ranks, transport

PATIENCE = {"cpu": Patience(5e-3, 30e-3, 0.05, 35.0), "cuda": Patience(1e-3, 30e-3, 0.01, 480.0)}
"""A visit has a fixed price besides: ranks are told, buffers filled, barriers passed."""
PROBE_CALLS = 64
SHORT_BYTES = 2**20
OWN_WAYS = ("mpi",)
"""Libraries that choose within a host between memory and network, and do not tell."""
MOST_CALLS = 5000
"""In a sample: what an empty call of a microsecond fills the span with."""
GROWTH_BITS = {"fp32": 110, "bf16": 110, "fp16": 6}
"""Doublings from 2^7 before a format overflows, with some to spare."""


class RankBench(CrewBench):
    """What visits to collectives share: the ranks, and which cases were checked.

    Args:
        crew: all ranks.
        ranks: how many, and of what kind.
        free_bytes: memory of a device; cases that do not fit fail at once.
        entries: all cases.
    """

    def __init__(self, crew: Crew, ranks: Ranks, free_bytes: int, entries: Sequence[RankEntry]) -> None:
        super().__init__(crew, ranks, entries, PATIENCE[ranks.kind], "try a smaller --message or fewer --ranks")
        self._entries, self._drawn = entries, 0
        for entry in entries:
            if entry.open and entry.need_bytes > 0.8 * free_bytes:
                entry.failed = (
                    f"out of memory: needs about {entry.need_bytes / 2**30:.2f} GiB on all ranks of this host, "
                    f"{free_bytes / 2**30:.2f} GiB are free; {self._remedy}"
                )

    def visit(self, entry: RankEntry, share: float) -> tuple[float, ...]:
        """Samples of one visit; none where a result is wrong."""
        self.assemble()
        first = not self._checked(entry)
        self._draw(entry, entry.calls if entry.seconds else _probe_calls(entry))
        if first and not self._check(entry):
            return ()
        self._learn(entry)
        calls, rounds = self._sizes(entry, share)
        before = cpu_seconds(self._crew.processes)
        found = self._sample(entry, calls, rounds + 1)[1:]  # the first warms up
        if self._kind == "cpu":
            entry.note_load(contention(before, cpu_seconds(self._crew.processes)))
        found = [one for one in found if one[0] > 0]  # a hiccup of a host can make T(n) longer than T(2n)
        if not found:
            raise RuntimeError(f"{2 * calls} calls took no longer than {calls} in any sample")
        entry.calls, self._in_a_row = calls, 0
        entry.skews += [calls * (slowest - fastest) for slowest, fastest in found]
        return tuple(slowest for slowest, _ in found)

    def assemble(self) -> None:
        """Start the ranks unless they run, and learn what they talk over when they have met.

        Raises:
            RankLostError: one does not arrive.
        """
        if self._crew.running:
            return
        super().assemble()
        for entry in self._entries:
            if entry.case.implementation not in OWN_WAYS:
                entry.transport = transport(self._ranks, self._crew.hosts, entry.pair)

    def _draw(self, entry: RankEntry, calls: int) -> None:
        """Set the case up for so many calls a sample: an all-reduce in place doubles each buffer only so often."""
        self._drawn = calls
        spans = 1 if self._kind == "cpu" else 4  # n and 2n calls, and the first replay of a graph of each
        growth = spans * calls * log2(max(2, entry.case.ranks))
        entry.copies = max(1, ceil(growth / GROWTH_BITS[entry.case.dtype])) if entry.case.op == "all_reduce" else 1
        told = {"task": entry.told(), "copies": entry.copies, "label": self._label(entry)}
        replies = self._crew.ask("draw", told, f"setting up {entry.title}")
        if replies[entry.task.source].get("path") == "host":  # staged there by the driver
            entry.transport = "host"

    def _check(self, entry: RankEntry) -> bool:
        """Whether every rank's result is right."""
        replies = self._crew.ask("check", {"turn": self._numbers[id(entry)] + 1}, f"checking {entry.title}")
        return self._right(entry, replies, COLLECTIVES[entry.case.op].rtol[entry.case.dtype])

    def _learn(self, entry: RankEntry) -> None:
        """How long a call takes: from the samples so far, in the first visit from a few more calls.

        On a CPU a first single call says how many those may be. On a GPU it would not: T(2) − T(1) of a call that takes
        as long as two events differ can be anything, so there it is the median of longer ones.
        """
        if entry.seconds:
            entry.once = statistics.pooled_median(entry.seconds)
            return
        calls, rounds = _probe_calls(entry), 3
        if self._kind == "cpu" or entry.case.gap_seconds:
            entry.once = min(slowest for slowest, _ in self._sample(entry, 1, 2))
            calls, rounds = min(calls, ceil(self.patience.span_seconds / max(entry.once, 1e-9))), 1
        if not entry.case.gap_seconds and calls > 1:
            entry.once = median(slowest for slowest, _ in self._sample(entry, calls, rounds))

    def _sizes(self, entry: RankEntry, share: float) -> tuple[int, int]:
        """Calls that a sample spans, and samples."""
        once = max(entry.once or 0.0, 1e-6)
        spans = 1 if self._kind == "cpu" else 3
        if entry.case.gap_seconds:
            calls, each = 1, once + entry.case.gap_seconds
        else:
            calls = min(MOST_CALLS, ceil(self.patience.span_seconds / once))
            each = spans * calls * once
            if calls > self._drawn:
                self._draw(entry, calls)
        return calls, min(MOST_ROUNDS, max(1, int(share * self.patience.visit_seconds / each)))

    def _sample(self, entry: RankEntry, calls: int, rounds: int) -> list[tuple[float, float]]:
        """Of each round the slowest rank's seconds a call, and the fastest's."""
        replies = self._crew.ask("sample", {"calls": calls, "rounds": rounds}, f"timing {entry.title}")
        entry.clock = str(replies[0]["clock"])
        talking = [reply for rank, reply in enumerate(replies) if entry.pair is None or rank in entry.pair]
        rounds_of = zip(*(reply["seconds"] for reply in talking), strict=True)
        return [(max(one), min(one)) for one in rounds_of]


def _probe_calls(entry: RankEntry) -> int:
    """Many of what is short; a long message's time is known after two."""
    return PROBE_CALLS if (entry.case.message_bytes or 0) <= SHORT_BYTES else 2

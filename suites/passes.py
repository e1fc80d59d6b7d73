"""The run: passes over all cases, so that what the machine does meanwhile falls on all of them alike.

Within a pass rivals (the same case by other implementations) are visited in ABBA order: each once on the way
and once on the way back, and both halves are one pass. A case needs six passes and goes on while its interval
is wider than the device's precision, until eighteen or the end of the budget.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from kernels.timing.device import Patience
from suites.entry import Entry, rivals

LEAST_PASSES = 6
MOST_PASSES = 18

Progress = Callable[[int, int, int, float], None]
"""Told the pass, cases visited and to visit in it, and the seconds left by estimate."""


class Bench(Protocol):
    """What measures cases of one kind."""

    @property
    def patience(self) -> Patience:
        """How long to measure."""

    def visit(self, entry: Any, share: float) -> tuple[float, ...]:
        """Samples of one visit; none where a result is wrong or a clock moved, which is then noted on the entry."""

    @property
    def same_process(self) -> bool:
        """Whether cases run in this process: one after which nothing can be measured would end the next run too."""

    def lost(self) -> str:
        """Why nothing more can be measured in this run; empty while it can."""

    def told(self, entry: Entry, error: Exception) -> str:
        """One line on what ended a case."""


class Run:
    """Measures the entries of a plan, journalling each visit.

    Args:
        entries: the plan; what was read from a journal is in them already.
        bench: what measures them.
        passes: exactly this many, or None for as many as the precision asks for.
        budget_seconds: no new visit after this time, except in the first pass.
        record: called with an entry after each visit, to journal it.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        bench: Bench,
        passes: int | None,
        budget_seconds: float,
        record: Callable[[Entry], None],
        progress: Progress,
    ) -> None:
        self._entries, self._bench, self._passes, self._budget = entries, bench, passes, budget_seconds
        self._record, self._progress = record, progress
        self._lost, self._out_of_time = "", False

    def measure(self) -> None:
        """Run all passes. An error in one case is noted on its entry; the others go on."""
        self._run_passes()
        for entry in self._entries:
            if self._lost and entry.open and entry.error is None and self._wants(entry, len(entry.seconds)):
                self._give_up(entry, f"not reached: {self._lost}; start a new process and go on with --resume")
            if entry.open and entry.error is None and entry.unsteady:
                self._give_up(entry, entry.unsteady)
            entry.stopped_by = self._stopped_by(entry)
            if entry.not_run is None:  # what cannot run here stands in the journal from the start
                self._record(entry)

    def _run_passes(self) -> None:
        started = time.monotonic()
        for index in range(self._passes or MOST_PASSES):
            groups = self._groups(index)
            total, visited, began = sum(map(len, groups)), 0, time.monotonic()
            for group in groups:
                self._out_of_time = index > 0 and time.monotonic() - started > self._budget
                if self._lost or self._out_of_time:
                    return
                self._visit_group(group)
                visited += len(group)
                spent = time.monotonic() - began
                self._progress(index, visited, total, self._left(index, spent, visited / total, started))

    def _stopped_by(self, entry: Entry) -> str:
        if entry.error is not None:
            return f"error: {entry.error}"
        if entry.half_width <= self._bench.patience.precision and self._passes is None:
            return "precision"
        done = len(entry.seconds) >= (self._passes or MOST_PASSES)
        return "passes" if done or not self._out_of_time else "budget"

    def _groups(self, index: int) -> list[list[Entry]]:
        """What this pass visits: all rivals of a case that wants another pass, because alone it has no ABBA."""
        groups = rivals(entry for entry in self._entries if entry.open and entry.error is None)
        wanted = [group for group in groups if any(self._wants(entry, index) for entry in group)]
        left = [[entry for entry in group if len(entry.seconds) <= index] for group in wanted]
        return [group for group in left if group]

    def _wants(self, entry: Entry, index: int) -> bool:
        if len(entry.seconds) > index:
            return False
        return self._passes is not None or index < LEAST_PASSES or entry.half_width > self._bench.patience.precision

    def _left(self, index: int, spent: float, done: float, started: float) -> float:
        whole = spent / done
        passes = max(0, (self._passes or LEAST_PASSES) - index - 1)
        return min(whole - spent + passes * whole, max(whole - spent, self._budget - (time.monotonic() - started)))

    def _visit_group(self, group: list[Entry]) -> None:
        """A, or ABBA: the way out and the way back share the time and make one pass."""
        legs = [group, group[::-1]] if len(group) > 1 else [group]
        halves: dict[int, list[float]] = {id(entry): [] for entry in group}
        for leg in legs:
            for entry in leg:
                if entry.open and entry.error is None and not self._lost:
                    halves[id(entry)] += self._guarded_visit(entry, 1 / len(legs))
        for entry in group:
            if entry.open and entry.error is None and halves[id(entry)]:
                entry.seconds.append(tuple(halves[id(entry)]))
            if entry.seconds or not entry.open:
                self._record(entry)

    def _guarded_visit(self, entry: Entry, share: float) -> tuple[float, ...]:
        try:
            return self._bench.visit(entry, share)
        except Exception as error:  # whatever a library raises is that case's, not the run's
            self._lost = self._bench.lost()
            reason = self._bench.told(entry, error)
            if self._lost and self._bench.same_process:
                entry.device_lost = reason
            self._give_up(entry, reason)
        return ()

    def _give_up(self, entry: Entry, reason: str) -> None:
        """End a case. What earlier passes measured was right, and stays."""
        if entry.seconds:
            entry.error = reason
        else:
            entry.failed = reason

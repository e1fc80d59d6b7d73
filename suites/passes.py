"""The run: passes over all cases, so that what the machine does meanwhile falls on all of them alike.

Within a pass rivals (the same case by other implementations) are visited in ABBA order: each once on the way
and once on the way back, and both halves are one pass. A case needs six passes and goes on while its interval
is wider than the device's precision, until eighteen or the end of the budget.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from kernels.timing.cuda import CudaTimer
from kernels.timing.device import Device, gib
from kernels.timing.host import HostTimer, Timer
from kernels.timing.pool import Pool
from specs import statistics
from suites import ranges
from suites.plan import Entry, rivals

LEAST_PASSES = 6
MOST_PASSES = 18

Progress = Callable[[int, int, int, float], None]
"""Told the pass, cases visited and to visit in it, and the seconds left by estimate."""


class Run:
    """Measures the entries of a plan, journalling each visit.

    Args:
        entries: the plan; what was read from a journal is in them already.
        passes: exactly this many, or None for as many as the precision asks for.
        budget_seconds: no new visit after this time, except in the first pass.
        record: called with an entry after each visit, to journal it.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        device: Device,
        passes: int | None,
        budget_seconds: float,
        record: Callable[[Entry], None],
        progress: Progress,
    ) -> None:
        self._entries, self._device, self._passes, self._budget = entries, device, passes, budget_seconds
        self._record, self._progress = record, progress
        self._numbers = {id(entry): number for number, entry in enumerate(entries)}
        self._refuse_what_does_not_fit()
        self._pool = Pool(device, self._window_bytes())
        self._verified: set[int] = set()
        self._lost = ""

    def measure(self) -> None:
        """Run all passes. An error in one case is noted on its entry; the others go on."""
        self._run_passes()
        for entry in self._entries:
            if self._lost and entry.open and not entry.seconds:
                entry.failed = f"not reached: {self._lost}; start a new process and go on with --resume"
            entry.stopped_by = self._stopped_by(entry)
            if entry.not_run is None:  # what cannot run here stands in the journal from the start
                self._record(entry)

    def _run_passes(self) -> None:
        started = time.monotonic()
        for index in range(self._passes or MOST_PASSES):
            groups = self._groups(index)
            total, visited, began = sum(map(len, groups)), 0, time.monotonic()
            for group in groups:
                if self._lost or (index and time.monotonic() - started > self._budget):
                    return
                self._visit_group(group)
                visited += len(group)
                spent = time.monotonic() - began
                self._progress(index, visited, total, self._left(index, spent, visited / total, started))

    def _stopped_by(self, entry: Entry) -> str:
        if entry.error is not None:
            return f"error: {entry.error}"
        if entry.half_width <= self._device.patience.precision and self._passes is None:
            return "precision"
        return "passes" if len(entry.seconds) >= (self._passes or MOST_PASSES) else "budget"

    def _groups(self, index: int) -> list[list[Entry]]:
        """What this pass visits: all rivals of a case that wants another pass, because alone it has no ABBA."""
        groups = rivals(entry for entry in self._entries if entry.open and entry.error is None)
        wanted = [group for group in groups if any(self._wants(entry, index) for entry in group)]
        left = [[entry for entry in group if len(entry.seconds) <= index] for group in wanted]
        return [group for group in left if group]

    def _wants(self, entry: Entry, index: int) -> bool:
        if len(entry.seconds) > index:
            return False
        return self._passes is not None or index < LEAST_PASSES or entry.half_width > self._device.patience.precision

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
            return self._visit(entry, share)
        except Exception as error:  # whatever a kernel or its compiler raises is that case's, not the run's
            short = str(error).strip().split("\n")[0]
            memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in short
            self._lost = self._device.lost()
            told = f"{type(error).__name__}: {short}"
            self._give_up(entry, _out_of_memory(entry, self._device, short) if memory and not self._lost else told)
        return ()

    def _give_up(self, entry: Entry, reason: str) -> None:
        """End a case. What earlier passes measured was right, and stays."""
        if entry.seconds:
            entry.error = reason
        else:
            entry.failed = reason

    def _visit(self, entry: Entry, share: float) -> tuple[float, ...]:
        timer = self._timer(entry)
        entry.clock = timer.clock
        case, number = entry.case, self._numbers[id(entry)]
        with torch.inference_mode(), ranges.mark(case.name, case.question, number):
            self._pool.forget()
            inputs = [entry.kernel.inputs(self._pool, dtype=case.dtype, **entry.shape) for _ in range(entry.copies)]
            calls = [partial(entry.kernel.run, **one) for one in inputs]
            start = entry.turn % len(calls)  # go on behind the copy that the visit before read last
            calls = calls[start:] + calls[:start]
            with ranges.mark("warm-up", case.question, number):
                if number not in self._verified:
                    calls[0]()
                    entry.failed = wrong(entry, entry.kernel.relative_error(inputs[start]))
                    if entry.failed is not None:
                        return ()
                    self._verified.add(number)
                timer.warm_up(calls, statistics.pooled_median(entry.seconds) if entry.seconds else None)
            with ranges.mark("timed", case.question, number):
                sampled = timer.sample(share)
            entry.turn += timer.made
        entry.calls, entry.telemetry = sampled.calls, _merged(entry, sampled.telemetry)
        if sampled.throttled is not None:  # once throttled, a case stays labelled
            entry.throttled = bool(entry.throttled) or sampled.throttled
        return sampled.seconds

    def _timer(self, entry: Entry) -> Timer:
        return CudaTimer(self._device, entry.case.launch) if self._device.kind == "cuda" else HostTimer(self._device)

    def _refuse_what_does_not_fit(self) -> None:
        free = self._device.free_bytes()
        for entry in self._entries:
            if entry.open and entry.need_bytes > 0.8 * free:
                entry.failed = _out_of_memory(entry, self._device, "refused before it was tried")

    def _window_bytes(self) -> dict[str, int]:
        windows: dict[str, int] = {}
        for entry in self._entries:
            if entry.open:
                windows[entry.case.dtype] = max(windows.get(entry.case.dtype, 0), entry.weight_bytes)
        return windows


def _merged(entry: Entry, telemetry: dict[str, float] | None) -> dict[str, float] | None:
    """Shares are means over the visits so far; everything else is the last reading."""
    if telemetry is None or entry.telemetry is None:
        return telemetry or entry.telemetry
    visits = len(entry.seconds)
    means = {
        name: (entry.telemetry[name] * visits + value) / (visits + 1)
        for name, value in telemetry.items()
        if name.endswith("_share") and name in entry.telemetry
    }
    return telemetry | means


def wrong(entry: Entry, error: float) -> str | None:
    """Keep the error on the entry; one line if it is too large or NaN."""
    limit = entry.kernel.rtol[entry.case.dtype]
    if error <= limit:
        entry.relative_error = error
        return None
    unwritten = " (an element of the output was not written, or is NaN)" if error != error else ""
    return f"wrong result: relative error {error:.3g} is over {limit:g}{unwritten}; not timed"


def _out_of_memory(entry: Entry, device: Device, detail: str) -> str:
    return (
        f"out of memory: needs about {gib(entry.need_bytes)}, {gib(device.free_bytes())} are free on the "
        f"{device.kind} ({detail}); try fewer --tokens, a higher --tp or a smaller --model"
    )

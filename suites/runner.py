"""Passes over all cases, so that changes of the machine affect all of them alike.

Within a pass rivals (one case by several implementations) are visited in ABBA order: once on the way out and once on
the way back; both halves are one pass. A case needs six passes. It continues while its interval is wider than the
device's precision, up to eighteen passes or the end of the budget.

A journal keeps every visit, so that a run can go on after a crash.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from kernels.timing.device import SamplingLimits
from specs import journal
from specs.errors import UserError
from specs.measurement import Measurement
from specs.privacy import current_identity
from suites.case import CaseState, group_implementations

# Journal: every visit is written at once, and an interrupted run resumes from it

FIXED_FACTS = (
    "device",
    "gpu",
    "cpu",
    "torch",
    "torch_threads",
    "triton",
    "cuda",
    "nccl",
    "ranks",
    "launcher",
    "variables",
)
"""Facts of the machine that must be the same when a run resumes."""


def journal_path(json: Path | None) -> Path:
    """Path of the journal: beside the requested JSON, or build/journal.jsonl."""
    return Path(f"{json}.journal.jsonl") if json else Path("build/journal.jsonl")


def write_case(path: Path, entry: CaseState) -> None:
    """Append the state of a case: its samples so far, or why there are none."""
    lost = {} if entry.device_lost is None else {"device_lost": entry.device_lost}
    if entry.failed is not None:
        append_record(path, "failed", {"case": entry.case.name, "reason": entry.failed, **lost})
    elif entry.not_run is not None:
        append_record(path, "not_run", {"case": entry.case.name, "reason": entry.not_run})
    else:
        measurement = entry.measurement()
        stats = {"data": list(measurement.samples)}
        append_record(
            path, "benchmark", {**entry.labels, "extra_info": measurement.extra_info(), "stats": stats, **lost}
        )


def append_record(path: Path, kind: str, record: dict[str, Any]) -> None:
    """Append one line without user and host names: a result file is made of it.

    Raises:
        UserError: the journal cannot be written.
    """
    journal.append_record(path, kind, current_identity().scrub(record))


def start_journal(path: Path, header: dict[str, Any]) -> Path | None:
    """Begin a new journal; rename an older one and return its new path."""
    kept = None
    if path.exists():
        kept = path.with_suffix(".previous.jsonl")
        path.replace(kept)
    append_record(path, "run", header)
    return kept


class ResumeSummary(NamedTuple):
    """Summary of a resumed journal.

    `taken`: cases with samples. `others`: cases only in the journal. `skipped`: reasons of cases not tried again, by
    name.
    """

    taken: int
    others: int
    skipped: dict[str, str]


def resume_journal(path: Path, header: dict[str, Any], entries: Sequence[CaseState]) -> ResumeSummary:
    """Restore these cases from a journal, except those that lost the device.

    Raises:
        UserError: the journal cannot be read, comes from another machine, or a case in it has another shape.
    """
    before = journal.read_journal(path)
    old, new = current_identity().scrub([before.run.get("machine_info", {}), header["machine_info"]])
    for fact in FIXED_FACTS:
        was, now = _fact_identity(old.get(fact)), _fact_identity(new.get(fact))
        if was != now:
            raise UserError(
                f"{path}: measured with {fact} {was}, this is {now}; one run has one machine: start again "
                "without --resume"
            )
    open_ = {entry.case.name: entry for entry in entries if entry.is_measurable}
    measured = {
        name: _read_measurement(path, open_[name], record)
        for name, record in before.benchmarks.items()
        if name in open_
    }
    for name, measurement in measured.items():
        open_[name].restore(measurement)
    skipped = {name: reason for name, reason in before.lost.items() if name in open_}
    for name, reason in skipped.items():
        open_[name].skip(reason, measured.get(name))
    return ResumeSummary(len(measured), len(set(before.benchmarks) - {entry.case.name for entry in entries}), skipped)


def _read_measurement(path: Path, entry: CaseState, record: dict[str, Any]) -> Measurement:
    before = Measurement.from_benchmark(record)
    if before.case != entry.case:
        raise UserError(f"{path}: {entry.case.name} was measured at another shape; start again without --resume")
    return before


def _fact_identity(fact: object) -> str:
    """Identity of a fact: a processor's name, without its current clock."""
    if isinstance(fact, dict):
        return str(fact["brand_raw"] if "brand_raw" in fact else dict(sorted(fact.items())))
    return str(fact)


MIN_PASSES = 6
MAX_PASSES = 18

ProgressCallback = Callable[[int, int, int, float], None]
"""Callback(pass_index, visited, total, seconds_left)."""


class Bench(Protocol):
    """Bench of one kind of cases."""

    @property
    def limits(self) -> SamplingLimits:
        """Sampling limits."""

    def visit(self, entry: Any, share: float) -> tuple[float, ...]:
        """Samples of one visit; none if a result is wrong or a clock moved."""

    @property
    def runs_in_process(self) -> bool:
        """True if cases run in this process, where a lost device ends the next run too."""

    def lost(self) -> str:
        """Return why nothing more can be measured in this run; empty while it can."""

    def describe_error(self, entry: CaseState, error: Exception) -> str:
        """Return one line on the error that ended a case."""


class PassRunner:
    """Runner of all passes over a plan, with a journal entry for each visit.

    Args:
        entries: the plan, with samples restored from a journal.
        bench: measures the cases.
        passes: exact number, or None to reach the precision.
        budget_seconds: time after which no visit starts, except in the first pass.
        record: called with a case after each visit, to journal it.
    """

    def __init__(
        self,
        entries: Sequence[CaseState],
        bench: Bench,
        passes: int | None,
        budget_seconds: float,
        record: Callable[[CaseState], None],
        progress: ProgressCallback,
    ) -> None:
        self._entries, self._bench, self._passes, self._budget = entries, bench, passes, budget_seconds
        self._record, self._progress = record, progress
        self._lost, self._out_of_time = "", False

    def measure(self) -> None:
        """Run all passes. An error ends its own case only."""
        self._run_passes()
        for entry in self._entries:
            if (
                self._lost
                and entry.is_measurable
                and entry.error is None
                and self._wants_pass(entry, len(entry.seconds))
            ):
                self._give_up(entry, f"not reached: {self._lost}; start a new process and go on with --resume")
            if entry.is_measurable and entry.error is None and entry.unsteady_reason:
                self._give_up(entry, entry.unsteady_reason)
            entry.stopped_by = self._stopped_by(entry)
            if entry.not_run is None:  # the journal holds these from the start
                self._record(entry)

    def _run_passes(self) -> None:
        started = time.monotonic()
        for index in range(self._passes or MAX_PASSES):
            groups = self._groups(index)
            total, visited, began = sum(map(len, groups)), 0, time.monotonic()
            for group in groups:
                self._out_of_time = index > 0 and time.monotonic() - started > self._budget
                if self._lost or self._out_of_time:
                    return
                self._visit_group(group)
                visited += len(group)
                spent = time.monotonic() - began
                self._progress(index, visited, total, self._seconds_left(index, spent, visited / total, started))

    def _stopped_by(self, entry: CaseState) -> str:
        if entry.error is not None:
            return f"error: {entry.error}"
        if entry.half_width <= self._bench.limits.precision and self._passes is None:
            return "precision"
        done = len(entry.seconds) >= (self._passes or MAX_PASSES)
        return "passes" if done or not self._out_of_time else "budget"

    def _groups(self, index: int) -> list[list[CaseState]]:
        """Cases of a pass: all rivals of a case that wants a pass, as ABBA needs them."""
        groups = group_implementations(entry for entry in self._entries if entry.is_measurable and entry.error is None)
        wanted = [group for group in groups if any(self._wants_pass(entry, index) for entry in group)]
        left = [[entry for entry in group if len(entry.seconds) <= index] for group in wanted]
        return [group for group in left if group]

    def _wants_pass(self, entry: CaseState, index: int) -> bool:
        if len(entry.seconds) > index:
            return False
        return self._passes is not None or index < MIN_PASSES or entry.half_width > self._bench.limits.precision

    def _seconds_left(self, index: int, spent: float, done: float, started: float) -> float:
        whole = spent / done
        passes = max(0, (self._passes or MIN_PASSES) - index - 1)
        return min(whole - spent + passes * whole, max(whole - spent, self._budget - (time.monotonic() - started)))

    def _visit_group(self, group: list[CaseState]) -> None:
        """Visit a case, or rivals in ABBA order.

        The way out and the way back share the time and make one pass.
        """
        legs = [group, group[::-1]] if len(group) > 1 else [group]
        halves: dict[int, list[float]] = {id(entry): [] for entry in group}
        for leg in legs:
            for entry in leg:
                if entry.is_measurable and entry.error is None and not self._lost:
                    halves[id(entry)] += self._guarded_visit(entry, 1 / len(legs))
        for entry in group:
            if entry.is_measurable and entry.error is None and halves[id(entry)]:
                entry.seconds.append(tuple(halves[id(entry)]))
            if entry.seconds or not entry.is_measurable:
                self._record(entry)

    def _guarded_visit(self, entry: CaseState, share: float) -> tuple[float, ...]:
        try:
            return self._bench.visit(entry, share)
        except Exception as error:  # an error of any library ends its case, not the run
            self._lost = self._bench.lost()
            reason = self._bench.describe_error(entry, error)
            if self._lost and self._bench.runs_in_process:
                entry.device_lost = reason
            self._give_up(entry, reason)
        return ()

    def _give_up(self, entry: CaseState, reason: str) -> None:
        """End a case. Samples of earlier passes were right, and stay."""
        if entry.seconds:
            entry.error = reason
        else:
            entry.failed = reason


# Progress of the run and time left, on pytest's terminal

PROGRESS_INTERVAL_SECONDS = 10.0


class ProgressLine:
    """Line rewritten on a terminal; in a file, a new line at intervals."""

    def __init__(self, reporter: Any, least_passes: int) -> None:
        self._reporter, self._least_passes = reporter, least_passes
        self._terminal = bool(reporter.isatty)
        self._last = time.monotonic()

    def __call__(self, index: int, visited: int, total: int, left_seconds: float) -> None:
        """Show the pass (from 0), its visited and total cases, and the time left."""
        passes = f"of {self._least_passes}" if index < self._least_passes else "for cases still too wide"
        text = f"pass {index + 1} {passes}, case {visited} of {total}, about {left_seconds:.0f} s left"
        if self._terminal:
            self._reporter.rewrite(text, erase=True)
        elif time.monotonic() - self._last > PROGRESS_INTERVAL_SECONDS:
            self._last = time.monotonic()
            self._reporter.write_line(text)

    def done(self, text: str) -> None:
        """Replace the line by the outcome."""
        if self._terminal:
            self._reporter.rewrite("", erase=True)
        self._reporter.write_line(text)

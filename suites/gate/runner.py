"""Runner of the gate: sequential steps in their own processes, in one budget.

The file gate.json is complete and valid after every step.
"""

import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from specs.errors import UserError
from specs.privacy import current_identity
from suites.commit import commit_hash
from suites.gate.machine import Machine
from suites.gate.step import (
    GateContext,
    Outcome,
    Step,
    StepResult,
    Verdict,
    grant_seconds,
    reserve_seconds,
    run_limited,
)

# Files in OUT: gate.json, gate.log, result files, and one archive of all that the steps wrote.

ARCHIVE = "evidence.tar.gz"
ARCHIVED_FILES = ("gate.json", "gate.log")
OWNER_MARK = ".made-by-the-gate"
"""File in the work folder: only a folder that holds it is deleted."""


def prepare_folders(context: GateContext) -> None:
    """Make the folders; keep the archive of an earlier run beside the new one.

    Raises:
        OSError: OUT is a file, or cannot be written.
        UserError: the gate did not make the work folder.
    """
    if why_not := why_not_ours(context.work):
        raise UserError(why_not)
    context.out.mkdir(parents=True, exist_ok=True)
    if (archive := context.out / ARCHIVE).exists():
        archive.replace(context.out / ARCHIVE.replace(".", ".previous.", 1))
    (context.out / "gate.log").unlink(missing_ok=True)
    shutil.rmtree(context.work, ignore_errors=True)
    context.work.mkdir(parents=True)
    (context.work / OWNER_MARK).touch()


def why_not_ours(work: Path) -> str | None:
    """Reason why a run cannot use this folder: no run made it; None if it can."""
    if not work.exists() or (work / OWNER_MARK).exists():
        return None
    return f"{work} exists and no run of the gate made it, so that it is not deleted; name another folder"


def copy_result(context: GateContext, figures: Mapping[str, Any]) -> None:
    """Copy the result file that a step's figures name from the work folder into OUT."""
    if (name := figures.get("file")) and (made := context.work / Path(name).name).is_file():
        shutil.copy2(made, context.out / made.name)


def update_archive(context: GateContext) -> None:
    """Renew the archive of gate.json, gate.log and the work folder.

    The older one stays until the new one is complete.
    """
    fresh = context.scratch / ARCHIVE
    with tarfile.open(fresh, "w:gz") as archive:
        for name in ARCHIVED_FILES:
            if (context.out / name).exists():
                archive.add(context.out / name, name)
        for path in sorted(context.work.rglob("*")):
            if path.is_file() and path.name != OWNER_MARK:
                archive.add(path, str(path.relative_to(context.work)))
    beside = context.out / f"{ARCHIVE}.tmp"
    shutil.move(fresh, beside)
    beside.replace(context.out / ARCHIVE)


def finish_archive(context: GateContext) -> None:
    """Renew the archive and delete the work folder."""
    update_archive(context)
    shutil.rmtree(context.work, ignore_errors=True)


STEP_VARIABLE = "SHARDBENCH_STEP"
"""Variable that tells every process of a step the step's name."""
MAX_OUTPUT_BYTES = 2**20
"""Most bytes of a step's output that are read, from its end."""


class GateRun:
    """Run of the gate.

    Args:
        steps: steps in order.
        machine: resources of the machine.
        context: interpreter and folders.
        budget_seconds: time for all steps.
        say: writes a line to the terminal.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        machine: Machine,
        context: GateContext,
        budget_seconds: float,
        say: Callable[[str], None],
    ) -> None:
        self._steps, self._machine, self._context, self._say = steps, machine, context, say
        self._budget = budget_seconds
        self.results: list[StepResult] = []
        self.interrupted = False

    def run(self) -> list[StepResult]:
        """Run all steps; return their results.

        A step that fails, overruns or cannot run ends no other step.
        """
        started = time.monotonic()
        prepare_folders(self._context)
        kept = reserve_seconds([step for step in self._steps if not self._machine.why_not(step)], self._budget)
        with (self._context.out / "gate.log").open("ab") as log:  # append mode: several processes write to the log
            for index, step in enumerate(self._steps):
                later = sum(kept.get(one.name, 0.0) for one in self._steps[index + 1 :])
                left = self._budget - (time.monotonic() - started)
                self._step(step, grant_seconds(step, kept.get(step.name, 0.0), later, left), log)
        try:
            self._write_safely(finish_archive)
        except KeyboardInterrupt:
            self.interrupted = True
            self._write_safely(finish_archive)
        return self.results

    def _step(self, step: Step, seconds: float, log: IO[bytes]) -> None:
        """Run a step and write its result, even where the run is interrupted meanwhile."""
        began = time.monotonic()
        try:
            result = self._result(step, seconds, log)
        except KeyboardInterrupt:
            self.interrupted = True
            verdict = _read_unfinished_verdict(self._context.verdict(step.name), "interrupted") or Verdict(
                "unfinished", "interrupted"
            )
            result = _make_result(step, verdict, began)
        self.results.append(result)
        try:
            self._write(result)
        except KeyboardInterrupt:
            self.interrupted = True
            self._write(result)

    def _result(self, step: Step, seconds: float, log: IO[bytes]) -> StepResult:
        if self.interrupted:
            return StepResult(step.name, "not_run", 0.0, "interrupted before it began")
        if reason := self._machine.why_not(step):
            return StepResult(step.name, "not_run", 0.0, reason)
        if seconds < step.least_seconds:
            wants = f"it needs {step.least_seconds:.0f} s, {max(0, seconds):.0f} s of the budget are left for it"
            return StepResult(step.name, "skipped", 0.0, f"no time: {wants}")
        began = time.monotonic()
        return _make_result(step, self._verdict(step, seconds, log), began)

    def _verdict(self, step: Step, seconds: float, log: IO[bytes]) -> Verdict:
        command = step.command(self._context, seconds)
        self._say(f"{step.name}: {step.purpose} (at most {seconds:.0f} s)")
        log.write(f"\n===== {step.name} =====\n$ {' '.join(command)}\n".encode())
        log.flush()
        begins = log.seek(0, os.SEEK_END)
        left = self._context.verdict(step.name)
        left.unlink(missing_ok=True)
        try:
            status = run_limited(command, log, seconds, {**step.environment, STEP_VARIABLE: step.name})
        except OSError as error:
            return Verdict("failed", f"{command[0]} cannot be started: {error.strerror}")
        output = _read_output(Path(log.name), begins)
        if status is None:
            reason = f"ended at its limit of {seconds:.0f} s"
            return _read_unfinished_verdict(left, reason) or _mark_unfinished(step.judge(None, output), reason)
        if step.shows_output:
            self._say(output.rstrip())
        return _read_verdict(left, status) or step.judge(status, output)

    def _write(self, result: StepResult) -> None:
        self._write_safely(lambda context: copy_result(context, result.figures))
        self._write_safely(self._write_json)
        self._write_safely(update_archive)
        self._say(f"{result.step}: {result.outcome} after {result.seconds:.0f} s: {result.detail}")

    def _write_json(self, context: GateContext) -> None:
        whole = {"gpu": self._machine.gpu, "commit": commit_hash(), "interrupted": self.interrupted}
        whole = current_identity().scrub({**whole, "steps": [one.record() for one in self.results]})
        text = json.dumps(whole, indent=1, allow_nan=False)
        fresh = context.out / "gate.json.tmp"
        fresh.write_text(text + "\n")
        fresh.replace(context.out / "gate.json")

    def _write_safely(self, what: Callable[[GateContext], None]) -> None:
        """Report an OSError of a write: a full disk does not stop later measurements."""
        try:
            what(self._context)
        except OSError as error:
            self._say(f"{self._context.out} cannot be written ({error.strerror}); what lies in its work folder stays")


def _make_result(step: Step, verdict: Verdict, began: float) -> StepResult:
    return StepResult(step.name, verdict.outcome, time.monotonic() - began, verdict.detail, verdict.figures)


def _read_output(log: Path, begins: int) -> str:
    with log.open("rb") as written:
        written.seek(max(begins, log.stat().st_size - MAX_OUTPUT_BYTES))
        return written.read().decode(errors="replace")


def _read_verdict(path: Path, status: int) -> Verdict | None:
    """Verdict that a program left; None without a readable one.

    A passed verdict becomes failed where the exit status is not 0.
    """
    try:
        verdict = Verdict(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    if verdict.outcome == "passed" and status != 0:
        return Verdict("failed", f"exit status {status} after: {verdict.detail}", verdict.figures)
    return verdict


def _read_unfinished_verdict(path: Path, reason: str) -> Verdict | None:
    """Verdict that an ended step had left, as unfinished; None without one."""
    return _mark_unfinished(left, reason) if (left := _read_verdict(path, 0)) else None


def _mark_unfinished(verdict: Verdict, reason: str) -> Verdict:
    """Mark the verdict of an ended step unfinished, unless it had failed.

    Its figures stay.
    """
    outcome: Outcome = "failed" if verdict.outcome == "failed" else "unfinished"
    return Verdict(outcome, f"{reason}; {verdict.detail}", verdict.figures)

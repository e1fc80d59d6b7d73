"""Steps one after another, each in its own process, within one budget; gate.json is right after every one."""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from specs.privacy import here
from suites.gate.machine import Machine
from suites.gate.process import run_limited
from suites.gate.step import Place, Result, Step, Verdict

SHOWN_BYTES = 2**20
"""Most of a step's output that is looked at."""


class Gate:
    """One run of the gate.

    Args:
        steps: what to run, in order.
        machine: what there is to run it with.
        place: where.
        budget_seconds: time for all.
        say: writes a line to the terminal.
    """

    def __init__(
        self, steps: Sequence[Step], machine: Machine, place: Place, budget_seconds: float, say: Callable[[str], None]
    ) -> None:
        self._steps, self._machine, self._place, self._say = steps, machine, place, say
        self._budget = budget_seconds
        self.results: list[Result] = []
        self.interrupted = False

    def run(self) -> list[Result]:
        """Results of all steps. A step that fails, overruns or cannot run ends nothing but itself."""
        started = time.monotonic()
        self._place.out.mkdir(parents=True, exist_ok=True)
        (self._place.out / "gate.log").unlink(missing_ok=True)
        with (self._place.out / "gate.log").open("ab") as log:  # appending: its writers share it
            for index, step in enumerate(self._steps):
                left = self._budget - (time.monotonic() - started)
                self._add(self._result(step, _share(step, self._steps[index + 1 :], left), log))
        return self.results

    def _result(self, step: Step, seconds: float, log: IO[bytes]) -> Result:
        if self.interrupted:
            return Result(step.name, "not_run", 0.0, "interrupted before it began")
        if reason := self._machine.why_not(step):
            return Result(step.name, "not_run", 0.0, reason)
        if seconds < step.least_seconds:
            wants = f"it needs {step.least_seconds:.0f} s, {max(0, seconds):.0f} s of the budget are left for it"
            return Result(step.name, "skipped", 0.0, f"no time: {wants}")
        began = time.monotonic()
        verdict = self._verdict(step, min(step.seconds, seconds), log)
        return Result(step.name, verdict.outcome, time.monotonic() - began, verdict.detail, verdict.figures)

    def _verdict(self, step: Step, seconds: float, log: IO[bytes]) -> Verdict:
        command = step.command(self._place, seconds)
        self._say(f"{step.name}: {step.purpose} (at most {seconds:.0f} s)")
        log.write(f"\n===== {step.name} =====\n$ {' '.join(command)}\n".encode())
        log.flush()
        begins = log.seek(0, os.SEEK_END)
        self._place.verdict(step.name).unlink(missing_ok=True)
        try:
            status = run_limited(command, log, seconds, step.environment)
        except KeyboardInterrupt:
            self.interrupted = True
            return _kept(self._place.verdict(step.name), "interrupted")
        except OSError as error:
            return Verdict("failed", f"{command[0]} cannot be started: {error.strerror}")
        if status is None:
            return _kept(self._place.verdict(step.name), f"ended after {seconds:.0f} s, its limit")
        output = _output(Path(log.name), begins)
        if step.shown:
            self._say(output.rstrip())
        return _left(self._place.verdict(step.name), status) or step.judge(status, output)

    def _add(self, result: Result) -> None:
        self.results.append(result)
        whole = {"gpu": self._machine.gpu, "interrupted": self.interrupted}
        whole = here().scrub({**whole, "steps": [one.record() for one in self.results]})
        text = json.dumps(whole, indent=1, allow_nan=False)
        fresh = self._place.out / "gate.json.tmp"
        fresh.write_text(text + "\n")
        fresh.replace(self._place.out / "gate.json")
        self._say(f"{result.step}: {result.outcome} after {result.seconds:.0f} s: {result.detail}")


def _share(step: Step, later: Sequence[Step], left: float) -> float:
    """Seconds for `step`: what those behind it leave, or what is kept for itself, which only the answer goes before."""
    spare = left - sum(one.kept_seconds for one in later)
    return max(spare, min(step.kept_seconds, left - sum(one.kept_seconds for one in later if one.shown)))


def _output(log: Path, begins: int) -> str:
    with log.open("rb") as written:
        written.seek(max(begins, log.stat().st_size - SHOWN_BYTES))
        return written.read().decode(errors="replace")


def _left(path: Path, status: int) -> Verdict | None:
    """The verdict that a program left; a good one does not count when the program then failed."""
    try:
        verdict = Verdict(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    if verdict.outcome == "passed" and status != 0:
        return Verdict("failed", f"exit status {status} after: {verdict.detail}", verdict.figures)
    return verdict


def _kept(path: Path, reason: str) -> Verdict:
    """A step that was ended has failed; the figures that it had written stay."""
    left = _left(path, 0)
    return Verdict("failed", f"{reason}; {left.detail}" if left else reason, left.figures if left else {})

"""Steps of the gate, their context, verdicts and time limits; no package is needed."""

import json
import math
import os
import re
import signal
import subprocess
import time
import uuid
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

Outcome = Literal["passed", "failed", "unfinished", "skipped", "not_run"]
"""Outcome of a step.

unfinished: ended at a limit, with nothing wrong until then. skipped: no time was left. not_run: something that the step
needs is missing on this machine.
"""

TORCH_PACKAGES = ("torch", "triton", "numpy", "psutil")
"""Packages that every program on the GPU imports."""
PYTEST_PACKAGES = (*TORCH_PACKAGES, "pytest", "pytest_benchmark")
"""Packages that pytest imports through the conftest at the root."""
MEASURING_PACKAGES = (*PYTEST_PACKAGES, "cpuinfo", "scipy")
"""Packages that measurements need."""
RECOVERY_PACKAGES = ("typer", "rich")
"""Packages that turn the journal of an ended run into a result file."""


@dataclass(frozen=True)
class GateContext:
    """Interpreter and folders of a gate run.

    Attributes:
        python: interpreter of every step.
        out: folder of files that are kept.
        scratch: folder of files that are not kept; a step leaves its verdict there as <name>.json.
        work: folder of files that steps write, kept in one archive.
        free_gib: free GPU memory before the first step; None where unknown.
    """

    python: str
    out: Path
    scratch: Path
    work: Path
    free_gib: float | None = None

    def verdict(self, name: str) -> Path:
        """File in which a step's program writes its verdict."""
        return self.scratch / f"{name}.json"

    def program(self, name: str, *arguments: object, module_name: str | None = None) -> list[str]:
        """Command of a step's program, with its output folder and its verdict's file.

        Args:
            name: name of the step.
            arguments: further arguments.
            module_name: module, where it holds the programs of several steps.
        """
        program = [f"suites.gate.{name}"] if module_name is None else [f"suites.gate.{module_name}", "--step", name]
        folders = ["--out", str(self.work), "--verdict", str(self.verdict(name))]
        return [self.python, "-m", *program, *folders, *map(str, arguments)]


def timed_program(name: str, module_name: str | None = None) -> Callable[[GateContext, float], list[str]]:
    """Command of a step whose program divides its seconds itself; the arguments are those of `GateContext.program`."""
    return lambda context, seconds: context.program(name, "--seconds", f"{seconds:.0f}", module_name=module_name)


@dataclass(frozen=True)
class Verdict:
    """Verdict on a step.

    Attributes:
        outcome: passed, failed, unfinished, skipped or not_run.
        detail: one line.
        figures: measured values, as JSON can hold them; `wrong` counts wrong results, `file` names a result file.
    """

    outcome: Outcome
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepResult:
    """Verdict on a step, with its name and its duration in seconds."""

    step: str
    outcome: Outcome
    seconds: float
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """JSON record for gate.json."""
        return asdict(self) | {"seconds": round(self.seconds, 1)}


def last_line(output: str) -> str:
    """Last line of a program's output that is not empty, 200 characters at most."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def judge_exit_status(status: int | None, output: str) -> Verdict:
    """Verdict from a program's exit status and last line, where it left no verdict.

    A status of None means that the program was ended at its limit.
    """
    if status is None:
        before = output.rpartition("Traceback (most recent call last)")[0] if "KeyboardInterrupt" in output else output
        return Verdict("unfinished", f"last line: {last_line(before)}")
    if status == 0:
        return Verdict("passed", last_line(output))
    return Verdict("failed", f"exit status {status}: {last_line(output)}")


@dataclass(frozen=True)
class Step:
    """Part of the gate, run as a program of its own.

    Attributes:
        name: one word, as `--only` takes it.
        purpose: one line.
        seconds: reserved time, which earlier steps cannot use.
        least_seconds: least time that is worth starting with.
        command: `command(context, seconds)` gives the program; `seconds` is its limit.
        most_seconds: most time for the step; the rest is left to later steps.
        packages: packages that the step imports.
        tools: programs that the step runs.
        optional: packages without which a part of the step does not run.
        environment: environment variables of the step.
        launches: whether the step launches Triton kernels, for which Triton needs a C compiler.
        memory_gib: free GPU memory without which the step cannot run.
        shows_output: whether the output is the answer and goes to the terminal too.
        judge: `judge(exit status, output)`, used where the program leaves no verdict; the status is None at a limit.
    """

    name: str
    purpose: str
    seconds: float
    least_seconds: float
    command: Callable[[GateContext, float], list[str]]
    most_seconds: float = math.inf
    packages: tuple[str, ...] = TORCH_PACKAGES
    tools: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    launches: bool = True
    memory_gib: float = 8.0
    shows_output: bool = False
    judge: Callable[[int | None, str], Verdict] = judge_exit_status


@dataclass(frozen=True)
class Profile:
    """Steps that answer one question together, within one budget.

    Attributes:
        name: name, as `--profile` takes it.
        purpose: one line.
        budget_seconds: time for all steps; their reservations are within it.
        steps: steps in order.
    """

    name: str
    purpose: str
    budget_seconds: float
    steps: tuple[Step, ...]


# Seconds for each step: its own reservation, and the time that earlier steps left.


def reserve_seconds(steps: Sequence[Step], budget_seconds: float) -> dict[str, float]:
    """Seconds reserved for each step by name.

    All shrink by the same factor where the budget is smaller than their sum.
    """
    asked = sum(step.seconds for step in steps)
    share = min(1.0, budget_seconds / asked) if asked else 1.0
    return {step.name: share * step.seconds for step in steps}


def grant_seconds(step: Step, own_seconds: float, later_seconds: float, left_seconds: float) -> float:
    """Seconds that a step gets: the remaining time without later reservations.

    The step's own reservation is the minimum, its `most_seconds` the maximum.
    """
    return min(step.most_seconds, max(own_seconds, left_seconds - later_seconds))


def planned_seconds(profile: Profile, budget_seconds: float | None = None) -> dict[str, float]:
    """Seconds of each step by name, if each uses all that it gets; 0 if skipped."""
    left = profile.budget_seconds if budget_seconds is None else budget_seconds
    kept, seconds = reserve_seconds(profile.steps, left), dict[str, float]()
    for index, step in enumerate(profile.steps):
        later = sum(kept[one.name] for one in profile.steps[index + 1 :])
        given = grant_seconds(step, kept[step.name], later, left)
        seconds[step.name] = given if given >= step.least_seconds else 0.0
        left -= seconds[step.name]
    return seconds


# Verdict of a step that runs pytest.

QUIET_PYTEST = ("-q", "-p", "no:cacheprovider", "--color", "no")
WIDE_TERMINAL = {"COLUMNS": "500"}
"""Environment with a wide terminal: pytest cuts failure reasons to its width."""
COUNT_PATTERN = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")
WRONG_PATTERN = re.compile(r"^FAILED \S.* - (assert |AssertionError)")
"""Line of a test that compared and found a difference.

Any other failure shows nothing about results.
"""


def judge_pytest(status: int | None, output: str) -> Verdict:
    """Verdict from pytest's last line; not_run where every test was skipped."""
    lines = output.splitlines()
    total = next((line for line in reversed(lines) if COUNT_PATTERN.search(line) and " in " in line), "")
    counts = {word.rstrip("s"): int(count) for count, word in COUNT_PATTERN.findall(total)}
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    figures = {**{word: counts.get(word, 0) for word in ("passed", "failed", "error", "skipped")}}
    figures["wrong"] = sum(bool(WRONG_PATTERN.match(line)) for line in failed)
    said = total.strip("= ") or last_line(output)
    first = f"; first: {failed[0][:160]}" if failed else ""
    if status is None:
        return Verdict("failed" if failed else "unfinished", f"{said}{first}", figures)
    if status != 0:
        return Verdict("failed", f"exit status {status}: {said}{first}", figures)
    if not counts.get("passed"):
        return Verdict("not_run", f"no test ran: {said}", figures)
    return Verdict("passed", said, figures)


# Run one program with a time limit: its descendants end with it, and no other process does.

GRACE_SECONDS = 8.0
"""Most seconds between interrupt and kill, in which a program can still write."""
GRACE_SHARE = 0.2

STARTED_VARIABLE = "SHARDBENCH_GATE_STARTED"
"""Variable that marks all descendants of a program, whatever their process group."""


def run_limited(
    command: Sequence[str],
    log: IO[bytes],
    seconds: float,
    environment: Mapping[str, str],
    grace: float = GRACE_SECONDS,
) -> int | None:
    """Run a command; return its exit status, or None where it was ended at its limit.

    The output goes to `log`. The process group is interrupted `grace` seconds before the limit of `seconds`, and killed
    at the limit. For a short limit the grace is a fifth. Descendants in other groups are killed too. The same happens
    when this program is interrupted.
    """
    grace = min(grace, GRACE_SHARE * seconds)
    mark = uuid.uuid4().hex
    above = os.environ.get(STARTED_VARIABLE, "")
    own = {**os.environ, "PYTHONUNBUFFERED": "1", **environment, STARTED_VARIABLE: f"{above}/{mark}" if above else mark}
    child = subprocess.Popen(  # noqa: S603 - a step's own command
        list(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=own, start_new_session=True
    )
    try:
        return child.wait(timeout=max(0.0, seconds - grace))
    except subprocess.TimeoutExpired:
        return None
    finally:
        _terminate(child, grace, mark)


def _terminate(child: "subprocess.Popen[bytes]", grace: float, mark: str) -> None:
    """Interrupt the group, wait, kill.

    The kill follows in any case: a leader that has ended may have left members.
    """
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGINT)
        limit = time.monotonic() + grace
        while child.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()
    for process in _started_under(mark):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)


def _started_under(mark: str) -> Iterator[int]:
    """Yield processes that inherited `mark`; none where there is no /proc."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another user's process, or it has ended
            if mark.encode() in (folder / "environ").read_bytes():
                yield int(folder.name)


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


# Shared by the programs of the steps: their options, and writing a verdict.


def parse_options(
    text: str | None,
    argv: Sequence[str] | None = None,
    *,
    seconds: bool = False,
    parents: Sequence[ArgumentParser] = (),
) -> Namespace:
    """Parse `--out`, `--verdict` and the options of `parents`.

    `seconds` adds `--seconds`, for a program that divides its time.
    """
    parser = ArgumentParser(description=text, parents=parents)
    parser.add_argument("--out", type=Path, required=True, help="folder of what is kept")
    parser.add_argument("--verdict", type=Path, help="file for the verdict; it is printed in any case")
    if seconds:
        parser.add_argument("--seconds", type=float, required=True, help="what the program may take")
    return parser.parse_args(argv)


def run_step(programs: Mapping[str, Callable[[Sequence[str]], int]], argv: Sequence[str] | None = None) -> int:
    """Run the program of the step that `--step` names; return its exit status.

    The program gets the remaining arguments.
    """
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--step", choices=list(programs), required=True)
    asked, rest = parser.parse_known_args(argv)
    return programs[asked.step](rest)


def write_verdict(verdict: Verdict, path: Path | None) -> int:
    """Print and write a verdict; return the exit status that goes with it.

    A later call replaces the verdict when more is known.
    """
    print(f"{verdict.outcome}: {verdict.detail}", flush=True)  # noqa: T201 - a program's output
    if path is not None:
        fresh = path.with_suffix(".tmp")
        fresh.write_text(json.dumps(asdict(verdict), allow_nan=False))
        fresh.replace(path)
    return 1 if verdict.outcome == "failed" else 0

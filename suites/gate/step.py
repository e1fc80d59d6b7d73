"""The nouns of the gate: a step, where it runs, and what came of it. Nothing here needs a package."""

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
"""unfinished: ended at a limit, and nothing wrong was seen until then; skipped: no time was left; not_run: something
that the step needs is missing here."""

TORCH_PACKAGES = ("torch", "triton", "numpy", "psutil")
"""Packages that every program on the GPU imports."""
PYTEST_PACKAGES = (*TORCH_PACKAGES, "pytest", "pytest_benchmark")
"""Packages that pytest imports through the conftest at the root."""
MEASURING_PACKAGES = (*PYTEST_PACKAGES, "cpuinfo", "scipy")
"""Packages that measuring takes."""
RECOVERY_PACKAGES = ("typer", "rich")
"""Packages without which no file is made of the journal of a run that was ended."""


@dataclass(frozen=True)
class GateContext:
    """Where a run happens.

    Attributes:
        python: the interpreter of every step.
        out: folder of what is kept.
        scratch: folder of what is not; a step leaves its verdict there as <name>.json.
        work: folder of what steps write, which is kept in one archive.
        free_gib: GPU memory that was free before the first step; None where nobody said.
    """

    python: str
    out: Path
    scratch: Path
    work: Path
    free_gib: float | None = None

    def verdict(self, name: str) -> Path:
        """The file in which a step's program says what it found."""
        return self.scratch / f"{name}.json"

    def program(self, name: str, *arguments: object, module_name: str | None = None) -> list[str]:
        """The command of a step's program: it is told where to write and where to leave its verdict.

        Args:
            name: the step.
            arguments: what else it is given.
            module_name: the module, where it holds the programs of several steps.
        """
        program = [f"suites.gate.{name}"] if module_name is None else [f"suites.gate.{module_name}", "--step", name]
        folders = ["--out", str(self.work), "--verdict", str(self.verdict(name))]
        return [self.python, "-m", *program, *folders, *map(str, arguments)]


@dataclass(frozen=True)
class Verdict:
    """What a step found.

    Attributes:
        outcome: passed, failed, unfinished, skipped or not_run.
        detail: one line.
        figures: what was measured, as JSON can hold it; `wrong` counts wrong results, `file` names a result file.
    """

    outcome: Outcome
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepResult:
    """A verdict, its step and how long it took."""

    step: str
    outcome: Outcome
    seconds: float
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As it stands in gate.json."""
        return asdict(self) | {"seconds": round(self.seconds, 1)}


def last_line(output: str) -> str:
    """The last line that a program wrote."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def judge_exit_status(status: int | None, output: str) -> Verdict:
    """The verdict of a program that leaves no other: its exit status (None: ended at its limit) and its last line."""
    if status is None:
        before = output.rpartition("Traceback (most recent call last)")[0] if "KeyboardInterrupt" in output else output
        return Verdict("unfinished", f"last line: {last_line(before)}")
    if status == 0:
        return Verdict("passed", last_line(output))
    return Verdict("failed", f"exit status {status}: {last_line(output)}")


@dataclass(frozen=True)
class Step:
    """One part of the gate, run as a program of its own.

    Attributes:
        name: one word, as `--only` takes it.
        purpose: one line.
        seconds: reserved for it; steps before it cannot use them.
        least_seconds: under this there is no use in beginning.
        command: `command(place, seconds)` gives the program; `seconds` is what it may take.
        most_seconds: more time than this is left to the steps behind it.
        packages: packages that it imports.
        tools: programs that it runs.
        optional: packages without which a part of it is not run.
        environment: variables that it is run with.
        launches: whether it launches Triton kernels, for which Triton needs a C compiler.
        memory_gib: free GPU memory without which it cannot run.
        shows_output: whether its output is the answer, and goes to the terminal too.
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
        name: as `--profile` takes it.
        purpose: one line.
        budget_seconds: time for all steps; their reservations are within it.
        steps: in their order.
    """

    name: str
    purpose: str
    budget_seconds: float
    steps: tuple[Step, ...]


# Seconds for each step: a reservation that nobody else can use, and what the steps before it have left.


def reserve_seconds(steps: Sequence[Step], budget_seconds: float) -> dict[str, float]:
    """Seconds kept for each step by name; all shrink alike where the budget is smaller than their sum."""
    asked = sum(step.seconds for step in steps)
    share = min(1.0, budget_seconds / asked) if asked else 1.0
    return {step.name: share * step.seconds for step in steps}


def grant_seconds(step: Step, own_seconds: float, later_seconds: float, left_seconds: float) -> float:
    """Seconds that a step gets: what is left less what is kept for later ones, never less than its own reservation."""
    return min(step.most_seconds, max(own_seconds, left_seconds - later_seconds))


def planned_seconds(profile: Profile, budget_seconds: float | None = None) -> dict[str, float]:
    """Seconds of each step of a profile by name, if each takes all that it gets; 0 for one that is skipped."""
    left = profile.budget_seconds if budget_seconds is None else budget_seconds
    kept, seconds = reserve_seconds(profile.steps, left), dict[str, float]()
    for index, step in enumerate(profile.steps):
        later = sum(kept[one.name] for one in profile.steps[index + 1 :])
        given = grant_seconds(step, kept[step.name], later, left)
        seconds[step.name] = given if given >= step.least_seconds else 0.0
        left -= seconds[step.name]
    return seconds


# The verdict of a step that is pytest.

QUIET_PYTEST = ("-q", "-p", "no:cacheprovider", "--color", "no")
WIDE_TERMINAL = {"COLUMNS": "500"}
"""pytest cuts the reasons of failed tests to the width of the terminal."""
COUNT_PATTERN = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")
WRONG_PATTERN = re.compile(r"^FAILED \S.* - (assert |AssertionError)")
"""A test that compared and found a difference; any other failure shows nothing about results."""


def judge_pytest(status: int | None, output: str) -> Verdict:
    """As pytest's last line says; a run in which every test was skipped shows nothing."""
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


# One program with a time limit: what it starts ends with it, and nothing else does.

GRACE_SECONDS = 8.0
"""Most of a limit that lies between the interrupt, at which a program can still write what it has, and the kill."""
GRACE_SHARE = 0.2

STARTED_VARIABLE = "SHARDBENCH_GATE_STARTED"
"""Variable by which all that a program has started is known, also what left its process group."""


def run_limited(
    command: Sequence[str],
    log: IO[bytes],
    seconds: float,
    environment: Mapping[str, str],
    grace: float = GRACE_SECONDS,
) -> int | None:
    """Exit status of `command`; None when it was ended at its limit of `seconds`.

    Its output goes to `log`. Its group is interrupted `grace` seconds before the limit, and killed at the limit. Of a
    short limit the grace is a fifth. What it has started in other groups is killed with it. The same happens when this
    program is interrupted.
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
    """Interrupt the group, wait, kill. A leader that is gone already may have left members."""
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
    """Processes that inherited `mark`; none where there is no /proc."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another user's, or gone meanwhile
            if mark.encode() in (folder / "environ").read_bytes():
                yield int(folder.name)


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


# What the programs of the steps share: their two options, and leaving a verdict.


def parse_options(
    text: str | None,
    argv: Sequence[str] | None = None,
    *,
    seconds: bool = False,
    parents: Sequence[ArgumentParser] = (),
) -> Namespace:
    """`--out`, `--verdict`, where a program divides its time `--seconds`, and the options of `parents`."""
    parser = ArgumentParser(description=text, parents=parents)
    parser.add_argument("--out", type=Path, required=True, help="folder of what is kept")
    parser.add_argument("--verdict", type=Path, help="file for the verdict; it is printed in any case")
    if seconds:
        parser.add_argument("--seconds", type=float, required=True, help="what the program may take")
    return parser.parse_args(argv)


def run_step(programs: Mapping[str, Callable[[Sequence[str]], int]], argv: Sequence[str] | None = None) -> int:
    """Run the program of the step that `--step` names, with the arguments that are left; its exit status."""
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--step", choices=list(programs), required=True)
    asked, rest = parser.parse_known_args(argv)
    return programs[asked.step](rest)


def write_verdict(verdict: Verdict, path: Path | None) -> int:
    """Write a verdict; the exit status that goes with it. May be called again when more is known."""
    print(f"{verdict.outcome}: {verdict.detail}", flush=True)  # noqa: T201 - a program's output
    if path is not None:
        fresh = path.with_suffix(".tmp")
        fresh.write_text(json.dumps(asdict(verdict), allow_nan=False))
        fresh.replace(path)
    return 1 if verdict.outcome == "failed" else 0

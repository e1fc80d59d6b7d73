"""The nouns of the gate: a step, where it runs, and what came of it. Nothing here needs a package."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["passed", "failed", "unfinished", "skipped", "not_run"]
"""unfinished: ended at a limit, and nothing wrong was seen until then; skipped: no time was left; not_run: something
that the step needs is missing here."""

TORCH = ("torch", "triton", "numpy", "psutil")
"""Packages that every program on the GPU imports."""
PYTEST = (*TORCH, "pytest", "pytest_benchmark")
"""Packages that pytest imports through the conftest at the root."""
MEASURING = (*PYTEST, "cpuinfo", "scipy")
"""Packages that measuring takes."""
RECOVER = ("typer", "rich")
"""Packages without which no file is made of the journal of a run that was ended."""


@dataclass(frozen=True)
class Place:
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

    def module(self, name: str, *arguments: object) -> list[str]:
        """The command of a program of the gate: it is told where to write and where to leave its verdict."""
        folders = ["--out", str(self.work), "--verdict", str(self.verdict(name))]
        return [self.python, "-m", f"suites.gate.{name}", *folders, *map(str, arguments)]


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
class Result:
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


def by_exit_status(status: int | None, output: str) -> Verdict:
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
        shown: whether its output is the answer, and goes to the terminal too.
        judge: `judge(exit status, output)`, used where the program leaves no verdict; the status is None at a limit.
    """

    name: str
    purpose: str
    seconds: float
    least_seconds: float
    command: Callable[[Place, float], list[str]]
    most_seconds: float = math.inf
    packages: tuple[str, ...] = TORCH
    tools: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    launches: bool = True
    memory_gib: float = 8.0
    shown: bool = False
    judge: Callable[[int | None, str], Verdict] = by_exit_status


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

"""The nouns of the gate: a step, where it runs, and what came of it. Nothing here needs a package."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["passed", "failed", "skipped", "not_run", "unfinished"]
"""skipped: no time was left; not_run: something that the step needs is missing here; unfinished: it, or a tool that it
runs, ended at a limit, which is no wrong result."""

TORCH = ("torch", "triton", "psutil")
"""Packages that every program on the GPU imports."""
PYTEST = (*TORCH, "pytest", "pytest_benchmark", "nvtx", "scipy", "cpuinfo")
"""Packages that pytest imports through the conftest at the root."""


@dataclass(frozen=True)
class Place:
    """Where a run happens.

    Attributes:
        python: the interpreter of every step.
        out: folder of what is kept.
        scratch: folder of what is not; a step leaves its verdict there as <name>.json.
    """

    python: str
    out: Path
    scratch: Path

    def verdict(self, name: str) -> Path:
        """The file in which a step's program says what it found."""
        return self.scratch / f"{name}.json"

    def module(self, name: str, *arguments: object) -> list[str]:
        """The command of a program of the gate: it is told where to write and where to leave its verdict."""
        folders = ["--out", str(self.out), "--verdict", str(self.verdict(name))]
        return [self.python, "-m", f"suites.gate.{name}", *folders, *map(str, arguments)]


@dataclass(frozen=True)
class Verdict:
    """What a step found.

    Attributes:
        outcome: passed, failed, skipped, not_run or unfinished.
        detail: one line.
        figures: what was measured, as JSON can hold it.
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


def by_exit_status(status: int, output: str) -> Verdict:
    """The verdict of a program that leaves no other: its exit status, and the last line that it wrote."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = lines[-1][:200] if lines else "no output"
    return Verdict("passed", last) if status == 0 else Verdict("failed", f"exit status {status}: {last}")


@dataclass(frozen=True)
class Step:
    """One part of the gate, run as a program of its own.

    Attributes:
        name: one word, as `--only` takes it.
        purpose: one line.
        seconds: most time that it may take.
        least_seconds: under this there is no use in beginning.
        kept_seconds: kept for it while steps before it run, as far as they do not need what is kept for themselves.
        command: `command(place, seconds)` gives the program; `seconds` is what it may take.
        packages: packages that it imports.
        tools: programs that it runs.
        optional: packages without which a part of it is not run.
        environment: variables that it is run with.
        shown: whether its output is the answer, and goes to the terminal too.
        judge: `judge(exit status, output)`, used where the program leaves no verdict.
    """

    name: str
    purpose: str
    seconds: float
    least_seconds: float
    kept_seconds: float
    command: Callable[[Place, float], list[str]]
    packages: tuple[str, ...] = TORCH
    tools: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    shown: bool = False
    judge: Callable[[int, str], Verdict] = by_exit_status

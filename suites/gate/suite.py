"""The suite itself: 80 points of Llama-3-70B's decode linears, cold, with the ceilings of the same run."""

import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from specs.decode import IMPLEMENTATIONS, LAYERS, MODEL, TOKENS, TP
from suites.gate.process import run_limited
from suites.gate.program import leave, options
from suites.gate.step import PYTEST, Step, Verdict

CASES = ("suites/", "-k", "bench_decode or ceilings")
AXES = {"--model": (MODEL,), "--layer": LAYERS, "--tp": TP, "--tokens": TOKENS, "--impl": IMPLEMENTATIONS}

Axes = Mapping[str, Sequence[object]]

STEP = Step(
    name="suite",
    purpose="pytest suites/: 16 shards of Llama-3-70B x 5 token counts, all implementations, and the ceilings",
    seconds=260,
    least_seconds=90,
    kept_seconds=120,
    command=lambda place, seconds: place.module("suite", "--seconds", f"{seconds:.0f}"),
    packages=(*PYTEST, "rich", "typer"),
)

AROUND_SECONDS = 50.0
"""Beyond the budget: start, compilation in the first pass, the last case's visit, writing the file."""
RECOVER_SECONDS = 10.0
GRACE_SECONDS = 5.0
"""Shorter than the gate gives this program, so that none of its own stays behind."""


def command(path: Path, budget_seconds: float, cases: Sequence[str], axes: Axes) -> list[str]:
    """pytest, with a budget."""
    asked = [word for option, values in axes.items() for word in (option, ",".join(map(str, values)))]
    written = [f"--benchmark-json={path}", "--benchmark-quiet", "--budget", f"{budget_seconds:.0f}"]
    return [sys.executable, "-m", "pytest", *cases, "-p", "no:cacheprovider", "--color", "no", *written, *asked]


def result_path(out: Path, ending: str = "") -> Path:
    """<gpu>-<date>-<short commit>.json, as files in reports/data/ are named."""
    name = _told([sys.executable, "-m", "suites", "name"])
    commit = _told(["git", "rev-parse", "--short", "HEAD"]) or "nogit"
    return out / f"{name or 'unnamed'}-{commit}{ending}.json"


def _told(asked: Sequence[str]) -> str:
    try:
        done = subprocess.run(list(asked), capture_output=True, text=True, timeout=60)  # noqa: S603 - git and ourselves
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def main(argv: Sequence[str] | None = None) -> int:
    """The decode points and the ceilings."""
    began, asked = time.monotonic(), options(__doc__, argv, seconds=True)
    return leave(measure(asked, began, result_path(asked.out), CASES, AXES), asked.verdict)


def measure(asked: Namespace, began: float, path: Path, cases: Sequence[str], axes: Axes) -> Verdict:
    """Run the suites within the step's time; make the file from its journal when they did not come to their end.

    Args:
        asked: the step's options.
        began: when it began, by the monotonic clock.
        path: the result file.
        cases: what pytest is told to collect.
        axes: options and their values.
    """
    path.unlink(missing_ok=True)
    left = asked.seconds - (time.monotonic() - began) - RECOVER_SECONDS
    sys.stdout.flush()
    budget = max(30.0, left - AROUND_SECONDS)
    status = run_limited(command(path, budget, cases, axes), sys.stdout.buffer, left - GRACE_SECONDS, {}, GRACE_SECONDS)
    journal = path.with_name(f"{path.name}.journal.jsonl")
    if not path.exists() and journal.exists():
        recover = [sys.executable, "-m", "reports", "recover", str(journal), "-o", str(path)]
        subprocess.run(recover, timeout=60)  # noqa: S603 - our own program
    return judge(status, path)


def judge(status: int | None, path: Path) -> Verdict:
    """A file is there, and pytest was content."""
    if not path.exists():
        return Verdict("failed", "ended at its limit" if status is None else f"exit status {status}, no {path.name}")
    figures = {"file": path.name}
    if status is None:
        return Verdict("failed", f"ended at its limit; {path.name} holds what its journal had", figures)
    if status != 0:
        return Verdict("failed", f"exit status {status}: cases failed, see gate.log and {path.name}", figures)
    return Verdict("passed", path.name, figures)


if __name__ == "__main__":
    sys.exit(main())

"""The suite itself: 80 points of Llama-3-70B's decode linears, cold, with the ceilings of the same run."""

import json
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from specs.layer import LAYERS, LINEAR_IMPLEMENTATIONS, MODEL, TOKENS, TP
from suites.environment import short_commit
from suites.gate.step import MEASURING, RECOVER, Step, Verdict, leave, options, run_limited

CASES = ("suites/", "-k", "bench_decode or ceilings")
AXES = {"--model": (MODEL,), "--layer": LAYERS, "--tp": TP, "--tokens": TOKENS, "--impl": LINEAR_IMPLEMENTATIONS}
LEAST_PASSES = 3
"""Below that an interval between passes says little."""

WRONG = "wrong result: "
"""How the reason of a case begins whose result was not right."""
NAME = (
    "from suites.environment import *; from kernels.timing.device import current_device as d; print(result_name(d()))"
)
"""Asked in a process of its own: this one holds no CUDA context beside the suites."""

Axes = Mapping[str, Sequence[object]]

STEP = Step(
    name="suite",
    purpose="pytest suites/: 16 shards of Llama-3-70B x 5 token counts, all implementations, and the ceilings",
    seconds=120,
    least_seconds=60,
    command=lambda place, seconds: place.module("suite", "--seconds", f"{seconds:.0f}"),
    packages=MEASURING,
    optional=RECOVER,
)

AROUND_SECONDS = 25.0
"""Beyond the budget: start, the last case's visit, writing the file."""
RECOVER_SECONDS = 10.0
GRACE_SECONDS = 5.0
"""Shorter than the gate gives this program, so that none of its own stays behind."""
MOST_TRIES = 5
"""Runs of pytest, each of which goes on where a fault of the GPU ended the one before."""
LEAST_TRY_SECONDS = 30.0


def command(path: Path, budget_seconds: float, cases: Sequence[str], axes: Axes, *, resume: bool = False) -> list[str]:
    """pytest, with a budget."""
    asked = [word for option, values in axes.items() for word in (option, ",".join(map(str, values)))]
    written = [f"--benchmark-json={path}", "--benchmark-quiet", "--budget", f"{budget_seconds:.0f}"]
    again = ["--resume"] if resume else []
    return [sys.executable, "-m", "pytest", *cases, "-p", "no:cacheprovider", "--color", "no", *written, *asked, *again]


def result_path(out: Path, ending: str = "") -> Path:
    """<gpu>-<date>-<short commit>.json, as files in reports/data/ are named."""
    try:
        done = subprocess.run([sys.executable, "-c", NAME], capture_output=True, text=True, timeout=60)  # noqa: S603 - ourselves
    except (OSError, subprocess.TimeoutExpired):
        return out / f"unnamed-{short_commit()}{ending}.json"
    told = done.stdout.strip() if done.returncode == 0 else ""
    return out / f"{told or 'unnamed'}-{short_commit()}{ending}.json"


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
    journal = path.with_name(f"{path.name}.journal.jsonl")
    journal.unlink(missing_ok=True)
    status: int | None = None
    for tried in range(MOST_TRIES):
        left = asked.seconds - (time.monotonic() - began) - RECOVER_SECONDS
        if tried and left < LEAST_TRY_SECONDS:
            break
        sys.stdout.flush()
        told = command(path, max(10.0, left - AROUND_SECONDS), cases, axes, resume=tried > 0)
        status = run_limited(told, sys.stdout.buffer, left, {}, GRACE_SECONDS)
        if status in (0, None) or not journal.exists() or not unreached(path):
            break
        path.unlink(missing_ok=True)  # the journal holds all of it
    if not path.exists() and journal.exists():
        recover = [sys.executable, "-m", "reports", "recover", str(journal), "-o", str(path)]
        subprocess.run(recover, timeout=60)  # noqa: S603 - our own program
    return judge(status, path)


def unreached(path: Path) -> bool:
    """Whether a fault of the GPU kept cases from being reached: the file says so, or pytest died and left none."""
    return not path.exists() or any("not reached: " in reason for reason in _reasons(path))


def judge(status: int | None, path: Path) -> Verdict:
    """A file is there, and pytest was content; beside it, how many cases have fewer passes than an interval needs."""
    if not path.exists():
        if status is None:
            return Verdict("unfinished", "ended at its limit, and nothing was measured until then")
        return Verdict("failed", f"exit status {status}, no {path.name}")
    figures = {"file": path.name, "wrong": sum(WRONG in reason for reason in _reasons(path)), **_passes(path)}
    few = figures["few_passes"]
    told = f"; intervals need more passes: {few} cases have fewer than {LEAST_PASSES}" if few else ""
    if status is None:
        return Verdict("unfinished", f"ended at its limit; {path.name} holds what its journal had{told}", figures)
    if status != 0:
        return Verdict("failed", f"exit status {status}: cases failed, see gate.log and {path.name}{told}", figures)
    return Verdict("passed", f"{path.name}{told}", figures)


def _passes(path: Path) -> dict[str, int]:
    passes = [one.get("extra_info", {}).get("passes", 0) for one in _content(path).get("benchmarks", [])]
    few = sum(one < LEAST_PASSES for one in passes)
    return {"cases": len(passes), "least_passes": min(passes, default=0), "few_passes": few}


def _reasons(path: Path) -> list[str]:
    ours = _content(path).get("shardbench", {})
    return [str(one["reason"]) for kind in ("failed", "ended") for one in ours.get(kind, [])]


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


if __name__ == "__main__":
    sys.exit(main())

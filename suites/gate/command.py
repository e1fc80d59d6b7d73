"""`make gpu`, `python -m suites gate`: choose the steps, look around, run them, say what came of it."""

import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from specs.errors import UserError
from suites.gate.machine import look_around
from suites.gate.runner import Gate
from suites.gate.step import Place, Step
from suites.gate.steps import STEPS
from suites.gate.terminal import plan, show_results

BUDGET_SECONDS = 520.0
"""Under nine minutes, with the start and the end."""
INTERRUPTED = 130


def choose(only: str | None) -> tuple[Step, ...]:
    """The steps named in `only`, in their own order.

    Raises:
        UserError: a name that no step has.
    """
    if only is None:
        return STEPS
    names = [word.strip() for word in only.split(",")]
    known = [step.name for step in STEPS]
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"unknown step {unknown[0]!r}; choose from {', '.join(known)}")
    return tuple(step for step in STEPS if step.name in names)


def gate(only: str | None, budget: float, out: Path, python: str, *, listed: bool) -> int:
    """The exit status: 1 if a step failed, 0 where nothing could be run.

    Raises:
        UserError: an unknown step, or no time.
    """
    if not budget > 0:
        raise UserError(f"--budget {budget:g} is not a positive number of seconds")
    steps = choose(only)
    machine = look_around(python, (name for step in steps for name in (*step.packages, *step.optional)))
    if machine.gpu is None:
        _say(f"make gpu: {machine.no_gpu} ({python}), so nothing is run. On a machine with a GPU it runs:")
        _say("\n".join(plan(steps, machine)))
        return 0
    if listed:
        _say(f"on {machine.gpu}, within {budget:.0f} s:")
        _say("\n".join(plan(steps, machine)))
        return 0
    with tempfile.TemporaryDirectory(prefix="gate-") as scratch, _terminated_as_interrupted():
        run = Gate(steps, machine, Place(python, out.resolve(), Path(scratch)), budget, _say)
        results = run.run()
    show_results(results)
    if run.interrupted:
        return INTERRUPTED
    return int(any(one.outcome == "failed" for one in results))


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command's output


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A `timeout` around the gate ends it as Ctrl-C does: its child does not stay behind."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m suites.gate`, which needs no package."""
    from argparse import ArgumentParser

    parser = ArgumentParser(prog="python -m suites.gate", description=__doc__)
    parser.add_argument("--only", metavar="STEP,…", help=", ".join(step.name for step in STEPS))
    parser.add_argument("--budget", type=float, default=BUDGET_SECONDS, metavar="SECONDS", help="time for all steps")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder of all that is written")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of every step")
    parser.add_argument("--list", action="store_true", help="show the steps and what they lack, run nothing")
    asked = parser.parse_args(argv)
    try:
        return gate(asked.only, asked.budget, asked.out, asked.python, listed=asked.list)
    except UserError as error:
        parser.error(str(error))

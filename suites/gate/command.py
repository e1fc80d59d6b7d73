"""`make gpu`, `python -m suites gate`: choose the steps, look around, run them, say what came of it."""

import signal
import sys
import tempfile
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from specs.errors import UserError
from suites.gate import evidence
from suites.gate.budget import granted
from suites.gate.machine import look_around
from suites.gate.runner import Gate
from suites.gate.step import Place, Profile
from suites.gate.steps import PROFILES
from suites.gate.terminal import calls, plan, show_results

DEFAULT = "evidence"
COMMANDS = {"smoke": "make gpu-smoke", "evidence": "make gpu", "safety": "make gpu-safety"}
"""Calls A, B and C: in this order on a GPU that nobody has run this on."""
INTERRUPTED = 130
WORK = "work"
"""Folder in OUT of what steps write while they run."""


def choose(profile: str, only: str | None) -> Profile:
    """The steps of a profile; or those named in `only`, of whatever profile, in their own order.

    Raises:
        UserError: a name that no profile or step has.
    """
    if profile not in PROFILES:
        raise UserError(f"unknown profile {profile!r}; choose from {', '.join(PROFILES)}")
    if only is None:
        return PROFILES[profile]
    steps = [step for one in PROFILES.values() for step in one.steps]
    names = [word.strip() for word in only.split(",")]
    if unknown := [name for name in names if name not in {step.name for step in steps}]:
        raise UserError(f"unknown step {unknown[0]!r}; choose from {', '.join(step.name for step in steps)}")
    chosen = tuple(step for step in steps if step.name in names)
    return Profile(only, "steps that were asked for", sum(step.seconds for step in chosen), chosen)


def gate(profile: Profile, budget: float | None, out: Path, python: str, *, listed: bool) -> int:
    """The exit status: 1 if a step failed or did not come to its end, 0 where nothing could be run.

    Raises:
        UserError: no time, or a folder that cannot be written.
    """
    budget = profile.budget_seconds if budget is None else budget
    if not 0 < budget < float("inf"):
        raise UserError(f"--budget {budget:g} is not a positive number of seconds")
    if not listed:
        _check_writable(out)
    steps = profile.steps
    machine = look_around(python, (name for step in steps for name in (*step.packages, *step.optional)))
    _say("calls, each a command of its own:")
    _say("\n".join(calls(PROFILES.values(), COMMANDS)))
    lines = "\n".join(plan(steps, machine, granted(profile, budget)))
    if machine.gpu is None:
        name = COMMANDS.get(profile.name, "the gate")
        _say(f"{name}: {machine.no_gpu} ({python}), so nothing is run. On a machine with a GPU it runs:\n{lines}")
        return 0
    _say(f"this one, on {machine.gpu}, within {budget:.0f} s:\n{lines}")
    for note in machine.notes:
        _say(f"note: {note}")
    if listed:
        return 0
    out = out.resolve()
    with tempfile.TemporaryDirectory(prefix="gate-") as scratch, _ended_once():
        place = Place(python, out, Path(scratch), out / WORK, machine.free_gib)
        run = Gate(steps, machine, place, budget, _say)
        results = run.run()
    show_results(results)
    if run.interrupted:
        return INTERRUPTED
    return int(any(one.outcome in ("failed", "unfinished") for one in results))


def _check_writable(out: Path) -> None:
    """Refuse a folder that cannot be written, before anything is measured; nothing is left behind."""
    if why_not := evidence.foreign(out / WORK):
        raise UserError(f"--out {out}: {why_not}")
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"--out {out}: {existing} is a file; name a folder")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); name a folder that can") from error


def _folder(text: str) -> Path:
    if not text:
        raise ArgumentTypeError("is empty; name a folder")
    return Path(text)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command's output


@contextmanager
def _ended_once() -> Iterator[None]:
    """SIGTERM and a lost terminal end the gate as Ctrl-C does; a second one does not disturb what the first began."""
    numbers = [one for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) != signal.SIG_IGN]

    def interrupt(_number: int, _frame: Any) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m suites.gate`, which needs no package."""
    parser = ArgumentParser(prog="python -m suites.gate", description=__doc__)
    parser.add_argument("--profile", default=DEFAULT, metavar="NAME", help=", ".join(PROFILES))
    steps = [step.name for one in PROFILES.values() for step in one.steps]
    parser.add_argument("--only", metavar="STEP,…", help=f"of any profile: {', '.join(steps)}")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="time for all steps; without it the profile's")
    parser.add_argument("--out", type=_folder, default=Path("build/gpu"), help="folder of all that is written")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of every step")
    parser.add_argument("--list", action="store_true", help="show the steps and what they lack, run nothing")
    asked = parser.parse_args(argv)
    try:
        chosen = choose(asked.profile, asked.only)
        return gate(chosen, asked.budget, asked.out, asked.python, listed=asked.list)
    except UserError as error:
        parser.error(str(error))

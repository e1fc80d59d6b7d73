"""`make gpu`, `python -m suites gate`: choose the steps, look around, run them, say what came of it."""

import signal
import sys
import tempfile
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from specs.errors import UserError
from suites.gate import clock, correctness, dram, machine, ranks, runner, sanitizer, suite, warm
from suites.gate.machine import Machine, inspect_machine
from suites.gate.runner import GateRun
from suites.gate.step import GateContext, Profile, Step, StepResult, planned_seconds

# Steps by profile, in order.

SMOKE = Profile(
    "smoke",
    "does anything run here at all: versions, one case of each implementation, one call under each tool",
    100.0,
    (machine.FACTS_STEP, correctness.IMPLEMENTATIONS_STEP, dram.COUNTERS_STEP, sanitizer.PLANTED_STEP),
)
EVIDENCE = Profile(
    "evidence",
    "what a result file rests on, and the figures themselves",
    400.0,
    (
        warm.STEP,
        correctness.CORRECTNESS_STEP,
        suite.SUITE_STEP,
        suite.LAYERS_STEP,
        dram.DRAM_STEP,
        clock.STEP,
        correctness.ARRIVAL_STEP,
        suite.TABLE_STEP,
    ),
)
SAFETY = Profile(
    "safety",
    "ranks that share the GPU, and compute-sanitizer over our kernels and planted faults",
    380.0,
    (ranks.STEP, sanitizer.MEMCHECK_STEP, sanitizer.RACECHECK_STEP),
)
PROFILES = {profile.name: profile for profile in (SMOKE, EVIDENCE, SAFETY)}


# Terminal output before a run, at its end, and where the gate cannot run. Plain text where rich is not installed.

OUTCOME_STYLES = {
    "passed": "green",
    "failed": "bold red",
    "unfinished": "bold yellow",
    "skipped": "yellow",
    "not_run": "yellow",
}
OUTCOME_WORDS = {
    "passed": "passed",
    "failed": "FAILED",
    "unfinished": "UNFINISHED",
    "skipped": "skipped",
    "not_run": "not run",
}
WRONG_ALERTS = {"arrival": "SPLIT-K ARRIVALS ARE NOT SAFE", "ranks": "ALL-REDUCES ARE NOT SAFE"}


def profile_lines(profiles: Iterable[Profile], commands: Mapping[str, str]) -> list[str]:
    """Lines with the command, seconds and steps of each profile."""
    lines = []
    for letter, profile in zip(ascii_uppercase, profiles, strict=False):
        names = ", ".join(step.name for step in profile.steps)
        lines.append(f"  call {letter}: {commands[profile.name]:<15} {profile.budget_seconds:>3.0f} s: {names}")
    return lines


def plan_lines(steps: Sequence[Step], machine: Machine, seconds: Mapping[str, float]) -> list[str]:
    """Lines with each step's seconds, and the reason where it cannot run."""
    lines = []
    for step in steps:
        reason = machine.why_not(step)
        lines.append(f"  {step.name:<15} {seconds[step.name]:>3.0f} s  {step.purpose}")
        lines.append(f"  {'':<15}        {f'cannot run: {reason}' if reason else 'can run'}")
        if absent := machine.missing_packages(step.optional):
            lines.append(f"  {'':<15}        a part of it cannot run: not installed: {', '.join(absent)}")
    return lines


def wrong_result_alerts(results: Iterable[StepResult]) -> list[str]:
    """Alerts on results that were wrong; a limit or a crash gives no alert."""
    red = [one for one in results if one.outcome == "failed" and one.figures.get("wrong")]
    return [
        f"!!! {WRONG_ALERTS.get(one.step, 'WRONG RESULTS')}: {one.figures['wrong']} wrong in the {one.step} step, "
        "so no time measured here counts !!!"
        for one in red
    ]


def show_results(results: Sequence[StepResult]) -> None:
    """Print the final table and the alerts."""
    rows = [(one.step, one.outcome, f"{one.seconds:.0f} s", one.detail) for one in results]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        for step, outcome, seconds, detail in rows:
            print(f"{step:<15} {OUTCOME_WORDS[outcome]:<10} {seconds:>6}  {detail}")  # noqa: T201 - rich is not there
        print("\n".join(wrong_result_alerts(results)))  # noqa: T201
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("step", "outcome", "took", "detail"):
        table.add_column(heading, overflow="fold")
    for step, outcome, seconds, detail in rows:
        table.add_row(step, OUTCOME_WORDS[outcome], seconds, detail, style=OUTCOME_STYLES[outcome])
    console = Console(width=None if Console().is_terminal else 140, markup=False, highlight=False)
    console.print(table)
    for line in wrong_result_alerts(results):
        console.print(line, style="bold red")


DEFAULT_PROFILE = "evidence"
COMMANDS = {"smoke": "make gpu-smoke", "evidence": "make gpu", "safety": "make gpu-safety"}
"""Command of each profile: calls A, B and C.

On a GPU without an earlier run they go in this order.
"""
INTERRUPTED_STATUS = 130
WORK_FOLDER = "work"
"""Folder in OUT for files that steps write while they run."""


def choose_profile(profile: str, only: str | None) -> Profile:
    """Profile with its steps, or the steps named in `only`, of any profile.

    Named steps keep their own order.

    Raises:
        UserError: no profile or step has the name.
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


def run_gate(profile: Profile, budget: float | None, out: Path, python: str, *, listed: bool) -> int:
    """Run the gate; return its exit status.

    1: a step failed or did not finish. 130: interrupted. 0: otherwise, also where nothing could run.

    Raises:
        UserError: the budget is not positive, or a folder cannot be written.
    """
    budget = profile.budget_seconds if budget is None else budget
    if not 0 < budget < float("inf"):
        raise UserError(f"--budget {budget:g} is not a positive number of seconds")
    if not listed:
        _check_writable(out)
    steps = profile.steps
    machine = inspect_machine(python, (name for step in steps for name in (*step.packages, *step.optional)))
    _print_line("calls, each a command of its own:")
    _print_line("\n".join(profile_lines(PROFILES.values(), COMMANDS)))
    lines = "\n".join(plan_lines(steps, machine, planned_seconds(profile, budget)))
    if machine.gpu is None:
        name = COMMANDS.get(profile.name, "the gate")
        _print_line(
            f"{name}: {machine.no_gpu} ({python}), so nothing is run. On a machine with a GPU it runs:\n{lines}"
        )
        return 0
    _print_line(f"this one, on {machine.gpu}, within {budget:.0f} s:\n{lines}")
    for note in machine.notes:
        _print_line(f"note: {note}")
    if listed:
        return 0
    out = out.resolve()
    with tempfile.TemporaryDirectory(prefix="gate-") as scratch, _interrupt_once():
        context = GateContext(python, out, Path(scratch), out / WORK_FOLDER, machine.free_gib)
        run = GateRun(steps, machine, context, budget, _print_line)
        results = run.run()
    show_results(results)
    if run.interrupted:
        return INTERRUPTED_STATUS
    return int(any(one.outcome in ("failed", "unfinished") for one in results))


def _check_writable(out: Path) -> None:
    """Refuse a folder that cannot be written, before any measurement.

    Nothing is left behind.
    """
    if why_not := runner.why_not_ours(out / WORK_FOLDER):
        raise UserError(f"--out {out}: {why_not}")
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"--out {out}: {existing} is a file; name a folder")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); name a folder that can") from error


def _parse_folder(text: str) -> Path:
    if not text:
        raise ArgumentTypeError("is empty; name a folder")
    return Path(text)


def _print_line(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command's output


@contextmanager
def _interrupt_once() -> Iterator[None]:
    """Let SIGTERM and a lost terminal end the gate as Ctrl-C does.

    A second signal does not disturb the end that the first began.
    """
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
    """Run `python -m suites.gate`, which needs no package; return the exit status."""
    parser = ArgumentParser(prog="python -m suites.gate", description=__doc__)
    parser.add_argument("--profile", default=DEFAULT_PROFILE, metavar="NAME", help=", ".join(PROFILES))
    steps = [step.name for one in PROFILES.values() for step in one.steps]
    parser.add_argument("--only", metavar="STEP,…", help=f"of any profile: {', '.join(steps)}")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="time for all steps; without it the profile's")
    parser.add_argument("--out", type=_parse_folder, default=Path("build/gpu"), help="folder of all that is written")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of every step")
    parser.add_argument("--list", action="store_true", help="show the steps and what they lack, run nothing")
    asked = parser.parse_args(argv)
    try:
        chosen = choose_profile(asked.profile, asked.only)
        return run_gate(chosen, asked.budget, asked.out, asked.python, listed=asked.list)
    except UserError as error:
        parser.error(str(error))

"""What the gate says before it begins, at its end, and where it cannot run. Plain text where rich is not installed."""

from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase

from suites.gate.machine import Machine
from suites.gate.step import Profile, Result, Step

STYLES = {
    "passed": "green",
    "failed": "bold red",
    "unfinished": "bold yellow",
    "skipped": "yellow",
    "not_run": "yellow",
}
WORDS = {
    "passed": "passed",
    "failed": "FAILED",
    "unfinished": "UNFINISHED",
    "skipped": "skipped",
    "not_run": "not run",
}
WRONG = {"arrival": "SPLIT-K ARRIVALS ARE NOT SAFE", "ranks": "ALL-REDUCES ARE NOT SAFE"}


def calls(profiles: Iterable[Profile], commands: Mapping[str, str]) -> list[str]:
    """Each profile with its command and its seconds, one line each."""
    lines = []
    for letter, profile in zip(ascii_uppercase, profiles, strict=False):
        names = ", ".join(step.name for step in profile.steps)
        lines.append(f"  call {letter}: {commands[profile.name]:<15} {profile.budget_seconds:>3.0f} s: {names}")
    return lines


def plan(steps: Sequence[Step], machine: Machine, seconds: Mapping[str, float]) -> list[str]:
    """Each step with its seconds, and why it cannot run where it cannot."""
    lines = []
    for step in steps:
        reason = machine.why_not(step)
        lines.append(f"  {step.name:<15} {seconds[step.name]:>3.0f} s  {step.purpose}")
        lines.append(f"  {'':<15}        {f'cannot run: {reason}' if reason else 'can run'}")
        if absent := machine.absent(step.optional):
            lines.append(f"  {'':<15}        a part of it cannot run: not installed: {', '.join(absent)}")
    return lines


def shouts(results: Iterable[Result]) -> list[str]:
    """What nobody may overlook: results that were seen to be wrong. A limit or a crash is none."""
    red = [one for one in results if one.outcome == "failed" and one.figures.get("wrong")]
    return [
        f"!!! {WRONG.get(one.step, 'WRONG RESULTS')}: {one.figures['wrong']} wrong in the {one.step} step, "
        "so no time measured here counts !!!"
        for one in red
    ]


def show_results(results: Sequence[Result]) -> None:
    """The final table."""
    rows = [(one.step, one.outcome, f"{one.seconds:.0f} s", one.detail) for one in results]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        for step, outcome, seconds, detail in rows:
            print(f"{step:<15} {WORDS[outcome]:<10} {seconds:>6}  {detail}")  # noqa: T201 - rich is not there
        print("\n".join(shouts(results)))  # noqa: T201
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("step", "outcome", "took", "detail"):
        table.add_column(heading, overflow="fold")
    for step, outcome, seconds, detail in rows:
        table.add_row(step, WORDS[outcome], seconds, detail, style=STYLES[outcome])
    console = Console(width=None if Console().is_terminal else 140, markup=False, highlight=False)
    console.print(table)
    for line in shouts(results):
        console.print(line, style="bold red")

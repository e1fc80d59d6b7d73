"""What the gate says at its end, and where it cannot run. Plain text where rich is not installed."""

from collections.abc import Iterable, Sequence

from suites.gate.machine import Machine
from suites.gate.step import Result, Step

STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow", "not_run": "yellow", "unfinished": "yellow"}
WORDS = {
    "passed": "passed",
    "failed": "FAILED",
    "skipped": "skipped",
    "not_run": "not run",
    "unfinished": "unfinished",
}


def plan(steps: Sequence[Step], machine: Machine) -> list[str]:
    """What would run, and why it cannot where it cannot."""
    lines = []
    for step in steps:
        reason = machine.why_not(step)
        lines.append(f"  {step.name:<12} {step.purpose} (at most {step.seconds:.0f} s)")
        lines.append(f"  {'':<12} {f'cannot run: {reason}' if reason else 'can run'}")
        if absent := machine.absent(step.optional):
            lines.append(f"  {'':<12} a part of it cannot run: not installed: {', '.join(absent)}")
    return lines


def shouts(results: Iterable[Result]) -> list[str]:
    """What nobody may overlook."""
    wrong = {
        "correctness": "WRONG RESULTS",
        "arrival": "SPLIT-K ARRIVALS ARE NOT SAFE",
        "ranks": "ALL-REDUCES ARE NOT SAFE",
    }
    red = [one.step for one in results if one.outcome == "failed" and one.step in wrong]
    return [f"!!! {wrong[name]}: the {name} step failed, so no time measured here counts !!!" for name in red]


def show_results(results: Sequence[Result]) -> None:
    """The final table."""
    rows = [(one.step, one.outcome, f"{one.seconds:.0f} s", one.detail) for one in results]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        for step, outcome, seconds, detail in rows:
            print(f"{step:<12} {WORDS[outcome]:<8} {seconds:>6}  {detail}")  # noqa: T201 - rich is not there
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

"""The verdict of a step that is pytest."""

import re

from suites.gate.step import Verdict, last_line

QUIET = ("-q", "-p", "no:cacheprovider", "--color", "no")
WIDE = {"COLUMNS": "500"}
"""pytest cuts the reasons of failed tests to the width of the terminal."""
COUNT = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")
WRONG = re.compile(r"^FAILED \S.* - (assert |AssertionError)")
"""A test that compared and found a difference; any other failure shows nothing about results."""


def by_counts(status: int | None, output: str) -> Verdict:
    """As pytest's last line says; a run in which every test was skipped shows nothing."""
    lines = output.splitlines()
    total = next((line for line in reversed(lines) if COUNT.search(line) and " in " in line), "")
    counts = {word.rstrip("s"): int(count) for count, word in COUNT.findall(total)}
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    figures = {**{word: counts.get(word, 0) for word in ("passed", "failed", "error", "skipped")}}
    figures["wrong"] = sum(bool(WRONG.match(line)) for line in failed)
    said = total.strip("= ") or last_line(output)
    first = f"; first: {failed[0][:160]}" if failed else ""
    if status is None:
        return Verdict("failed" if failed else "unfinished", f"{said}{first}", figures)
    if status != 0:
        return Verdict("failed", f"exit status {status}: {said}{first}", figures)
    if not counts.get("passed"):
        return Verdict("not_run", f"no test ran: {said}", figures)
    return Verdict("passed", said, figures)

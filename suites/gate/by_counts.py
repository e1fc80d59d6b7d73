"""The verdict of a step that is pytest."""

import re

from suites.gate.step import Verdict, by_exit_status

QUIET = ("-q", "-p", "no:cacheprovider", "--color", "no")


def by_counts(status: int, output: str) -> Verdict:
    """As pytest's last line says; a run in which every test was skipped shows nothing."""
    verdict = by_exit_status(status, output)
    if verdict.outcome == "passed" and not re.search(r"\d+ passed", verdict.detail):
        return Verdict("not_run", f"no test ran: {verdict.detail}")
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if verdict.outcome == "failed" and failed:
        return Verdict("failed", f"{verdict.detail}; first: {failed[0][:160]}")
    return verdict

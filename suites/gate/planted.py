"""Does compute-sanitizer see a fault here? A store out of bounds that is planted for it."""

import sys
from collections.abc import Sequence

from suites.gate.program import leave, options
from suites.gate.sanitizer import Findings, run
from suites.gate.step import Step, Verdict

STEP = Step(
    name="planted",
    purpose="a planted access out of bounds under compute-sanitizer: is it seen",
    seconds=20,
    least_seconds=10,
    command=lambda place, _: place.module("planted"),
    tools=("compute-sanitizer",),
    memory_gib=1.0,
)


def judge(found: Findings) -> Verdict:
    """Passed when the fault was seen."""
    if found.cannot:
        return Verdict("not_run", f"compute-sanitizer cannot instrument here: {found.cannot}")
    if not found.errors:
        return Verdict("failed", f"memcheck did not see the planted fault (exit status {found.status})")
    return Verdict("passed", f"memcheck saw it: {found.first}", {"planted_errors": found.errors})


def main(argv: Sequence[str] | None = None) -> int:
    """Commit the fault under memcheck."""
    asked = options(__doc__, argv)
    return leave(judge(run("memcheck", "faults", "out_of_bounds")), asked.verdict)


if __name__ == "__main__":
    sys.exit(main())

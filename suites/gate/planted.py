"""Does compute-sanitizer see a fault here? A store out of bounds that is planted for it."""

import sys
from collections.abc import Sequence

from suites.gate.memcheck import CHECK
from suites.gate.sanitizer import READ_SECONDS, Findings
from suites.gate.step import Step, Verdict, leave, options

STEP = Step(
    name="planted",
    purpose="a planted access out of bounds under compute-sanitizer: is it seen",
    seconds=20,
    least_seconds=10,
    command=lambda place, seconds: place.module("planted", "--seconds", f"{seconds:.0f}"),
    tools=("compute-sanitizer",),
    memory_gib=1.0,
)


def judge(planted: Findings) -> Verdict:
    """Passed when the fault was seen."""
    figures = {"planted_errors": len(planted.found)}
    return CHECK.blind(planted) or Verdict("passed", f"memcheck saw it: {planted.found[0].title}", figures)


def main(argv: Sequence[str] | None = None) -> int:
    """Commit the fault under memcheck."""
    asked = options(__doc__, argv, seconds=True)
    return leave(judge(CHECK.run_planted(asked.out, asked.seconds - READ_SECONDS)), asked.verdict)


if __name__ == "__main__":
    sys.exit(main())

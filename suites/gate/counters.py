"""Can the counters of this GPU be read? One call of ours under ncu, as the dram step does with many."""

import sys
from collections.abc import Sequence
from pathlib import Path

from specs.ncu import profiled
from suites.gate import dram
from suites.gate.cases import PROFILED
from suites.gate.dram import by_call, why_no_counters
from suites.gate.machine import find_tool
from suites.gate.step import Step, Verdict, leave, options, run_limited

CASE = PROFILED[0]
MARGIN_SECONDS = 3.0

STEP = Step(
    name="counters",
    purpose="one call under ncu: can the counters be read here",
    seconds=20,
    least_seconds=10,
    command=lambda place, seconds: place.module("counters", "--seconds", f"{seconds:.0f}"),
    tools=("ncu",),
    memory_gib=4.0,
)


def command(table: Path) -> list[str]:
    """The dram step's, with one case instead of all."""
    return [*dram.command(find_tool("ncu") or "ncu", table)[:-1], "suites.gate.one_call"]


def judge(text: str, status: int | None) -> Verdict:
    """Passed when ncu saw the call read something."""
    if reason := why_no_counters(text):
        return Verdict("not_run", f"this machine's counters cannot be read: {reason}")
    if status is None:
        return Verdict("unfinished", "ncu did not end within its time")
    try:
        seen = by_call(profiled(text)).get(1, [])
    except ValueError as error:
        return Verdict("failed", f"exit status {status}: {error}")
    if not seen or not seen[0].read_bytes:
        return Verdict("failed", f"exit status {status}: ncu did not see the call")
    share = seen[0].read_bytes / CASE.weight_bytes
    figures = {"share_read": share, "seconds": seen[0].seconds, "kernels": seen[0].kernels}
    return Verdict("passed", f"{CASE.name}: {share:.3f} of its weights read from DRAM", figures)


def main(argv: Sequence[str] | None = None) -> int:
    """Profile one case."""
    asked = options(__doc__, argv, seconds=True)
    table: Path = asked.out / "ncu-one-call.csv"
    sys.stdout.flush()
    status = run_limited(command(table), sys.stdout.buffer, asked.seconds - MARGIN_SECONDS, {})
    text = table.read_text(errors="replace") if table.exists() else ""
    return leave(judge(text, status), asked.verdict)


if __name__ == "__main__":
    sys.exit(main())

"""Hazards in shared memory, by compute-sanitizer's racecheck: reported by kernel beside a control, and not judged.

Racecheck reports write-after-write where warps that hold the same value all store it, as Triton's reductions across
warps do: no race. The control is such a reduction and nothing else, so a kernel with hazards of its kind alone is as
sound as `tl.sum`.
"""

import sys
from collections.abc import Iterable
from typing import Any

from suites.gate.sanitizer import CONTROL, Check, Finding, Findings, ended
from suites.gate.step import TORCH, Step, Verdict

STEP = Step(
    name="racecheck",
    purpose="compute-sanitizer racecheck: hazards by kernel beside a plain tl.sum, reported only, and a planted race",
    seconds=150,
    least_seconds=75,
    command=lambda place, seconds: place.module("racecheck", "--seconds", f"{seconds:.0f}"),
    packages=(*TORCH, "cupy"),
    tools=("compute-sanitizer",),
)


def by_kernel(found: Iterable[Finding]) -> dict[str, dict[str, int]]:
    """Hazards and records of each kernel, and the hazards in which one access is a read."""
    kernels: dict[str, dict[str, int]] = {}
    for one in found:
        row = kernels.setdefault(one.kernel, {"hazards": 0, "with_reads": 0, "records": 0})
        row["hazards"] += one.hazards
        row["with_reads"] += one.hazards if one.reads else 0
        row["records"] += 1
    return kernels


def judge(planted: Findings, ours: Findings) -> Verdict:
    """Never failed for a hazard: passed at the end of the exercise. A wrong result of a kernel is one here too."""
    hazards = by_kernel(ours.found)
    control = hazards.pop(CONTROL, None)
    figures: dict[str, Any] = {
        "planted_errors": len(planted.found),
        "hazards": hazards,
        "control": control,
        "wrong": len(ours.wrong),
        "calls_ended": len(ours.results),
        "calls": ours.calls,
    }
    rows = [f"{name} {_told(row)}" for name, row in sorted(hazards.items())]
    ran = any(CONTROL.strip("_") in line for line in ours.results)
    beside = f"hazards, reported only: {', '.join(rows) or 'none'}; the control tl.sum: "
    beside += _told(control) if control else "none" if ran else "not run"
    told = f"the planted race was seen; {beside}; {ours.progress}"
    if ours.wrong:
        return Verdict("failed", f"racecheck: {len(ours.wrong)} results wrong; first: {ours.wrong[0]}; {told}", figures)
    if ours.status is None:
        return Verdict("unfinished", f"{ended('racecheck', ours)}: {told}; last line: {ours.last}", figures)
    if ours.status or not ours.summarised:
        broke = f"the exercise ended with status {ours.status}; last line: {ours.last}"
        return Verdict("unfinished", f"racecheck: {broke}; {told}", figures)
    return Verdict("passed", f"racecheck: {told}", figures)


def _told(row: dict[str, int]) -> str:
    return f"{row['hazards']} ({row['with_reads']} with reads)" if row["with_reads"] else f"{row['hazards']}"


CHECK = Check(
    tool="racecheck",
    fault="race",
    unseen=Verdict("not_run", "racecheck did not see the planted race: says nothing"),
    judge=judge,
)

if __name__ == "__main__":
    sys.exit(CHECK.main(__doc__))

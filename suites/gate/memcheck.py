"""No access out of bounds: compute-sanitizer's memcheck over every kernel of ours at sizes with ragged edges."""

import sys

from suites.gate.sanitizer import Check, Findings, ended
from suites.gate.step import Step, Verdict

STEP = Step(
    name="memcheck",
    purpose="compute-sanitizer memcheck over our kernels, and over a planted access out of bounds",
    seconds=150,
    least_seconds=75,
    command=lambda place, seconds: place.module("memcheck", "--seconds", f"{seconds:.0f}"),
    tools=("compute-sanitizer",),
)


def judge(planted: Findings, ours: Findings) -> Verdict:
    """Passed when nothing is wrong in our kernels, and the exercise came to its end."""
    kernels = sorted({one.kernel for one in ours.found})
    figures = {
        "planted_errors": len(planted.found),
        "errors": len(ours.found),
        "kernels": kernels,
        "wrong": len(ours.found) + len(ours.wrong),
        "calls_ended": len(ours.results),
        "calls": ours.calls,
    }
    cut = f"; {ended('memcheck', ours)}, {ours.progress}" if ours.status is None else ""
    if ours.found:
        told = f"{len(ours.found)} errors in {', '.join(kernels)}; first: {ours.found[0].title}"
        return Verdict("failed", f"memcheck: {told}{cut}", figures)
    if ours.wrong:
        return Verdict("failed", f"memcheck: {len(ours.wrong)} results wrong; first: {ours.wrong[0]}{cut}", figures)
    if ours.status is None:
        told = f"{ours.progress} without an error; the planted fault was seen; last line: {ours.last}"
        return Verdict("unfinished", f"{ended('memcheck', ours)}: {told}", figures)
    if ours.status or not ours.summarised:
        told = f"the exercise of our kernels ended with status {ours.status}, {ours.progress}; last line: {ours.last}"
        return Verdict("failed", f"memcheck: {told}", figures)
    return Verdict("passed", f"memcheck: the planted fault was seen, no error in our kernels, {ours.progress}", figures)


CHECK = Check(
    tool="memcheck",
    fault="out_of_bounds",
    unseen=Verdict("failed", "memcheck did not see the planted fault, so its silence on our kernels means nothing"),
    judge=judge,
)

if __name__ == "__main__":
    sys.exit(CHECK.main(__doc__))

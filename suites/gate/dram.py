"""Cold is cold: the bytes that each call reads from DRAM, counted by ncu, against the bytes of its weights."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from specs.ncu import DURATION, READ, profiled
from suites.gate.cases import PROFILED, READ_CASES
from suites.gate.machine import find_tool
from suites.gate.ncu import CallCounters, by_call, most_passes, whole_calls, why_no_counters
from suites.gate.process import run_limited
from suites.gate.program import leave, options
from suites.gate.step import Outcome, Step, Verdict

LEAST_SHARE = 0.97
"""Of the weight bytes: less, and some came out of a cache."""
READ_SECONDS = 2.0
GRACE_SECONDS = 4.0
"""From the interrupt, at which ncu can still write its table, to the kill; shorter than the gate gives this program."""

STEP = Step(
    name="dram",
    purpose="DRAM bytes that a call reads, by ncu, at least 0.97 of its weights: ours, cuBLAS and cuBLASLt",
    seconds=35,
    least_seconds=20,
    command=lambda place, seconds: place.module("dram", "--seconds", f"{seconds:.0f}"),
    tools=("ncu",),
)


def command(ncu: str, table: Path) -> list[str]:
    """The profiled program under ncu; clocks and caches are left alone."""
    switches = ["--target-processes", "application-only", "--profile-from-start", "off"]
    untouched = ["--clock-control", "none", "--cache-control", "none"]
    written = ["--csv", "--print-units", "base", "--log-file", str(table), "--metrics", f"{READ},{DURATION}"]
    return [ncu, *switches, *untouched, *written, sys.executable, "-m", "suites.gate.profiled_calls"]


def judge(calls: Mapping[int, Sequence[CallCounters]], passes: int) -> Verdict:
    """Every judged call read what it had to. Numbers are places in PROFILED, from 1."""
    figures: dict[str, dict[str, float]] = {}
    for number, case in enumerate(PROFILED, start=1):
        if counted := calls.get(number):
            figures[case.name] = {
                "least_share_read": min(one.read_bytes for one in counted) / case.weight_bytes,
                "mean_seconds": fmean(one.seconds for one in counted),
                "kernels_a_call": max(one.kernels for one in counted),
            }
    shares = {case.name: figures[case.name]["least_share_read"] for case in READ_CASES if case.name in figures}
    if not shares:
        return Verdict("failed", "ncu saw none of the calls", figures)
    unseen = [case.name for case in READ_CASES if case.name not in figures]
    if not {"triton", "torch"} <= {case.implementation for case in READ_CASES if case.name in shares}:
        return Verdict("failed", f"ncu did not see both ours and cuBLAS; not seen: {', '.join(unseen)}", figures)
    low = [f"{name} {share:.3f}" for name, share in shares.items() if share < LEAST_SHARE]
    note = f"; ncu ran kernels {passes} times over, later runs may be warm" if passes > 1 else ""
    note += f"; not seen: {', '.join(unseen)}" if unseen else ""
    if low:
        return Verdict("failed", f"under {LEAST_SHARE} of the weights from DRAM: {', '.join(low)}{note}", figures)
    least = min(shares, key=lambda name: shares[name])
    return Verdict("passed", f"{len(shares)} cases, least {shares[least]:.3f} of the weights ({least}){note}", figures)


def read_table(text: str, ended: str | None = None) -> Verdict:
    """The verdict on ncu's file.

    Args:
        text: the file.
        ended: why ncu did not come to its end; None when it did.
    """
    if reason := why_no_counters(text):
        return Verdict("not_run", f"this machine's counters cannot be read: {reason}")
    if ended is None:
        try:
            return judge(by_call(profiled(text)), most_passes(text))
        except ValueError as error:
            unreadable = str(error)
    try:
        short = judge(by_call(profiled(whole_calls(text))), most_passes(text))
    except ValueError as error:
        return Verdict("failed", unreadable) if ended is None else Verdict("unfinished", f"{ended}; {error}")
    return cut_off(short, ended or f"ncu's table is cut off: {unreadable}")


def cut_off(short: Verdict, ended: str) -> Verdict:
    """The verdict on a table without its end: too few bytes fail it, enough of them are no pass."""
    shares = [short.figures[case.name]["least_share_read"] for case in READ_CASES if case.name in short.figures]
    outcome: Outcome = "failed" if min(shares, default=1.0) < LEAST_SHARE else "unfinished"
    return Verdict(outcome, f"{ended}; the calls before that: {short.detail}", short.figures)


def main(argv: Sequence[str] | None = None) -> int:
    """Profile, read, judge."""
    began, asked = time.monotonic(), options(__doc__, argv, seconds=True)
    table: Path = asked.out / "ncu.csv"
    table.unlink(missing_ok=True)
    limit = max(1.0, asked.seconds - (time.monotonic() - began) - READ_SECONDS - GRACE_SECONDS)
    sys.stdout.flush()
    watched = command(find_tool("ncu") or "ncu", table)
    try:
        status = run_limited(watched, sys.stdout.buffer, limit, {}, GRACE_SECONDS)
        ended = f"ncu did not end within {limit:.0f} s" if status is None else None
    except KeyboardInterrupt:  # the gate ends this step: what was seen is still told
        status, ended = None, "ncu was interrupted"
    verdict = read_table(table.read_text(errors="replace") if table.exists() else "", ended)
    if verdict.outcome == "passed" and status:
        verdict = Verdict("failed", f"ncu ended with status {status}; before that: {verdict.detail}", verdict.figures)
    return leave(verdict, asked.verdict)


if __name__ == "__main__":
    sys.exit(main())

"""DRAM bytes that each cold call reads, by ncu, against the bytes of its weights."""

import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from specs.layer import DEFAULT_MODEL
from specs.models import find_model
from specs.ncu import DURATION_METRIC, READ_METRIC, ProfiledKernel, parse_kernels
from specs.parallel import Split
from specs.units import ITEMSIZE
from suites.gate.machine import find_tool
from suites.gate.step import Outcome, Step, Verdict, parse_options, run_limited, run_step, timed_program, write_verdict

# Linears that the counters and clocks are checked at: Llama-3-70B, bf16, decode.

DTYPE = "bf16"


def _shard_shape(layer: str, tp: int) -> tuple[int, int]:
    one = Split(find_model(DEFAULT_MODEL), tp).linear(layer)
    return one.n, one.k


SHARDED_LAYERS = (("o", 8), ("qkv", 4), ("down", 8), ("gate_up", 8), ("gate_up", 2), ("gate_up", 1))
SHARD_SHAPES = {"small": (1024, 1024), **{f"{layer}-tp{tp}": _shard_shape(layer, tp) for layer, tp in SHARDED_LAYERS}}
"""(n, k) by name; `small` costs little more than a launch."""


@dataclass(frozen=True)
class GateCase:
    """Linear of one shard by one implementation."""

    shard: str
    tokens: int
    implementation: str

    @property
    def name(self) -> str:
        """Name of the case in figures."""
        return f"{self.shard}-m{self.tokens}-{self.implementation}"

    @property
    def shape(self) -> dict[str, int]:
        """Arguments of a kernel: tokens, n, k."""
        n, k = SHARD_SHAPES[self.shard]
        return {"tokens": self.tokens, "n": n, "k": k}

    @property
    def weight_bytes(self) -> int:
        """Bytes of W[n, k], which one call has to read from memory."""
        n, k = SHARD_SHAPES[self.shard]
        return n * k * ITEMSIZE[DTYPE]


CLOCK_CASES = tuple(
    GateCase(shard, 1, implementation)
    for implementation, shards in {
        "triton": ("small", "o-tp8", "qkv-tp4", "gate_up-tp8", "gate_up-tp2", "gate_up-tp1"),
        "torch": ("o-tp8", "gate_up-tp8", "gate_up-tp1"),
    }.items()
    for shard in shards
)
"""Cases of the clocks, from little more than a launch to far above 200 us."""

READ_CASES = tuple(
    GateCase(shard, tokens, implementation)
    for shard in ("o-tp8", "qkv-tp4", "down-tp8", "gate_up-tp8")
    for tokens in (1, 16)
    for implementation in ("triton", "cuda", "torch", "cublaslt")
    if tokens == 1 or implementation != "cuda"
)
"""Cases whose read bytes are judged.

Each is far beyond the 4 MB that a call reads and writes besides its weights.
"""

PROFILED_CASES = tuple(dict.fromkeys((*READ_CASES, *CLOCK_CASES)))
"""Cases that ncu sees; a case's place, from 1, is the number of its mark."""


def benchmark_name(case: str, mode: str, calls: int) -> str:
    """Name of a case in NVBench: case, mode, and calls per launch."""
    return f"{case}.{mode}.{calls}"


# Reader of Nsight Compute's table: the kernels of each call, behind the mark that precedes it.

MARK_KERNEL = "_gate_mark"
"""Kernel before every profiled call; its grid has the call's number of programs."""

NO_COUNTERS_MESSAGES = (
    "ERR_NVGPUCTRPERM",
    "Failed to initialize the profiler",
    "Profiling is not supported",
    "LibraryNotLoaded",
)
"""Messages of ncu where the machine denies access to its counters."""


@dataclass(frozen=True)
class CallCounters:
    """Counters of one call, summed over its kernels."""

    read_bytes: float
    seconds: float
    kernels: int


def why_no_counters(text: str) -> str | None:
    """Line of ncu that says why it could not measure; None where it could."""
    lines = (line.strip() for line in text.splitlines() if line.startswith("==ERROR=="))
    return next((line for line in lines if any(word in line for word in NO_COUNTERS_MESSAGES)), None)


def max_passes(text: str) -> int:
    """Number of times that ncu ran a kernel to read all metrics.

    With more than one pass, later runs may find warm caches.
    """
    return max((int(count) for count in re.findall(r"100% - (\d+) pass", text)), default=1)


def complete_calls(text: str) -> str:
    """Table without its last call, whose kernels may be missing if ncu was cut off."""
    lines = text.splitlines()
    marks = [number for number, line in enumerate(lines) if line.startswith('"') and MARK_KERNEL in line]
    if not marks:
        return ""
    last = lines[marks[-1]].split(",")[0]  # all rows of one kernel begin with its number
    return "\n".join(lines[: next(number for number in marks if lines[number].split(",")[0] == last)])


def counters_by_call(kernels: Iterable[ProfiledKernel]) -> dict[int, list[CallCounters]]:
    """Calls by number, counting from 1; kernels before the first mark are left out."""
    calls: dict[int, list[CallCounters]] = {}
    for number, members in _between_marks(kernels):
        read, seconds = sum(one.read_bytes or 0.0 for one in members), sum(one.seconds for one in members)
        calls.setdefault(number, []).append(CallCounters(read, seconds, len(members)))
    return calls


def _between_marks(kernels: Iterable[ProfiledKernel]) -> Iterator[tuple[int, list[ProfiledKernel]]]:
    number, members = 0, list[ProfiledKernel]()
    for one in kernels:
        if MARK_KERNEL in one.kernel:
            if members:
                yield number, members
            number, members = one.programs, []
        elif number:
            members.append(one)
    if members:
        yield number, members


MIN_READ_SHARE = 0.97
"""Least share of the weight bytes; below it some bytes came out of a cache."""
READ_SECONDS = 2.0
GRACE_SECONDS = 4.0
"""Seconds from interrupt to kill, in which ncu can still write its table.

This program's own grace is longer.
"""

DRAM_STEP = Step(
    name="dram",
    purpose="DRAM bytes that a call reads, by ncu, at least 0.97 of its weights: ours, cuBLAS and cuBLASLt",
    seconds=35,
    least_seconds=20,
    command=timed_program("dram", "dram"),
    tools=("ncu",),
)


def ncu_command(ncu: str, table: Path) -> list[str]:
    """Command of the profiled program under ncu; clocks and caches are left alone."""
    switches = ["--target-processes", "application-only", "--profile-from-start", "off"]
    untouched = ["--clock-control", "none", "--cache-control", "none"]
    written = [
        "--csv",
        "--print-units",
        "base",
        "--log-file",
        str(table),
        "--metrics",
        f"{READ_METRIC},{DURATION_METRIC}",
    ]
    return [ncu, *switches, *untouched, *written, sys.executable, "-m", "suites.gate.watched_calls", "ncu"]


def judge_dram(calls: Mapping[int, Sequence[CallCounters]], passes: int) -> Verdict:
    """Pass where every judged call read its weights from DRAM.

    Call numbers are places in `PROFILED_CASES`, from 1.
    """
    figures: dict[str, dict[str, float]] = {}
    for number, case in enumerate(PROFILED_CASES, start=1):
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
    low = [f"{name} {share:.3f}" for name, share in shares.items() if share < MIN_READ_SHARE]
    note = f"; ncu ran kernels {passes} times over, later runs may be warm" if passes > 1 else ""
    note += f"; not seen: {', '.join(unseen)}" if unseen else ""
    if low:
        return Verdict("failed", f"under {MIN_READ_SHARE} of the weights from DRAM: {', '.join(low)}{note}", figures)
    least = min(shares, key=lambda name: shares[name])
    return Verdict("passed", f"{len(shares)} cases, least {shares[least]:.3f} of the weights ({least}){note}", figures)


def judge_table(text: str, ended: str | None = None) -> Verdict:
    """Verdict on ncu's file.

    Args:
        text: content of the file.
        ended: why ncu did not finish; None where it did.
    """
    if reason := why_no_counters(text):
        return Verdict("not_run", f"this machine's counters cannot be read: {reason}")
    if ended is None:
        try:
            return judge_dram(counters_by_call(parse_kernels(text)), max_passes(text))
        except ValueError as error:
            unreadable = str(error)
    try:
        short = judge_dram(counters_by_call(parse_kernels(complete_calls(text))), max_passes(text))
    except ValueError as error:
        return Verdict("failed", unreadable) if ended is None else Verdict("unfinished", f"{ended}; {error}")
    return judge_cut_off(short, ended or f"ncu's table is cut off: {unreadable}")


def judge_cut_off(short: Verdict, ended: str) -> Verdict:
    """Verdict on a table without its end: failed for too few bytes, else unfinished."""
    shares = [short.figures[case.name]["least_share_read"] for case in READ_CASES if case.name in short.figures]
    outcome: Outcome = "failed" if min(shares, default=1.0) < MIN_READ_SHARE else "unfinished"
    return Verdict(outcome, f"{ended}; the calls before that: {short.detail}", short.figures)


def main_dram(argv: Sequence[str] | None = None) -> int:
    """Profile the calls and write the verdict."""
    began, asked = time.monotonic(), parse_options(__doc__, argv, seconds=True)
    table: Path = asked.out / "ncu.csv"
    table.unlink(missing_ok=True)
    limit = max(1.0, asked.seconds - (time.monotonic() - began) - READ_SECONDS - GRACE_SECONDS)
    sys.stdout.flush()
    watched = ncu_command(find_tool("ncu") or "ncu", table)
    try:
        status = run_limited(watched, sys.stdout.buffer, limit, {}, GRACE_SECONDS)
        ended = f"ncu did not end within {limit:.0f} s" if status is None else None
    except KeyboardInterrupt:  # the gate ends this step: calls so far are still reported
        status, ended = None, "ncu was interrupted"
    verdict = judge_table(table.read_text(errors="replace") if table.exists() else "", ended)
    if verdict.outcome == "passed" and status:
        verdict = Verdict("failed", f"ncu ended with status {status}; before that: {verdict.detail}", verdict.figures)
    return write_verdict(verdict, asked.verdict)


# Counters step: one call of ours under ncu, to find out whether this GPU's counters can be read.

COUNTERS_CASE = PROFILED_CASES[0]
MARGIN_SECONDS = 3.0

COUNTERS_STEP = Step(
    name="counters",
    purpose="one call under ncu: can the counters be read here",
    seconds=20,
    least_seconds=10,
    command=timed_program("counters", "dram"),
    tools=("ncu",),
    memory_gib=4.0,
)


def counters_command(table: Path) -> list[str]:
    """Command of the dram step, with one case instead of all."""
    return [*ncu_command(find_tool("ncu") or "ncu", table), "--cases", "1"]


def judge_counters(text: str, status: int | None) -> Verdict:
    """Pass where ncu saw the call read bytes."""
    if reason := why_no_counters(text):
        return Verdict("not_run", f"this machine's counters cannot be read: {reason}")
    if status is None:
        return Verdict("unfinished", "ncu did not end within its time")
    try:
        seen = counters_by_call(parse_kernels(text)).get(1, [])
    except ValueError as error:
        return Verdict("failed", f"exit status {status}: {error}")
    if not seen or not seen[0].read_bytes:
        return Verdict("failed", f"exit status {status}: ncu did not see the call")
    share = seen[0].read_bytes / COUNTERS_CASE.weight_bytes
    figures = {"share_read": share, "seconds": seen[0].seconds, "kernels": seen[0].kernels}
    return Verdict("passed", f"{COUNTERS_CASE.name}: {share:.3f} of its weights read from DRAM", figures)


def main_counters(argv: Sequence[str] | None = None) -> int:
    """Profile one case and write the verdict."""
    asked = parse_options(__doc__, argv, seconds=True)
    table: Path = asked.out / "ncu-one-call.csv"
    sys.stdout.flush()
    status = run_limited(counters_command(table), sys.stdout.buffer, asked.seconds - MARGIN_SECONDS, {})
    text = table.read_text(errors="replace") if table.exists() else ""
    return write_verdict(judge_counters(text, status), asked.verdict)


if __name__ == "__main__":
    sys.exit(run_step({"dram": main_dram, "counters": main_counters}))

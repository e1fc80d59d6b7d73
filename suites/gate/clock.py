"""Our two clocks against NVBench's two and ncu, on the same calls."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from suites.gate.dram import CLOCK_CASES, PROFILED_CASES, judge_table
from suites.gate.step import Step, Verdict, parse_options, run_limited, timed_program, write_verdict

# Reader of NVBench's --json file: means of its cold and its batch measurement.

COLD_TAG, BATCH_TAG = "nv/cold/time/gpu/mean", "nv/batch/time/gpu/mean"


def read_nvbench(path: Path) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Read ({case: {mode: seconds per call}}, {case and mode: reason for no time}).

    Raises:
        ValueError: the file is no NVBench result.
    """
    try:
        benchmarks = json.loads(path.read_text())["benchmarks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is no NVBench result ({type(error).__name__})") from error
    times: dict[str, dict[str, float]] = {}
    without: dict[str, str] = {}
    for benchmark in benchmarks:
        case, mode, calls = benchmark["name"].rsplit(".", 2)
        for state in benchmark["states"]:
            mean = None if state.get("is_skipped") else _mean(state, BATCH_TAG if mode == "batch" else COLD_TAG)
            if mean is None:
                without[f"{case} {mode}"] = state.get("skip_reason") or "no time in it"
            else:
                times.setdefault(case, {})[mode] = mean / int(calls)
    return times, without


def _mean(state: dict[str, Any], tag: str) -> float | None:
    """Mean under a tag; None without one.

    NVBench writes numbers as strings: {"name": "value", "type": "float64", "value": "1.2e-05"}.
    """
    for summary in state.get("summaries") or ():
        if summary["tag"] == tag:
            return next((float(one["value"]) for one in summary["data"] if one["name"] == "value"), None)
    return None


# Agreement of two clocks: tolerances and comparisons.

NVBENCH_TOLERANCE, NVBENCH_MIN_SECONDS = 0.03, 50e-6
"""Tolerance against NVBench: 3 %, for times above 50 us.

Below that the cost of an event is a share of the time.
"""
NCU_TOLERANCE, NCU_TOLERANCE_SECONDS = 0.03, 1.5e-6
"""Tolerance against ncu: 3 % plus 1.5 us.

The duration of ncu leaves out the time between two kernels.
"""

TimesByCase = Mapping[str, Mapping[str, float]]
"""Seconds per call by case, then by clock."""


@dataclass(frozen=True)
class ClockComparison:
    """Two clocks on one case.

    Attributes:
        case: name of the case.
        ours: chain or isolated.
        other: nvbench batch, nvbench cold or ncu.
        seconds: by our clock.
        other_seconds: by the other clock.
        limit_seconds: largest accepted difference; None where the pair is only reported.
    """

    case: str
    ours: str
    other: str
    seconds: float
    other_seconds: float
    limit_seconds: float | None

    @property
    def offset_seconds(self) -> float:
        """Our time less the other clock's."""
        return self.seconds - self.other_seconds

    @property
    def agrees(self) -> bool | None:
        """True within the limit; None without a limit."""
        return None if self.limit_seconds is None else abs(self.offset_seconds) <= self.limit_seconds

    def __str__(self) -> str:
        offset, share = 1e6 * self.offset_seconds, self.offset_seconds / self.other_seconds
        return (
            f"{self.case} {self.ours} {1e6 * self.seconds:.2f} us is {offset:+.2f} us ({share:+.1%}) off {self.other}"
        )

    def record(self) -> dict[str, Any]:
        """JSON record for gate.json."""
        return asdict(self) | {"offset_seconds": self.offset_seconds, "agrees": self.agrees}


def compare_clocks(ours: TimesByCase, nvbench: TimesByCase, ncu: Mapping[str, float]) -> list[ClockComparison]:
    """Compare chain with batch, isolated with cold, and both with ncu.

    Only the chain, the suites' clock, has a limit against ncu.
    """
    found = []
    for case, own in ours.items():
        for clock, mode in {"chain": "batch", "isolated": "cold"}.items():
            if clock in own and (theirs := nvbench.get(case, {}).get(mode)):
                limit = NVBENCH_TOLERANCE * theirs if theirs > NVBENCH_MIN_SECONDS else None
                found.append(ClockComparison(case, clock, f"nvbench {mode}", own[clock], theirs, limit))
            if clock in own and (duration := ncu.get(case)):
                limit = NCU_TOLERANCE_SECONDS + NCU_TOLERANCE * duration if clock == "chain" else None
                found.append(ClockComparison(case, clock, "ncu", own[clock], duration, limit))
    return found


def judge_clocks(
    ours: TimesByCase, found: Sequence[ClockComparison], missing: Sequence[str], cut: Sequence[str] = ()
) -> Verdict:
    """Verdict that names disagreeing pairs without failing.

    No GPU has shown yet how far apart sound clocks are.

    Args:
        ours: our times.
        found: pairs of clocks.
        missing: comparisons not made, and why.
        cut: tools that ended at their limit.
    """
    judged = [pair for pair in found if pair.agrees is not None]
    apart = [str(pair) for pair in judged if not pair.agrees]
    figures = {
        "ours": {case: dict(own) for case, own in ours.items()},
        "pairs": [pair.record() for pair in found],
        "apart": len(apart),
    }
    beside = "".join(f"; not run: {reason}" for reason in missing) + "".join(f"; {reason}" for reason in cut)
    if not judged:
        return Verdict("unfinished" if cut else "not_run", f"nothing to compare with{beside}", figures)
    if apart:
        told = f"{len(apart)} of {len(judged)} apart, reported and not judged: {', '.join(apart)}"
    else:
        furthest = max(judged, key=lambda pair: abs(pair.offset_seconds) / (pair.limit_seconds or 1))
        told = f"all {len(judged)} agree; furthest: {furthest}"
    return Verdict("unfinished" if cut else "passed", f"{told}{beside}", figures)


STEP = Step(
    name="clock",
    purpose="our chain and isolated clocks against NVBench's batch and cold, and against ncu's durations",
    seconds=45,
    least_seconds=25,
    command=timed_program("clock"),
    optional=("cuda.bench", "cuda.bindings"),
)

ISOLATED_ROUNDS = 100
RESERVE_SECONDS = 3.0
"""Seconds to read NVBench's file."""
GRACE_SECONDS = 4.0
"""Seconds from interrupt to kill of NVBench; shorter than this program's own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Time our clocks first: their times stay when NVBench does not end."""
    began, asked = time.monotonic(), parse_options(__doc__, argv, seconds=True)

    def keep(times: TimesByCase) -> None:
        told = f"{len(times)} of {len(CLOCK_CASES)} cases timed, none compared yet"
        write_verdict(Verdict("unfinished", told, {"ours": dict(times)}), asked.verdict)

    ours, missing = measure_times(keep)
    durations, no_ncu = read_ncu_durations(asked.out / "ncu.csv")
    missing += [no_ncu] if no_ncu else []
    write_verdict(judge_clocks(ours, compare_clocks(ours, {}, durations), missing), asked.verdict)
    left = asked.seconds - (time.monotonic() - began) - RESERVE_SECONDS
    theirs = run_nvbench(asked.out / "nvbench.json", left)
    found = compare_clocks(ours, theirs.times, durations)
    for pair in found:
        print(pair, flush=True)  # noqa: T201 - a program's output
    return write_verdict(judge_clocks(ours, found, [*missing, *theirs.missing], theirs.limit_reasons), asked.verdict)


def measure_times(keep: Callable[[TimesByCase], None]) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Time our clocks; call `keep` with the times after each case.

    Return ({case: {chain, isolated: mean seconds per call}}, reasons for missing cases).
    """
    import torch

    from kernels.timing.cuda import CudaTimer
    from kernels.timing.device import current_device
    from suites.gate.watched_calls import find_kernel, make_calls, make_pool, time_isolated

    device, times, missing = current_device(), dict[str, dict[str, float]](), list[str]()
    pool = make_pool(device, CLOCK_CASES)
    for case in CLOCK_CASES:
        kernel = find_kernel(case, device)
        if isinstance(kernel, str):
            missing.append(f"{case.name}: {kernel}")
            continue
        with torch.inference_mode():
            pool.reset()
            calls = make_calls(case, kernel, pool, device.cold_copies(case.weight_bytes))
            timer = CudaTimer(device, "graph")
            timer.warm_up(calls, None)
            chain = timer.sample(4).seconds  # the time of four visits: a single pass has to suffice here
            alone = time_isolated(calls, device, ISOLATED_ROUNDS)
        times[case.name] = {"chain": sum(chain) / len(chain), "isolated": sum(alone.seconds) / len(alone.seconds)}
        told = ", ".join(f"{clock} {1e6 * seconds:.2f} us" for clock, seconds in times[case.name].items())
        print(f"{case.name}: {told}, {alone.late} late", flush=True)  # noqa: T201 - a program's output
        keep(times)
    return times, missing


def read_ncu_durations(table: Path) -> tuple[dict[str, float], str | None]:
    """Mean seconds per call over all its kernels, from the dram step; or why none."""
    if not table.exists():
        return {}, f"ncu: {table} is not there; the dram step writes it"
    verdict = judge_table(table.read_text(errors="replace"))
    names = {case.name for case in PROFILED_CASES}
    durations = {name: one["mean_seconds"] for name, one in verdict.figures.items() if name in names}
    return durations, None if durations else f"ncu: {verdict.detail}"


class NvbenchTimes(NamedTuple):
    """NVBench's means by case and clock, gaps with reasons, and exceeded limits."""

    times: TimesByCase
    missing: tuple[str, ...] = ()
    limit_reasons: tuple[str, ...] = ()


def run_nvbench(path: Path, seconds: float) -> NvbenchTimes:
    """Run NVBench in its own process, which may hang or crash."""
    if reason := why_no_nvbench():
        return NvbenchTimes({}, (f"NVBench: {reason}",))
    if seconds < 10:
        return NvbenchTimes({}, (f"NVBench: {max(0, seconds):.0f} s are left, it needs 10",))
    path.unlink(missing_ok=True)
    each = min(0.8, 0.5 * seconds / (3 * len(CLOCK_CASES)))  # a case is measured three times: cold, cold and batch
    command = [
        sys.executable,
        "-m",
        "suites.gate.watched_calls",
        "nvbench",
        "--json",
        str(path),
        "--timeout",
        f"{each:.2f}",
    ]
    sys.stdout.flush()
    limit = seconds - GRACE_SECONDS
    status = run_limited(command, sys.stdout.buffer, limit, {}, GRACE_SECONDS)
    cut = (f"NVBench did not end within {limit:.0f} s",) if status is None else ()
    try:
        times, without = read_nvbench(path)
    except ValueError as error:
        return NvbenchTimes({}, () if cut else (f"NVBench: exit status {status}, {error}",), cut)
    return NvbenchTimes(times, tuple(f"NVBench: {what}: {reason}" for what, reason in without.items()), cut)


def why_no_nvbench() -> str | None:
    """Reason why cuda-bench cannot be used here, or None."""
    try:
        found = find_spec("cuda.bench"), find_spec("cuda.bindings")
    except ImportError:
        found = None, None
    names = ("cuda-bench", "cuda-bindings")
    absent = [name for name, spec in zip(names, found, strict=True) if spec is None]
    return f"not installed: {', '.join(absent)}" if absent else None


if __name__ == "__main__":
    sys.exit(main())

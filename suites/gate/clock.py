"""Our two clocks on the same calls as NVBench's two, and as ncu."""

import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from suites.gate import agreement, nvbench
from suites.gate.cases import CLOCK_CASES, PROFILED
from suites.gate.dram import read_table
from suites.gate.process import run_limited
from suites.gate.program import leave, options
from suites.gate.step import Step, Verdict

STEP = Step(
    name="clock",
    purpose="our chain and isolated clocks against NVBench's batch and cold, and against ncu's durations",
    seconds=45,
    least_seconds=25,
    command=lambda place, seconds: place.module("clock", "--seconds", f"{seconds:.0f}"),
    optional=("cuda.bench", "cuda.bindings"),
)

ISOLATED_ROUNDS = 100
RESERVE_SECONDS = 3.0
"""For reading what NVBench wrote."""
GRACE_SECONDS = 4.0
"""From the interrupt to the kill of an NVBench that does not end; shorter than the gate gives this program."""


def main(argv: Sequence[str] | None = None) -> int:
    """Ours first: they stay when NVBench does not end."""
    began, asked = time.monotonic(), options(__doc__, argv, seconds=True)

    def keep(times: agreement.Times) -> None:
        told = f"{len(times)} of {len(CLOCK_CASES)} cases timed, none compared yet"
        leave(Verdict("unfinished", told, {"ours": dict(times)}), asked.verdict)

    ours, missing = our_times(keep)
    durations, no_ncu = ncu_durations(asked.out / "ncu.csv")
    missing += [no_ncu] if no_ncu else []
    leave(agreement.judge(ours, agreement.pairs(ours, {}, durations), missing), asked.verdict)
    left = asked.seconds - (time.monotonic() - began) - RESERVE_SECONDS
    theirs = nvbench_times(asked.out / "nvbench.json", left)
    found = agreement.pairs(ours, theirs.times, durations)
    for pair in found:
        print(pair, flush=True)  # noqa: T201 - a program's output
    return leave(agreement.judge(ours, found, [*missing, *theirs.missing], theirs.cut), asked.verdict)


def our_times(keep: Callable[[agreement.Times], None]) -> tuple[dict[str, dict[str, float]], list[str]]:
    """({case: {chain, isolated: mean seconds a call}}, what could not be timed); `keep` is told after each case."""
    import torch

    from kernels.timing.cuda import CudaTimer
    from kernels.timing.device import current_device
    from suites.gate.calls import draw_calls, kernel_of, make_pool
    from suites.gate.isolated import isolated

    device, times, missing = current_device(), dict[str, dict[str, float]](), list[str]()
    pool = make_pool(device, CLOCK_CASES)
    for case in CLOCK_CASES:
        kernel = kernel_of(case, device)
        if isinstance(kernel, str):
            missing.append(f"{case.name}: {kernel}")
            continue
        with torch.inference_mode():
            pool.forget()
            calls = draw_calls(case, kernel, pool, device.cold_copies(case.weight_bytes))
            timer = CudaTimer(device, "graph")
            timer.warm_up(calls, None)
            chain = timer.sample(4).seconds  # four visits' time: the mean of one pass has to stand alone here
            alone = isolated(calls, device, ISOLATED_ROUNDS)
        times[case.name] = {"chain": sum(chain) / len(chain), "isolated": sum(alone.seconds) / len(alone.seconds)}
        told = ", ".join(f"{clock} {1e6 * seconds:.2f} us" for clock, seconds in times[case.name].items())
        print(f"{case.name}: {told}, {alone.late} late", flush=True)  # noqa: T201 - a program's output
        keep(times)
    return times, missing


def ncu_durations(table: Path) -> tuple[dict[str, float], str | None]:
    """Mean seconds a call from the dram step's file, all kernels of a call added up; or why there are none."""
    if not table.exists():
        return {}, f"ncu: {table} is not there; the dram step writes it"
    verdict = read_table(table.read_text(errors="replace"))
    names = {case.name for case in PROFILED}
    durations = {name: one["mean_seconds"] for name, one in verdict.figures.items() if name in names}
    return durations, None if durations else f"ncu: {verdict.detail}"


class Theirs(NamedTuple):
    """NVBench's means by case and clock, what is missing among them and why, and whether its limit was the reason."""

    times: agreement.Times
    missing: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()


def nvbench_times(path: Path, seconds: float) -> Theirs:
    """NVBench's means in a process of its own, which may hang or die."""
    if reason := why_no_nvbench():
        return Theirs({}, (f"NVBench: {reason}",))
    if seconds < 10:
        return Theirs({}, (f"NVBench: {max(0, seconds):.0f} s are left, it needs 10",))
    path.unlink(missing_ok=True)
    each = min(0.8, 0.5 * seconds / (3 * len(CLOCK_CASES)))  # a case is measured three times: cold, cold and batch
    command = [sys.executable, "-m", "suites.gate.nvbench_run", "--json", str(path), "--timeout", f"{each:.2f}"]
    sys.stdout.flush()
    limit = seconds - GRACE_SECONDS
    status = run_limited(command, sys.stdout.buffer, limit, {}, GRACE_SECONDS)
    cut = (f"NVBench did not end within {limit:.0f} s",) if status is None else ()
    try:
        times, without = nvbench.seconds_by_case(path)
    except ValueError as error:
        return Theirs({}, () if cut else (f"NVBench: exit status {status}, {error}",), cut)
    return Theirs(times, tuple(f"NVBench: {what}: {reason}" for what, reason in without.items()), cut)


def why_no_nvbench() -> str | None:
    """Why cuda-bench cannot be used here."""
    try:
        found = find_spec("cuda.bench"), find_spec("cuda.bindings")
    except ImportError:
        found = None, None
    names = ("cuda-bench", "cuda-bindings")
    absent = [name for name, spec in zip(names, found, strict=True) if spec is None]
    return f"not installed: {', '.join(absent)}" if absent else None


if __name__ == "__main__":
    sys.exit(main())

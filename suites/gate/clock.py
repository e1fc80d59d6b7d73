"""Our two clocks on the same calls as NVBench's two, and as ncu: do they agree?"""

import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from suites.gate import agreement, nvbench
from suites.gate.cases import CLOCK_CASES, PROFILED
from suites.gate.dram import read_table
from suites.gate.program import leave, options
from suites.gate.step import Step

STEP = Step(
    name="clock",
    purpose="our chain and isolated clocks against NVBench's batch and cold, and against ncu's durations",
    seconds=45,
    least_seconds=25,
    command=lambda place, seconds: place.module("clock", "--seconds", f"{seconds:.0f}"),
    optional=("cuda.bench", "cuda.bindings"),
)

ISOLATED_ROUNDS = 100
RESERVE_SECONDS = 6.0
"""For reading what NVBench wrote."""


def main(argv: Sequence[str] | None = None) -> int:
    """Ours first: they stay when NVBench does not end."""
    began, asked = time.monotonic(), options(__doc__, argv, seconds=True)
    ours, missing = our_times()
    durations, no_ncu = ncu_durations(asked.out / "ncu.csv")
    missing += [no_ncu] if no_ncu else []
    leave(agreement.judge(ours, agreement.pairs(ours, {}, durations), missing), asked.verdict)
    left = asked.seconds - (time.monotonic() - began) - RESERVE_SECONDS
    theirs, no_nvbench = nvbench_times(asked.out / "nvbench.json", left)
    missing += [no_nvbench] if no_nvbench else []
    found = agreement.pairs(ours, theirs, durations)
    for pair in found:
        print(pair, flush=True)  # noqa: T201 - a program's output
    return leave(agreement.judge(ours, found, missing), asked.verdict)


def our_times() -> tuple[dict[str, dict[str, float]], list[str]]:
    """({case: {chain, isolated: mean seconds a call}}, what could not be timed)."""
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
    return times, missing


def ncu_durations(table: Path) -> tuple[dict[str, float], str | None]:
    """Mean seconds a call from the dram step's file, all kernels of a call added up; or why there are none."""
    if not table.exists():
        return {}, f"ncu: {table} is not there; the dram step writes it"
    verdict = read_table(table.read_text(errors="replace"))
    names = {case.name for case in PROFILED}
    durations = {name: one["mean_seconds"] for name, one in verdict.figures.items() if name in names}
    return durations, None if durations else f"ncu: {verdict.detail}"


def nvbench_times(path: Path, seconds: float) -> tuple[agreement.Times, str | None]:
    """NVBench's means in a process of its own, which may hang or die; or why there are none."""
    if reason := why_no_nvbench():
        return {}, f"NVBench: {reason}"
    if seconds < 10:
        return {}, f"NVBench: {max(0, seconds):.0f} s are left, it needs 10"
    path.unlink(missing_ok=True)
    each = min(0.8, 0.5 * seconds / (3 * len(CLOCK_CASES)))  # a case is measured three times: cold, cold and batch
    command = [sys.executable, "-m", "suites.gate.nvbench_run", "--json", str(path), "--timeout", f"{each:.2f}"]
    try:
        status = subprocess.run(command, timeout=seconds).returncode  # noqa: S603 - our own program
    except subprocess.TimeoutExpired:
        return {}, f"NVBench: not done after {seconds:.0f} s"
    try:
        times, without = nvbench.seconds_by_case(path)
    except ValueError as error:
        return {}, f"NVBench: exit status {status}, {error}"
    return times, "; ".join(f"NVBench: {what}: {reason}" for what, reason in without.items()) or None


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

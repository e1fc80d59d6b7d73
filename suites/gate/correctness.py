"""Correctness steps: kernels against references, split-K, implementations.

The correctness step runs before any time is measured, on several workers at once.
"""

import json
import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from suites.gate.step import (
    PYTEST_PACKAGES,
    QUIET_PYTEST,
    TORCH_PACKAGES,
    WIDE_TERMINAL,
    GateContext,
    Step,
    Verdict,
    judge_pytest,
    parse_options,
    run_limited,
    run_step,
    timed_program,
    write_verdict,
)

# Arrival step: in split-K the last program to arrive adds up all partials, in one fixed order.

ARRIVAL_TEST = "tests/gpu/test_arrival.py"

ARRIVAL_STEP = Step(
    name="arrival",
    purpose="split-K arrivals under random delays and NaN-poisoned partials: 1,000 runs, the same bits",
    seconds=45,
    least_seconds=15,
    command=lambda context, _: [context.python, "-m", "pytest", ARRIVAL_TEST, *QUIET_PYTEST],
    packages=PYTEST_PACKAGES,
    environment=WIDE_TERMINAL,
    judge=judge_pytest,
)


MAX_WORKERS = 8
WORKER_GIB = 8.0
"""GPU memory of a worker: context, largest operands, their float64 reference."""


def worker_count(cores: int, free_gib: float | None) -> int:
    """Number of test workers: limited by cores, GPU memory and 8."""
    fit = MAX_WORKERS if free_gib is None else int(free_gib / WORKER_GIB)
    return max(1, min(MAX_WORKERS, cores, fit))


def pytest_command(count: int) -> list[str]:
    """Command for all of tests/gpu but arrival.

    With `loadgroup`, xdist 3.8 can wait for ever when two workers end at the same time.
    """
    spread = ["-n", str(count), "--dist", "worksteal"] if count > 1 else []
    return [sys.executable, "-m", "pytest", "tests/gpu", f"--ignore={ARRIVAL_TEST}", *QUIET_PYTEST, *spread]


def main_correctness(argv: Sequence[str] | None = None) -> NoReturn:
    """Replace this process with pytest, on as many workers as fit the machine."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--free-gib", type=float, help="GPU memory that is free")
    asked = parser.parse_args(argv)
    count = worker_count(len(os.sched_getaffinity(0)), asked.free_gib)
    if count > 1 and find_spec("xdist") is None:
        count = 1
        print("one process: pytest-xdist is not installed", flush=True)  # noqa: T201 - a program's output
    command = pytest_command(count)
    os.execv(command[0], command)  # noqa: S606 - our own tests


def correctness_command(context: GateContext, _: float) -> list[str]:
    """Command of the step; its program chooses the number of workers."""
    free = [] if context.free_gib is None else ["--free-gib", f"{context.free_gib:.1f}"]
    return [context.python, "-m", "suites.gate.correctness", "--step", "correctness", *free]


CORRECTNESS_STEP = Step(
    name="correctness",
    purpose="every kernel against its float64 reference, at the shards of Llama-3-70B and at odd sizes",
    seconds=50,
    least_seconds=20,
    command=correctness_command,
    packages=PYTEST_PACKAGES,
    optional=("xdist",),
    environment=WIDE_TERMINAL,
    judge=judge_pytest,
)


# Implementations step: one case of each, checked, captured and sampled by the suites' own clock.
#
# Each line is independent: an implementation that fails, or kills its process, ends no other.

DTYPE = "bf16"
"""Number format of every case; a kernel without it uses its own first format."""
CALLS_PER_CASE = 4
"""Calls of a case, each on other weights."""
MARGIN_SECONDS = 3.0

IMPLEMENTATIONS_STEP = Step(
    name="implementations",
    purpose="one case of each implementation: checked, captured in a graph, sampled",
    seconds=45,
    least_seconds=15,
    command=timed_program("implementations", "correctness"),
    packages=TORCH_PACKAGES,
    memory_gib=4.0,
)


def implementation_cases() -> list[tuple[Any, dict[str, int]]]:
    """Cases as (kernel, shape).

    They cover linears and their fused form at one rank's share of Llama-3-70B, attention, elementwise kernels and
    ceilings.
    """
    from kernels.ceilings import TORCH_COPY, TORCH_LAUNCH, TORCH_READ, TRITON_EMPTY, TRITON_READ
    from kernels.gate_up import GATE_UPS
    from kernels.registry import DECODE_ATTENTION, LINEARS, PREFILL_ATTENTION
    from kernels.rmsnorm import TORCH_RMSNORM, TRITON_RMSNORM
    from kernels.rotary import TORCH_ROTARY, TRITON_ROTARY
    from kernels.swiglu import TORCH_SWIGLU, TRITON_SWIGLU
    from specs.layer import PAGE_SIZE, PAGED_IMPLEMENTATIONS

    heads = {"heads": 8, "kv_heads": 1, "head_dim": 128}
    found: list[tuple[Any, dict[str, int]]] = [
        (kernel, {"tokens": 1 if 1 in kernel.tokens else 128, "n": 8192, "k": 1024}) for kernel in (*LINEARS, *GATE_UPS)
    ]
    for kernel in DECODE_ATTENTION:
        pages = {"page_size": PAGE_SIZE} if kernel.implementation in PAGED_IMPLEMENTATIONS else {}
        found.append((kernel, {"batch": 4, "context": 2048, **heads, **pages}))
    found += [(kernel, {"tokens": 512, **heads}) for kernel in PREFILL_ATTENTION]
    found += [(kernel, {"tokens": 16, "hidden": 8192}) for kernel in (TORCH_RMSNORM, TRITON_RMSNORM)]
    found += [(kernel, {"tokens": 16, **heads}) for kernel in (TORCH_ROTARY, TRITON_ROTARY)]
    found += [(kernel, {"tokens": 16, "intermediate": 3584}) for kernel in (TORCH_SWIGLU, TRITON_SWIGLU)]
    found += [(kernel, {"elements": 2**25}) for kernel in (TORCH_READ, TRITON_READ, TORCH_COPY)]
    return [*found, (TORCH_LAUNCH, {}), (TRITON_EMPTY, {})]


def try_case(kernel: Any, shape: dict[str, int], device: Any, pool: Any) -> dict[str, Any]:
    """Run one case; return its outcome (right, wrong, failed or not_run) and detail."""
    import torch

    from kernels.timing.cuda import CudaTimer

    told: dict[str, Any] = {"kernel": kernel.name, "implementation": kernel.implementation, "shape": shape}
    dtype = DTYPE if DTYPE in kernel.rtol else next(iter(kernel.rtol))
    if reason := kernel.why_not(device.arch, dtype):
        return told | {"outcome": "not_run", "detail": reason}
    try:
        with torch.inference_mode():
            pool.reset()
            inputs = [kernel.inputs(pool, dtype=dtype, **shape) for _ in range(CALLS_PER_CASE)]
            kernel.run(**inputs[0])
            error = kernel.relative_error(inputs[0])
            if not error <= (limit := kernel.rtol[dtype]):
                return told | {"outcome": "wrong", "detail": f"relative error {error:.3g} over {limit:.3g}"}
            timer = CudaTimer(device, "graph")
            timer.warm_up([kernel.call(one) for one in inputs], None)
            seconds = timer.sample(1.0).seconds
    except Exception as error:  # any error of a library counts as the case's
        short = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        return told | {"outcome": "failed", "detail": short[:300], "lost": device.lost()}
    mean = sum(seconds) / len(seconds)
    return told | {"outcome": "right", "detail": f"{1e6 * mean:.2f} us", "seconds": mean, "samples": len(seconds)}


def run_cases_from(first: int, into: Path) -> None:
    """Try cases from index `first` on and append a line to `into` for each.

    The loop ends after the last case, or when the GPU is lost.
    """
    from kernels.timing.device import current_device
    from kernels.timing.pool import TensorPool

    device = current_device()
    pool = TensorPool(device, {DTYPE: 2**27})
    for kernel, shape in implementation_cases()[first:]:
        told = try_case(kernel, shape, device, pool)
        print(f"{told['outcome']}: {kernel.name} {shape}: {told['detail']}", flush=True)  # noqa: T201 - output
        with into.open("a") as file:
            file.write(json.dumps(told) + "\n")
        if told.get("lost"):
            return


def run_with_restarts(
    command: Callable[[int], Sequence[str]], names: Sequence[str], into: Path, seconds: float
) -> list[Any]:
    """Run all cases and return their lines.

    Where a process dies, or has lost the GPU, a new process resumes behind the case that caused it.
    """
    deadline, lines = time.monotonic() + seconds, list[Any]()
    into.unlink(missing_ok=True)
    while len(lines) < len(names) and (left := deadline - time.monotonic()) > 1:
        sys.stdout.flush()
        status = run_limited(command(len(lines)), sys.stdout.buffer, left, {})
        tried = [json.loads(line) for line in into.read_text().splitlines()] if into.exists() else []
        if status is None:
            return tried
        if status != 0:
            reason = f"its process ended with status {status}"
            with into.open("a") as file:
                died = {"kernel": names[len(tried)], "outcome": "failed", "detail": reason}
                file.write(json.dumps(died) + "\n")
            tried.append(died)
        lines = tried
    return lines


def judge_implementations(lines: Sequence[Any], names: Sequence[str]) -> Verdict:
    """Pass where every implementation that can run here is right and was timed."""
    by = {outcome: [one for one in lines if one["outcome"] == outcome] for outcome in ("right", "wrong", "failed")}
    missed = [f"{one['kernel']}: {one['detail']}" for one in (*by["wrong"], *by["failed"])]
    idle = sorted({f"{one['kernel']}: {one['detail']}" for one in lines if one["outcome"] == "not_run"})
    told = f"{len(by['right'])} of {len(names)} right and timed"
    told += f"; WRONG or failed: {'; '.join(missed)}" if missed else ""
    told += f"; not run: {'; '.join(idle)}" if idle else ""
    figures = {"cases": list(lines), "wrong": len(by["wrong"])}
    if missed:
        return Verdict("failed", told, figures)
    if len(lines) < len(names):
        return Verdict("unfinished", f"{told}; no time for {', '.join(names[len(lines) :])}", figures)
    return Verdict("passed" if by["right"] else "not_run", told, figures)


def main_implementations(argv: Sequence[str] | None = None) -> int:
    """Run all cases in child processes.

    With `--first`, run the cases from that index on in this process.
    """
    own = ArgumentParser(add_help=False)
    own.add_argument("--first", type=int)
    first, rest = own.parse_known_args(argv)
    asked = parse_options(__doc__, rest, seconds=True)
    into = asked.out / "implementations.jsonl"
    if first.first is not None:
        run_cases_from(first.first, into)
        return 0
    names = [kernel.name for kernel, _ in implementation_cases()]
    program = [
        sys.executable,
        "-m",
        "suites.gate.correctness",
        "--step",
        "implementations",
        "--out",
        str(asked.out),
        "--seconds",
        "0",
    ]
    lines = run_with_restarts(lambda at: [*program, "--first", str(at)], names, into, asked.seconds - MARGIN_SECONDS)
    return write_verdict(judge_implementations(lines, names), asked.verdict)


if __name__ == "__main__":
    sys.exit(run_step({"correctness": main_correctness, "implementations": main_implementations}))

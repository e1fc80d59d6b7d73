"""Calls of gate cases as the suites make them, watched by ncu or by NVBench.

Under ncu a mark precedes each call, and caches are filled with other data.

Under NVBench (cuda-bench) the calls run cold one by one, and in batch mode as a graph of one turn through all copies.
Batch mode launches back to back, and from Python the host would be slower than a short kernel. Each launch is therefore
a graph of all copies in turn, and its time is divided by their number.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
import triton
import triton.language as tl

from kernels.kernel import Kernel
from kernels.registry import select_linear
from kernels.timing.device import Device, current_device
from kernels.timing.host import Call, gc_disabled
from kernels.timing.pool import TensorPool
from specs.errors import UserError
from suites.gate.dram import CLOCK_CASES, DTYPE, PROFILED_CASES, GateCase, benchmark_name


def make_pool(device: Device, cases: Iterable[GateCase]) -> TensorPool:
    """Pool with one buffer for all cases."""
    return TensorPool(device, {DTYPE: max(case.weight_bytes for case in cases)})


def find_kernel(case: GateCase, device: Device) -> Kernel | str:
    """Kernel of a case, or the reason why it cannot run here."""
    try:
        kernel = select_linear(case.implementation, case.tokens)
    except UserError as error:
        return str(error)
    return kernel.why_not(device.arch, DTYPE) or kernel


def make_calls(case: GateCase, kernel: Kernel, pool: TensorPool, count: int) -> list[Call]:
    """Make `count` calls on successive windows of the pool.

    All calls share their activations and output.
    """
    drawn = [kernel.inputs(pool, dtype=DTYPE, **case.shape) for _ in range(count)]
    return [partial(kernel.run, **one) for one in drawn]


# Isolated clock: one cold call between two events, as in NVBench's cold measurement.
#
# The last-level cache is overwritten before each call, as in NVBench, so that both see the same dirty lines evicted.
# The stream is kept busy until the host has queued the events and the call, so no gap of the host lies between them.

BUSY_CYCLES = 400_000
"""Cycles to keep the stream busy, about 0.2 ms at 2 GHz.

Queueing two events and a Triton launch takes the host some 30 us.
"""
MAX_BUSY_CYCLES = 64 * BUSY_CYCLES
ISOLATED_WARM_UP = 3


@dataclass(frozen=True)
class IsolatedTimes:
    """Seconds of each call, and the number of calls dropped as the host was late."""

    seconds: tuple[float, ...]
    late: int


def time_isolated(calls: Sequence[Call], device: Device, rounds: int) -> IsolatedTimes:
    """Time `rounds` calls, each alone.

    Raises:
        RuntimeError: the host was late however long the stream was kept busy.
    """
    flush = torch.empty(device.llc_bytes, dtype=torch.uint8, device=device.kind)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    turn, busy, late, seconds = cycle(calls), BUSY_CYCLES, 0, list[float]()
    for call in islice(turn, ISOLATED_WARM_UP):
        call()
    torch.cuda.synchronize()
    with gc_disabled():
        while len(seconds) < rounds:
            flush.zero_()
            torch.cuda._sleep(busy)
            begin.record()
            next(turn)()
            end.record()
            ahead = not begin.query()
            torch.cuda.synchronize()
            if ahead:
                seconds.append(begin.elapsed_time(end) / 1000)
                continue
            late, busy = late + 1, 2 * busy
            if busy > MAX_BUSY_CYCLES:
                raise RuntimeError(f"the host queues calls too slowly: {late} of {late + len(seconds)} were late")
    return IsolatedTimes(tuple(seconds), late)


# Calls under ncu.

PROFILED_CALLS = 3
"""Number of profiled calls of a case."""
WARM_UP_CALLS = 2


@triton.jit
def _gate_mark(marked: tl.tensor) -> None:
    tl.store(marked + tl.program_id(0), 1)


class Profiler:
    """Profiler that lets ncu see only marks and calls.

    The cache is filled by reads before a call: dirty lines would be written back during the call.
    """

    def __init__(self, device: Device) -> None:
        self._marked = torch.zeros(len(PROFILED_CASES), dtype=torch.int32, device=device.kind)
        self._filler = torch.zeros(max(1, 4 * device.llc_bytes // 4), dtype=torch.float32, device=device.kind)
        self._mark(1)

    def _mark(self, number: int) -> None:
        _gate_mark[(number,)](self._marked)

    def profile(self, number: int, call: Call) -> None:
        """Run one call under the counters, with `number` as its mark."""
        self._filler.sum()
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        self._mark(number)
        call()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()


def profile_case(profiler: Profiler, number: int, case: GateCase, kernel: Kernel, pool: TensorPool) -> None:
    """Warm up without the counters, then profile."""
    pool.reset()
    calls = make_calls(case, kernel, pool, WARM_UP_CALLS + PROFILED_CALLS)
    for call in calls[:WARM_UP_CALLS]:
        call()
    for call in calls[WARM_UP_CALLS:]:
        profiler.profile(number, call)


# Calls under NVBench.

MIN_SAMPLES = 50
MIN_CLOCK_SHARE = 0.25
"""Share of the default clock below which NVBench drops samples.

Our clock drops none, so NVBench should drop none either.
"""

Benchmark = Callable[[Any], None]


class NvbenchCase:
    """Case with the launches that NVBench makes."""

    def __init__(self, case: GateCase, kernel: Kernel, pool: TensorPool, count: int) -> None:
        self.case, self.count = case, count
        self._kernel, self._pool = kernel, pool

    def cold(self, state: Any) -> None:
        """Measure one call per launch, each on the next copy."""
        stream = self._stream(state)
        turn = cycle(self._warm_calls(stream))

        def launch(_: Any) -> None:
            with torch.cuda.stream(stream):
                next(turn)()

        state.exec(launch, batched=False)

    def batch(self, state: Any) -> None:
        """Measure a graph of one turn per launch."""
        stream = self._stream(state)
        calls, graph = self._warm_calls(stream), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()

        def launch(_: Any) -> None:
            with torch.cuda.stream(stream):
                graph.replay()

        launch(None)  # a graph's first replay uploads it
        torch.cuda.synchronize()
        state.exec(launch, batched=True)

    def _stream(self, state: Any) -> torch.cuda.ExternalStream:
        state.set_throttle_threshold(MIN_CLOCK_SHARE)
        return torch.cuda.ExternalStream(state.get_stream().addressof())

    def _warm_calls(self, stream: torch.cuda.ExternalStream) -> list[Call]:
        """Calls that are compiled and have all their workspaces on the stream.

        NVBench blocks the stream, and an allocation then may never end.
        """
        self._pool.reset()
        calls = make_calls(self.case, self._kernel, self._pool, self.count)
        with torch.cuda.stream(stream):
            for call in calls[:3]:
                call()
        torch.cuda.synchronize()
        return calls


def register_benchmarks(bench: Any, cases: Sequence[GateCase]) -> int:
    """Register two benchmarks for each case that can run here; return their number."""
    device = current_device()
    pool, registered = make_pool(device, cases), 0
    for case in cases:
        kernel = find_kernel(case, device)
        if isinstance(kernel, str):
            print(f"{case.name}: {kernel}", flush=True)  # noqa: T201 - a program's output
            continue
        subject = NvbenchCase(case, kernel, pool, device.cold_copies(case.weight_bytes))
        modes: dict[str, tuple[Benchmark, int]] = {"cold": (subject.cold, 1), "batch": (subject.batch, subject.count)}
        for mode, (benchmark, calls) in modes.items():
            bench.register(benchmark).set_name(benchmark_name(case.name, mode, calls))
            registered += 1
    return registered


def run_under_ncu(cases: Sequence[GateCase]) -> int:
    """Run all cases that can run here; print the reason for each other case."""
    device = current_device()
    profiler, pool = Profiler(device), make_pool(device, cases)
    for number, case in enumerate(cases, start=1):
        kernel = find_kernel(case, device)
        if isinstance(kernel, str):
            print(f"{case.name}: {kernel}", flush=True)  # noqa: T201 - a program's output
        else:
            profile_case(profiler, number, case, kernel, pool)
    return 0


def run_under_nvbench(into: str, seconds: float) -> int:
    """Run all cases under NVBench, which writes `into`; return the exit status.

    NVBench has `seconds` for one measurement.
    """
    import cuda.bench as bench

    limits = ["--timeout", str(seconds), "--min-samples", str(MIN_SAMPLES)]
    if not register_benchmarks(bench, CLOCK_CASES):
        print("none of the cases can run here", file=sys.stderr)  # noqa: T201 - a program's output
        return 1
    bench.run_all_benchmarks(["nvbench", "--devices", "0", "--json", into, *limits])
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program that the tool watches; return its exit status."""
    parser = ArgumentParser(description=__doc__)
    tools = parser.add_subparsers(dest="tool", required=True)
    ncu = tools.add_parser("ncu")
    ncu.add_argument("--cases", type=int, default=len(PROFILED_CASES), help="how many of the cases, from the first on")
    nvbench = tools.add_parser("nvbench")
    nvbench.add_argument("--json", required=True, help="NVBench's result file")
    nvbench.add_argument("--timeout", type=float, default=0.8, help="seconds that NVBench gives one measurement")
    asked = parser.parse_args(argv)
    with torch.inference_mode():
        if asked.tool == "ncu":
            return run_under_ncu(PROFILED_CASES[: asked.cases])
        return run_under_nvbench(asked.json, asked.timeout)


if __name__ == "__main__":
    sys.exit(main())

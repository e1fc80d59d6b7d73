"""The same calls under NVBench, through cuda-bench: cold call by call, and a graph of one turn in its batch mode.

In its batch mode NVBench launches back to back, and from Python the host would be slower than a short kernel: so
what it launches there is a graph of all copies in turn, and its time is divided by their number.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import torch

from kernels.kernel import Kernel
from kernels.timing.device import current_device
from kernels.timing.host import Call
from kernels.timing.pool import Pool
from suites.gate.cases import CLOCK_CASES, GateCase, draw_calls, kernel_of, make_pool
from suites.gate.clock import benchmark_name

LEAST_SAMPLES = 50
LEAST_CLOCK_SHARE = 0.25
"""NVBench drops samples below this share of the default clock; ours drops none, so it should drop none either."""

Benchmark = Callable[[Any], None]


class Subject:
    """One case: what NVBench is given to launch."""

    def __init__(self, case: GateCase, kernel: Kernel, pool: Pool, count: int) -> None:
        self.case, self.count = case, count
        self._kernel, self._pool = kernel, pool

    def cold(self, state: Any) -> None:
        """One call a launch, each on the next copy."""
        stream = self._stream(state)
        turn = cycle(self._warm_calls(stream))

        def launch(_: Any) -> None:
            with torch.cuda.stream(stream):
                next(turn)()

        state.exec(launch, batched=False)

    def batch(self, state: Any) -> None:
        """A graph of one turn a launch."""
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
        state.set_throttle_threshold(LEAST_CLOCK_SHARE)
        return torch.cuda.ExternalStream(state.get_stream().addressof())

    def _warm_calls(self, stream: torch.cuda.ExternalStream) -> list[Call]:
        """Compiled, and with all workspaces of that stream: NVBench blocks it, and an allocation then may never end."""
        self._pool.forget()
        calls = draw_calls(self.case, self._kernel, self._pool, self.count)
        with torch.cuda.stream(stream):
            for call in calls[:3]:
                call()
        torch.cuda.synchronize()
        return calls


def register(bench: Any, cases: Sequence[GateCase]) -> int:
    """Two benchmarks a case that can run here; how many."""
    device = current_device()
    pool, registered = make_pool(device, cases), 0
    for case in cases:
        kernel = kernel_of(case, device)
        if isinstance(kernel, str):
            print(f"{case.name}: {kernel}", flush=True)  # noqa: T201 - a program's output
            continue
        subject = Subject(case, kernel, pool, device.cold_copies(case.weight_bytes))
        modes: dict[str, tuple[Benchmark, int]] = {"cold": (subject.cold, 1), "batch": (subject.batch, subject.count)}
        for mode, (benchmark, calls) in modes.items():
            bench.register(benchmark).set_name(benchmark_name(case.name, mode, calls))
            registered += 1
    return registered


def main(argv: Sequence[str] | None = None) -> int:
    """Run all of them; NVBench writes the file."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True, help="NVBench's result file")
    parser.add_argument("--timeout", type=float, default=0.8, help="seconds that NVBench gives one measurement")
    asked = parser.parse_args(argv)
    import cuda.bench as bench

    limits = ["--timeout", str(asked.timeout), "--min-samples", str(LEAST_SAMPLES)]
    with torch.inference_mode():
        if not register(bench, CLOCK_CASES):
            print("none of the cases can run here", file=sys.stderr)  # noqa: T201 - a program's output
            return 1
        bench.run_all_benchmarks(["nvbench_run", "--devices", "0", "--json", asked.json, *limits])
    return 0


if __name__ == "__main__":
    sys.exit(main())

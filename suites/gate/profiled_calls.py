"""The program that ncu watches: each case's calls, a mark before each, caches filled with something else."""

import sys
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from kernels.kernel import Kernel
from kernels.timing.device import Device, current_device
from kernels.timing.host import Call
from kernels.timing.pool import Pool
from suites.gate.cases import PROFILED, GateCase, draw_calls, kernel_of, make_pool

CALLS = 3
"""Profiled calls of a case."""
WARM_UP = 2


@triton.jit
def _gate_mark(marked: tl.tensor) -> None:
    tl.store(marked + tl.program_id(0), 1)


class Profiler:
    """Lets ncu see marks and calls, and nothing else.

    What fills the cache before a call is read, not written: dirty lines would be written back during the call.
    """

    def __init__(self, device: Device) -> None:
        self._marked = torch.zeros(len(PROFILED), dtype=torch.int32, device=device.kind)
        self._filler = torch.zeros(max(1, 4 * device.llc_bytes // 4), dtype=torch.float32, device=device.kind)
        self._mark(1)

    def _mark(self, number: int) -> None:
        _gate_mark[(number,)](self._marked)

    def profile(self, number: int, call: Call) -> None:
        """One call under the counters, filed under `number`."""
        self._filler.sum()
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        self._mark(number)
        call()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()


def profile_case(profiler: Profiler, number: int, case: GateCase, kernel: Kernel, pool: Pool) -> None:
    """Warm up unseen, then profile."""
    pool.forget()
    calls = draw_calls(case, kernel, pool, WARM_UP + CALLS)
    for call in calls[:WARM_UP]:
        call()
    for call in calls[WARM_UP:]:
        profiler.profile(number, call)


def main(cases: Sequence[GateCase] = PROFILED) -> int:
    """All cases that can run here; what cannot is said."""
    device = current_device()
    profiler, pool = Profiler(device), make_pool(device, cases)
    with torch.inference_mode():
        for number, case in enumerate(cases, start=1):
            kernel = kernel_of(case, device)
            if isinstance(kernel, str):
                print(f"{case.name}: {kernel}", flush=True)  # noqa: T201 - a program's output
            else:
                profile_case(profiler, number, case, kernel, pool)
    return 0


if __name__ == "__main__":
    sys.exit(main())

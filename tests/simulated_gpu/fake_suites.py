"""Hooks into the suites and the checks: which cases are measured through, what a visit takes, and each case's truth."""

import contextlib
import sys
from pathlib import Path
from typing import Any

from tests.simulated_gpu.hardware import Gpu, Launch, true_seconds
from tests.simulated_gpu.imports import After
from tests.simulated_gpu.process import Notes, Settings, read_notes

NOT_MEASURED = "the dry run measures a part of the cases; this one was planned, bound and keyed"
TORCH_COMPILE = "torch-compile"
NOT_COMPILED = "torch.compile traces no tensors that are simulated"
ZERO_ERROR = 0.0
"""Relative error of every result: nothing is computed on the simulated device."""
CHECK_SECONDS, CHECK_SECONDS_PER_ELEMENT = 2e-3, 4e-11
"""Of a check against a float64 reference: its launches, and each element widened, multiplied and compared."""
MOST_RUNS = 8
"""Repetitions of a protocol: each is the same to the host."""


def compiled(folder: Path) -> set[str]:
    """Codes that an earlier process has put into Triton's cache."""
    return {note["code"] for note in read_notes(folder) if note["kind"] == "compiled"}


def note_first(notes: Notes, fn: Any, args: Any, options: Any, code: str, *, warm: bool) -> None:
    """Note a distinct code that is launched, with the record from which the warm step can compile it."""
    from suites.gate.launches import describe_launch

    notes.add("launch", code=code, kernel=fn.__name__, warm=warm, record=describe_launch(fn, args, options))


def install(gpu: Gpu, notes: Notes, told: Settings) -> None:
    """Hook what is imported later."""

    def kernels(module: Any) -> None:
        check, checked = module.Kernel.relative_error, set[tuple[Any, ...]]()

        def relative_error(self: Any, inputs: Any) -> float:
            """The host's path of a check once a kernel and dtype, later its cost alone: references are slow to fake."""
            which = (self.name, repr(self.reference)[:40], inputs[self.outputs[0]].dtype)
            if which not in checked:
                checked.add(which)
                with contextlib.suppress(ZeroDivisionError):
                    check(self, inputs)
            gpu.host += CHECK_SECONDS + CHECK_SECONDS_PER_ELEMENT * sum(one.numel() for one in inputs.values())
            return ZERO_ERROR

        module.Kernel.relative_error = relative_error

    def kernel_bench(module: Any) -> None:
        visit = module.KernelBench.visit

        def timed(self: Any, entry: Any, share: float) -> Any:
            began = gpu.host
            if told.fault_in and told.fault_in in entry.case.name:
                gpu.sticky = "CUDA error: an illegal memory access was encountered"
            try:
                return visit(self, entry, share)
            finally:
                notes.add("visit", case=entry.case.name, seconds=gpu.host - began, legs=round(1 / share))

        module.KernelBench.visit = timed

    def session(module: Any) -> None:
        measure = module.Session.measure

        def part(self: Any) -> None:
            open_cases = [one for one in self.plan if one.is_measurable and hasattr(one, "kernel")]
            for entry in open_cases:
                if entry.case.implementation == TORCH_COMPILE:
                    entry.not_run = NOT_COMPILED
            open_cases = [one for one in open_cases if one.is_measurable]
            left_out = unmeasured(open_cases, told.share)
            for entry in left_out:
                entry.not_run = NOT_MEASURED
            measure(self)
            if gpu.sticky is None:
                known = [entry for entry in open_cases if entry.failed is None]
                note_truths(gpu, notes, self._device, known, {one.case.name for one in left_out})

        module.Session.measure = part

    def passes(module: Any) -> None:
        module.MIN_PASSES = module.MAX_PASSES = told.passes

    def protocol(module: Any) -> None:
        offences = module.offences
        module.offences = lambda launch, out, scratch, runs: offences(launch, out, scratch, min(runs, MOST_RUNS))

    hooks = {
        "tests.gpu.arrival_protocol": protocol,
        "kernels.kernel": kernels,
        "suites.probes.kernel": kernel_bench,
        "suites.session": session,
        "suites.runner": passes,
    }
    sys.meta_path.insert(0, After(hooks))


def unmeasured(entries: list[Any], share: float) -> list[Any]:
    """All but a stratified part: of each op, implementation and launch the first, and every so many-th after it."""
    strata: dict[tuple[Any, ...], list[Any]] = {}
    for entry in entries:
        case = entry.case
        function = case.name.split("::")[-1].split("[")[0]
        strata.setdefault((function, case.op, case.implementation, case.launch), []).append(entry)
    if not share:
        return entries
    every = max(1, round(1 / share))
    return [entry for of_one in strata.values() for at, entry in enumerate(of_one) if at % every]


def note_truths(gpu: Gpu, notes: Notes, device: Any, entries: list[Any], left_out: set[str]) -> None:
    """Bind and key each case's kernel outside of any measurement; note what a call truly takes."""
    from kernels.cublaslt import take_first_correct
    from kernels.timing.pool import TensorPool

    largest: dict[str, int] = {}
    for entry in entries:
        largest[entry.case.dtype] = max(largest.get(entry.case.dtype, 0), entry.weight_bytes)
    pool, host = TensorPool(device, largest), gpu.host
    with take_first_correct():  # what was measured has its candidate; the others are not timed to find one
        for entry in entries:
            pool.reset()
            seconds, launches = true_call(gpu, pool, entry)
            case = entry.case
            facts = {"cache": case.cache, "measured": case.name not in left_out, "launches": launches}
            notes.add("truth", case=case.name, seconds=seconds, **facts)
    gpu.host = host


def true_call(gpu: Gpu, pool: Any, entry: Any) -> tuple[float, int]:
    """(seconds, launches) of one call of a case."""
    import torch

    kernel, case, calls = entry.kernel, entry.case, list[tuple[Launch, ...]]()
    with torch.inference_mode():
        for _ in range(2 if case.cache == "cold" else entry.copies):
            call = kernel.call(kernel.inputs(pool, dtype=case.dtype, **entry.shape))
            if not calls:
                call()
            with gpu.tracing() as launches:
                call()
            calls.append(tuple(launches))
    seconds = true_seconds(gpu.spec, calls, cold=case.cache == "cold" and entry.weight_bytes > 0)
    if case.launch == "eager":
        seconds = max(seconds, len(calls[0]) * gpu.spec.host_launch_seconds)
    return seconds, len(calls[0])

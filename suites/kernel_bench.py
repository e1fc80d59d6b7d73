"""Measures kernels on one device: inputs from a pool larger than the caches, a check before the first time."""

from collections.abc import Sequence
from functools import partial

import torch

from kernels.kernel import Inputs
from kernels.timing.cuda import CudaTimer
from kernels.timing.device import Device, Patience, gib
from kernels.timing.host import HostTimer, Timer
from kernels.timing.pool import Pool
from specs import statistics
from specs.journal import BETWEEN, CALL, TIMED, WARM_UP
from suites import ranges
from suites.entry import Entry
from suites.kernel_case import KernelEntry


class KernelBench:
    """What visits to kernels share: the device, the pool, and which cases were checked.

    Args:
        device: where they run.
        entries: all cases; those that do not fit into memory fail at once.
    """

    same_process = True

    def __init__(self, device: Device, entries: Sequence[KernelEntry]) -> None:
        self._device = device
        self._numbers = {id(entry): number for number, entry in enumerate(entries)}
        self._refuse_what_does_not_fit(entries)
        self._pool = Pool(device, _window_bytes(entries))
        self._verified: set[int] = set()

    @property
    def patience(self) -> Patience:
        """How long to measure."""
        return self._device.patience

    def lost(self) -> str:
        """Why the device can do no more in this process; empty while it can."""
        return self._device.lost()

    def told(self, entry: Entry, error: Exception) -> str:
        """One line on what ended a case."""
        short = str(error).strip().split("\n")[0]
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in short:
            return _out_of_memory(entry, self._device, short)
        return f"{type(error).__name__}: {short}"

    def visit(self, entry: KernelEntry, share: float) -> tuple[float, ...]:
        """Samples of one visit; none where the result is wrong, and none of a clock that moved and was not held back.

        A GPU at its power limit changes its clock all the time: its samples stay, labelled as throttled.
        """
        timer = self._timer(entry)
        entry.clock = timer.clock
        case, number = entry.case, self._numbers[id(entry)]
        with torch.inference_mode(), ranges.mark(case.name, case.question, number):
            self._pool.forget()
            inputs = [entry.kernel.inputs(self._pool, dtype=case.dtype, **entry.shape) for _ in range(entry.copies)]
            calls = [entry.kernel.call(one) for one in inputs]
            start = entry.turn % len(calls)  # go on behind the copy that the visit before read last
            calls = calls[start:] + calls[:start]
            with ranges.mark(WARM_UP, case.question, number):
                if number not in self._verified:
                    self._call(entry, inputs[start], number)
                    entry.check(entry.kernel.relative_error(inputs[start]), entry.kernel.rtol[case.dtype])
                    if entry.failed is not None:
                        return ()
                    self._verified.add(number)
                timer.warm_up(calls, statistics.pooled_median(entry.seconds) if entry.seconds else None)
            with ranges.mark(TIMED, case.question, number):
                sampled = timer.sample(share)
            ranges.tell(case.question, sampled.made, sampled.seconds)
            entry.turn += timer.made
        entry.calls = sampled.calls
        if sampled.moved and sampled.telemetry and not sampled.throttled:
            entry.note_dropped(sampled.telemetry)
            return ()
        entry.note_load(sampled.telemetry, moved=sampled.moved)
        if sampled.throttled is not None:  # once throttled, a case stays labelled
            entry.throttled = bool(entry.throttled) or sampled.throttled
        return sampled.seconds

    def _call(self, entry: KernelEntry, inputs: Inputs, number: int) -> None:
        """One call outside the samples in a range of its own, its steps by name: a trace knows its kernels by it."""
        question, kernel = entry.case.question, entry.kernel
        with ranges.mark(CALL, question, number):
            if kernel.steps is None:
                kernel.call(inputs)()
                return
            for name, step in kernel.steps(**inputs):
                with ranges.mark(name, question, number):
                    step()

    def _timer(self, entry: Entry) -> Timer:
        if self._device.kind != "cuda":
            return HostTimer(self._device)
        between = partial(ranges.mark, BETWEEN, entry.case.question, self._numbers[id(entry)])
        return CudaTimer(self._device, entry.case.launch, between)

    def _refuse_what_does_not_fit(self, entries: Sequence[Entry]) -> None:
        free = self._device.free_bytes()
        for entry in entries:
            if entry.open and entry.need_bytes > 0.8 * free:
                entry.failed = _out_of_memory(entry, self._device, "refused before it was tried")


def _window_bytes(entries: Sequence[KernelEntry]) -> dict[str, int]:
    windows: dict[str, int] = {}
    for entry in entries:
        if entry.open:
            windows[entry.case.dtype] = max(windows.get(entry.case.dtype, 0), entry.weight_bytes)
    return windows


def _out_of_memory(entry: Entry, device: Device, detail: str) -> str:
    return (
        f"out of memory: needs about {gib(entry.need_bytes)}, {gib(device.free_bytes())} are free on the "
        f"{device.kind} ({detail}); try fewer --tokens, a higher --tp or a smaller --model"
    )

"""Probe of kernels on one device: cold inputs, and a check before any timing.

Inputs come from a pool larger than the caches.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from kernels.kernel import Inputs, Kernel
from kernels.timing.cuda import CudaTimer
from kernels.timing.device import COLD_FACTOR, Device, SamplingLimits, format_gib
from kernels.timing.host import HostTimer, Timer
from kernels.timing.pool import ByteCounter, TensorPool
from specs import statistics
from specs.journal import CALL_RANGE, TIMED_RANGE, UNTIMED_RANGE, WARM_UP_RANGE
from specs.layer import LayerPart
from specs.measurement import Case, Measurement
from specs.parallel import Shard
from suites import nvtx
from suites.case import CaseState, RunConfig

# A case of one kernel on one device


@dataclass(kw_only=True)
class KernelCaseState(CaseState):
    """Case of a kernel at a shape; a call streams `weight_bytes`.

    `arch`: the device's architecture.
    """

    kernel: Kernel
    shape: dict[str, int] = field(default_factory=dict)
    arch: str = "cpu"
    weight_bytes: int = 0

    def measurement(self) -> Measurement:
        """Measurement so far, with the kernel's configuration."""
        self.configuration = self._configuration()
        return super().measurement()

    def _configuration(self) -> str | None:
        """Configuration that the kernel reports, if it was called in this process."""
        if self.kernel.configuration is None or not self.calls_made:
            return self.configuration
        try:
            return self.kernel.configuration(arch=self.arch, dtype=self.case.dtype, **self.shape)
        except Exception as error:  # an error in a label must not lose the samples
            return f"not told: {type(error).__name__}: {error}".split("\n")[0]


def plan_kernel_case(
    name: str,
    device: Device,
    kernel: Kernel,
    question: str,
    how: RunConfig,
    part: Shard | LayerPart | None,
    shape: dict[str, int],
) -> KernelCaseState:
    """Plan the case of a kernel at a shape, with its work and its rotated copies."""
    work, counter = kernel.work(dtype=how.dtype, **shape), ByteCounter()
    kernel.inputs(counter, dtype=how.dtype, **shape)
    copies = device.cold_copies(counter.weight_bytes) if how.cache == "cold" else 1
    truly_cold = copies * counter.weight_bytes >= 0.9 * COLD_FACTOR * device.llc_bytes
    cache = how.cache if how.cache == "hot" or truly_cold or kernel.op == "launch" else f"rotated-{copies}"
    if not counter.weight_bytes and kernel.op != "launch":
        cache = "hot"  # a call reads data that was just written, and is the same in every call
    prompt = kernel.op == "attention" and "batch" not in shape  # one sequence, which attends to itself
    case = Case(
        name=name,
        question=question,
        op=kernel.op,
        implementation=how.implementation,
        kernel=kernel.name,
        dtype=how.dtype,
        flops=work.flops,
        hbm_bytes=work.hbm_bytes,
        wire_bytes_sent_per_rank=work.wire_bytes_sent_per_rank,
        model=part.model if part else None,
        layer=part.layer if part else None,
        tp=part.tp if part else None,
        pp=part.pp if part else None,
        tokens=shape.get("tokens", shape.get("batch")),
        n=shape.get("n"),
        k=shape.get("k"),
        cache=cache,
        launch=how.launch,
        context=getattr(part, "context", shape["tokens"] if prompt else shape.get("context")),
        batch=getattr(part, "batch", 1 if prompt else shape.get("batch")),
        per_layer=getattr(part, "per_layer", None),
    )
    return KernelCaseState(
        case=case,
        kernel=kernel,
        shape=shape,
        arch=device.arch,
        copies=copies,
        weight_bytes=counter.weight_bytes,
        need_bytes=counter.weight_bytes
        + 10 * counter.other_bytes,  # plus float64 parts, and the whole of the reference
        not_run=why_not(kernel, how, device),
    )


def why_not(kernel: Kernel, how: RunConfig, device: Device) -> str | None:
    """Return one line on why the case cannot run here, or None."""
    if how.launch == "graph" and device.kind != "cuda":
        return "launch graph: a CUDA graph needs a GPU, and torch sees none; use --launch eager"
    return kernel.why_not(device.arch, how.dtype)


# Visits to the cases on the device


class KernelBench:
    """Visits to kernels: the device, the tensor pool, and the cases verified so far.

    Args:
        device: device that runs the kernels.
        entries: all cases; those that do not fit into memory fail at once.
    """

    runs_in_process = True

    def __init__(self, device: Device, entries: Sequence[KernelCaseState]) -> None:
        self._device = device
        self._numbers = {id(entry): number for number, entry in enumerate(entries)}
        self._refuse_what_does_not_fit(entries)
        self._pool = TensorPool(device, _pool_window_bytes(entries))
        self._verified: set[int] = set()

    @property
    def limits(self) -> SamplingLimits:
        """Sampling limits of the device."""
        return self._device.limits

    def lost(self) -> str:
        """Return why the device is lost to this process; empty while it works."""
        return self._device.lost()

    def describe_error(self, entry: CaseState, error: Exception) -> str:
        """Return one line on the error that ended a case."""
        short = str(error).strip().split("\n")[0]
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in short:
            return _out_of_memory_text(entry, self._device, short)
        return f"{type(error).__name__}: {short}"

    def visit(self, entry: KernelCaseState, share: float) -> tuple[float, ...]:
        """Samples of one visit; none if wrong, or if the clock moved unthrottled.

        A GPU at its power limit changes its clock all the time: its samples stay, labelled as throttled.
        """
        timer = self._timer(entry)
        entry.clock = timer.clock
        case, number = entry.case, self._numbers[id(entry)]
        with torch.inference_mode(), nvtx.annotate(case.name, case.question, number):
            self._pool.reset()
            inputs = [entry.kernel.inputs(self._pool, dtype=case.dtype, **entry.shape) for _ in range(entry.copies)]
            calls = [entry.kernel.call(one) for one in inputs]
            start = entry.calls_made % len(calls)  # continue after the copy that the previous visit read last
            calls = calls[start:] + calls[:start]
            with nvtx.annotate(WARM_UP_RANGE, case.question, number):
                if number not in self._verified:
                    self._call(entry, inputs[start], number)
                    entry.check(entry.kernel.relative_error(inputs[start]), entry.kernel.rtol[case.dtype])
                    if entry.failed is not None:
                        return ()
                    self._verified.add(number)
                timer.warm_up(calls, statistics.pooled_median(entry.seconds) if entry.seconds else None)
            with nvtx.annotate(TIMED_RANGE, case.question, number):
                sampled = timer.sample(share)
            nvtx.mark_timing(case.question, sampled.calls_made, sampled.seconds)
            entry.calls_made += timer.calls_made
        entry.calls = sampled.calls
        if sampled.moved and sampled.telemetry and not sampled.throttled:
            entry.record_dropped(sampled.telemetry)
            return ()
        entry.record_load(sampled.telemetry, moved=sampled.moved)
        if sampled.throttled is not None:  # once throttled, a case keeps the label
            entry.throttled = bool(entry.throttled) or sampled.throttled
        return sampled.seconds

    def _call(self, entry: KernelCaseState, inputs: Inputs, number: int) -> None:
        """Make an untimed call in an NVTX range with named steps.

        A trace identifies the case's kernels by it.
        """
        question, kernel = entry.case.question, entry.kernel
        with nvtx.annotate(CALL_RANGE, question, number):
            if kernel.steps is None:
                kernel.call(inputs)()
                return
            for name, step in kernel.steps(**inputs):
                with nvtx.annotate(name, question, number):
                    step()

    def _timer(self, entry: CaseState) -> Timer:
        if self._device.kind != "cuda":
            return HostTimer(self._device)
        between = partial(nvtx.annotate, UNTIMED_RANGE, entry.case.question, self._numbers[id(entry)])
        return CudaTimer(self._device, entry.case.launch, between)

    def _refuse_what_does_not_fit(self, entries: Sequence[CaseState]) -> None:
        free = self._device.free_bytes()
        for entry in entries:
            if entry.is_measurable and entry.need_bytes > 0.8 * free:
                entry.failed = _out_of_memory_text(entry, self._device, "refused before it was tried")


def _pool_window_bytes(entries: Sequence[KernelCaseState]) -> dict[str, int]:
    windows: dict[str, int] = {}
    for entry in entries:
        if entry.is_measurable:
            windows[entry.case.dtype] = max(windows.get(entry.case.dtype, 0), entry.weight_bytes)
    return windows


def _out_of_memory_text(entry: CaseState, device: Device, detail: str) -> str:
    return (
        f"out of memory: needs about {format_gib(entry.need_bytes)}, {format_gib(device.free_bytes())} are free on the "
        f"{device.kind} ({detail}); try fewer --tokens, a higher --tp or a smaller --model"
    )

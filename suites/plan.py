"""The plan: every case of the run, known before the first is measured."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import inf
from typing import Any, NamedTuple, Protocol

import pytest

from kernels.kernel import Kernel
from kernels.timing.device import COLD_FACTOR, Device
from kernels.timing.pool import Ruler
from specs import statistics
from specs.case import Case
from specs.measurement import Measurement
from specs.parallel import Shard


class How(NamedTuple):
    """How a kernel is run: the axes that every suite has."""

    dtype: str
    cache: str
    launch: str
    implementation: str


class Measure(Protocol):
    """The `measure` fixture that a bench function is given."""

    def __call__(self, kernel: Kernel, question: str, how: How, shard: Shard | None = None, **shape: int) -> None:
        """Measure `kernel` at `shape` and give the samples to pytest-benchmark."""


@dataclass
class Entry:
    """A case of the run: what is needed to measure it, and what has been measured so far.

    `labels` are pytest-benchmark's own names for it; `need_bytes` is what it takes beside other cases' memory;
    `turn` counts its calls, so that each visit goes on where the one before ended; `failed` voids it, while
    `error` only ends it: what was measured before stays. `arch` is the device's, and `configuration` what an
    interrupted run noted as the kernel's choice.
    """

    case: Case
    kernel: Kernel
    shape: dict[str, int]
    labels: dict[str, Any] = field(default_factory=dict)
    arch: str = "cpu"
    copies: int = 1
    weight_bytes: int = 0
    need_bytes: int = 0
    clock: str = ""
    not_run: str | None = None
    failed: str | None = None
    error: str | None = None
    turn: int = 0
    relative_error: float | None = None
    seconds: list[tuple[float, ...]] = field(default_factory=list)
    calls: int = 1
    stopped_by: str = "interrupted"
    throttled: bool | None = None
    telemetry: dict[str, float] | None = None
    configuration: str | None = None

    @property
    def open(self) -> bool:
        """Whether there is anything to measure."""
        return self.not_run is None and self.failed is None

    @property
    def half_width(self) -> float:
        """Relative half-width of the interval so far."""
        return statistics.half_width(self.seconds) if self.seconds else inf

    def measurement(self) -> Measurement:
        """What has been measured so far, as the record."""
        return Measurement(
            case=self.case,
            seconds=tuple(self.seconds),
            clock=self.clock,
            relative_error=self.relative_error,
            copies=self.copies,
            calls=self.calls,
            stopped_by=self.stopped_by,
            throttled=self.throttled,
            telemetry=self.telemetry,
            configuration=self._configuration(),
        )

    def _configuration(self) -> str | None:
        """What the kernel says it chose. Only one that was called in this process knows."""
        if self.kernel.configuration is None or not self.turn:
            return self.configuration
        try:
            return self.kernel.configuration(arch=self.arch, dtype=self.case.dtype, **self.shape)
        except Exception as error:  # a label must not cost the samples
            return f"not told: {type(error).__name__}: {error}".split("\n")[0]


def rivals(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Neighbours that differ only in implementation, which have to be timed side by side."""

    def shared(entry: Entry) -> Case:
        return replace(entry.case, name="", implementation="", kernel="")

    return [list(group) for _, group in groupby(entries, shared)]


def describe(item: pytest.Function, device: Device) -> Entry:
    """Call a bench function with a `measure` that only takes note of what it is asked for.

    Raises:
        pytest.UsageError: the function needs other fixtures, or calls `measure` never or more than once.
    """
    noted: list[Entry] = []

    def note(kernel: Kernel, question: str, how: How, shard: Shard | None = None, **shape: int) -> None:
        noted.append(_entry(item.nodeid, device, kernel, question, how, shard, shape))

    params: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    others = set(item.fixturenames) - set(params) - {"measure", "benchmark", "request"}
    if others:
        raise pytest.UsageError(f"{item.nodeid}: a bench function takes `measure` and parameters, not {sorted(others)}")
    call: Callable[..., None] = item.obj
    call(measure=note, **params)
    if len(noted) != 1:
        raise pytest.UsageError(f"{item.nodeid}: calls `measure` {len(noted)} times; one case has one call")
    entry = noted[0]
    entry.labels = {
        "name": item.name,
        "fullname": item.nodeid,
        "group": entry.case.question,
        "param": item.callspec.id if params else None,
        "params": params or None,
    }
    return entry


def _entry(
    name: str, device: Device, kernel: Kernel, question: str, how: How, shard: Shard | None, shape: dict[str, int]
) -> Entry:
    work, ruler = kernel.work(dtype=how.dtype, **shape), Ruler()
    kernel.inputs(ruler, dtype=how.dtype, **shape)
    copies = device.cold_copies(ruler.weight_bytes) if how.cache == "cold" else 1
    truly_cold = copies * ruler.weight_bytes >= 0.9 * COLD_FACTOR * device.llc_bytes
    cache = how.cache if how.cache == "hot" or truly_cold or not ruler.weight_bytes else f"rotated-{copies}"
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
        model=shard.model if shard else None,
        layer=shard.layer if shard else None,
        tp=shard.tp if shard else None,
        pp=shard.pp if shard else None,
        tokens=shape.get("tokens"),
        n=shape.get("n"),
        k=shape.get("k"),
        cache=cache,
        launch=how.launch,
    )
    entry = Entry(case, kernel, shape, arch=device.arch, copies=copies, weight_bytes=ruler.weight_bytes)
    entry.need_bytes = ruler.weight_bytes + 10 * ruler.other_bytes  # float64 parts and whole of the reference beside
    entry.not_run = why_not(kernel, how, device)
    return entry


def why_not(kernel: Kernel, how: How, device: Device) -> str | None:
    """One line on why this cannot run here; None if it can."""
    if how.launch == "graph" and device.kind != "cuda":
        return "launch graph: a CUDA graph needs a GPU, and torch sees none; use --launch eager"
    return kernel.why_not(device.arch, how.dtype)

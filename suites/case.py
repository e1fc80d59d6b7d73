"""State of a case in a run: its samples so far, or why there are none."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import inf
from typing import Any, NamedTuple

from specs import statistics
from specs.measurement import Case, Measurement

MOVED_VISITS = "moved_visits"
"""Telemetry key: visits in which the SM clock moved."""


@dataclass(kw_only=True)
class CaseState:
    """State that cases of every kind have.

    `labels`: pytest-benchmark's names. `need_bytes`: memory besides other cases'. `calls_made`: calls so far, so each
    visit continues from the last. `failed`: reason that voids the case. `error`: reason that ends it but keeps its
    samples. `device_lost`: reason of a lost device; --resume skips the case. `configuration`: the kernel's choice, as
    journalled by an interrupted run.
    """

    case: Case
    labels: dict[str, Any] = field(default_factory=dict)
    copies: int = 1
    need_bytes: int = 0
    clock: str = ""
    not_run: str | None = None
    failed: str | None = None
    error: str | None = None
    device_lost: str | None = None
    calls_made: int = 0
    relative_error: float | None = None
    seconds: list[tuple[float, ...]] = field(default_factory=list)
    calls: int = 1
    stopped_by: str = "interrupted"
    throttled: bool | None = None
    telemetry: dict[str, float] | None = None
    configuration: str | None = None

    @property
    def is_measurable(self) -> bool:
        """True if the case can run and has not failed."""
        return self.not_run is None and self.failed is None

    @property
    def half_width(self) -> float:
        """Relative half-width of the interval so far."""
        return statistics.relative_half_width(self.seconds) if self.seconds else inf

    def measurement(self) -> Measurement:
        """Measurement so far."""
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
            configuration=self.configuration,
        )

    def check(self, error: float, limit: float) -> None:
        """Record the error of a result; the case fails if it is too large or NaN."""
        if error <= limit:
            self.relative_error = error
            return
        unwritten = " (an element of the output was not written, or is NaN)" if error != error else ""
        self.failed = f"wrong result: relative error {error:.3g} is over {limit:.3g}{unwritten}; not timed"

    def record_load(self, telemetry: dict[str, float] | None, *, moved: bool = False) -> None:
        """Record telemetry under load: mean shares over the visits, and last readings.

        Visits in which the SM clock `moved` are counted, if telemetry includes the clock.
        """
        if telemetry is not None and "sm_mhz_before" in telemetry:
            telemetry = telemetry | {MOVED_VISITS: self.moved_visits + float(moved)}
        if telemetry is None or self.telemetry is None:
            self.telemetry = telemetry or self.telemetry
            return
        visits = len(self.seconds)
        means = {
            name: (self.telemetry[name] * visits + value) / (visits + 1)
            for name, value in telemetry.items()
            if name.endswith("_share") and name in self.telemetry
        }
        self.telemetry = telemetry | means

    def record_dropped(self, telemetry: dict[str, float]) -> None:
        """Count a visit whose samples were dropped because the SM clock moved.

        Earlier samples keep their clocks.
        """
        kept = self.telemetry if self.seconds and self.telemetry else telemetry
        self.telemetry = kept | {MOVED_VISITS: self.moved_visits + 1.0}

    @property
    def moved_visits(self) -> float:
        """Number of visits in which the SM clock moved."""
        return (self.telemetry or {}).get(MOVED_VISITS, 0.0)

    @property
    def unsteady_reason(self) -> str | None:
        """One line on a case whose every visit had a moving SM clock, or None."""
        load = self.telemetry or {}
        if self.seconds or not self.moved_visits:
            return None
        visits = f"all {self.moved_visits:.0f} visits" if self.moved_visits > 1 else "its only visit"
        return (
            f"the SM clock moved by more than 1 % in {visits}, from {load['sm_mhz_before']:.0f} to "
            f"{load['sm_mhz_after']:.0f} MHz in the last; end other work on the GPU or fix its clock "
            "(nvidia-smi --lock-gpu-clocks), then measure again"
        )

    def restore(self, before: Measurement) -> None:
        """Restore the samples of an interrupted run."""
        self.seconds = list(before.seconds)
        self.relative_error, self.clock, self.calls = before.relative_error, before.clock, before.calls
        self.throttled, self.configuration = before.throttled, before.configuration
        self.telemetry = dict(before.telemetry) if before.telemetry else None

    def skip(self, reason: str, before: Measurement | None) -> None:
        """Skip a case that lost the device, with its earlier samples if there are any."""
        self.device_lost, told = reason, f"{reason}; --resume does not try it again"
        if before:
            self.restore(before)
            self.error = told
        else:
            self.failed = told


def group_implementations(entries: Iterable[CaseState]) -> list[list[CaseState]]:
    """Group neighbours that differ only in implementation, for timing side by side."""

    def shared(entry: CaseState) -> Case:
        return replace(entry.case, name="", implementation="", kernel="")

    return [list(group) for _, group in groupby(entries, shared)]


# Axes of kernels, collectives and whole models


class RunConfig(NamedTuple):
    """Axes of a kernel's case."""

    dtype: str
    cache: str
    launch: str
    implementation: str


class CollectiveRunConfig(NamedTuple):
    """Axes of a collective's case: calls are back-to-back if `gap_seconds` is 0."""

    dtype: str
    launch: str
    gap_seconds: float
    implementation: str

    def __str__(self) -> str:
        gap = f"-gap{1000 * self.gap_seconds:g}ms" if self.gap_seconds else ""
        return f"{self.dtype}-{self.launch}{gap}-{self.implementation}"


class StepRunConfig(NamedTuple):
    """Axes of a whole model's case: kernels, and the backend between ranks."""

    dtype: str
    implementation: str
    backend: str

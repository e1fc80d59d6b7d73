"""A case of the run: what has been measured of it so far, and why there is no more."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import inf
from typing import Any, NamedTuple

from specs import statistics
from specs.measurement import Case, Measurement

MOVED_VISITS = "moved_visits"
"""Among the telemetry: visits in which the SM clock moved."""


@dataclass(kw_only=True)
class CaseState:
    """What every case has, whatever measures it.

    `labels` are pytest-benchmark's own names for it; `need_bytes` is what it takes beside other cases' memory;
    `calls_made` counts its calls, so that each visit goes on where the one before ended; `failed` voids it, while
    `error` only ends
    it: what was measured before stays. `device_lost` says why the device could do no more after it, and --resume skips
    it. `configuration` is what an interrupted run noted as the kernel's choice.
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
        """Whether there is anything to measure."""
        return self.not_run is None and self.failed is None

    @property
    def half_width(self) -> float:
        """Relative half-width of the interval so far."""
        return statistics.relative_half_width(self.seconds) if self.seconds else inf

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
            configuration=self.configuration,
        )

    def check(self, error: float, limit: float) -> None:
        """Keep the error of a result; the case fails if it is too large or NaN."""
        if error <= limit:
            self.relative_error = error
            return
        unwritten = " (an element of the output was not written, or is NaN)" if error != error else ""
        self.failed = f"wrong result: relative error {error:.3g} is over {limit:.3g}{unwritten}; not timed"

    def record_load(self, telemetry: dict[str, float] | None, *, moved: bool = False) -> None:
        """Keep what was read under load: shares as means over the visits so far, all else as the last reading.

        Visits in which the SM clock `moved` are counted, where that can be read.
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
        """Count a visit whose samples were dropped because the SM clock moved; earlier samples keep their clocks."""
        kept = self.telemetry if self.seconds and self.telemetry else telemetry
        self.telemetry = kept | {MOVED_VISITS: self.moved_visits + 1.0}

    @property
    def moved_visits(self) -> float:
        """Visits in which the SM clock moved."""
        return (self.telemetry or {}).get(MOVED_VISITS, 0.0)

    @property
    def unsteady_reason(self) -> str | None:
        """One line on a case that has no samples because the SM clock moved in every visit; None for all others."""
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
        """Go on from what an interrupted run has measured."""
        self.seconds = list(before.seconds)
        self.relative_error, self.clock, self.calls = before.relative_error, before.clock, before.calls
        self.throttled, self.configuration = before.throttled, before.configuration
        self.telemetry = dict(before.telemetry) if before.telemetry else None

    def skip(self, reason: str, before: Measurement | None) -> None:
        """Leave a case alone in which the device was lost, with the samples of before that where there are any."""
        self.device_lost, told = reason, f"{reason}; --resume does not try it again"
        if before:
            self.restore(before)
            self.error = told
        else:
            self.failed = told


def group_implementations(entries: Iterable[CaseState]) -> list[list[CaseState]]:
    """Neighbours that differ only in implementation, which have to be timed side by side."""

    def shared(entry: CaseState) -> Case:
        return replace(entry.case, name="", implementation="", kernel="")

    return [list(group) for _, group in groupby(entries, shared)]


# The axes that every suite of a kind has: how a kernel is run, and how ranks talk.


class RunConfig(NamedTuple):
    """How a kernel is run."""

    dtype: str
    cache: str
    launch: str
    implementation: str


class CollectiveRunConfig(NamedTuple):
    """How ranks talk: back-to-back where `gap_seconds` is 0, else each call after so much idle time."""

    dtype: str
    launch: str
    gap_seconds: float
    implementation: str

    def __str__(self) -> str:
        gap = f"-gap{1000 * self.gap_seconds:g}ms" if self.gap_seconds else ""
        return f"{self.dtype}-{self.launch}{gap}-{self.implementation}"


class StepRunConfig(NamedTuple):
    """How a whole model is run: whose kernels, and what carries messages between ranks."""

    dtype: str
    implementation: str
    backend: str

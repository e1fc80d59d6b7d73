"""A measurement beside its floors: what one row of a report says."""

from dataclasses import asdict, dataclass
from functools import cached_property
from math import isfinite
from typing import Any

from reports import clocks, units
from reports.questions import is_launch, is_share
from specs import roofline, statistics
from specs.measurement import Measurement
from specs.roofline import Ceilings

NOISY = 0.2
"""Samples whose middle four fifths spread over more than this share of their median make a noisy case."""
CONTENDED = 0.1
"""Share of the CPU time that others had, above which a case is labelled: it waited for them."""


@dataclass(frozen=True)
class Figures:
    """A measurement, the ceilings of the same file, and those of its GPU's datasheet where that is known."""

    measurement: Measurement
    measured: Ceilings
    datasheet: Ceilings | None

    @property
    def floor_seconds(self) -> float | None:
        """Least time by the file's own ceilings; None where one is missing, and for work that memory does not see."""
        return self._floor(self.measured)

    @property
    def floor_share(self) -> float | None:
        """Floor / median: 1 is at the ceiling. More than 1 says that the ceiling was measured too low."""
        return self.floor_seconds / self.measurement.median if self.floor_seconds else None

    @property
    def bound(self) -> str | None:
        """Which ceiling sets the floor: memory or compute."""
        case = self.measurement.case
        return roofline.bound(case.work, case.dtype, self.measured) if self.floor_seconds else None

    @property
    def datasheet_share(self) -> float | None:
        """Floor by datasheet / median."""
        floor = self._floor(self.datasheet) if self.datasheet else None
        return floor / self.measurement.median if floor else None

    def _floor(self, ceilings: Ceilings) -> float | None:
        case = self.measurement.case
        if case.wire_bytes_sent_per_rank or is_launch(case) or is_share(case):  # no ceiling here is of those
            return None
        if not case.hbm_bytes:  # unknown: nothing computes on nothing
            return None
        return roofline.floor_seconds(case.work, case.dtype, ceilings) or None

    @property
    def bytes_per_second(self) -> float | None:
        """Achieved device-memory bandwidth; None where it is not the point."""
        return None if is_launch(self.measurement.case) else self.measurement.bytes_per_second or None

    @property
    def flops_per_second(self) -> float | None:
        """Achieved arithmetic rate; None where it is not the point."""
        return None if is_launch(self.measurement.case) else self.measurement.flops_per_second or None

    @property
    def wire_bytes_per_second(self) -> float | None:
        """Bytes that a rank sends, a second; None where it sends none."""
        return self.measurement.case.wire_bytes_sent_per_rank / self.measurement.median or None

    @cached_property
    def half_width(self) -> float | None:
        """Relative half-width of the 95 % interval; None for a single pass."""
        width = statistics.half_width(self.measurement.seconds)
        return width if isfinite(width) else None

    @cached_property
    def noise(self) -> float | None:
        """Spread of single samples over their median; None for one sample."""
        return statistics.noise(self.measurement.seconds) if len(self.measurement.samples) > 1 else None

    @property
    def _taken_by_others(self) -> float:
        """Share of the CPU time during the case that other processes and other virtual machines had."""
        load = self.measurement.telemetry or {}
        return load.get("others_share", 0.0) + load.get("steal_share", 0.0)

    def warnings(self) -> list[str]:
        """What to mind about the figure, in a word each."""
        said = {
            "noisy": (self.noise or 0) > NOISY,
            **dict.fromkeys(clocks.doubts(self.measurement), True),
            "contended": self._taken_by_others > CONTENDED,
            "stopped by budget": self.measurement.stopped_by == "budget",
            self.measurement.stopped_by: self.measurement.stopped_by.startswith(("error", "interrupted")),
            "single pass": self.half_width is None and self.measurement.provenance == "measured",
            self._provenance: self.measurement.provenance != "measured",
            "maybe hot": bool(self.measurement.maybe_hot),
        }
        return [*(word for word, applies in said.items() if applies), *self.measurement.doubts]

    @property
    def _provenance(self) -> str:
        """Where the figure comes from; of an interpolated one between what, and how far off that may be."""
        one = self.measurement
        if not one.interpolated_over:
            return one.provenance
        return f"{one.provenance} over {one.interpolated_over} ±{units.percent(one.interpolation_error)}"

    def record(self) -> dict[str, Any]:
        """All of it for a machine: SI units, None where there is nothing to say."""
        measurement = self.measurement
        low, high = measurement.interval or (None, None)
        return {
            **asdict(measurement.case),
            "median_seconds": measurement.median,
            "low_seconds": low,
            "high_seconds": high,
            "mean_seconds": statistics.mean(measurement.seconds),
            "bytes_per_second": self.bytes_per_second,
            "flops_per_second": self.flops_per_second,
            "wire_bytes_per_second": self.wire_bytes_per_second,
            "floor_seconds": self.floor_seconds,
            "floor_share": self.floor_share,
            "bound": self.bound,
            "datasheet_share": self.datasheet_share,
            "noise": self.noise,
            "relative_error": measurement.relative_error,
            "passes": len(measurement.seconds),
            "samples": len(measurement.samples),
            "clock": measurement.clock,
            "stopped_by": measurement.stopped_by,
            "throttled": measurement.throttled,
            "provenance": measurement.provenance,
            "warnings": self.warnings(),
        }

"""Published points as measurements: checks, warnings and sources."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from specs.gpus import GPUS, Gpu
from specs.measurement import Case, Measurement

if TYPE_CHECKING:  # plans from the cache read no table, and pandas takes as long to import as a plan
    import pandas as pd

# Points gathered by an import, and reasons for points that were left out.


@dataclass
class ImportedPoints:
    """Points of one or more families.

    Attributes:
        measurements: accepted points.
        not_run: reason by case name for a missing series.
        refused: reason by case name for an impossible point.
        notes: remarks on skipped tables.
        device: name of the GPU in the tables.
    """

    measurements: list[Measurement] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    device: str = ""

    def extend(self, others: Iterable["ImportedPoints"]) -> None:
        """Append the content of `others`; the first device name stays."""
        for other in others:
            self.measurements += other.measurements
            self.not_run |= other.not_run
            self.refused |= other.refused
            self.notes += other.notes
            self.device = self.device or other.device


# Checks of published points: impossible times, and doubtful times.
#
# A GEMM has to read its weights once per call. The collector rotates through at most six copies of them (TensorRT-LLM's
# through as few as one), so a cache may serve a part. Points served by a cache are no cold measurements.

MAX_COPIES = 6
"""Maximum number of weight copies that the collector rotates through."""
MIN_COLD_RATIO = 4
"""Ratio of all copies to the L2 below which the L2 may have served a part."""
DIP_RATIO = 1.25
"""Ratio to the time of a later point above which a point is marked as slow.

More tokens take less time only by noise, or where the library picks a poor kernel for fewer tokens.
"""
MAX_READ_SHARE = 0.95
"""Share of the datasheet's bandwidth that no read from memory reaches.

Weights of gigabytes stay below 0.93.
"""


@dataclass(frozen=True)
class LintedSeries:
    """A series over tokens after the checks.

    Attributes:
        seconds: possible times, by tokens.
        maybe_hot: True where a cache may have held the weights.
        doubts: warnings, by tokens.
        refused: reason for removal, by tokens.
    """

    seconds: Mapping[int, float]
    maybe_hot: bool
    doubts: Mapping[int, Sequence[str]]
    refused: Mapping[int, str]


def l2_bytes(gpu: Gpu) -> int:
    """L2 of the GPU in bytes.

    Where unknown: the largest known L2 of its generation, or else of all GPUs.
    """
    if gpu.l2_bytes:
        return gpu.l2_bytes
    known = [(row.arch[:-1] == gpu.arch[:-1], row.l2_bytes) for row in GPUS.values() if row.l2_bytes]
    return max(known)[1]


def maybe_hot(weight_bytes: float, gpu: Gpu, copies: int = MAX_COPIES) -> bool:
    """True where the rotated copies are so small that the L2 may have served a part."""
    return copies * weight_bytes < MIN_COLD_RATIO * l2_bytes(gpu)


def lint_linear(seconds: Mapping[int, float], weight_bytes: float, gpu: Gpu, copies: int = MAX_COPIES) -> LintedSeries:
    """Check the times of one linear over tokens.

    Args:
        seconds: time per call, by tokens.
        weight_bytes: bytes of one copy of the weights.
        gpu: GPU that read the weights from its memory.
        copies: number of copies that the calls rotated through.
    """
    hot = maybe_hot(weight_bytes, gpu, copies)
    refused: dict[int, str] = {}
    floor = weight_bytes / gpu.hbm_bytes_per_second
    if weight_bytes > l2_bytes(gpu):
        refused = {
            tokens: f"reads {weight_bytes / 1e6:.0f} MB of weights at {floor / time:.2f} times the memory's bandwidth"
            for tokens, time in seconds.items()
            if time < floor
        }
    hot = hot or any(
        MAX_READ_SHARE * time < floor for time in seconds.values()
    )  # a cache that served one point may serve all
    kept = {tokens: time for tokens, time in seconds.items() if tokens not in refused}
    return LintedSeries(kept, hot, find_dips(kept), refused)


def lint_stream(seconds: float, stream_bytes: float, gpu: Gpu) -> tuple[bool, str]:
    """True where a cache may have served a call, and why its time is impossible.

    The reason is empty for a possible time.

    Args:
        seconds: time of the call.
        stream_bytes: bytes that are read once and not kept: keys and values, or experts.
        gpu: GPU that read the bytes from its memory.
    """
    share = stream_bytes / gpu.hbm_bytes_per_second / seconds
    if share > 1 and stream_bytes > l2_bytes(gpu):
        return True, f"reads {stream_bytes / 1e6:.0f} MB at {share:.2f} times the memory's bandwidth"
    return share > MAX_READ_SHARE, ""


def inherited_doubts(doubts: Mapping[int, Sequence[str]], low: int, high: int) -> tuple[str, ...]:
    """Doubts about a point between two others: the doubts about both."""
    return tuple(f"at {tokens} tokens {why}" for tokens in (low, high) for why in doubts.get(tokens, ()))


def find_dips(seconds: Mapping[int, float]) -> dict[int, Sequence[str]]:
    """Mark points that are slower than a point with more tokens."""
    found: dict[int, Sequence[str]] = {}
    best, where = float("inf"), 0
    for tokens in sorted(seconds, reverse=True):
        if seconds[tokens] > DIP_RATIO * best:
            found[tokens] = (f"{seconds[tokens] / best:.2f} times the time of {where} tokens",)
        if seconds[tokens] < best:
            best, where = seconds[tokens], tokens
    return found


SUITE = "aiconfigurator"
CLAIM_TOKENS = (125, 1000)
"""Token counts of a claim that no table holds."""


@dataclass(frozen=True)
class TableSource:
    """Source of a series: framework, version, and the kernel that it names."""

    framework: str
    version: str
    kernel_source: str

    @classmethod
    def from_rows(cls, rows: "pd.DataFrame") -> "TableSource":
        """Source of the rows of one series; several names are joined by ` | `."""
        return cls(*(" | ".join(sorted(set(rows[column]))) for column in ("framework", "version", "kernel_source")))


def case_name(op: str, *labels: object) -> str:
    """Case name in the form of a pytest node id.

    GPU and version are left out, so that systems can be compared.
    """
    return f"{SUITE}::{op}[{'-'.join(str(label) for label in labels if label is not None)}]"


def published_measurement(case: Case, seconds: float, source: TableSource, **facts: Any) -> Measurement:
    """Measurement of a published time, which stands for samples that are not given."""
    return Measurement(
        case=replace(case, kernel=case.kernel or source.kernel_source),
        seconds=((seconds,),),
        clock="published",
        stopped_by="published",
        framework=source.framework,
        version=source.version,
        kernel_source=source.kernel_source,
        **{"provenance": "published", **facts},
    )

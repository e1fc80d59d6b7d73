"""A published point as the record that every report reads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from specs.gpus import GPUS, Gpu
from specs.measurement import Case, Measurement

# What an import has gathered: points, and what was left out and why.


@dataclass
class ImportedPoints:
    """Points of one or more families.

    Attributes:
        measurements: the points.
        not_run: by case name why a whole series is missing.
        refused: by case name why a single point cannot be true.
        notes: on tables that were passed over.
        device: the GPU's name as the tables give it.
    """

    measurements: list[Measurement] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    device: str = ""

    def extend(self, others: Iterable["ImportedPoints"]) -> None:
        """Take over what others gathered; the first device named stays."""
        for other in others:
            self.measurements += other.measurements
            self.not_run |= other.not_run
            self.refused |= other.refused
            self.notes += other.notes
            self.device = self.device or other.device


# What published points cannot be, and what is odd about them.
#
# A GEMM has to read its weights once a call. The collector rotates through at most six copies of them (TensorRT-LLM's
# through as few as one), so a cache may serve a part: such points are no cold measurements.

MAX_COPIES = 6
"""Copies of the weights that the collector rotates through, at most."""
MIN_COLD_RATIO = 4
"""A pool of less than this many times the L2 may have been read from it in part."""
DIP_RATIO = 1.25
"""A point that is slower than a later one by more than this is marked: more tokens cannot take less time but by noise,
or because the library picks a poor kernel below them."""
MAX_READ_SHARE = 0.95
"""Share of the datasheet's bandwidth that no read from memory reaches: weights of gigabytes stay below 0.93."""


@dataclass(frozen=True)
class LintedSeries:
    """One series over tokens after the checks.

    Attributes:
        seconds: the points that may be, by tokens.
        maybe_hot: whether a cache may have held the weights.
        doubts: what is odd, by tokens.
        refused: why a point was taken out, by tokens.
    """

    seconds: Mapping[int, float]
    maybe_hot: bool
    doubts: Mapping[int, Sequence[str]]
    refused: Mapping[int, str]


def l2_bytes(gpu: Gpu) -> int:
    """The GPU's L2; where it is unknown, the largest known of its generation or else of all."""
    if gpu.l2_bytes:
        return gpu.l2_bytes
    known = [(row.arch[:-1] == gpu.arch[:-1], row.l2_bytes) for row in GPUS.values() if row.l2_bytes]
    return max(known)[1]


def maybe_hot(weight_bytes: float, gpu: Gpu, copies: int = MAX_COPIES) -> bool:
    """Whether the rotated copies fit a few times the L2, so that a part of them may have come from it."""
    return copies * weight_bytes < MIN_COLD_RATIO * l2_bytes(gpu)


def lint_linear(seconds: Mapping[int, float], weight_bytes: float, gpu: Gpu, copies: int = MAX_COPIES) -> LintedSeries:
    """Check one linear over tokens.

    Args:
        seconds: time of a call by tokens.
        weight_bytes: bytes of one copy of the weights.
        gpu: whose memory they were read from.
        copies: how many copies the calls rotated through.
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
    )  # a cache that served one may serve all
    kept = {tokens: time for tokens, time in seconds.items() if tokens not in refused}
    return LintedSeries(kept, hot, find_dips(kept), refused)


def lint_stream(seconds: float, stream_bytes: float, gpu: Gpu) -> tuple[bool, str]:
    """Whether a call may have had from a cache what it had to read, and why it cannot be true if it cannot.

    Args:
        seconds: time of the call.
        stream_bytes: what it reads once and does not keep: keys and values, or experts.
        gpu: whose memory it was read from.
    """
    share = stream_bytes / gpu.hbm_bytes_per_second / seconds
    if share > 1 and stream_bytes > l2_bytes(gpu):
        return True, f"reads {stream_bytes / 1e6:.0f} MB at {share:.2f} times the memory's bandwidth"
    return share > MAX_READ_SHARE, ""


def inherited_doubts(doubts: Mapping[int, Sequence[str]], low: int, high: int) -> tuple[str, ...]:
    """What is odd about a point between two: what is odd about either."""
    return tuple(f"at {tokens} tokens {why}" for tokens in (low, high) for why in doubts.get(tokens, ()))


def find_dips(seconds: Mapping[int, float]) -> dict[int, Sequence[str]]:
    """Points that are slower than one with more tokens."""
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
"""Tokens that a claim speaks of and no table holds."""


@dataclass(frozen=True)
class TableSource:
    """Who measured a series: the framework, its version, and the kernel it says it ran."""

    framework: str
    version: str
    kernel_source: str

    @classmethod
    def from_rows(cls, rows: pd.DataFrame) -> "TableSource":
        """What the rows of one series say; several kernels are named one after the other."""
        return cls(*(" | ".join(sorted(set(rows[column]))) for column in ("framework", "version", "kernel_source")))


def case_name(op: str, *labels: object) -> str:
    """A case name in the form of a pytest node id; no GPU and no version in it, so that systems can be compared."""
    return f"{SUITE}::{op}[{'-'.join(str(label) for label in labels if label is not None)}]"


def published_measurement(case: Case, seconds: float, source: TableSource, **facts: Any) -> Measurement:
    """One published time: a single figure that stands for samples which the source does not give."""
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

"""The axes that every suite of a kind has: how a kernel is run, and how ranks talk."""

from typing import NamedTuple


class How(NamedTuple):
    """How a kernel is run."""

    dtype: str
    cache: str
    launch: str
    implementation: str


class RankHow(NamedTuple):
    """How ranks talk: back-to-back where `gap_seconds` is 0, else each call after so much idle time."""

    dtype: str
    launch: str
    gap_seconds: float
    implementation: str

    def __str__(self) -> str:
        gap = f"-gap{1000 * self.gap_seconds:g}ms" if self.gap_seconds else ""
        return f"{self.dtype}-{self.launch}{gap}-{self.implementation}"


class StepHow(NamedTuple):
    """How a whole model is run: whose kernels, and what carries messages between ranks."""

    dtype: str
    implementation: str
    backend: str

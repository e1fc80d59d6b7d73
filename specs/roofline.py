"""The roofline: the minimum time of a call, and the resource that sets it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from specs.gpus import Gpu
from specs.units import PEAK_DTYPE

# Work of one call of a kernel or collective, derived from its shape and never measured.


@dataclass(frozen=True)
class Work:
    """Arithmetic and traffic of one call on one rank.

    Attributes:
        flops: floating-point operations, a multiply-add counting as two.
        hbm_bytes: least bytes through device memory: each input read once, each output written once.
        wire_bytes_sent_per_rank: bytes that this rank sends to other ranks.
    """

    flops: int = 0
    hbm_bytes: int = 0
    wire_bytes_sent_per_rank: int = 0

    def __add__(self, other: Self) -> "Work":
        return Work(
            self.flops + other.flops,
            self.hbm_bytes + other.hbm_bytes,
            self.wire_bytes_sent_per_rank + other.wire_bytes_sent_per_rank,
        )

    @property
    def intensity(self) -> float:
        """Arithmetic intensity in flops per byte of device memory."""
        return self.flops / self.hbm_bytes if self.hbm_bytes else float("inf")


@dataclass(frozen=True)
class Ceilings:
    """The limits of one device; None or a missing entry is unknown.

    Attributes:
        read_bytes_per_second: read bandwidth of device memory, by reading alone (a copy is no read ceiling).
        flops_per_second: dense matrix peak by dtype.
        launch_seconds: time from one kernel to the next in a chain.
        origin: measured or datasheet.
    """

    read_bytes_per_second: float | None
    flops_per_second: Mapping[str, float] = field(hash=False)
    launch_seconds: float | None = None
    origin: Literal["measured", "datasheet"] = "measured"

    @classmethod
    def datasheet(cls, gpu: Gpu) -> "Ceilings":
        """Return the limits in the vendor's datasheet."""
        return cls(gpu.hbm_bytes_per_second, gpu.flops_per_second, origin="datasheet")

    def peak(self, dtype: str) -> float | None:
        """Return the peak in flops/s for this format; None if unknown."""
        return self.flops_per_second.get(PEAK_DTYPE.get(dtype, dtype))


def memory_seconds(work: Work, ceilings: Ceilings) -> float | None:
    """Return the time to move the bytes of `work`; None if the bandwidth is unknown."""
    if work.hbm_bytes == 0:
        return 0.0
    return work.hbm_bytes / ceilings.read_bytes_per_second if ceilings.read_bytes_per_second else None


def compute_seconds(work: Work, dtype: str, ceilings: Ceilings) -> float | None:
    """Return the time of the flops of `work`; None if there is no peak for `dtype`."""
    if work.flops == 0:
        return 0.0
    peak = ceilings.peak(dtype)
    return work.flops / peak if peak else None


def floor_seconds(work: Work, dtype: str, ceilings: Ceilings) -> float | None:
    """Return the longer of memory and compute time, since both can overlap.

    None if a ceiling that `work` needs is unknown.
    """
    memory, compute = memory_seconds(work, ceilings), compute_seconds(work, dtype, ceilings)
    return None if memory is None or compute is None else max(memory, compute)


def share_of_floor(measured_seconds: float, work: Work, dtype: str, ceilings: Ceilings) -> float | None:
    """Return floor time over measured time; 1 is the hardware's limit.

    Above 1 the data came from a cache, or the ceiling is too low.
    """
    floor = floor_seconds(work, dtype, ceilings)
    return None if floor is None else floor / measured_seconds


def limiting_resource(work: Work, dtype: str, ceilings: Ceilings) -> Literal["memory", "compute"] | None:
    """Return the resource that sets the floor; None if a ceiling is unknown."""
    memory, compute = memory_seconds(work, ceilings), compute_seconds(work, dtype, ceilings)
    if memory is None or compute is None:
        return None
    return "memory" if memory >= compute else "compute"


def ridge_tokens(itemsize: float, flops_per_second: float, bytes_per_second: float) -> float:
    """Return the tokens at which a linear changes from memory- to compute-bound.

    There 2·m·n·k flops take as long as n·k·itemsize bytes of weights.
    """
    return itemsize * flops_per_second / (2 * bytes_per_second)

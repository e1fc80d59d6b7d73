"""The roofline: the least time that a call can take, and which side of the ridge it is on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from specs.gpus import Gpu
from specs.units import PEAK_DTYPE

# What one call of a kernel or collective has to do, counted by hand and never measured.


@dataclass(frozen=True)
class Work:
    """Arithmetic and traffic of one call on one rank.

    Attributes:
        flops: floating-point operations, a multiply-add counting as two.
        hbm_bytes: least bytes through device memory: each input read once, each output written once.
        wire_bytes_sent_per_rank: bytes that this rank sends to others.
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
        """Arithmetic intensity in flops a byte of device memory."""
        return self.flops / self.hbm_bytes if self.hbm_bytes else float("inf")


@dataclass(frozen=True)
class Ceilings:
    """The limits of one device; what is None or missing is unknown.

    Attributes:
        read_bytes_per_second: of device memory, by reading alone (a copy is no read ceiling).
        flops_per_second: dense matrix peak by dtype.
        launch_seconds: from one kernel to the next in a chain.
        origin: measured or datasheet.
    """

    read_bytes_per_second: float | None
    flops_per_second: Mapping[str, float] = field(hash=False)
    launch_seconds: float | None = None
    origin: Literal["measured", "datasheet"] = "measured"

    @classmethod
    def datasheet(cls, gpu: Gpu) -> "Ceilings":
        """What the vendor promises."""
        return cls(gpu.hbm_bytes_per_second, gpu.flops_per_second, origin="datasheet")

    def peak(self, dtype: str) -> float | None:
        """Flops a second of the unit that this format runs on; None if unknown."""
        return self.flops_per_second.get(PEAK_DTYPE.get(dtype, dtype))


def memory_seconds(work: Work, ceilings: Ceilings) -> float | None:
    """Time to move the bytes of `work`; None if the bandwidth is unknown."""
    if work.hbm_bytes == 0:
        return 0.0
    return work.hbm_bytes / ceilings.read_bytes_per_second if ceilings.read_bytes_per_second else None


def compute_seconds(work: Work, dtype: str, ceilings: Ceilings) -> float | None:
    """Time to do the flops of `work`; None if there is no peak for `dtype`."""
    if work.flops == 0:
        return 0.0
    peak = ceilings.peak(dtype)
    return work.flops / peak if peak else None


def floor_seconds(work: Work, dtype: str, ceilings: Ceilings) -> float | None:
    """The longer of the two, as both can overlap; None if a ceiling that `work` needs is unknown."""
    memory, compute = memory_seconds(work, ceilings), compute_seconds(work, dtype, ceilings)
    return None if memory is None or compute is None else max(memory, compute)


def share_of_floor(measured_seconds: float, work: Work, dtype: str, ceilings: Ceilings) -> float | None:
    """Floor over measured: 1 is the hardware's limit; above 1 the data came from a cache or the ceiling is too low."""
    floor = floor_seconds(work, dtype, ceilings)
    return None if floor is None else floor / measured_seconds


def limiting_resource(work: Work, dtype: str, ceilings: Ceilings) -> Literal["memory", "compute"] | None:
    """Which ceiling sets the floor."""
    memory, compute = memory_seconds(work, ceilings), compute_seconds(work, dtype, ceilings)
    if memory is None or compute is None:
        return None
    return "memory" if memory >= compute else "compute"


def ridge_tokens(itemsize: int, flops_per_second: float, bytes_per_second: float) -> float:
    """Tokens at which a linear goes from memory to compute: 2·m·n·k flops against n·k·itemsize bytes of weights."""
    return itemsize * flops_per_second / (2 * bytes_per_second)

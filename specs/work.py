"""What one call of a kernel or collective has to do, counted by hand and never measured."""

from dataclasses import dataclass
from typing import Self


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

"""Cuts of decode attention by architecture and shape: `kernels/tuned/<arch>.attention.json`."""

from dataclasses import dataclass
from functools import cache
from math import log2
from pathlib import Path
from typing import Any

from kernels.attention_cut import FAN, Cut
from kernels.tuning.table import MEASURED, TUNED, Table, read_table
from specs.units import ITEMSIZE

REACH_PAIRS, REACH_CONTEXT = 0.5, 1.0
"""In powers of two. Pairs decide how many parts fill the SMs; the context how long each takes, which matters less."""


@dataclass(frozen=True)
class AttentionRow:
    """The cut of one class of shapes.

    Attributes:
        dtype, batch, context, heads, kv_heads, head_dim: the shape that was looked at.
        page_size: tokens of a page, 0 for a contiguous cache.
        config: what was chosen.
        seconds: cold mean of a call.
        basis: MEASURED followed by the GPU.
    """

    dtype: str
    batch: int
    context: int
    heads: int
    kv_heads: int
    head_dim: int
    page_size: int
    config: Cut
    seconds: float
    basis: str

    @property
    def shape(self) -> tuple[Any, ...]:
        """What a row is of: a table has one row a shape."""
        return self.dtype, self.batch, self.context, self.heads, self.kv_heads, self.head_dim, self.page_size

    def distance(
        self, dtype: str, batch: int, context: int, heads: int, kv_heads: int, head_dim: int, page_size: int
    ) -> float | None:
        """How far a shape is from this one in powers of two; None where it is out of reach.

        A batch of 32 on one kv head is a batch of 4 on eight: as many pairs, each a stream of its own.
        """
        pairs = abs(log2(batch * kv_heads / (self.batch * self.kv_heads)))
        length = abs(log2(context / self.context))
        code = (dtype, heads // kv_heads, head_dim, page_size)
        same = code == (self.dtype, self.heads // self.kv_heads, self.head_dim, self.page_size)
        return pairs + length if same and pairs <= REACH_PAIRS and length <= REACH_CONTEXT else None


def load(path: Path) -> Table[AttentionRow]:
    """Read a table.

    Raises:
        UserError: the file cannot be read, or is no table of this schema and of the architecture in its name.
    """
    return read_table(path, _row)


def _row(config: dict[str, Any], **rest: Any) -> AttentionRow:
    row = AttentionRow(**rest, config=Cut(**config))
    sizes = (*row.shape[1:6], *row.config)
    if not all(type(size) is int and size > 0 for size in sizes) or type(row.page_size) is not int or row.page_size < 0:
        raise ValueError(f"sizes are whole numbers of at least 1, and page_size 0 without pages: {row}")
    if any(size & (size - 1) for size in row.config[:2]) or row.config.block < 16 or row.config.split > FAN * FAN:
        raise ValueError(
            f"block and warps are powers of two, block 16 or more, split {FAN * FAN} at most: {row.config}"
        )
    if row.heads % row.kv_heads or row.dtype not in ITEMSIZE or not row.basis.startswith(MEASURED):
        raise ValueError(f"heads that kv_heads do not divide, or a dtype or basis that is unknown: {row}")
    return row


@cache
def tuned(arch: str, folder: Path = TUNED) -> Table[AttentionRow] | None:
    """The table of an architecture; None if there is none."""
    path = folder / f"{arch}.attention.json"
    return load(path) if path.exists() else None

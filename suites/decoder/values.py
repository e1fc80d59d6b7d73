"""What stands in weights, caches and prompts, so that any rank can make its part of any tensor, and all agree.

A tensor's row is a window of one long table of normal values, entered at a place that its name and number give. A shard
is a narrower window of fewer rows, so it is made as fast as memory is copied, and without the rest.
"""

import zlib
from functools import cache
from math import sqrt

import torch

from kernels.kernel import DTYPES

PRIME = 1_048_573
STEP = 7919
"""Between the windows of two rows: primes, so that no two rows of a tensor are the same before PRIME of them."""
WIDEST = 65_536
"""Columns of a window at most."""
PERIOD = 7
"""Sequences that differ; the others repeat them in memory of their own. Few, so that a float64 reference of them all is
quickly made, and a prime, so that no two micro-batches of a power of two begin alike."""


@cache
def _table(dtype: str, device: torch.device) -> torch.Tensor:
    drawn = torch.randn(PRIME, generator=torch.Generator().manual_seed(PRIME))
    return torch.cat((drawn, drawn[:WIDEST])).to(DTYPES[dtype]).to(device)


def block(
    name: str, rows: torch.Tensor, columns: slice, dtype: str, device: torch.device, scale: float = 1.0
) -> torch.Tensor:
    """Rows and columns of the tensor called `name`: normal values times `scale`.

    Args:
        name: `layer 3 qkv`, …
        rows: numbers of the rows, int64.
        columns: start and stop.
        dtype: short name.
        device: where it is made.
        scale: 1 / √k for a weight, so that what it gives is as large as what it is given.
    """
    entered = (zlib.crc32(name.encode()) + columns.start + rows.to(device) * STEP) % PRIME
    windows = _table(dtype, device).unfold(0, columns.stop - columns.start, 1)
    found = windows.index_select(0, entered)
    return found if scale == 1.0 else found.mul_(scale)


def weight(name: str, rows: torch.Tensor, columns: slice, k: int, dtype: str, device: torch.device) -> torch.Tensor:
    """The same of a weight W[n, k], scaled to its whole length k."""
    return block(name, rows, columns, dtype, device, 1 / sqrt(k))


def cached(
    name: str, sequences: int, context: int, heads: slice, head_dim: int, dtype: str, device: torch.device
) -> torch.Tensor:
    """Keys or values[sequences, context, heads, head_dim] of a cache that was filled before."""
    places = (torch.arange(sequences) % PERIOD)[:, None] * context + torch.arange(context)
    columns = slice(heads.start * head_dim, heads.stop * head_dim)
    found = block(name, places.flatten(), columns, dtype, device)
    return found.view(sequences, context, heads.stop - heads.start, head_dim)


def tokens(sequences: int, length: int, vocab: int, turn: int = 0) -> torch.Tensor:
    """Token ids[sequences, length]; others in another turn."""
    places = (torch.arange(sequences) % PERIOD)[:, None] * length + torch.arange(length)
    return (places * 104_729 + turn * 15_485_863 + 3) % PRIME % vocab

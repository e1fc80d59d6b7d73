"""Messages that every rank can predict: a table of small integers, entered at another place by each rank.

The table's length is a prime, so that a part which arrives at a wrong place, from a wrong rank or from an earlier round
does not agree. Integers whose sum over all ranks stays below 2^7 are exact in every format and in every order of
summation.
"""

from functools import cache

import torch

from comm.collective import Value

PRIME = 65_537
MOST = 127
"""Largest sum over ranks: bf16 has eight bits of significand, so integers up to 256 are exact."""


def amplitude(ranks: int) -> int:
    """Largest value of one rank's message; with over 127 ranks sums may be rounded."""
    return max(1, MOST // (ranks + 1))  # one more for the residual


@cache
def _table(most: int, device: torch.device) -> torch.Tensor:
    table = torch.randint(-most, most + 1, (PRIME,), generator=torch.Generator().manual_seed(PRIME))
    table[table == 0] = 1  # zeros would hide what was never written, and cost less power
    return table.to(torch.float32).to(device)


def predictable(ranks: int, turn: int) -> Value:
    """The values of a round; another `turn` enters the table elsewhere, so that stale results show."""
    most = amplitude(ranks)

    def value(rank: int | torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return _table(most, index.device)[(index + (rank + 3) * 7919 + turn * 104_729) % PRIME]

    return value


def fill(buffer: torch.Tensor, value: Value, holds: int | None) -> None:
    """Write a rank's values, or NaN where nothing is held yet."""
    if holds is None:
        buffer.fill_(float("nan"))
        return
    block = value(holds, torch.arange(min(PRIME, buffer.numel()), device=buffer.device)).to(buffer.dtype)
    whole = buffer.numel() // PRIME * PRIME
    if whole:
        buffer[:whole].view(-1, PRIME).copy_(block.expand(whole // PRIME, PRIME))
    buffer[whole:].copy_(block[: buffer.numel() - whole])

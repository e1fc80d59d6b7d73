"""Is a collective's result right? Compared piece by piece, so that a check takes little memory beside the message."""

from math import sqrt

import torch

from comm.collective import Buffers, Collective, Role, Value

PIECE = 2**20
"""Elements that are compared at a time."""


def relative_error(collective: Collective, buffers: Buffers, value: Value, role: Role) -> float | None:
    """‖result − reference‖ / ‖reference‖ in float64; NaN where an element was not written, None for no result."""
    name = collective.result(role)
    if name is None:
        return None
    result, wrong, whole = buffers[name], 0.0, 0.0
    step = max(1, PIECE // role.row) * role.row
    for begin in range(0, result.numel(), step):
        piece = result[begin : begin + step]
        index = torch.arange(begin, begin + piece.numel(), device=result.device)
        right = collective.reference(value, index, role)
        wrong += float(torch.sum((piece.double() - right) ** 2))
        whole += float(torch.sum(right**2))
    return sqrt(wrong / whole)

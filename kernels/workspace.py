"""Scratch memory of kernels that split a sum over programs: partial sums, and counters of who has arrived."""

from functools import cache
from itertools import count

import torch

from specs.errors import UserError

RING = 2
"""Workspaces in turn: with dependent launch one call may begin while the call before it still runs."""


class Workspace:
    """Partial sums and arrival counters of one device, made once and grown when a larger call comes.

    A call leaves every counter at zero, so that nothing has to be cleared between calls. Calls on several streams at
    once need a workspace each.

    Attributes:
        partials: fp32, RING rows, in any state between calls.
        arrived: int32, RING rows of zeros between calls.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._turn = count()
        self._kept: list[torch.Tensor] = []  # graphs that were captured earlier still write there
        self.partials = torch.empty(RING, 0, dtype=torch.float32, device=device)
        self.arrived = torch.empty(RING, 0, dtype=torch.int32, device=device)

    def turn(self, partials: int, counters: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The next partials[≥ partials] and arrived[≥ counters] of the ring.

        Raises:
            UserError: more is needed than there is while a graph is captured, whose memory is none to keep zeros in.
        """
        grows = self.partials.shape[1] < partials or self.arrived.shape[1] < counters
        if grows and self._device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise UserError("a first call at a size makes room for partial sums: call it once before the capture")
        if self.partials.shape[1] < partials:
            self._kept.append(self.partials)
            self.partials = torch.empty(RING, _whole(partials), dtype=torch.float32, device=self._device)
        if self.arrived.shape[1] < counters:
            self._kept.append(self.arrived)
            self.arrived = torch.zeros(RING, _whole(counters), dtype=torch.int32, device=self._device)
        slot = next(self._turn) % RING
        return self.partials[slot], self.arrived[slot]


def _whole(count: int) -> int:
    """Elements of 4 bytes up to whole lines of 256, so that every slot of the ring starts at one."""
    return -(-count // 64) * 64


@cache
def workspace(device: torch.device) -> Workspace:
    """The workspace that calls on `device` share when they are given none."""
    return Workspace(device)

"""What the arrival protocol of split-K promises, counted over many runs."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from kernels.operands import Workspace


class Violations(NamedTuple):
    """Runs that broke a promise: bits other than the first run's, NaN in the output, a counter that is not zero."""

    changed: int
    unwritten: int
    counting: int


def offences(launch: Callable[[int], None], out: torch.Tensor, scratch: Workspace, runs: int) -> Violations:
    """Run `launch(number)` `runs` times, each with output and partial sums poisoned before.

    Counted on the device, so that runs follow each other closely. The workspace must be large enough from the start.
    """
    bits = {2: torch.int16, 4: torch.int32}[out.element_size()]
    counts = torch.zeros(3, dtype=torch.int64, device=out.device)
    first = None
    for number in range(runs):
        scratch.partials.fill_(float("nan"))
        out.fill_(float("nan"))
        launch(number)
        first = out.clone() if first is None else first
        changed = (out.view(bits) != first.view(bits)).any()
        counts += torch.stack([changed, out.isnan().any(), (scratch.arrived != 0).any()])
    return Violations(*counts.tolist())

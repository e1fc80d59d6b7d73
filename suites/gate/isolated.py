"""The isolated clock: one cold call between two events, as NVBench takes its cold measurement.

Before each call the last-level cache is overwritten, as NVBench does, so that both see the same dirty lines go. The
stream is kept busy until the host has queued the events and the call. So no gap of the host's making lies between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch

from kernels.timing.device import Device
from kernels.timing.host import Call, without_collector

BUSY_CYCLES = 400_000
"""About 0.2 ms at 2 GHz: queueing two events and a Triton launch takes the host some 30 us."""
MOST_BUSY_CYCLES = 64 * BUSY_CYCLES
WARM_UP = 3


@dataclass(frozen=True)
class Isolated:
    """Seconds of each call, and how often the host was too late and the call was left out."""

    seconds: tuple[float, ...]
    late: int


def isolated(calls: Sequence[Call], device: Device, rounds: int) -> Isolated:
    """Time `rounds` calls, each alone.

    Raises:
        RuntimeError: the host stayed behind however long the stream was kept busy.
    """
    flush = torch.empty(device.llc_bytes, dtype=torch.uint8, device=device.kind)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    turn, busy, late, seconds = cycle(calls), BUSY_CYCLES, 0, list[float]()
    for call in islice(turn, WARM_UP):
        call()
    torch.cuda.synchronize()
    with without_collector():
        while len(seconds) < rounds:
            flush.zero_()
            torch.cuda._sleep(busy)
            begin.record()
            next(turn)()
            end.record()
            ahead = not begin.query()
            torch.cuda.synchronize()
            if ahead:
                seconds.append(begin.elapsed_time(end) / 1000)
                continue
            late, busy = late + 1, 2 * busy
            if busy > MOST_BUSY_CYCLES:
                raise RuntimeError(f"the host queues calls too slowly: {late} of {late + len(seconds)} were late")
    return Isolated(tuple(seconds), late)

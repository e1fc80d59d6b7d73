"""What a rank sends after a walk: when each of its segments began and ended, by a clock that all ranks share."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from specs.measurement import COMPUTE

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

ALL_REDUCE, RECV, SEND, START = "all-reduce", "recv", "send", "start"
KINDS = (*COMPUTE, ALL_REDUCE, RECV, SEND, START)
"""all-reduce: from entry to exit. recv: from when the rank begins to wait until the message is there. send: posting it,
from when the message was ready. start: the moment after a barrier."""


class Trace(NamedTuple):
    """Segments of one rank, in order of time.

    Attributes:
        kind: of each segment, its place in `KINDS`.
        start, end: in seconds.
        step: that it belongs to, from 0 on, steps that only warm up included.
        slot: the micro-batch; -1 of a start.
    """

    kind: Ints
    start: Floats
    end: Floats
    step: Ints
    slot: Ints

    def of(self, *kinds: str) -> "Trace":
        """Segments of these kinds alone."""
        rows = np.isin(self.kind, [KINDS.index(kind) for kind in kinds])
        return Trace(self.kind[rows], self.start[rows], self.end[rows], self.step[rows], self.slot[rows])


def read_trace(rank: int, columns: Mapping[str, Any]) -> Trace:
    """The trace as it came over the wire.

    Raises:
        RuntimeError: it has a kind of segment that there is not, or columns of unequal length.
    """
    codes = {kind: code for code, kind in enumerate(KINDS)}
    if unknown := set(columns["kind"]) - set(codes):
        raise RuntimeError(f"rank {rank} traced segments of unknown kind: {', '.join(sorted(unknown))}")
    kind = np.array([codes[kind] for kind in columns["kind"]], np.int64)
    start, end = (np.array(columns[name], np.float64) for name in ("start", "end"))
    step, slot = (np.array(columns[name], np.int64) for name in ("step", "slot"))
    if len({len(kind), len(start), len(end), len(step), len(slot)}) > 1:
        raise RuntimeError(f"rank {rank} sent a trace whose columns are of unequal length")
    return Trace(kind, start, end, step, slot)

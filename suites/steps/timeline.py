"""The timeline of a walk: who computed, reduced, passed on and waited, in blocks few enough to draw.

A window of two steps of decode, or of one prompt. Where it takes too many blocks it is cut to one step, then
all-reduces are left within the compute that they interrupt, then the window is halved.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from specs.measurement import BLOCKS, COMPUTE, ITEMS
from suites.steps.segments import Segments
from suites.steps.trace import ALL_REDUCE, Floats

MOST_BLOCKS = 400
STEPS = 2
DECIMALS = 9
"""Nanoseconds."""
COMPUTING, REDUCING, IDLE = BLOCKS.index("compute"), BLOCKS.index("all-reduce"), BLOCKS.index("idle")
KINDS = {**dict.fromkeys(COMPUTE, "compute"), ALL_REDUCE: "all-reduce", "hop": "hop", "idle": "idle", "skew": "idle"}
APART = np.array([BLOCKS.index(KINDS.get(item, "compute")) for item in ITEMS])
"""For each item the place of its block in `BLOCKS`; host is no segment."""
WITHIN = np.where(np.isin(ITEMS, (ALL_REDUCE, "skew")), COMPUTING, APART)

Row = list[Any]


def draw(segments: Sequence[Segments], windows: Sequence[Floats], *, decode: bool) -> dict[str, Any]:
    """The timeline of all ranks, from the first step that counts.

    Args:
        segments: of all ranks.
        windows: of all replicas, from when to when each was at each step.
        decode: whether steps follow one another; else ranks are idle before and after their part of a prompt.
    """
    for low, high, kinds in _choices(windows, decode):
        rows = [row for rank, one in enumerate(segments) for row in _rows(rank, one, low, high, kinds, decode)]
        if len(rows) <= max(MOST_BLOCKS, len(segments)):
            break
    return {"seconds": round(high - low, DECIMALS), "blocks": rows}


def _choices(windows: Sequence[Floats], decode: bool) -> Iterator[tuple[float, float, Any]]:
    """Ever coarser: the window of the slowest replica, and which block an item belongs to."""
    for steps in (min(STEPS, len(windows[0])), 1) if decode else (1,):
        slowest = max(windows, key=lambda window: window[steps - 1, 1] - window[0, 0])
        low, high = float(slowest[0, 0]), float(slowest[steps - 1, 1])
        yield low, high, APART
    while True:
        yield low, high, WITHIN
        high = low + (high - low) / 2


def _rows(rank: int, segments: Segments, low: float, high: float, kinds: Any, decode: bool) -> Iterator[Row]:
    """A rank's blocks from low to high, each until the next begins: the host's time goes to the block before."""
    last = int(np.searchsorted(segments.start, high, "left"))
    if decode:
        first = max(0, int(np.searchsorted(segments.start, low, "right")) - 1)
    else:
        first = min(last, int(np.searchsorted(segments.end, low, "right")))
    shown = segments.cut(slice(first, last))
    starts = np.clip(shown.start, low, high)
    if decode:
        starts[:1] = low
    goes_on = decode and last < len(segments.start)
    done = high if goes_on else float(np.clip(shown.end[-1], low, high)) if len(shown.end) else low
    labels = np.stack((kinds[shown.item], shown.step, shown.slot), 1)
    begins = np.flatnonzero(np.any(np.diff(labels, axis=0, prepend=-2) != 0, axis=1))
    blocks = [(IDLE, -1, -1), *labels[begins].tolist(), (IDLE, -1, -1)]
    edges = [round(edge - low, DECIMALS) for edge in (low, *starts[begins].tolist(), done, high)]
    for (kind, step, slot), start, end in zip(blocks, edges[:-1], edges[1:], strict=True):
        if end > start:
            yield [rank, BLOCKS[kind], start, end, step, slot]

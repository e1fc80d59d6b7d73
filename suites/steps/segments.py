"""Traces of all ranks, each segment split where waiting for another rank ends and the rank's own part begins.

An all-reduce is skew until the last rank of its group has entered it. A receive is idle until the message was sent:
what another stage has not computed yet is the bubble, and what it has is on its way.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from specs.measurement import COMPUTE, ITEMS
from specs.parallel import Deployment, Seat
from suites.steps.trace import ALL_REDUCE, KINDS, RECV, SEND, START, Floats, Ints, Trace

WAITING = {ALL_REDUCE: "skew", RECV: "idle"}
WORKING = {RECV: "hop", SEND: "hop"}
"""Items of a segment before and after the moment that it waits for; of the others their kind is the item."""
GRANULARITY_SECONDS = 1e-6
"""By which two readings of a clock may overlap."""


class Segments(NamedTuple):
    """One rank's time without overlap, in order.

    Attributes:
        item: of each segment, its place in `specs.measurement.ITEMS`.
        start, end: in seconds.
        step, slot: that it belongs to.
    """

    item: Ints
    start: Floats
    end: Floats
    step: Ints
    slot: Ints

    def cut(self, rows: slice) -> "Segments":
        """These alone."""
        return Segments(self.item[rows], self.start[rows], self.end[rows], self.step[rows], self.slot[rows])


def split(deployment: Deployment, traces: Sequence[Trace]) -> list[Segments]:
    """The segments of every rank.

    Args:
        deployment: how the ranks are laid out.
        traces: of all ranks in their order.

    Raises:
        RuntimeError: ranks of a group made unequal counts of all-reduces, a message was received that nobody sent, or
            a rank traced nothing.
    """
    return [_of_rank(rank, trace, _turns(deployment, rank, traces)) for rank, trace in enumerate(traces)]


def _turns(deployment: Deployment, rank: int, traces: Sequence[Trace]) -> Floats:
    """Of each segment of a rank the moment that it waits for; its own start where it waits for nobody."""
    trace, found = traces[rank], traces[rank].start.copy()
    found[trace.kind == KINDS.index(ALL_REDUCE)] = _last_entries(deployment, rank, traces)
    receives = trace.of(RECV)
    if len(receives.start):
        found[trace.kind == KINDS.index(RECV)] = _sent(deployment, rank, receives, traces)
    return found


def _last_entries(deployment: Deployment, rank: int, traces: Sequence[Trace]) -> Floats:
    """When the last of its group entered each of a rank's all-reduces."""
    seat = deployment.seat(rank)
    group = [deployment.rank(seat._replace(shard=shard)) for shard in range(deployment.tp)]
    entries = {one: traces[one].of(ALL_REDUCE).start for one in group}
    if len({len(entered) for entered in entries.values()}) > 1:
        counts = ", ".join(f"rank {one} {len(entered)}" for one, entered in entries.items())
        raise RuntimeError(f"ranks of one group traced unequal counts of all-reduces: {counts}")
    latest: Floats = np.max(list(entries.values()), axis=0)
    return latest


def _sent(deployment: Deployment, rank: int, receives: Trace, traces: Sequence[Trace]) -> Floats:
    """When each message that a rank received was ready to go; to the first stage those of the step before come back."""
    seat = deployment.seat(rank)
    first = seat.stage == 0
    source = deployment.rank(Seat(seat.replica, deployment.pp - 1 if first else seat.stage - 1, seat.shard))
    sends = traces[source].of(SEND)
    ready = dict(zip(zip(sends.step.tolist(), sends.slot.tolist(), strict=True), sends.start.tolist(), strict=True))
    wanted = list(zip((receives.step - first).tolist(), receives.slot.tolist(), strict=True))
    if missing := next((one for one in wanted if one not in ready), None):
        step, slot = missing
        raise RuntimeError(f"rank {rank} received what rank {source} did not send: step {step}, micro-batch {slot}")
    return np.array([ready[one] for one in wanted])


def _of_rank(rank: int, trace: Trace, turns: Floats) -> Segments:
    """Two for each segment, the first of which is empty where nobody is waited for; then without the empty ones."""
    if not np.all(np.diff(trace.start) > -GRANULARITY_SECONDS):
        raise RuntimeError(f"rank {rank} sent a trace that is not in order of time")
    turn = np.clip(turns, trace.start, np.maximum(trace.start, trace.end))
    item = np.stack((_items(WAITING)[trace.kind], _items(WORKING)[trace.kind]), 1)
    start, end = np.stack((trace.start, turn), 1).ravel(), np.stack((turn, trace.end), 1).ravel()
    reached = np.maximum.accumulate(end)
    start[1:] = np.maximum(start[1:], reached[:-1])
    kept = (reached > start) & np.repeat(trace.kind != KINDS.index(START), 2)
    if not np.any(kept):
        raise RuntimeError(f"rank {rank} traced nothing")
    step, slot = np.repeat(trace.step, 2), np.repeat(trace.slot, 2)
    return Segments(item.ravel()[kept], start[kept], reached[kept], step[kept], slot[kept])


def _items(names: dict[str, str]) -> Ints:
    """For each kind the place of its item; of a start, which takes no time, any."""
    alike = {kind: kind for kind in (*COMPUTE, ALL_REDUCE)}
    return np.array([ITEMS.index((alike | names).get(kind, "host")) for kind in KINDS], np.int64)

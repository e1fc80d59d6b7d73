"""Step times and ledgers from the traces of all ranks.

In decode a step begins at the end of the previous step, because the loop is closed; a prompt begins at the barrier.
Time that no segment covers is the host's: between two segments a rank has no task. A rank is idle only outside its own
work: a stage that has not begun a prompt, or has finished.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from specs.measurement import BLOCK_KINDS, COMPUTE_ITEMS, LEDGER_ITEMS
from specs.parallel import Deployment, RankPosition
from suites.decoder.trace import ALL_REDUCE, RECV, SEND, START, Floats, Ints, RankTrace
from suites.decoder.trace import KINDS as TRACE_KINDS

# Segments, each split where waiting for another rank ends and the rank's own part begins
#
# An all-reduce is skew until the last rank of its group has entered it. A receive is idle (the bubble) until the
# message was sent; after that it is the hop.

ITEM_WHILE_WAITING = {ALL_REDUCE: "skew", RECV: "idle"}
ITEM_AFTER_WAITING = {RECV: "hop", SEND: "hop"}
"""Items of a segment before and after its wait; else the kind is the item."""
CLOCK_RESOLUTION_SECONDS = 1e-6
"""Largest overlap between two readings of a clock."""


class Segments(NamedTuple):
    """Time of one rank as ordered segments without overlap.

    Attributes:
        item: index of each segment's item in `specs.measurement.LEDGER_ITEMS`.
        start, end: seconds.
        step, slot: step and microbatch of the segment.
    """

    item: Ints
    start: Floats
    end: Floats
    step: Ints
    slot: Ints

    def select(self, rows: slice) -> "Segments":
        """Return only the given rows."""
        return Segments(self.item[rows], self.start[rows], self.end[rows], self.step[rows], self.slot[rows])


def split_segments(deployment: Deployment, traces: Sequence[RankTrace]) -> list[Segments]:
    """Segments of every rank.

    Args:
        deployment: layout of the ranks.
        traces: traces of all ranks, in order.

    Raises:
        RuntimeError: ranks of a group made unequal counts of all-reduces, a received message was never sent, or a rank
            traced nothing.
    """
    return [_rank_segments(rank, trace, _wait_ends(deployment, rank, traces)) for rank, trace in enumerate(traces)]


def _wait_ends(deployment: Deployment, rank: int, traces: Sequence[RankTrace]) -> Floats:
    """End of the wait of each segment; the segment's start if it waits for no rank."""
    trace, found = traces[rank], traces[rank].start.copy()
    found[trace.kind == TRACE_KINDS.index(ALL_REDUCE)] = _last_all_reduce_entries(deployment, rank, traces)
    receives = trace.select(RECV)
    if len(receives.start):
        found[trace.kind == TRACE_KINDS.index(RECV)] = _send_times(deployment, rank, receives, traces)
    return found


def _last_all_reduce_entries(deployment: Deployment, rank: int, traces: Sequence[RankTrace]) -> Floats:
    """Time at which the last rank of the group entered each all-reduce."""
    seat = deployment.position(rank)
    group = [deployment.rank(seat._replace(shard=shard)) for shard in range(deployment.tp)]
    entries = {one: traces[one].select(ALL_REDUCE).start for one in group}
    if len({len(entered) for entered in entries.values()}) > 1:
        counts = ", ".join(f"rank {one} {len(entered)}" for one, entered in entries.items())
        raise RuntimeError(f"ranks of one group traced unequal counts of all-reduces: {counts}")
    latest: Floats = np.max(list(entries.values()), axis=0)
    return latest


def _send_times(deployment: Deployment, rank: int, receives: RankTrace, traces: Sequence[RankTrace]) -> Floats:
    """Time at which each received message was ready.

    The first stage receives messages of the previous step.
    """
    seat = deployment.position(rank)
    first = seat.stage == 0
    source = deployment.rank(RankPosition(seat.replica, deployment.pp - 1 if first else seat.stage - 1, seat.shard))
    sends = traces[source].select(SEND)
    ready = dict(zip(zip(sends.step.tolist(), sends.slot.tolist(), strict=True), sends.start.tolist(), strict=True))
    wanted = list(zip((receives.step - first).tolist(), receives.slot.tolist(), strict=True))
    if missing := next((one for one in wanted if one not in ready), None):
        step, slot = missing
        raise RuntimeError(f"rank {rank} received what rank {source} did not send: step {step}, micro-batch {slot}")
    return np.array([ready[one] for one in wanted])


def _rank_segments(rank: int, trace: RankTrace, turns: Floats) -> Segments:
    """Segments before and after each wait, without empty ones."""
    if not np.all(np.diff(trace.start) > -CLOCK_RESOLUTION_SECONDS):
        raise RuntimeError(f"rank {rank} sent a trace that is not in order of time")
    turn = np.clip(turns, trace.start, np.maximum(trace.start, trace.end))
    item = np.stack((_item_codes(ITEM_WHILE_WAITING)[trace.kind], _item_codes(ITEM_AFTER_WAITING)[trace.kind]), 1)
    start, end = np.stack((trace.start, turn), 1).ravel(), np.stack((turn, trace.end), 1).ravel()
    reached = np.maximum.accumulate(end)
    start[1:] = np.maximum(start[1:], reached[:-1])
    kept = (reached > start) & np.repeat(trace.kind != TRACE_KINDS.index(START), 2)
    if not np.any(kept):
        raise RuntimeError(f"rank {rank} traced nothing")
    step, slot = np.repeat(trace.step, 2), np.repeat(trace.slot, 2)
    return Segments(item.ravel()[kept], start[kept], reached[kept], step[kept], slot[kept])


def _item_codes(names: dict[str, str]) -> Ints:
    """Index of each kind's item; a start takes no time, so its item does not matter."""
    alike = {kind: kind for kind in (*COMPUTE_ITEMS, ALL_REDUCE)}
    return np.array([LEDGER_ITEMS.index((alike | names).get(kind, "host")) for kind in TRACE_KINDS], np.int64)


# Timeline: blocks of compute, all-reduce, hop and idle, few enough to draw
#
# The window is two steps of decode, or one prompt. If it has too many blocks, the window is cut to one step, then
# all-reduces merge into the compute that they interrupt, then the window is halved.

MAX_BLOCKS = 400
TIMELINE_STEPS = 2
DECIMALS = 9
"""Nanoseconds."""
COMPUTE_BLOCK, ALL_REDUCE_BLOCK, IDLE_BLOCK = (
    BLOCK_KINDS.index("compute"),
    BLOCK_KINDS.index("all-reduce"),
    BLOCK_KINDS.index("idle"),
)
BLOCK_BY_ITEM = {
    **dict.fromkeys(COMPUTE_ITEMS, "compute"),
    ALL_REDUCE: "all-reduce",
    "hop": "hop",
    "idle": "idle",
    "skew": "idle",
    "host": "compute",
}
FINE_BLOCK_CODES = np.array([*map(BLOCK_KINDS.index, map(BLOCK_BY_ITEM.__getitem__, LEDGER_ITEMS))])
"""Index in `BLOCK_KINDS` of each item's block; host is no segment."""
COARSE_BLOCK_CODES = np.where(np.isin(LEDGER_ITEMS, (ALL_REDUCE, "skew")), COMPUTE_BLOCK, FINE_BLOCK_CODES)

BlockRow = list[Any]


def build_timeline(segments: Sequence[Segments], windows: Sequence[Floats], *, decode: bool) -> dict[str, Any]:
    """Timeline of all ranks, from the first counted step.

    Args:
        segments: segments of all ranks.
        windows: start and end of each step, for each replica.
        decode: whether steps follow one another; else ranks are idle before and after their part of a prompt.
    """
    for low, high, kinds in _timeline_windows(windows, decode):
        rows = [row for rank, one in enumerate(segments) for row in _rank_blocks(rank, one, low, high, kinds, decode)]
        if len(rows) <= max(MAX_BLOCKS, len(segments)):
            break
    return {"seconds": round(high - low, DECIMALS), "blocks": rows}


def _timeline_windows(windows: Sequence[Floats], decode: bool) -> Iterator[tuple[float, float, Any]]:
    """Ever coarser windows of the slowest replica, with the block of each item."""
    for steps in (min(TIMELINE_STEPS, len(windows[0])), 1) if decode else (1,):
        slowest = max(windows, key=lambda window: window[steps - 1, 1] - window[0, 0])
        low, high = float(slowest[0, 0]), float(slowest[steps - 1, 1])
        yield low, high, FINE_BLOCK_CODES
    while True:
        yield low, high, COARSE_BLOCK_CODES
        high = low + (high - low) / 2


def _rank_blocks(
    rank: int, segments: Segments, low: float, high: float, kinds: Any, decode: bool
) -> Iterator[BlockRow]:
    """Blocks of a rank without gaps: host time joins the previous block."""
    last = int(np.searchsorted(segments.start, high, "left"))
    if decode:
        first = max(0, int(np.searchsorted(segments.start, low, "right")) - 1)
    else:
        first = min(last, int(np.searchsorted(segments.end, low, "right")))
    shown = segments.select(slice(first, last))
    starts = np.clip(shown.start, low, high)
    if decode:
        starts[:1] = low
    goes_on = decode and last < len(segments.start)
    done = high if goes_on else float(np.clip(shown.end[-1], low, high)) if len(shown.end) else low
    labels = np.stack((kinds[shown.item], shown.step, shown.slot), 1)
    begins = np.flatnonzero(np.any(np.diff(labels, axis=0, prepend=-2) != 0, axis=1))
    blocks = [(IDLE_BLOCK, -1, -1), *labels[begins].tolist(), (IDLE_BLOCK, -1, -1)]
    edges = [round(edge - low, DECIMALS) for edge in (low, *starts[begins].tolist(), done, high)]
    for (kind, step, slot), start, end in zip(blocks, edges[:-1], edges[1:], strict=True):
        if end > start:
            yield [rank, BLOCK_KINDS[kind], start, end, step, slot]


HOST_ITEM, IDLE_ITEM = LEDGER_ITEMS.index("host"), LEDGER_ITEMS.index("idle")


class StepBreakdown(NamedTuple):
    """Result of breaking down steps.

    Attributes:
        seconds: time of each counted step, on the slowest replica.
        ledger: share of each of `LEDGER_ITEMS` over the counted steps, for each stage; they add up to 1.
        timeline: blocks of one or two counted steps, see `specs.measurement.TimelineBlock`.
    """

    seconds: tuple[float, ...]
    ledger: list[dict[str, float]]
    timeline: dict[str, Any]


def break_down_steps(
    deployment: Deployment, traces: Sequence[RankTrace], *, warm: int, steps: int, decode: bool, cool: int = 0
) -> StepBreakdown:
    """Break down the counted steps from the traces of all ranks.

    Args:
        deployment: layout of the ranks.
        traces: traces of all ranks, in order.
        warm: steps before the counted steps.
        steps: number of counted steps.
        decode: whether each step starts where the previous one ended; else each is a separate prompt.
        cool: steps after the counted steps.

    Raises:
        RuntimeError: the traces contradict each other, or a step took no time.
    """
    replicas = range(deployment.replicas)
    counted = slice(warm, warm + steps)
    windows = [_step_windows(deployment, replica, traces, warm + steps + cool, decode)[counted] for replica in replicas]
    lengths = np.array([window[:, 1] - window[:, 0] for window in windows])
    if not np.all(lengths > 0):
        raise RuntimeError("a step ended before it began, by the ranks' clocks")
    longest, found = np.max(lengths, axis=0), split_segments(deployment, traces)
    spent = [
        _seconds_by_item(segments, windows[deployment.position(rank).replica], longest, decode=decode)
        for rank, segments in enumerate(found)
    ]
    return StepBreakdown(
        tuple(longest.tolist()),
        [_stage_shares(deployment, stage, spent, float(np.sum(longest))) for stage in range(deployment.pp)],
        build_timeline(found, windows, decode=decode),
    )


def _step_windows(
    deployment: Deployment, replica: int, traces: Sequence[RankTrace], steps: int, decode: bool
) -> Floats:
    """Start and end of each step of a replica, [steps, 2].

    A step ends with the last result of the last stage. It starts at the end of the previous step in decode. Else it
    starts when all ranks of the first stage have passed the barrier: later stages have nothing to do yet.
    """
    ranks = [rank for rank in range(deployment.ranks) if deployment.position(rank).replica == replica]
    starts, ends = np.full(steps, -np.inf), np.full(steps, -np.inf)
    if any(np.any(traces[rank].step >= steps) for rank in ranks):
        raise RuntimeError(f"ranks {ranks[0]} to {ranks[-1]} traced more than {steps} steps")
    for rank in ranks:
        if deployment.position(rank).stage == 0:
            marks = traces[rank].select(START)
            np.maximum.at(starts, marks.step, marks.start)
        if deployment.position(rank).stage == deployment.pp - 1:
            results = traces[rank].select(*COMPUTE_ITEMS, ALL_REDUCE)
            np.maximum.at(ends, results.step, results.end)
    if decode:
        starts[1:] = ends[:-1]
    if not np.all(np.isfinite((starts, ends))):
        raise RuntimeError(f"ranks {ranks[0]} to {ranks[-1]} did not trace the start and the end of {steps} steps")
    return np.stack((starts, ends), 1)


def _seconds_by_item(segments: Segments, windows: Floats, longest: Floats, *, decode: bool) -> Floats:
    """Seconds of each item over a rank's windows, as long as the slowest replica's."""
    total = np.zeros(len(LEDGER_ITEMS))
    for (low, high), length in zip(windows, longest, strict=True):
        first = np.searchsorted(segments.end, low, "right")
        last = max(first, np.searchsorted(segments.start, high, "left"))
        starts, ends = (np.clip(column[first:last], low, high) for column in (segments.start, segments.end))
        spent = np.bincount(segments.item[first:last], ends - starts, len(LEDGER_ITEMS)).astype(
            np.float64
        )  # bincount of an empty array gives integers
        begun = low if decode else starts[0] if len(starts) else high
        done = max(begun, min(high, segments.end[-1])) if decode else ends[-1] if len(ends) else high
        spent[HOST_ITEM] += max(0.0, done - begun - np.sum(spent))
        spent[IDLE_ITEM] += max(0.0, length - np.sum(spent))
        total += spent
    return total


def _stage_shares(deployment: Deployment, stage: int, spent: Sequence[Floats], seconds: float) -> dict[str, float]:
    """Share of each item for a stage: mean over its ranks in all replicas."""
    ranks = [
        deployment.rank(RankPosition(replica, stage, shard))
        for replica in range(deployment.replicas)
        for shard in range(deployment.tp)
    ]
    return {
        item: fmean(float(spent[rank][place]) for rank in ranks) / seconds for place, item in enumerate(LEDGER_ITEMS)
    }

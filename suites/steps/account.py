"""Traces of all ranks become times of steps, and where each stage's time went in them.

In decode a step lasts from the end of the one before, because the loop is closed; a prompt's from the barrier. What no
segment covers is the host's: between two segments a rank does nothing that it was asked for. Only outside of what it
has to do it is idle: a stage that has not begun with a prompt, or is done.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from specs.measurement import COMPUTE, ITEMS
from specs.parallel import Deployment, Seat
from suites.steps.segments import Segments, split
from suites.steps.timeline import draw
from suites.steps.trace import ALL_REDUCE, START, Floats, Trace

HOST, IDLE = ITEMS.index("host"), ITEMS.index("idle")


class Account(NamedTuple):
    """What came of a walk.

    Attributes:
        seconds: of each step that counts, the slowest replica's.
        ledger: for each stage the share of each of `ITEMS`, over these steps; they add up to 1.
        timeline: of one or two of these steps, see `specs.measurement.Block`.
    """

    seconds: tuple[float, ...]
    ledger: list[dict[str, float]]
    timeline: dict[str, Any]


def account(
    deployment: Deployment, traces: Sequence[Trace], *, warm: int, steps: int, decode: bool, cool: int = 0
) -> Account:
    """Hold the traces of all ranks together.

    Args:
        deployment: how the ranks are laid out.
        traces: of all ranks in their order.
        warm: steps before those that count.
        steps: those that count.
        decode: whether one step goes on where the one before ended; else each is a prompt by itself.
        cool: steps behind those that count.

    Raises:
        RuntimeError: the traces do not fit together, or a step took no time.
    """
    replicas = range(deployment.replicas)
    counted = slice(warm, warm + steps)
    windows = [_windows(deployment, replica, traces, warm + steps + cool, decode)[counted] for replica in replicas]
    lengths = np.array([window[:, 1] - window[:, 0] for window in windows])
    if not np.all(lengths > 0):
        raise RuntimeError("a step ended before it began, by the ranks' clocks")
    longest, found = np.max(lengths, axis=0), split(deployment, traces)
    spent = [
        _spent(segments, windows[deployment.seat(rank).replica], longest, decode=decode)
        for rank, segments in enumerate(found)
    ]
    return Account(
        tuple(longest.tolist()),
        [_stage(deployment, stage, spent, float(np.sum(longest))) for stage in range(deployment.pp)],
        draw(found, windows, decode=decode),
    )


def _windows(deployment: Deployment, replica: int, traces: Sequence[Trace], steps: int, decode: bool) -> Floats:
    """[steps, 2]: from when to when a replica was at each step.

    It ends with the last result of the last stage, and begins, if not with the end of the one before, when all ranks of
    the first stage have passed the barrier: the others have nothing to do yet.
    """
    ranks = [rank for rank in range(deployment.ranks) if deployment.seat(rank).replica == replica]
    starts, ends = np.full(steps, -np.inf), np.full(steps, -np.inf)
    if any(np.any(traces[rank].step >= steps) for rank in ranks):
        raise RuntimeError(f"ranks {ranks[0]} to {ranks[-1]} traced more than {steps} steps")
    for rank in ranks:
        if deployment.seat(rank).stage == 0:
            marks = traces[rank].of(START)
            np.maximum.at(starts, marks.step, marks.start)
        if deployment.seat(rank).stage == deployment.pp - 1:
            results = traces[rank].of(*COMPUTE, ALL_REDUCE)
            np.maximum.at(ends, results.step, results.end)
    if decode:
        starts[1:] = ends[:-1]
    if not np.all(np.isfinite((starts, ends))):
        raise RuntimeError(f"ranks {ranks[0]} to {ranks[-1]} did not trace the start and the end of {steps} steps")
    return np.stack((starts, ends), 1)


def _spent(segments: Segments, windows: Floats, longest: Floats, *, decode: bool) -> Floats:
    """Seconds of each item in a rank's windows together, each as long as that of the slowest replica."""
    total = np.zeros(len(ITEMS))
    for (low, high), length in zip(windows, longest, strict=True):
        first = np.searchsorted(segments.end, low, "right")
        last = max(first, np.searchsorted(segments.start, high, "left"))
        starts, ends = (np.clip(column[first:last], low, high) for column in (segments.start, segments.end))
        spent = np.bincount(segments.item[first:last], ends - starts, len(ITEMS)).astype(
            np.float64
        )  # of none: integers
        begun = low if decode else starts[0] if len(starts) else high
        done = max(begun, min(high, segments.end[-1])) if decode else ends[-1] if len(ends) else high
        spent[HOST] += max(0.0, done - begun - np.sum(spent))
        spent[IDLE] += max(0.0, length - np.sum(spent))
        total += spent
    return total


def _stage(deployment: Deployment, stage: int, spent: Sequence[Floats], seconds: float) -> dict[str, float]:
    """Shares of a stage: the mean over its ranks in all replicas."""
    ranks = [
        deployment.rank(Seat(replica, stage, shard))
        for replica in range(deployment.replicas)
        for shard in range(deployment.tp)
    ]
    return {item: fmean(float(spent[rank][place]) for rank in ranks) / seconds for place, item in enumerate(ITEMS)}

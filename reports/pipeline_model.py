"""Exact event model of a pipeline: executions by stage, and time of a step.

A stage serves the microbatches in order 0 … m − 1, step after step. Each starts as soon as its message has arrived and
the stage is free. In decode the loop is closed: a microbatch enters stage 0 again when its tokens are back from the
last stage. A prefill passes once.

Every execution starts at the later of two moments, so decode is linear in the algebra of maximum and plus. Executions
wait for each other in cycles. A stage that serves all microbatches and begins anew, or a microbatch that goes round,
are cycles within one step. Mixed cycles span several steps. In the long run a step takes exactly the largest mean of
all cycles: their seconds over the steps that they span. The initial state does not matter, and single steps may differ
for ever (Baccelli, Cohen, Olsder and Quadrat, Synchronization and Linearity, 1992, chapter 3). The model therefore
computes the step from the cycles. A simulation would take very long to settle where another cycle is nearly as slow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

StageTable = Sequence[Sequence[float]]
"""Seconds[stage][microbatch]."""
Moment = tuple[float, int]
"""Time, and its cause: the place in the state before the step that it waited for."""
State = Sequence[float]
"""Time at which each stage is free, then at which each microbatch is at stage 0."""


@dataclass(frozen=True)
class StageExecution:
    """Execution of one microbatch on a stage, from `start` to `end` in seconds."""

    stage: int
    micro_batch: int
    step: int
    start: float
    end: float


@dataclass(frozen=True)
class PipelineSchedule:
    """Executions and times of a step.

    Attributes:
        executions: executions of one step, microbatch by microbatch, from its first start on. In decode the step is
            steady: its executions repeat every `step_seconds`. The last stages may be at this step when the first is at
            the next.
        step_seconds: in decode the time of a step in the long run; in prefill from the first start to the last end.
        idle_shares: share of `step_seconds` in which each stage does not compute.
    """

    executions: Sequence[StageExecution]
    step_seconds: float
    idle_shares: Sequence[float]


def simulate_decode(busy: StageTable, hop: StageTable) -> PipelineSchedule:
    """Schedule of the closed loop in its steady state.

    Args:
        busy: seconds that a stage computes a microbatch.
        hop: seconds from the end of compute until the message is at the next stage. For the last stage: until its
            tokens are back at the first. A hop does not keep the stage busy.

    Raises:
        ValueError: a table is empty or ragged, the two differ in shape, or a time is negative or not finite.
    """
    _validate_tables(busy, hop)
    seconds, place = _critical_cycle(busy, hop)
    return _build_schedule(busy, _advance_step(busy, hop, _steady_state(busy, hop, seconds, place))[0], seconds)


def simulate_prefill(busy: StageTable, hop: StageTable) -> PipelineSchedule:
    """Schedule of a single pass that starts with empty stages.

    The last stage's `hop` is ignored. All else is as in `simulate_decode`.
    """
    _validate_tables(busy, hop)
    starts = _advance_step(busy, hop, [0.0] * (len(busy) + len(busy[0])))[0]
    return _build_schedule(busy, starts, starts[-1][-1] + busy[-1][-1])


def decode_step_seconds(busy: StageTable, hop: StageTable) -> float:
    """Seconds of a decode step in the long run.

    Where all microbatches are alike, no mixed cycle is the slowest. Take a cycle in which stages begin anew w times and
    microbatches l times. It goes m·w times from microbatch to microbatch, each by no more than the slowest stage's
    execution. It goes l times past every stage and its hop. So its mean is at most that of the slowest stage, or that
    of a microbatch's round trip.
    """
    _validate_tables(busy, hop)
    if all(min(row) == max(row) for table in (busy, hop) for row in table):
        times, hops = ([row[0] for row in table] for table in (busy, hop))
        return max(len(busy[0]) * max(times), sum(times) + sum(hops))
    return _critical_cycle(busy, hop)[0]


def _validate_tables(busy: StageTable, hop: StageTable) -> None:
    shapes = [[len(row) for row in table] for table in (busy, hop)]
    if not shapes[0] or shapes[0] != shapes[1] or len(set(shapes[0])) > 1 or not shapes[0][0]:
        raise ValueError(
            f"busy and hop have rows of {shapes[0]} and {shapes[1]} slots; both need the same of each stage"
        )
    for table in (busy, hop):
        for row in table:
            if not (min(row) >= 0 and sum(row) < inf):
                raise ValueError(f"a stage takes {list(row)} seconds; give finite times from 0 on")


def _advance_step(busy: StageTable, hop: StageTable, state: State) -> tuple[list[list[float]], list[Moment]]:
    """Starts[microbatch][stage] of a step, and the state after the step."""
    moments = [(when, place) for place, when in enumerate(state)]
    free, back = moments[: len(busy)], moments[len(busy) :]
    starts: list[list[float]] = []
    for slot, (when, cause) in enumerate(back):
        starts.append([])
        for stage in range(len(busy)):
            start, cause = max((when, cause), free[stage])
            starts[slot].append(start)
            free[stage] = start + busy[stage][slot], cause
            when = free[stage][0] + hop[stage][slot]
        back[slot] = when, cause
    return starts, free + back


def _critical_cycle(busy: StageTable, hop: StageTable) -> tuple[float, int]:
    """Largest mean of all cycles, and a place in the state on such a cycle.

    Karp, A characterization of the minimum cycle mean in a digraph, 1978. Take walks of as many steps as the state has
    places. The walk to `place` gives the mean: with the mean taken off every step, no shorter walk to there is longer.
    Nor is the walk without its cycles, so these cycles have that mean.
    """
    size = len(busy) + len(busy[0])
    walk: list[list[Moment]] = [[(-inf if place else 0.0, place) for place in range(size)]]
    for _ in range(size):
        walk.append(_advance_step(busy, hop, [when for when, _ in walk[-1]])[1])
    place = max(
        range(size), key=lambda one: min((walk[size][one][0] - walk[k][one][0]) / (size - k) for k in range(size))
    )
    seen: dict[int, int] = {}
    for step in range(size, -1, -1):
        if place in seen:
            break
        seen[place], place = step, walk[step][place][1]
    later = seen[place]
    return (walk[later][place][0] - walk[step][place][0]) / (later - step), place


def _steady_state(busy: StageTable, hop: StageTable, seconds: float, place: int) -> list[float]:
    """State that a step advances by `seconds` and otherwise leaves unchanged.

    Each entry is the delay behind a slowest cycle.
    """
    size = len(busy) + len(busy[0])
    state = [0.0 if one == place else -inf for one in range(size)]
    latest = state
    for _ in range(size):
        state = [when - seconds for when, _ in _advance_step(busy, hop, state)[1]]
        latest = [max(pair) for pair in zip(latest, state, strict=True)]
    return latest


def _build_schedule(busy: StageTable, starts: Sequence[Sequence[float]], seconds: float) -> PipelineSchedule:
    turns = [
        StageExecution(stage, slot, 0, start - starts[0][0], start - starts[0][0] + busy[stage][slot])
        for slot, row in enumerate(starts)
        for stage, start in enumerate(row)
    ]
    return PipelineSchedule(turns, seconds, [max(0.0, 1 - sum(row) / seconds) if seconds else 0.0 for row in busy])

"""One step of a whole model under a deployment, put together from its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from reports import pipeline
from reports.plan.cost import FIGURES, Cost, Pick, total
from reports.plan.fabric import Fabric
from reports.plan.parts import Chunk, Parts
from specs.parallel import Deployment, Seat, Split

ID_BYTES = 8
"""A sampled token on its way back to the first stage."""
Columns = Mapping[int, Sequence[Cost]]
"""By sequences of a micro-batch what each stage takes for it."""


@dataclass(frozen=True)
class Step:
    """What a step takes.

    Attributes:
        seconds: of a step, which in the closed loop of decode is also what a sequence waits for each token.
        low, high: what it may be by the doubts of its parts.
        sizes: sequences of each micro-batch.
        stages: what each stage computes for one, its all-reduces included.
        hops: from each stage to the next and from the last one back; none where there is one stage.
    """

    seconds: float
    low: float
    high: float
    sizes: Sequence[int]
    stages: Columns
    hops: Columns


def compose(parts: Parts, deployment: Deployment, split: Split, batch: int) -> Step:
    """The step at this batch; each micro-batch reads the weights anew.

    Raises:
        MissingError: a part was not measured.
    """
    sizes = deployment.micro_batch_sizes(batch)
    chunk = chunk_of(parts.asked.prefill_chunk, deployment)
    layers, busy = split.stage_layers(), deployment.busy_ranks
    stages = {size: _stages(parts, layers, deployment.tp, size, chunk, busy) for size in set(sizes)}
    if deployment.pp == 1:
        whole = stages[sizes[0]][0]
        return Step(whole.seconds, *whole.bounds, sizes, stages, {})
    hops = {size: _hops(parts, deployment, size, chunk) for size in stages}
    seconds, low, high = (_period(sizes, stages, hops, pick) for pick in FIGURES)
    half = _half(sizes, stages, hops)
    return Step(seconds, max(0.0, low - half), high + half, sizes, stages, hops)


def chunk_of(tokens: int, deployment: Deployment) -> Chunk:
    """Of what a step takes along each replica has its part, and of that each micro-batch."""
    prompt = tokens / deployment.replicas
    return Chunk(prompt / deployment.micro_batches, prompt)


def _stages(parts: Parts, layers: Sequence[int], tp: int, size: int, chunk: Chunk, busy: int) -> list[Cost]:
    layer = parts.layer(tp, size, chunk, busy)
    by_count = {count: layer.times(count) for count in set(layers)}
    found = [by_count[count] for count in layers]
    found[-1] = total([found[-1], parts.head(tp, size, busy)])
    return found


def _hops(parts: Parts, deployment: Deployment, size: int, chunk: Chunk) -> list[Cost]:
    rows = size * parts.asked.rows_a_sequence
    message = round((rows + chunk.tokens) * parts.asked.cut.hidden * parts.itemsize)
    stages, across = range(deployment.pp - 1), partial(_across, parts.asked.fabric, deployment)
    on = [parts.messages.hop(message, across=across(stage, stage + 1)) for stage in stages]
    return [*on, parts.messages.hop(ID_BYTES * rows, across=across(deployment.pp - 1, 0))]


def _across(fabric: Fabric, deployment: Deployment, stage: int, to: int) -> bool:
    """Whether a message from stage to stage leaves its host, in any replica."""
    if fabric.nodes == 1:
        return False
    seats = [(Seat(copy, stage, 0), Seat(copy, to, 0)) for copy in range(deployment.replicas)]
    return any(fabric.node(deployment.rank(a)) != fabric.node(deployment.rank(b)) for a, b in seats)


def _period(sizes: Sequence[int], stages: Columns, hops: Columns, pick: Pick) -> float:
    """Of the closed loop: the slowest stage's work, or a micro-batch's way round, whichever is longer."""
    if len(stages) == 1:
        alike, between = stages[sizes[0]], hops[sizes[0]]
        return max(len(sizes) * max(map(pick, alike)), sum(map(pick, alike)) + sum(map(pick, between)))
    return pipeline.period(by_stage(sizes, stages, pick), by_stage(sizes, hops, pick))


def by_stage(sizes: Sequence[int], columns: Columns, pick: Pick) -> pipeline.Table:
    """Seconds[stage][slot], as the event model has them."""
    return [[pick(columns[size][stage]) for size in sizes] for stage in range(len(columns[sizes[0]]))]


def _half(sizes: Sequence[int], stages: Columns, hops: Columns) -> float:
    """Half-width of the step: stages are counted from the same few measurements, so their errors are alike."""
    alike, between = stages[max(sizes)], hops[max(sizes)]
    slowest = max(alike, key=lambda one: one.seconds)
    if len(sizes) * slowest.seconds >= sum(one.seconds for one in (*alike, *between)):
        return len(sizes) * slowest.half
    return sum(one.half for one in (*alike, *between))

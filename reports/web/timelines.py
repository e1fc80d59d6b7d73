"""What each rank did when: a lane for each, from the timeline of one sample of a step."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import altair as alt

from reports.experiment.chapter import Ran
from reports.experiment.collect import Experiment, Load
from reports.experiment.words import cut, heading
from reports.web.figure import Figure, compiled, data
from specs import measurement
from specs.measurement import Measurement
from specs.parallel import Deployment

COLOURS = {"compute": "#1f6feb", "all-reduce": "#db6d28", "hop": "#2ea043", "idle": "#8b949e"}
"""As in the ledgers."""
LANE = 34
"""Pixels a rank takes."""
MOST_BLOCKS = 400
"""What follows these is left out, so that a page stays small: a TP rank of 80 layers has 320 blocks a step."""
WIDE = 0.025
"""Share of the window from which on a block has room for its number."""
PALER = 0.22
"""By how much each further micro-batch is paler, as far as `PALEST`."""
PALEST = 0.45

Pick = tuple[Experiment, Load, Deployment, Measurement]


def draw(one: Ran) -> list[Figure]:
    """One request under sync PP, the largest batch under sync and under async, and a prefill: those that are there."""
    picks = {pick[3].case.name: pick for pick in _chosen(one.experiments)}
    return [_draw(one.name, *pick) for pick in picks.values()]


def _chosen(experiments: Sequence[Experiment]) -> Iterator[Pick]:
    decode = _told(experiments, lambda experiment: experiment.setting.decode)
    prefill = _told(experiments, lambda experiment: not experiment.setting.decode)
    wanted = (
        ([pick for pick in decode if pick[1].batch == 1], "sync"),
        ([pick for pick in decode if pick[1].batch > 1], "sync"),
        (decode, "async"),
        (prefill, "async"),
    )
    for told, schedule in wanted:
        if alike := [pick for pick in told if pick[2].schedule == schedule]:
            largest = max(pick[1] for pick in alike)
            yield min((pick for pick in alike if pick[1] == largest), key=_plainest)


def _told(experiments: Sequence[Experiment], of: Callable[[Experiment], bool]) -> list[Pick]:
    """Steps in stages that have a timeline, of the first experiment that has any."""
    for experiment in experiments:
        found = [
            (experiment, load, deployment, one)
            for load, runs in experiment.loads.items()
            for deployment, one in runs.items()
            if of(experiment) and deployment.pp > 1 and one.timeline and one.timeline["blocks"]
        ]
        if found:
            return found
    return []


def _plainest(pick: Pick) -> tuple[bool, bool, bool, bool]:
    """Stages alone before stages of several ranks, as many micro-batches as stages, layers dealt evenly."""
    one = pick[2]
    return one.replicas > 1, one.tp > 1, one.micro_batches != one.pp, one.partition != "even"


def _draw(name: str, experiment: Experiment, load: Load, deployment: Deployment, one: Measurement) -> Figure:
    blocks, window = _blocks(one)
    rows = [_row(block, deployment, window) for block in blocks]
    kinds = [kind for kind in measurement.BLOCKS if any(row["kind"] == kind for row in rows)]
    lanes = sorted({(block.rank, _lane(block.rank, deployment)) for block in blocks})
    x = alt.X("start:Q", scale=alt.Scale(domain=[0, 1e3 * window], nice=False), axis=alt.Axis(title="ms", tickCount=10))
    y = alt.Y("lane:N", title=None, sort=[lane for _, lane in lanes], axis=alt.Axis(labelLimit=220))
    colour = alt.Color(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=kinds, range=[COLOURS[kind] for kind in kinds]),
        legend=alt.Legend(orient="top", symbolType="square"),
    )
    tips = ["lane:N", "kind:N", *(alt.Tooltip(f"{end}:Q", format=",.4~g") for end in ("start", "end", "ms"))]
    base = alt.Chart(data(rows))
    bars = base.mark_bar(stroke="#8b949e", strokeWidth=0.4).encode(
        x=x,
        x2="end:Q",
        y=y,
        color=colour,
        opacity=alt.Opacity("shade:Q", scale=None, legend=None),
        tooltip=[*tips, "step:Q", "micro_batch:N"],
    )
    numbers = (
        base.transform_filter("datum.wide")
        .mark_text(color="white", fontSize=11)
        .encode(x=alt.X("middle:Q"), y=y, text="micro_batch:N")
    )
    setting = experiment.setting
    what = "decode" if setting.decode else "prefill"
    return Figure(
        name=_slug(f"timeline-{name}-{one.case.name.partition('[')[2] or one.case.name}"),
        title=f"{name}: {deployment} in {what}, {heading(load)}",
        note=_note(one, deployment, window) + f"; {cut(setting)}",
        spec=compiled(alt.layer(bars, numbers), height=LANE * len(lanes)),
        rows=rows,
    )


def _blocks(one: Measurement) -> tuple[list[measurement.Block], float]:
    """The first blocks, and the window that all ranks fill with them."""
    timeline = one.timeline or {}
    found = sorted(measurement.blocks(timeline), key=lambda block: block.start)
    shown = found[:MOST_BLOCKS]
    return shown, timeline["seconds"] if len(shown) == len(found) else shown[-1].start


def _row(block: measurement.Block, deployment: Deployment, window: float) -> dict[str, Any]:
    works = block.slot >= 0 and block.kind != "idle"
    return {
        "lane": _lane(block.rank, deployment),
        "kind": block.kind,
        "start": 1e3 * block.start,
        "end": 1e3 * min(block.end, window),
        "middle": 0.5e3 * (block.start + min(block.end, window)),
        "ms": 1e3 * (block.end - block.start),
        "step": block.step,
        "micro_batch": str(block.slot + 1) if block.slot >= 0 else "",
        "shade": max(PALEST, 1 - PALER * block.slot) if works else PALEST,
        "wide": deployment.micro_batches > 1 and block.kind == "compute" and block.end - block.start > WIDE * window,
    }


def _lane(rank: int, deployment: Deployment) -> str:
    seat = deployment.seat(rank)
    replica = f" · replica {seat.replica}" if deployment.replicas > 1 else ""
    return f"rank {rank}{replica} · stage {seat.stage}"


def _note(one: Measurement, deployment: Deployment, window: float) -> str:
    numbers = f", numbered by its {deployment.micro_batches} micro-batches" if deployment.micro_batches > 1 else ""
    cutoff = f", the first {1e3 * window:.3g} ms" if one.timeline and window < one.timeline["seconds"] else ""
    return f"as measured{cutoff}{numbers}; grey waits"


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())

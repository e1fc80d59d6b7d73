"""Plots of TP against PP: steps over the batch, ledgers, and rank timelines."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import altair as alt

from reports import formatting
from reports.deployment_names import load_heading, model_description
from reports.html.charts import Figure, inline_data, log_axis, slug, to_vega_lite
from reports.tp_vs_pp import report
from reports.tp_vs_pp.compare import Experiment, Load
from reports.tp_vs_pp.report import DeploymentRow, ExperimentSection, FileExperiments
from specs import measurement
from specs.measurement import Measurement
from specs.parallel import Deployment

# Timelines: a lane for each rank, from one sample of a step.

TIMELINE_COLOURS = {"compute": "#1f6feb", "all-reduce": "#db6d28", "hop": "#2ea043", "idle": "#8b949e"}
"""Colour by kind of block, as in the ledgers."""
LANE_HEIGHT = 34
"""Height of a rank's lane in pixels."""
MAX_BLOCKS = 400
"""Maximum number of blocks in a plot, so that a page stays small.

A TP rank of 80 layers has 320 blocks per step.
"""
MIN_LABEL_SHARE = 0.025
"""Minimum share of the window that gives a block room for its number."""
FADE_STEP = 0.22
"""Loss of opacity per microbatch, down to `MIN_OPACITY`."""
MIN_OPACITY = 0.45

TimelineChoice = tuple[Experiment, Load, Deployment, Measurement]


def timeline_figures(one: FileExperiments) -> list[Figure]:
    """Timelines of up to four steps.

    The steps: one request under sync PP, the largest batch under sync and under async PP, and a prefill.
    """
    picks = {pick[3].case.name: pick for pick in _choose_timelines(one.experiments)}
    return [_draw(one.name, *pick) for pick in picks.values()]


def _choose_timelines(experiments: Sequence[Experiment]) -> Iterator[TimelineChoice]:
    decode = _with_timeline(experiments, lambda experiment: experiment.setting.decode)
    prefill = _with_timeline(experiments, lambda experiment: not experiment.setting.decode)
    wanted = (
        ([pick for pick in decode if pick[1].batch == 1], "sync"),
        ([pick for pick in decode if pick[1].batch > 1], "sync"),
        (decode, "async"),
        (prefill, "async"),
    )
    for told, schedule in wanted:
        if alike := [pick for pick in told if pick[2].schedule == schedule]:
            largest = max(pick[1] for pick in alike)
            yield min((pick for pick in alike if pick[1] == largest), key=_simplicity_key)


def _with_timeline(experiments: Sequence[Experiment], of: Callable[[Experiment], bool]) -> list[TimelineChoice]:
    """Steps in stages that have a timeline, of the first experiment with any."""
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


def _simplicity_key(pick: TimelineChoice) -> tuple[bool, bool, bool, bool]:
    """Sort key: single-rank stages, then one microbatch per stage, then even layers."""
    one = pick[2]
    return one.replicas > 1, one.tp > 1, one.micro_batches != one.pp, one.partition != "even"


def _draw(name: str, experiment: Experiment, load: Load, deployment: Deployment, one: Measurement) -> Figure:
    blocks, window = _blocks(one)
    rows = [_row(block, deployment, window) for block in blocks]
    kinds = [kind for kind in measurement.BLOCK_KINDS if any(row["kind"] == kind for row in rows)]
    lanes = sorted({(block.rank, _lane(block.rank, deployment)) for block in blocks})
    x = alt.X("start:Q", scale=alt.Scale(domain=[0, 1e3 * window], nice=False), axis=alt.Axis(title="ms", tickCount=10))
    y = alt.Y("lane:N", title=None, sort=[lane for _, lane in lanes], axis=alt.Axis(labelLimit=220))
    colour = alt.Color(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=kinds, range=[TIMELINE_COLOURS[kind] for kind in kinds]),
        legend=alt.Legend(orient="top", symbolType="square"),
    )
    tips = [
        alt.Tooltip("lane:N"),
        alt.Tooltip("kind:N"),
        *(alt.Tooltip(f"{end}:Q", format=",.4~g") for end in ("start", "end", "ms")),
    ]
    base = alt.Chart(inline_data(rows))
    bars = base.mark_bar(stroke="#8b949e", strokeWidth=0.4).encode(
        x=x,
        x2=alt.X2("end:Q"),
        y=y,
        color=colour,
        opacity=alt.Opacity("shade:Q", scale=None, legend=None),
        tooltip=[*tips, alt.Tooltip("step:Q"), alt.Tooltip("micro_batch:N")],
    )
    numbers = (
        base.transform_filter("datum.wide")
        .mark_text(color="white", fontSize=11)
        .encode(x=alt.X("middle:Q"), y=y, text=alt.Text("micro_batch:N"))
    )
    setting = experiment.setting
    what = "decode" if setting.decode else "prefill"
    return Figure(
        name=slug(f"timeline-{name}-{one.case.name.partition('[')[2] or one.case.name}"),
        title=f"{name}: {deployment} in {what}, {load_heading(load)}",
        note=_note(one, deployment, window) + f"; {model_description(setting)}",
        spec=to_vega_lite(alt.layer(bars, numbers), height=LANE_HEIGHT * len(lanes)),
        rows=rows,
    )


def _blocks(one: Measurement) -> tuple[list[measurement.TimelineBlock], float]:
    """First `MAX_BLOCKS` blocks, and the window in seconds that they fill."""
    timeline = one.timeline or {}
    found = sorted(measurement.timeline_blocks(timeline), key=lambda block: block.start)
    shown = found[:MAX_BLOCKS]
    return shown, timeline["seconds"] if len(shown) == len(found) else shown[-1].start


def _row(block: measurement.TimelineBlock, deployment: Deployment, window: float) -> dict[str, Any]:
    works = block.microbatch >= 0 and block.kind != "idle"
    return {
        "lane": _lane(block.rank, deployment),
        "kind": block.kind,
        "start": 1e3 * block.start,
        "end": 1e3 * min(block.end, window),
        "middle": 0.5e3 * (block.start + min(block.end, window)),
        "ms": 1e3 * (block.end - block.start),
        "step": block.step,
        "micro_batch": str(block.microbatch + 1) if block.microbatch >= 0 else "",
        "shade": max(MIN_OPACITY, 1 - FADE_STEP * block.microbatch) if works else MIN_OPACITY,
        "wide": deployment.micro_batches > 1
        and block.kind == "compute"
        and block.end - block.start > MIN_LABEL_SHARE * window,
    }


def _lane(rank: int, deployment: Deployment) -> str:
    seat = deployment.position(rank)
    replica = f" · replica {seat.replica}" if deployment.replicas > 1 else ""
    return f"rank {rank}{replica} · stage {seat.stage}"


def _note(one: Measurement, deployment: Deployment, window: float) -> str:
    numbers = f", numbered by its {deployment.micro_batches} micro-batches" if deployment.micro_batches > 1 else ""
    cutoff = f", the first {1e3 * window:.3g} ms" if one.timeline and window < one.timeline["seconds"] else ""
    return f"as measured{cutoff}{numbers}; grey waits"


PART_COLOURS = {
    "linears": "#1f6feb",
    "attention": "#58a6ff",
    "norms": "#a5d6ff",
    "all-reduce": "#db6d28",
    "hop": "#2ea043",
    "idle": "#8b949e",
    "skew": "#c4c9d0",
    "host": "#a371f7",
}
"""Colour by ledger item, readable on light and dark backgrounds.

Computing is blue; waiting is grey.
"""
BAR_HEIGHT = 15
"""Height of a ledger's bar in pixels."""
LABEL_WIDTH = 230
"""Label width in pixels; fits `pp2-async2-balanced · 1,660 ms`."""
BATCH_AXES = (("ms", "step time", "ms"), ("tokens_per_second", "throughput", "tokens/s"))
"""Field, title and unit of each plot over the batch."""


def template_context(section: ExperimentSection) -> dict[str, Any] | None:
    """Template data; None where no file holds an experiment."""
    if not section:
        return None
    return {
        "sentences": section.sentences(),
        "measured": [
            {
                "name": one.name,
                "plots": [plot for of in one.experiments if of.setting.decode for plot in _batch_figures(one, of)],
                "ledgers": [_ledgers(one, of) for of in one.experiments],
                "timelines": timeline_figures(one),
                "tables": one.tables(),
            }
            for one in section.by_file
        ],
    }


def _batch_figures(one: FileExperiments, experiment: Experiment) -> list[Figure]:
    """Plots of step time and of throughput over the batch."""
    return [_lines(one, experiment, *axis) for axis in BATCH_AXES]


def _rows(experiment: Experiment) -> list[DeploymentRow]:
    return [row for group in report.deployment_rows(experiment) for row in group]


def _lines(one: FileExperiments, experiment: Experiment, field: str, what: str, unit: str) -> Figure:
    """A line for each deployment over batches; both axes logarithmic.

    Each point has a bar for its interval.
    """
    points = [_point(row) for row in _rows(experiment)]
    batches = [load.batch for load in experiment.loads]
    names = list(dict.fromkeys(point["deployment"] for point in points))
    legend = alt.Legend(orient="top", columns=2, labelLimit=200)
    low, high = f"{field}_low", f"{field}_high"
    base = alt.Chart(inline_data(points)).encode(
        x=log_axis("batch", "batch", values=batches),
        color=alt.Color("deployment:N", title=None, scale=alt.Scale(domain=names), legend=legend),
    )
    ends = [alt.Tooltip(f"{name}:Q", format=",.4~g") for name in (field, low, high)]
    lines = base.mark_line(point=alt.OverlayMarkDef(size=22), strokeWidth=1.5).encode(
        y=log_axis(field, unit, vertical=True), tooltip=[alt.Tooltip("deployment:N"), alt.Tooltip("batch:Q"), *ends]
    )
    bars = base.mark_rule(strokeWidth=2).encode(y=alt.Y(f"{low}:Q"), y2=alt.Y2(f"{high}:Q"))
    return Figure(
        name=slug(f"{what}-{one.name}-{_setting(experiment)}"),
        title=f"{one.name}: {what} in decode",
        note=f"{_setting_text(experiment)}; upright bars are 95 % intervals",
        spec=to_vega_lite(alt.layer(bars, lines)),
        rows=points,
    )


def _point(row: DeploymentRow) -> dict[str, Any]:
    low, high = row.measurement.interval or (None, None)
    tokens = row.load.prompt * row.load.batch
    return {
        "deployment": str(row.deployment),
        "batch": row.load.batch,
        "ms": row.measurement.median * 1e3,
        "ms_low": low and low * 1e3,
        "ms_high": high and high * 1e3,
        "tokens_per_second": row.tokens_per_second,
        "tokens_per_second_low": high and tokens / high,
        "tokens_per_second_high": low and tokens / low,
    }


def _ledgers(one: FileExperiments, experiment: Experiment) -> Figure:
    """A bar for each deployment under its load, stacked by the items of its ledger."""
    rows = [row for row in _rows(experiment) if row.ledger]
    shares = [share for row in rows for share in _shares(row)]
    items = [item for item in measurement.LEDGER_ITEMS if any(share["item"] == item for share in shares)]
    places = [place for row in rows for place in (f"{load_heading(row.load)}|", _bar(row))]
    bars = list(dict.fromkeys(places))  # an empty bar holds the heading of its load
    is_heading = "slice(datum.value, -1) == '|'"
    axis = alt.Axis(
        labelExpr=f"{is_heading} ? slice(datum.value, 0, -1) : split(datum.value, '|')[1]",
        labelFontWeight={"condition": {"test": is_heading, "value": "bold"}, "value": "normal"},
        labelLimit=LABEL_WIDTH,
        ticks=False,
        domain=False,
    )
    chart = (
        alt.Chart(inline_data(shares))
        .mark_bar()
        .encode(
            x=alt.X(
                "share:Q",
                stack="zero",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(title=None, format="%", tickCount=10),
            ),
            y=alt.Y("bar:N", title=None, scale=alt.Scale(domain=bars, paddingInner=0.2), axis=axis),
            color=alt.Color(
                "item:N",
                title=None,
                scale=alt.Scale(domain=items, range=[PART_COLOURS[item] for item in items]),
                legend=alt.Legend(orient="top", symbolType="square"),
            ),
            order=alt.Order("position:Q"),
            tooltip=[
                alt.Tooltip("load:N"),
                alt.Tooltip("deployment:N"),
                alt.Tooltip("item:N"),
                *(_tip("share", ".1%"), _tip("ms", ",.4~g")),
            ],
        )
    )
    what = "decode" if experiment.setting.decode else "prefill"
    idle = "idle is the bubble" if experiment.setting.decode else "idle is fill and drain"
    return Figure(
        name=slug(f"ledger-{what}-{one.name}-{_setting(experiment)}"),
        title=f"{one.name}: where a step of {what} goes",
        note=f"{_setting_text(experiment)}; {idle}, mean over ranks",
        spec=to_vega_lite(chart, height=BAR_HEIGHT * len(bars)),
        rows=shares,
    )


def _shares(row: DeploymentRow) -> list[dict[str, Any]]:
    return [
        {
            "bar": _bar(row),
            "load": load_heading(row.load),
            "deployment": str(row.deployment),
            "item": item,
            "position": measurement.LEDGER_ITEMS.index(item),
            "share": share,
            "ms": share * row.measurement.median * 1e3,
        }
        for item, share in row.ledger.items()
        if share
    ]


def _bar(row: DeploymentRow) -> str:
    return (
        f"{load_heading(row.load)}|{row.deployment} · "
        f"{formatting.with_unit(formatting.SECONDS, row.measurement.median)}"
    )


def _tip(field: str, form: str) -> Any:
    return alt.Tooltip(f"{field}:Q", format=form)


def _setting_text(experiment: Experiment) -> str:
    setting = experiment.setting
    context = f", context {setting.context}" if setting.context else ""
    return f"{model_description(setting)}, {setting.dtype}, {setting.ranks} ranks over {setting.backend}{context}"


def _setting(experiment: Experiment) -> str:
    """Slug of the setting, which distinguishes the experiments of a file."""
    return "-".join(str(one) for one in experiment.setting)

"""TP against PP: step time and throughput over the batch, where each step's time goes, and what each rank did when."""

from typing import Any

import altair as alt

from reports import units
from reports.experiment import table
from reports.experiment.chapter import Chapter, Ran
from reports.experiment.collect import Experiment
from reports.experiment.table import Row
from reports.experiment.words import cut, heading
from reports.web import timelines
from reports.web.figure import Figure, compiled, data, log
from specs import measurement

COLOURS = {
    "linears": "#1f6feb",
    "attention": "#58a6ff",
    "norms": "#a5d6ff",
    "all-reduce": "#db6d28",
    "hop": "#2ea043",
    "idle": "#8b949e",
    "skew": "#c4c9d0",
    "host": "#a371f7",
}
"""Of items, readable on light and on dark ground; what computes is blue and waiting is grey."""
BAR = 15
"""Pixels a bar of a ledger takes."""
LABEL_WIDTH = 230
"""Pixels for `pp2-async2-balanced · 1,660 ms`."""
AXES = (("ms", "step time", "ms"), ("tokens_per_second", "throughput", "tokens/s"))
"""Field, what it is, and its unit."""


def section(chapter: Chapter) -> dict[str, Any] | None:
    """What the template shows of it; None where no file holds an experiment."""
    if not chapter:
        return None
    return {
        "sentences": chapter.sentences(),
        "measured": [
            {
                "name": one.name,
                "plots": [plot for of in one.experiments if of.setting.decode for plot in _over_batches(one, of)],
                "ledgers": [_ledgers(one, of) for of in one.experiments],
                "timelines": timelines.draw(one),
                "tables": one.tables(),
            }
            for one in chapter.ran
        ],
    }


def _over_batches(one: Ran, experiment: Experiment) -> list[Figure]:
    """Step time, and throughput."""
    return [_lines(one, experiment, *axis) for axis in AXES]


def _rows(experiment: Experiment) -> list[Row]:
    return [row for group in table.rows(experiment) for row in group]


def _lines(one: Ran, experiment: Experiment, field: str, what: str, unit: str) -> Figure:
    """A line for each deployment over batches, with a bar for each interval; both axes logarithmic."""
    points = [_point(row) for row in _rows(experiment)]
    batches = [load.batch for load in experiment.loads]
    names = list(dict.fromkeys(point["deployment"] for point in points))
    legend = alt.Legend(orient="top", columns=2, labelLimit=200)
    low, high = f"{field}_low", f"{field}_high"
    base = alt.Chart(data(points)).encode(
        x=log("batch", "batch", values=batches),
        color=alt.Color("deployment:N", title=None, scale=alt.Scale(domain=names), legend=legend),
    )
    ends = [alt.Tooltip(f"{name}:Q", format=",.4~g") for name in (field, low, high)]
    lines = base.mark_line(point=alt.OverlayMarkDef(size=22), strokeWidth=1.5).encode(
        y=log(field, unit, vertical=True), tooltip=["deployment:N", "batch:Q", *ends]
    )
    bars = base.mark_rule(strokeWidth=2).encode(y=alt.Y(f"{low}:Q"), y2=alt.Y2(f"{high}:Q"))
    return Figure(
        name=_slug(f"{what}-{one.name}-{_setting(experiment)}"),
        title=f"{one.name}: {what} in decode",
        note=f"{_shared(experiment)}; upright bars are 95 % intervals",
        spec=compiled(alt.layer(bars, lines)),
        rows=points,
    )


def _point(row: Row) -> dict[str, Any]:
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


def _ledgers(one: Ran, experiment: Experiment) -> Figure:
    """A bar for each deployment under its load, stacked of the items of its ledger."""
    rows = [row for row in _rows(experiment) if row.ledger]
    shares = [share for row in rows for share in _shares(row)]
    items = [item for item in measurement.ITEMS if any(share["item"] == item for share in shares)]
    places = [place for row in rows for place in (f"{heading(row.load)}|", _bar(row))]
    bars = list(dict.fromkeys(places))  # an empty bar is the heading of its load
    is_heading = "slice(datum.value, -1) == '|'"
    axis = alt.Axis(
        labelExpr=f"{is_heading} ? slice(datum.value, 0, -1) : split(datum.value, '|')[1]",
        labelFontWeight={"condition": {"test": is_heading, "value": "bold"}, "value": "normal"},
        labelLimit=LABEL_WIDTH,
        ticks=False,
        domain=False,
    )
    chart = (
        alt.Chart(data(shares))
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
                scale=alt.Scale(domain=items, range=[COLOURS[item] for item in items]),
                legend=alt.Legend(orient="top", symbolType="square"),
            ),
            order=alt.Order("position:Q"),
            tooltip=["load:N", "deployment:N", "item:N", *(_tip("share", ".1%"), _tip("ms", ",.4~g"))],
        )
    )
    what = "decode" if experiment.setting.decode else "prefill"
    idle = "idle is the bubble" if experiment.setting.decode else "idle is fill and drain"
    return Figure(
        name=_slug(f"ledger-{what}-{one.name}-{_setting(experiment)}"),
        title=f"{one.name}: where a step of {what} goes",
        note=f"{_shared(experiment)}; {idle}, mean over ranks",
        spec=compiled(chart, height=BAR * len(bars)),
        rows=shares,
    )


def _shares(row: Row) -> list[dict[str, Any]]:
    return [
        {
            "bar": _bar(row),
            "load": heading(row.load),
            "deployment": str(row.deployment),
            "item": item,
            "position": measurement.ITEMS.index(item),
            "share": share,
            "ms": share * row.measurement.median * 1e3,
        }
        for item, share in row.ledger.items()
        if share
    ]


def _bar(row: Row) -> str:
    return f"{heading(row.load)}|{row.deployment} · {units.one(units.SECONDS, row.measurement.median)}"


def _tip(field: str, form: str) -> Any:
    return alt.Tooltip(f"{field}:Q", format=form)


def _shared(experiment: Experiment) -> str:
    setting = experiment.setting
    context = f", context {setting.context}" if setting.context else ""
    return f"{cut(setting)}, {setting.dtype}, {setting.ranks} ranks over {setting.backend}{context}"


def _setting(experiment: Experiment) -> str:
    """What tells it from the file's other experiments."""
    return "-".join(str(one) for one in experiment.setting)


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())

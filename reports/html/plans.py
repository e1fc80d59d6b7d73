"""Plots of plans: crossovers by GPU, and throughput over time per token.

The cases behind the highlighted points come with them.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt

from reports import formatting
from reports.html.charts import Figure, inline_data, log_axis, to_vega_lite
from reports.plan import report
from reports.plan import tables as plan_names
from reports.plan.planner import PlanPoint
from reports.plan.report import NamedPlan, PlanSection, PointSources

KIND_COLOURS = {
    "TP": "#1f6feb",
    "sync PP": "#8b949e",
    "async PP": "#2ea043",
    "mixed TP x PP": "#db6d28",
    "replicas": "#a371f7",
}
"""Colour by kind of deployment, readable on light and dark backgrounds."""
GREY = "#8b949e"
LANE_HEIGHT = 34
"""Height of a GPU's lane in pixels."""
BATCH_TICKS = tuple(2**power for power in range(14))
DOT_SIZE, FRONT_DOT_SIZE = 34, 95
CLICK_NOTE = "; a click on a dot of it, and on one of TP or async PP over all GPUs, leads to its cases"
Extent = tuple[float, float]


def template_context(section: PlanSection, *, linked: bool = True) -> dict[str, Any] | None:
    """Template data; None where nothing can be planned.

    `linked`: dots lead to their cases.
    """
    if not section:
        return None
    shown = [_fastest_fitting(one.plan.points) for one in section.planned]
    every = [one for points in shown for one in points]
    times = _ends([1e3 * one.seconds for one in every])
    rates = _ends([one.tokens_per_second for one in every])
    return {
        "crossovers": _crossovers(section.planned),
        "tables": section.tables(),
        "planned": [
            {
                "name": one.name,
                "slug": _slug(one),
                "sentence": one.sentence,
                "plot": _splits(one, points, times, rates, linked=linked),
                "file": ", ".join(map(str, one.plan.profile.paths)),
                "again": one.reproduce_command,
            }
            for one, points in zip(section.planned, shown, strict=True)
        ],
    }


def traced_cases(section: PlanSection) -> dict[str, dict[str, Any]]:
    """Highlighted points with the sources of their parts, by name of the GPU."""
    return {
        one.name: _traced_plan(one, report.number_sources(report.highlighted_points(one.plan)))
        for one in section.planned
    }


def _traced_plan(one: NamedPlan, found: PointSources) -> dict[str, Any]:
    rows = [(_anchor(one, point), _cells(point), numbers) for point, numbers in found.points]
    return {"rows": rows, "sources": found.sources}


def _cells(one: PlanPoint) -> tuple[str, ...]:
    return (
        str(one.batch),
        str(one.deployment),
        plan_names.format_milliseconds(one.seconds),
        plan_names.step_range(one),
        formatting.three_digits(one.tokens_per_second),
        one.implementation,
    )


def _fastest_fitting(points: Sequence[PlanPoint]) -> list[PlanPoint]:
    """Points that fit in memory, with the fastest number of microbatches."""
    best: dict[tuple[object, ...], PlanPoint] = {}
    for one in points:
        deployment = one.deployment
        key = one.batch, deployment.tp, deployment.pp, deployment.replicas, deployment.schedule
        if one.fits and (key not in best or one.seconds < best[key].seconds):
            best[key] = one
    return list(best.values())


def _crossovers(planned: Sequence[NamedPlan]) -> Figure | None:
    """A lane for each GPU; None without any lane.

    A lane shows the batches examined, the batches where either may lead, and the median.
    """
    rows = [row for one in planned if (row := _lane(one))]
    if not rows:
        return None
    names = [row["gpu"] for row in rows]
    ends = alt.Scale(type="log", domain=[min(row["from"] for row in rows), max(row["to"] for row in rows)], nice=False)
    axis = alt.Axis(
        title="batch (sequences, logarithmic)", values=list(BATCH_TICKS), format="d", grid=True, labelOverlap=True
    )
    y = alt.Y("gpu:N", title=None, sort=names, axis=alt.Axis(labelLimit=220))

    def x(field: str) -> Any:
        return alt.X(f"{field}:Q", scale=ends, axis=axis)

    tips: list[Any] = [
        alt.Tooltip("gpu:N"),
        alt.Tooltip("low:Q"),
        alt.Tooltip("batch:Q"),
        alt.Tooltip("high:Q"),
        alt.Tooltip("verdict:N"),
        alt.Tooltip("to:Q", title="looked at up to"),
    ]
    base = alt.Chart(inline_data(rows)).encode(y=y, tooltip=tips)
    line = base.mark_rule(color=GREY, strokeWidth=1.5).encode(x=x("from"), x2=alt.X2("to:Q"))
    within = base.transform_filter("isValid(datum.low)")
    span = within.mark_rule(color=KIND_COLOURS["TP"], strokeWidth=9, opacity=0.6).encode(
        x=x("low"), x2=alt.X2("until:Q")
    )
    middle = base.transform_filter("isValid(datum.batch)")
    dot = middle.mark_point(color=KIND_COLOURS["mixed TP x PP"], filled=True, size=110, opacity=1).encode(x=x("batch"))
    text = base.mark_text(color=GREY, fontSize=11, dy=-11).encode(x=x("at"), text=alt.Text("said:N"))
    gpus = planned[0].plan.query.gpus
    return Figure(
        name="plan-crossovers",
        title=f"From which batch on async PP {gpus} gives more tokens a second than TP {gpus} for good",
        note="left of the band TP is faster, right of it PP for good; within it the lead depends on whose kernels run "
        "and may change at tile sizes; dot: the middle of the variants; thin: batches looked at, as far as memory "
        f"holds them; {plan_names.UNSEEN_NOTE}",
        spec=to_vega_lite(alt.layer(line, span, dot, text), height=LANE_HEIGHT * len(rows) + 10),
        rows=[{key: row[key] for key in ("gpu", "low", "batch", "high", "verdict", "from", "to")} for row in rows],
    )


def _lane(one: NamedPlan) -> dict[str, Any] | None:
    found = one.plan.crossover
    if found is None:
        return None
    first, last = found.batch_range
    at = found.batch or found.low or last
    said = {"tp": "TP throughout", "pp": "PP throughout", "ambiguous": "open"}.get(found.verdict, f"{found.batch}")
    return {
        "gpu": one.name,
        "low": found.low,
        "batch": found.batch,
        "high": found.high,
        "verdict": found.verdict,
        "from": first,
        "to": last,
        "until": found.high or last,
        "at": at,
        "said": said,
    }


def _splits(one: NamedPlan, points: Sequence[PlanPoint], times: Extent, rates: Extent, *, linked: bool) -> Figure:
    """Tokens/s over time per token, a dot for each split and batch.

    The Pareto front is joined by a line and numbered by batch.
    """
    traced = {id(point) for point in report.highlighted_points(one.plan)} if linked else set()
    front = {id(point) for point in one.plan.front}
    below = sorted(points, key=lambda point: id(point) in front)  # later dots cover earlier dots
    rows = [_row(one, point, id(point) in front, id(point) in traced) for point in below]
    kinds = [kind for kind in KIND_COLOURS if any(row["kind"] == kind for row in rows)]
    x = log_axis("ms", "ms a token (logarithmic)", domain=times)
    y = log_axis("tokens_per_second", "tokens/s (logarithmic)", domain=rates, vertical=True)
    legend = alt.Legend(orient="top", columns=len(kinds), symbolType="circle", symbolOpacity=1)
    colour = alt.Color(
        "kind:N", title=None, scale=alt.Scale(domain=kinds, range=[KIND_COLOURS[kind] for kind in kinds]), legend=legend
    )
    tips: list[Any] = [
        alt.Tooltip("split:N"),
        alt.Tooltip("batch:Q"),
        alt.Tooltip("ms:Q", format=",.4~g"),
        alt.Tooltip("range:N"),
    ]
    base = alt.Chart(inline_data(rows)).encode(x=x, y=y)
    best = base.transform_filter("datum.front")
    dots = base.mark_point(filled=True, opacity=0.9).encode(
        color=colour,
        size=alt.condition("datum.front", alt.value(FRONT_DOT_SIZE), alt.value(DOT_SIZE)),
        href=alt.Href("cases:N"),
        tooltip=[*tips, alt.Tooltip("tokens_per_second:Q", format=",.4~g", title="tokens/s")],
    )
    line = best.mark_line(color=GREY, strokeWidth=1.2).encode(order=alt.Order("ms:Q"))
    numbers = best.mark_text(color=GREY, fontSize=11, dy=-11, align="right").encode(text=alt.Text("batch:Q"))
    return Figure(
        name=f"plan-{_slug(one)}",
        title=f"{one.name}: every split over {one.plan.query.gpus} GPUs",
        note="joined and numbered by batch: the Pareto front among the batches asked for"
        + (CLICK_NOTE if linked else ""),
        spec=to_vega_lite(alt.layer(line, dots, numbers), height=330),
        rows=[{key: value for key, value in row.items() if key != "cases"} for row in rows],
    )


def _row(one: NamedPlan, point: PlanPoint, front: bool, traced: bool) -> dict[str, Any]:
    marks = {"front": True} if front else {}
    return {
        "split": str(point.deployment),
        "kind": plan_names.deployment_kind(point.deployment),
        "batch": point.batch,
        "ms": 1e3 * point.seconds,
        "range": plan_names.step_range(point),
        "tokens_per_second": point.tokens_per_second,
        **marks,
        **({"cases": f"#{_anchor(one, point)}"} if traced else {}),
    }


def _anchor(one: NamedPlan, point: PlanPoint) -> str:
    return f"{_slug(one)}-{point.deployment}-{point.batch}"


def _ends(values: Sequence[float]) -> Extent:
    """Range with a margin, so that no dot lies on the frame."""
    return min(values) / 1.25, max(values) * 1.4


def _slug(one: NamedPlan) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in one.name.lower())

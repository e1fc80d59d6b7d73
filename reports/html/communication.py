"""Plot time over message size: measured with fitted lines, and published.

Published: NCCL beside custom kernels on each GPU.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from reports import formatting
from reports.communication import points
from reports.communication.points import VARIANT_LABELS, MessageSeries, PublishedAllReduces, SeriesFit
from reports.communication.report import CommunicationSection, FileCommunication
from reports.html.charts import Figure, inline_data, log_axis, slug, to_vega_lite
from reports.output import Table
from specs.units import BINARY_UNITS, format_bytes

SIZE_TICKS = tuple(2**power for power in range(8, 31, 4))
LAUNCH_DASHES = {"eager": [5, 3], "graph": [1, 0]}
POINTS_PER_DOUBLING = 8
"""Points of a fitted line per doubling of the message: the line bends in log-log."""
MAX_FITS_NAMED = 3
"""Maximum number of fits in a plot's note; the table below has all fits."""
Extent = tuple[float, float]


def template_context(section: CommunicationSection) -> dict[str, Any] | None:
    """Template data; None where the files hold no operation between ranks."""
    if not section:
        return None
    return {
        "sentences": section.sentences(),
        "published": points.published_table(section.published),
        "published_plots": _published_figures(section.published),
        "measured": [
            {"name": one.name, "file": one.file.path, "plots": _plots(one), "tables": one.tables()}
            for one in section.measured
        ],
    }


def every_size_tables(section: CommunicationSection) -> dict[str, list[Table]]:
    """Tables with every message size of each measured file, by its name."""
    return {one.name: [table for table in one.tables(every=True) if table.title != "fit"] for one in section.measured}


def _published_figures(found: Sequence[PublishedAllReduces]) -> list[Figure]:
    """A plot for each GPU, on the same axes."""
    points = [(size, one.median * 1e6) for gpu in found for by in gpu.variants.values() for size, one in by.items()]
    if not points:
        return []
    ends = [(min(axis), max(axis)) for axis in zip(*points, strict=True)]
    return [_published_figure(one, *ends) for one in found]


def _published_figure(one: PublishedAllReduces, messages: Extent, times: Extent) -> Figure:
    rows = [
        {
            "by": VARIANT_LABELS[family, launch],
            "message_bytes": size,
            "message": format_bytes(size),
            "us": point.median * 1e6,
            "kernel": " ".join(filter(None, (point.framework, point.version, point.case.kernel))),
            "dtype": point.case.dtype,
        }
        for (family, launch), by_size in one.variants.items()
        for size, point in by_size.items()
    ]
    y = alt.Y("us:Q", scale=_scale(times), axis=alt.Axis(title="us", grid=True, labelOverlap=True))
    chart = (
        alt.Chart(inline_data(rows))
        .mark_line(point=alt.OverlayMarkDef(size=18), strokeWidth=1.6)
        .encode(x=_messages(messages), y=y, **_variant_encoding(one), tooltip=_tips("by", "kernel", "dtype"))
    )
    return Figure(
        name=slug(f"published-{one.name}"),
        title=f"{one.name}: all-reduce over {one.ranks} GPUs, published",
        note="dashed: eager; of several kernels the fastest at each size",
        spec=to_vega_lite(chart),
        rows=rows,
    )


def _plots(one: FileCommunication) -> list[Figure]:
    """A plot for each operation."""
    ops = dict.fromkeys(series.case.op for series, _ in one.series)
    return [_measured_figure(one.name, op, [pair for pair in one.series if pair[0].case.op == op]) for op in ops]


def _measured_figure(name: str, op: str, found: Sequence[tuple[MessageSeries, SeriesFit | None]]) -> Figure:
    rows = [
        {
            "by": series.label,
            "message_bytes": point.case.message_bytes,
            "message": format_bytes(point.case.message_bytes or 0),
            "us": point.measurement.median * 1e6,
            "busbw": (point.busbw or 0.0) / 1e9,
        }
        for series, _ in found
        for point in series.points
    ]
    lines = [row for series, line in found if line for row in _line(series.label, line)]
    legend = alt.Legend(orient="top", columns=1 if len(found) < 4 else 2, labelLimit=320)
    colour = alt.Color("by:N", title=None, legend=legend)
    x, y = _messages(), log_axis("us", "us", vertical=True)
    tips = [*_tips("by"), alt.Tooltip("busbw:Q", format=",.3~g", title="busbw GB/s")]
    dots = alt.Chart(inline_data(rows)).mark_point(size=26, filled=True).encode(x=x, y=y, color=colour, tooltip=tips)
    layers = [alt.Chart(inline_data(lines)).mark_line(strokeWidth=1.4).encode(x=x, y=y, color=colour)] if lines else []
    fitted = (
        [f"{series.label}: {_fit_text(line)}" for series, line in found if line] if len(found) <= MAX_FITS_NAMED else []
    )
    return Figure(
        name=slug(f"measured-{op}-{name}"),
        title=f"{name}: {op}, measured",
        note="; ".join(["lines: alpha + message / bandwidth", *fitted]) if lines else "too few sizes for a fit",
        spec=to_vega_lite(alt.layer(*layers, dots)),
        rows=rows,
    )


def _fit_text(line: SeriesFit) -> str:
    alpha = f"{formatting.microseconds(line.line.alpha)} us"
    return f"{alpha}, {formatting.three_digits(line.bandwidth / 1e9)} GB/s" if line.bandwidth else alpha


def _line(by: str, line: SeriesFit) -> Iterable[dict[str, Any]]:
    least, most = min(line.sizes), max(line.sizes)
    size = float(least)
    while size < most * 1.001:
        yield {"by": by, "message_bytes": size, "us": line.line.at(size) * 1e6}
        size *= 2 ** (1 / POINTS_PER_DOUBLING)


def _messages(ends: Extent | None = None) -> Any:
    """Axis of message sizes, in powers of two."""
    axis = alt.Axis(
        title="message", values=list(SIZE_TICKS), grid=True, labelOverlap=True, labelFlush=False, labelExpr=_units()
    )
    return alt.X("message_bytes:Q", scale=_scale(ends), axis=axis)


def _units() -> str:
    """Vega expression that formats a size in powers of two."""
    expression = "datum.value + ' B'"
    for factor, symbol in reversed(BINARY_UNITS):
        expression = f"datum.value >= {factor} ? datum.value / {factor} + ' {symbol}' : {expression}"
    return expression


def _scale(ends: Extent | None) -> Any:
    return alt.Scale(type="log", nice=False, domain=list(ends) if ends else alt.Undefined)


def _variant_encoding(one: PublishedAllReduces) -> dict[str, Any]:
    """Colour by variant, dashed where eager, in one legend."""
    names = {name: way for way, name in VARIANT_LABELS.items() if way in one.variants}
    legend = alt.Legend(orient="top", symbolSize=400, columns=2)
    dashes = alt.Scale(domain=list(names), range=[LAUNCH_DASHES[launch] for _, launch in names.values()])
    return {
        "color": alt.Color("by:N", title=None, scale=alt.Scale(domain=list(names)), legend=legend),
        "strokeDash": alt.StrokeDash("by:N", title=None, scale=dashes, legend=legend),
    }


def _tips(*fields: str) -> list[Any]:
    return [*(alt.Tooltip(f"{field}:N") for field in (*fields, "message")), alt.Tooltip("us:Q", format=",.4~g")]

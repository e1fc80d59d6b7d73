"""A plot and the numbers in it."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import altair as alt

DataRows = Sequence[Mapping[str, Any]]
PLOT_HEIGHT = 260
"""Pixels; the width is that of the screen."""


@dataclass(frozen=True)
class Figure:
    """One plot.

    Attributes:
        name: slug, for its place on the page and the name of its CSV file.
        title: what it shows.
        note: what to read off it.
        spec: Vega-Lite.
        rows: the data points, for the CSV.
    """

    name: str
    title: str
    note: str
    spec: Mapping[str, Any]
    rows: DataRows

    @property
    def csv(self) -> str:
        """The data as CSV, a column for each field."""
        fields = dict.fromkeys(field for row in self.rows for field in row)
        text = StringIO()
        writer = csv.DictWriter(text, list(fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in self.rows)
        return text.getvalue()


def inline_data(rows: DataRows) -> alt.InlineData:
    """Rows as a chart takes them, floats to five digits: no plot shows more."""
    return alt.InlineData(values=[{key: _round_float(value) for key, value in row.items()} for row in rows])


def to_vega_lite(chart: Any, height: int = PLOT_HEIGHT) -> Mapping[str, Any]:
    """The chart as Vega-Lite that fills the width of its place; `height` is in pixels."""
    spec: dict[str, Any] = chart.properties(width="container", height=height).to_dict()
    return spec


def log_axis(
    field: str,
    title: str,
    *,
    values: Sequence[float] | None = None,
    domain: Sequence[float] | None = None,
    vertical: bool = False,
) -> Any:
    """A logarithmic axis over tokens, seconds or whatever has decades."""
    axis = alt.Axis(title=title, values=list(values) if values else alt.Undefined, grid=True, labelOverlap=True)
    scale = alt.Scale(type="log", nice=False, domain=list(domain) if domain else alt.Undefined)
    return (alt.Y if vertical else alt.X)(f"{field}:Q", scale=scale, axis=axis)


def gpu_colour(gpus: Sequence[str]) -> Any:
    """A colour for each GPU, the same in every plot."""
    legend = alt.Legend(orient="top", symbolOpacity=1)
    return alt.Color("gpu:N", title=None, scale=alt.Scale(domain=list(gpus)), legend=legend)


def _round_float(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula, as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value

"""Plots as Vega-Lite, with their data as CSV.

Every channel is given as an object of its class: Altair takes 7 ms to make one of a string.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import altair as alt

DataRows = Sequence[Mapping[str, Any]]
PLOT_HEIGHT = 260
"""Plot height in pixels; the width follows the screen."""


@dataclass(frozen=True)
class Figure:
    """A plot with its data.

    Attributes:
        name: slug for the plot's place on the page and its CSV file.
        title: subject of the plot.
        note: reading aid.
        spec: Vega-Lite specification.
        rows: data points for the CSV.
    """

    name: str
    title: str
    note: str
    spec: Mapping[str, Any]
    rows: DataRows

    @property
    def csv(self) -> str:
        """Data as CSV, a column for each field."""
        fields = dict.fromkeys(field for row in self.rows for field in row)
        text = StringIO()
        writer = csv.DictWriter(text, list(fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in self.rows)
        return text.getvalue()


def inline_data(rows: DataRows) -> alt.InlineData:
    """Rows as chart data, floats rounded to five digits: no plot shows more."""
    return alt.InlineData(values=[{key: _round_float(value) for key, value in row.items()} for row in rows])


def to_vega_lite(chart: Any, height: int = PLOT_HEIGHT) -> Mapping[str, Any]:
    """Convert a chart to Vega-Lite at the width of its place; `height` in pixels."""
    spec: dict[str, Any] = chart.properties(width="container", height=height).to_dict(validate=False)
    return spec


def log_axis(
    field: str,
    title: str,
    *,
    values: Sequence[float] | None = None,
    domain: Sequence[float] | None = None,
    vertical: bool = False,
) -> Any:
    """Logarithmic axis, for tokens, seconds or another quantity that spans decades."""
    axis = alt.Axis(title=title, values=list(values) if values else alt.Undefined, grid=True, labelOverlap=True)
    scale = alt.Scale(type="log", nice=False, domain=list(domain) if domain else alt.Undefined)
    return (alt.Y if vertical else alt.X)(f"{field}:Q", scale=scale, axis=axis)


def gpu_colour(gpus: Sequence[str]) -> Any:
    """Colour by GPU, the same in every plot."""
    legend = alt.Legend(orient="top", symbolOpacity=1)
    return alt.Color("gpu:N", title=None, scale=alt.Scale(domain=list(gpus)), legend=legend)


def slug(text: str) -> str:
    """Text in lower case with a hyphen for all but letters and digits, as a name on the page."""
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())


def _round_float(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _cell(value: Any) -> Any:
    """Prefix text that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value

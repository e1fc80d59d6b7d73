"""How many times as fast as the oldest GPU each one is, over tokens, beside what the datasheets explain."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from reports.generations import Generations
from reports.web.figure import Figure, by_gpu, compiled, data, log


def draw(found: Generations, gpus: Sequence[str]) -> Figure:
    """A line for each GPU but the oldest; dashed, the ratio of the datasheets' floors."""
    oldest = found.entries[0].name
    rows: list[dict[str, Any]] = [
        {
            "gpu": one.name,
            "tokens": one.tokens,
            "us": one.seconds * 1e6,
            "share_of_floor": one.share,
            "speedup": one.speedup,
            "datasheet": one.promised,
        }
        for one in found.entries
    ]
    shown = [row for row in rows if row["gpu"] != oldest]
    base = alt.Chart(data(shown)).encode(
        x=log("tokens", "tokens", values=(1, 16, 125, 256, 1000, 4096)),
        color=by_gpu(gpus),
        tooltip=[
            "gpu:N",
            "tokens:Q",
            alt.Tooltip("speedup:Q", format=".3~g"),
            alt.Tooltip("datasheet:Q", format=".3~g"),
        ],
    )
    measured = base.mark_line(point=alt.OverlayMarkDef(size=24), strokeWidth=1.6).encode(
        y=log("speedup", f"times {oldest}", vertical=True)
    )
    promised = base.mark_line(strokeDash=[4, 4], strokeWidth=1.1, opacity=0.7).encode(y="datasheet:Q")
    return Figure(
        name="generations",
        title=f"Against {oldest}: {found.model} {found.part}, {found.dtype}",
        note="dashed: what the datasheets would explain, the ratio of memory or of arithmetic, whichever binds",
        spec=compiled(alt.layer(promised, measured)),
        rows=rows,
    )

"""All linears of all GPUs under one roof: share of the peak against arithmetic intensity over the ridge."""

from collections.abc import Iterable, Sequence
from itertools import islice
from statistics import median
from typing import Any

import altair as alt

from reports import knees
from reports.evidence import Evidence, Series
from reports.web.figure import Figure, by_gpu, compiled, data, log
from specs.units import ITEMSIZE

TOKENS = (1, 4, 16, 64, 125, 256, 1000, 4096)
PARTS = 8
"""Linears of one GPU at most, those with the most weights: more points hide each other."""
SHOWN = ("share_of_peak", "tflops", "intensity", "us")


def draw(evidences: Sequence[Evidence], gpus: Sequence[str]) -> Figure | None:
    """A point for each linear and count of tokens; None where no GPU's ceilings are known.

    Both axes are shares of the GPU's own figures, so that all of them stand under one roof.
    """
    points = [row for evidence in evidences if evidence.architecture == "dense" for row in _points(evidence)]
    if not points:
        return None
    ends = [min(row["intensity_over_ridge"] for row in points), 1.0, max(row["intensity_over_ridge"] for row in points)]
    roof = [{"intensity_over_ridge": end, "share_of_peak": min(1.0, end)} for end in ends]
    x = log("intensity_over_ridge", "flop / byte, over the ridge")
    y = log("share_of_peak", "share of peak", vertical=True)
    line = alt.Chart(data(roof)).mark_line(strokeWidth=1.5, strokeDash=[5, 4], color="gray").encode(x=x, y=y)
    dots = (
        alt.Chart(data(points))
        .mark_point(size=26, opacity=0.75)
        .encode(
            x=x,
            y=y,
            color=by_gpu(gpus),
            tooltip=["gpu:N", "part:N", "tokens:Q", *(alt.Tooltip(f"{field}:Q", format=",.3~g") for field in SHOWN)],
        )
    )
    return Figure(
        name="rooflines",
        title="How near each linear comes to its GPU's roof",
        note="left of 1 memory binds, right of it arithmetic; by its own ceilings, or by datasheet where published",
        spec=compiled(alt.layer(line, dots)),
        rows=points,
    )


def _points(evidence: Evidence) -> Iterable[dict[str, Any]]:
    peak, corner = evidence.limits.peak(evidence.dtype) if evidence.limits else None, knees.ridge(evidence)
    if not peak or not corner:
        return
    ridge = corner * 2 / ITEMSIZE[evidence.dtype]  # flops a byte: two for each weight and token
    cold = {
        part: series
        for part, alike in evidence.parts.items()
        if (series := [one for one in alike if not one.maybe_hot and one.shape_published])
    }
    largest = sorted(cold.items(), key=lambda one: -_bytes(one[1][0]))
    for (_, part), series in islice(largest, PARTS):
        for tokens in TOKENS:
            found = [one.points[tokens] for one in series if tokens in one.points]
            if found:
                case, seconds = found[0].case, median(one.median for one in found)
                intensity = case.work.intensity
                yield {
                    "gpu": evidence.name,
                    "dtype": evidence.dtype,
                    "part": part,
                    "tokens": tokens,
                    "intensity": intensity,
                    "intensity_over_ridge": intensity / ridge,
                    "tflops": case.flops / seconds / 1e12,
                    "share_of_peak": case.flops / seconds / peak,
                    "us": seconds * 1e6,
                }


def _bytes(series: Series) -> int:
    return min(one.case.hbm_bytes for one in series.points.values())

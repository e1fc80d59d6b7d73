"""Time against tokens on one GPU, with its roofline and its knee."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import altair as alt

from reports import dependent, knee, knees, units
from reports.evidence import Evidence, Series
from reports.web.figure import Figure, compiled, data, log
from specs import roofline

TICKS = (1, 16, 125, 1000, 8192)
MARKED = (125, 1000)


def draw(evidence: Evidence, part: tuple[str, str]) -> Figure:
    """The times of one part of a model by every implementation, cold ones only where there are any."""
    alike = evidence.parts[part]
    series = [one for one in alike if not one.maybe_hot] or alike
    rows = [row for one in series for row in _points(one)]
    floors = _floors(evidence, series[0])
    found = [one for each in series if (one := knees.of_series(evidence, each))]
    corner = knee.merged(found) if found else None
    layers: list[Any] = [_claimed()]
    if corner:
        layers += _knee(corner)
    if floors:
        layers.append(_roofline(floors))
    layers.append(_times(rows))
    some = next(iter(series[0].points.values())).case
    shape = f", n={some.n}, k={some.k}" if some.n else ""
    return Figure(
        name=_slug(f"time-{evidence.name}-{evidence.dtype}"),
        title=f"{evidence.name}: {part[0]} {part[1]}{shape}, {evidence.dtype}",
        note=_note(evidence, series, corner),
        spec=compiled(alt.layer(*layers)),
        rows=[*rows, *floors],
    )


def _points(series: Series) -> list[dict[str, Any]]:
    return [
        {
            "by": series.implementation,
            "tokens": tokens,
            "us": one.median * 1e6,
            "provenance": one.provenance,
        }
        for tokens, one in sorted(series.points.items())
    ]


def _floors(evidence: Evidence, series: Series) -> list[dict[str, Any]]:
    """The roofline at the same tokens; nothing where a ceiling is unknown."""
    if not evidence.limits:
        return []
    found = []
    for tokens, one in sorted(series.points.items()):
        if floor := roofline.floor_seconds(one.case.work, one.case.dtype, evidence.limits):
            found.append({"by": "roofline", "tokens": tokens, "us": floor * 1e6, "provenance": evidence.limits.origin})
    return found


def _times(rows: Sequence[dict[str, Any]]) -> Any:
    base = alt.Chart(data(rows)).encode(
        x=log("tokens", "tokens", values=TICKS),
        y=log("us", "us", vertical=True),
        color=alt.Color("by:N", title=None, legend=alt.Legend(orient="top")),
        tooltip=["by:N", "tokens:Q", alt.Tooltip("us:Q", format=",.4~g"), "provenance:N"],
    )
    return base.mark_line(point=alt.OverlayMarkDef(size=14), strokeWidth=1.5)


def _roofline(rows: Sequence[dict[str, Any]]) -> Any:
    base = alt.Chart(data(rows)).mark_line(strokeDash=[5, 4], strokeWidth=1.5, color="gray")
    return base.encode(x="tokens:Q", y="us:Q")


def _claimed() -> Any:
    """Thin lines at the two counts of tokens that the claim compares."""
    return (
        alt.Chart(data([{"at": tokens} for tokens in MARKED]))
        .mark_rule(strokeDash=[1, 3], color="gray")
        .encode(x="at:Q")
    )


def _knee(corner: knee.Knee) -> list[Any]:
    rows = data([{"low": corner.low, "high": corner.high, "at": corner.tokens}])
    band = alt.Chart(rows).mark_rect(opacity=0.18, color="gray").encode(x="low:Q", x2="high:Q")
    rule = alt.Chart(rows).mark_rule(color="gray").encode(x="at:Q")
    return [band, rule]


def _note(evidence: Evidence, series: Sequence[Series], corner: knee.Knee | None) -> str:
    said = []
    ratios = [b.median / a.median for one in series for a, b in [one.at(*MARKED) or (None, None)] if a and b]
    if ratios:
        said.append(f"1000 tokens take {units.span(min(ratios), max(ratios))} times as long as 125")
    if corner:
        said.append(f"knee at {corner.tokens:.0f} tokens ({corner.low:.0f}–{corner.high:.0f}), grey")
    origin = evidence.limits.origin if evidence.limits else ""
    said += [f"dashed: the {origin} roofline"] if origin else ["no roofline: ceilings unknown"]
    said += dependent.notes(one.implementation for one in series)
    return "; ".join(said)


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())


def chosen(evidence: Evidence, preferred: tuple[str, str] | None) -> tuple[str, str]:
    """The part to draw: the one that all GPUs share, or the cold one with the most weights."""
    parts = evidence.parts
    if preferred and preferred in parts:
        return preferred
    return max(parts, key=lambda part: _rank(parts[part]))


def _rank(alike: Sequence[Series]) -> tuple[bool, bool, int]:
    cold = any(not one.maybe_hot for one in alike)
    measured = any(one.shape_published for one in alike)
    return cold, measured, max(one.case.hbm_bytes for one in chain(*(each.points.values() for each in alike)))

"""Plots of layers and linears: ledgers, time over tokens, rooflines, speedups."""

from collections.abc import Iterable, Sequence, Set
from itertools import chain, islice
from statistics import median
from typing import Any

import altair as alt

from reports import formatting
from reports.claims import tokens as claims_tokens
from reports.claims.evidence import Evidence, TokenSeries
from reports.compare.generations import Generations
from reports.html.charts import Figure, gpu_colour, inline_data, log_axis, slug, to_vega_lite
from reports.ledger.ledger import ITEMS, Ledger
from reports.ledger.report import FileLedgers, LedgerSection
from specs import roofline
from specs.units import STORED_ITEMSIZE

# Time of whole layers: a bar for each, stacked by the items of its ledger.

LABEL_WIDTH = 260
"""Label width in pixels; fits `1000 tokens at 2048 · torch-compile`."""
PlotKey = tuple[str | None, int | None, int | None, str, str]
"""Subject of a plot: model, tp, pp, number format, and a word for hot weights."""


def template_context(section: LedgerSection) -> dict[str, Any] | None:
    """Template data; None where no file holds a whole layer."""
    if not section:
        return None
    return {
        "sentences": section.sentences(),
        "measured": [{"name": one.name, "plots": _plots(one), "tables": one.tables()} for one in section.file_ledgers],
    }


def _plots(one: FileLedgers) -> list[Figure]:
    """A plot for each model, split, number format and cache state."""
    subjects: dict[PlotKey, list[Ledger]] = {}
    for ledger in one.ledgers:
        case = ledger.layer.case
        heat = ", hot" if case.cache == "hot" else ""
        subjects.setdefault((case.model, case.tp, case.pp, case.dtype, heat), []).append(ledger)
    return [_draw(one.name, subject, ledgers) for subject, ledgers in subjects.items()]


def _draw(name: str, subject: PlotKey, ledgers: Sequence[Ledger]) -> Figure:
    model, tp, pp, dtype, heat = subject
    contexts = {ledger.layer.case.context for ledger in ledgers if _is_decode(ledger)}
    rows = [row for ledger in ledgers for row in _rows(ledger, with_context=len(contexts) > 1)]
    items = [item for item in ITEMS if any(row["item"] == item for row in rows)]
    legend = alt.Legend(orient="top", symbolType="square", columns=3)
    shares = [alt.Tooltip(f"{field}:Q", format=".1%") for field in ("share", "low", "high")]
    bars = (
        alt.Chart(inline_data(rows))
        .mark_bar()
        .encode(
            x=alt.X("share:Q", stack="zero", axis=alt.Axis(title="of the layer's time", format="%", grid=True)),
            y=alt.Y("bar:N", sort=None, title=None, axis=alt.Axis(labelLimit=LABEL_WIDTH)),
            color=alt.Color("item:N", title=None, scale=alt.Scale(domain=items), legend=legend),
            order=alt.Order("position:Q"),
            tooltip=[alt.Tooltip("bar:N"), alt.Tooltip("item:N"), *shares, alt.Tooltip("us:Q", format=",.4~g")],
        )
    )
    zero = alt.Chart(inline_data([{"share": 0.0}])).mark_rule(color="gray").encode(x=alt.X("share:Q"))
    return Figure(
        name=slug(f"layer-{name}-{model}-tp{tp}-pp{pp}-{dtype}{heat}"),
        title=f"{name}: a layer of {model}, tp {tp}, pp {pp}, {dtype}{heat}",
        note=_context_note(contexts),
        spec=to_vega_lite(alt.layer(bars, zero)),
        rows=rows,
    )


def _context_note(contexts: Set[int | None]) -> str:
    """Note with the context, where all batches have the same."""
    return "; ".join([*(f"context {one}" for one in contexts if len(contexts) == 1), "intervals are in the table"])


def _rows(ledger: Ledger, *, with_context: bool) -> list[dict[str, Any]]:
    found = []
    for item in ledger.items:
        low, high = item.share.interval or (None, None)
        found.append(
            {
                "bar": _bar(ledger, with_context=with_context),
                "item": item.name,
                "position": ITEMS.index(item.name),
                "share": item.share.mean,
                "low": low,
                "high": high,
                "us": item.seconds.mean * 1e6,
            }
        )
    return found


def _bar(ledger: Ledger, *, with_context: bool) -> str:
    """Label of a bar: `125 tokens · torch`, `prompt of 2048 · torch`."""
    case = ledger.layer.case
    if not _is_decode(ledger):
        return f"prompt of {case.tokens} · {case.implementation}"
    context = f" at {case.context}" if with_context else ""
    return f"{formatting.pluralize(case.tokens or 0, 'token')}{context} · {case.implementation}"


def _is_decode(ledger: Ledger) -> bool:
    return ledger.layer.case.batch == ledger.layer.case.tokens


TOKEN_TICKS = (1, 16, 125, 1000, 8192)
CLAIMED_TOKENS = (125, 1000)


def tokens_figure(evidence: Evidence, part: tuple[str, str]) -> Figure:
    """Plot the times of one part of a model by implementation.

    Hot series are left out where cold series exist.
    """
    alike = evidence.parts[part]
    series = [one for one in alike if not one.maybe_hot] or alike
    rows = [row for one in series for row in _series_points(one)]
    floors = _floors(evidence, series[0])
    found = [one for each in series if (one := claims_tokens.series_knee(evidence, each))]
    corner = claims_tokens.merge_knees(found) if found else None
    layers: list[Any] = [_claim_layer()]
    if corner:
        layers += _knee(corner)
    if floors:
        layers.append(_roofline(floors))
    layers.append(_times(rows))
    some = next(iter(series[0].points.values())).case
    shape = f", n={some.n}, k={some.k}" if some.n else ""
    return Figure(
        name=slug(f"time-{evidence.name}-{evidence.dtype}"),
        title=f"{evidence.name}: {part[0]} {part[1]}{shape}, {evidence.dtype}",
        note=_series_note(evidence, series, corner),
        spec=to_vega_lite(alt.layer(*layers)),
        rows=[*rows, *floors],
    )


def _series_points(series: TokenSeries) -> list[dict[str, Any]]:
    return [
        {
            "by": series.implementation,
            "tokens": tokens,
            "us": one.median * 1e6,
            "provenance": one.provenance,
        }
        for tokens, one in sorted(series.points.items())
    ]


def _floors(evidence: Evidence, series: TokenSeries) -> list[dict[str, Any]]:
    """Points of the roofline at the same tokens; empty where a ceiling is unknown."""
    if not evidence.ceilings:
        return []
    found = []
    for tokens, one in sorted(series.points.items()):
        if floor := roofline.floor_seconds(one.case.work, one.case.dtype, evidence.ceilings):
            found.append(
                {"by": "roofline", "tokens": tokens, "us": floor * 1e6, "provenance": evidence.ceilings.origin}
            )
    return found


def _times(rows: Sequence[dict[str, Any]]) -> Any:
    base = alt.Chart(inline_data(rows)).encode(
        x=log_axis("tokens", "tokens", values=TOKEN_TICKS),
        y=log_axis("us", "us", vertical=True),
        color=alt.Color("by:N", title=None, legend=alt.Legend(orient="top")),
        tooltip=[
            alt.Tooltip("by:N"),
            alt.Tooltip("tokens:Q"),
            alt.Tooltip("us:Q", format=",.4~g"),
            alt.Tooltip("provenance:N"),
        ],
    )
    return base.mark_line(point=alt.OverlayMarkDef(size=14), strokeWidth=1.5)


def _roofline(rows: Sequence[dict[str, Any]]) -> Any:
    base = alt.Chart(inline_data(rows)).mark_line(strokeDash=[5, 4], strokeWidth=1.5, color="gray")
    return base.encode(x=alt.X("tokens:Q"), y=alt.Y("us:Q"))


def _claim_layer() -> Any:
    """Thin lines at the two token counts that the claim compares."""
    return (
        alt.Chart(inline_data([{"at": tokens} for tokens in CLAIMED_TOKENS]))
        .mark_rule(strokeDash=[1, 3], color="gray")
        .encode(x=alt.X("at:Q"))
    )


def _knee(corner: claims_tokens.Knee) -> list[Any]:
    rows = inline_data([{"low": corner.low, "high": corner.high, "at": corner.tokens}])
    band = alt.Chart(rows).mark_rect(opacity=0.18, color="gray").encode(x=alt.X("low:Q"), x2=alt.X2("high:Q"))
    rule = alt.Chart(rows).mark_rule(color="gray").encode(x=alt.X("at:Q"))
    return [band, rule]


def _series_note(evidence: Evidence, series: Sequence[TokenSeries], corner: claims_tokens.Knee | None) -> str:
    said = []
    ratios = [b.median / a.median for one in series for a, b in [one.at(*CLAIMED_TOKENS) or (None, None)] if a and b]
    if ratios:
        said.append(f"1000 tokens take {formatting.ratio_range(min(ratios), max(ratios))} times as long as 125")
    if corner:
        said.append(f"knee at {corner.tokens:.0f} tokens ({corner.low:.0f}–{corner.high:.0f}), grey")
    origin = evidence.ceilings.origin if evidence.ceilings else ""
    said += [f"dashed: the {origin} roofline"] if origin else ["no roofline: ceilings unknown"]
    said += formatting.dependent_launch_notes(one.implementation for one in series)
    return "; ".join(said)


def choose_part(evidence: Evidence, preferred: tuple[str, str] | None) -> tuple[str, str]:
    """Choose the part to draw.

    The choice is `preferred`, which all GPUs share, or else the cold part with the most weights.
    """
    parts = evidence.parts
    if preferred and preferred in parts:
        return preferred
    return max(parts, key=lambda part: _rank(parts[part]))


def _rank(alike: Sequence[TokenSeries]) -> tuple[bool, bool, int]:
    cold = any(not one.maybe_hot for one in alike)
    measured = any(one.shape_published for one in alike)
    return cold, measured, max(one.case.hbm_bytes for one in chain(*(each.points.values() for each in alike)))


# Roofline of all linears of all GPUs: share of the peak over arithmetic intensity / ridge.

ROOFLINE_TOKENS = (1, 4, 16, 64, 125, 256, 1000, 4096)
MAX_PARTS = 8
"""Maximum number of linears per GPU, those with the most weights.

More points would hide each other.
"""
TOOLTIP_FIELDS = ("share_of_peak", "tflops", "intensity", "us")


def roofline_figure(evidences: Sequence[Evidence], gpus: Sequence[str]) -> Figure | None:
    """A point for each linear and token count; None where all ceilings are unknown.

    Both axes are relative to the GPU's own figures, so that all GPUs share one roof.
    """
    points = [row for evidence in evidences if evidence.architecture == "dense" for row in _roofline_points(evidence)]
    if not points:
        return None
    ends = [min(row["intensity_over_ridge"] for row in points), 1.0, max(row["intensity_over_ridge"] for row in points)]
    roof = [{"intensity_over_ridge": end, "share_of_peak": min(1.0, end)} for end in ends]
    x = log_axis("intensity_over_ridge", "flop / byte, over the ridge")
    y = log_axis("share_of_peak", "share of peak", vertical=True)
    line = alt.Chart(inline_data(roof)).mark_line(strokeWidth=1.5, strokeDash=[5, 4], color="gray").encode(x=x, y=y)
    dots = (
        alt.Chart(inline_data(points))
        .mark_point(size=26, opacity=0.75)
        .encode(
            x=x,
            y=y,
            color=gpu_colour(gpus),
            tooltip=[
                alt.Tooltip("gpu:N"),
                alt.Tooltip("part:N"),
                alt.Tooltip("tokens:Q"),
                *(alt.Tooltip(f"{field}:Q", format=",.3~g") for field in TOOLTIP_FIELDS),
            ],
        )
    )
    return Figure(
        name="rooflines",
        title="How near each linear comes to its GPU's roof",
        note="left of 1 memory binds, right of it arithmetic; by its own ceilings, or by datasheet where published",
        spec=to_vega_lite(alt.layer(line, dots)),
        rows=points,
    )


def _roofline_points(evidence: Evidence) -> Iterable[dict[str, Any]]:
    peak, corner = (
        evidence.ceilings.peak(evidence.dtype) if evidence.ceilings else None,
        claims_tokens.roofline_ridge(evidence),
    )
    if not peak or not corner:
        return
    ridge = corner * 2 / STORED_ITEMSIZE[evidence.dtype]  # flop/byte: 2 flops for each weight and token
    cold = {
        part: series
        for part, alike in evidence.parts.items()
        if (series := [one for one in alike if not one.maybe_hot and one.shape_published])
    }
    largest = sorted(cold.items(), key=lambda one: -_bytes(one[1][0]))
    for (_, part), series in islice(largest, MAX_PARTS):
        for tokens in ROOFLINE_TOKENS:
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


def _bytes(series: TokenSeries) -> int:
    return min(one.case.hbm_bytes for one in series.points.values())


# Speedup over the oldest GPU by tokens, beside the ratio that the datasheets explain.


def speedup_figure(found: Generations, gpus: Sequence[str]) -> Figure:
    """A line for each GPU but the oldest; dashed: the ratio of datasheet floors."""
    oldest = found.entries[0].name
    rows: list[dict[str, Any]] = [
        {
            "gpu": one.name,
            "tokens": one.tokens,
            "us": one.seconds * 1e6,
            "share_of_floor": one.share,
            "speedup": one.speedup,
            "datasheet": one.expected_speedup,
        }
        for one in found.entries
    ]
    shown = [row for row in rows if row["gpu"] != oldest]
    base = alt.Chart(inline_data(shown)).encode(
        x=log_axis("tokens", "tokens", values=(1, 16, 125, 256, 1000, 4096)),
        color=gpu_colour(gpus),
        tooltip=[
            alt.Tooltip("gpu:N"),
            alt.Tooltip("tokens:Q"),
            alt.Tooltip("speedup:Q", format=".3~g"),
            alt.Tooltip("datasheet:Q", format=".3~g"),
        ],
    )
    measured = base.mark_line(point=alt.OverlayMarkDef(size=24), strokeWidth=1.6).encode(
        y=log_axis("speedup", f"times {oldest}", vertical=True)
    )
    promised = base.mark_line(strokeDash=[4, 4], strokeWidth=1.1, opacity=0.7).encode(y=alt.Y("datasheet:Q"))
    return Figure(
        name="generations",
        title=f"Against {oldest}: {found.model} {found.part}, {found.dtype}",
        note="dashed: what the datasheets would explain, the ratio of memory or of arithmetic, whichever binds",
        spec=to_vega_lite(alt.layer(promised, measured)),
        rows=rows,
    )

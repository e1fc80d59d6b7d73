"""Where the time of whole layers goes: a bar for each, stacked of the items of its ledger."""

from collections.abc import Sequence, Set
from typing import Any

import altair as alt

from reports import units
from reports.ledger.account import ITEMS, Ledger
from reports.ledger.chapter import Accounts, Chapter
from reports.web.figure import Figure, compiled, data

LABEL_WIDTH = 260
"""Pixels for `1000 tokens at 2048 · torch-compile`."""
Subject = tuple[str | None, int | None, int | None, str, str]
"""Model, tp, pp, number format, and a word where the weights were hot: what a plot is of."""


def section(chapter: Chapter) -> dict[str, Any] | None:
    """What the template shows of it; None where no file holds a whole layer."""
    if not chapter:
        return None
    return {
        "sentences": chapter.sentences(),
        "measured": [{"name": one.name, "plots": _plots(one), "tables": one.tables()} for one in chapter.accounts],
    }


def _plots(one: Accounts) -> list[Figure]:
    """A plot for each model, split and format."""
    subjects: dict[Subject, list[Ledger]] = {}
    for ledger in one.ledgers:
        case = ledger.layer.case
        heat = ", hot" if case.cache == "hot" else ""
        subjects.setdefault((case.model, case.tp, case.pp, case.dtype, heat), []).append(ledger)
    return [_draw(one.name, subject, ledgers) for subject, ledgers in subjects.items()]


def _draw(name: str, subject: Subject, ledgers: Sequence[Ledger]) -> Figure:
    model, tp, pp, dtype, heat = subject
    contexts = {ledger.layer.case.context for ledger in ledgers if _is_decode(ledger)}
    rows = [row for ledger in ledgers for row in _rows(ledger, with_context=len(contexts) > 1)]
    items = [item for item in ITEMS if any(row["item"] == item for row in rows)]
    legend = alt.Legend(orient="top", symbolType="square", columns=3)
    shares = [alt.Tooltip(f"{field}:Q", format=".1%") for field in ("share", "low", "high")]
    bars = (
        alt.Chart(data(rows))
        .mark_bar()
        .encode(
            x=alt.X("share:Q", stack="zero", axis=alt.Axis(title="of the layer's time", format="%", grid=True)),
            y=alt.Y("bar:N", sort=None, title=None, axis=alt.Axis(labelLimit=LABEL_WIDTH)),
            color=alt.Color("item:N", title=None, scale=alt.Scale(domain=items), legend=legend),
            order=alt.Order("position:Q"),
            tooltip=["bar:N", "item:N", *shares, alt.Tooltip("us:Q", format=",.4~g")],
        )
    )
    zero = alt.Chart(data([{"share": 0.0}])).mark_rule(color="gray").encode(x="share:Q")
    return Figure(
        name=_slug(f"layer-{name}-{model}-tp{tp}-pp{pp}-{dtype}{heat}"),
        title=f"{name}: a layer of {model}, tp {tp}, pp {pp}, {dtype}{heat}",
        note=_note(contexts),
        spec=compiled(alt.layer(bars, zero)),
        rows=rows,
    )


def _note(contexts: Set[int | None]) -> str:
    """At which context, where all batches have the same."""
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
    """`125 tokens · torch`, and of a prompt `prompt of 2048 · torch`."""
    case = ledger.layer.case
    if not _is_decode(ledger):
        return f"prompt of {case.tokens} · {case.implementation}"
    context = f" at {case.context}" if with_context else ""
    return f"{units.counted(case.tokens or 0, 'token')}{context} · {case.implementation}"


def _is_decode(ledger: Ledger) -> bool:
    return ledger.layer.case.batch == ledger.layer.case.tokens


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())

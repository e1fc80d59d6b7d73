"""Ledgers as tables: the share of each item, and each part alone."""

from collections.abc import Callable, Sequence

from reports import labels, units
from reports.ledger.account import ITEMS, Amount, Ledger
from reports.ledger.layers import GROUPS
from reports.page import Column, Table
from reports.units import NONE, percent
from specs.layer import FUSED

Cell = Callable[[Ledger], str]
NOTES = (
    "linears, attention, norms: each part alone, as often as the layer calls it; norms are norm, rotary and swiglu",
    "launch gaps: eager less graph, on a CPU one launch a part times the launch latency",
    "fusion gain: what a fused part or torch.compile takes more than the plain ones",
    "cache effect: what is left; above zero where a part alone runs hotter than behind a layer's weights, below where "
    "calls overlap or find in a cache what the one before has left; with torch.compile it is that of torch's layer, as "
    "nobody knows its own parts",
)
SINGLE = "a single pass gives no interval"


def draw_up(ledgers: Sequence[Ledger]) -> list[Table]:
    """Where the time goes, and the parts that it was worked out from; nothing without a whole layer."""
    return [_shares(ledgers), _parts(ledgers)] if ledgers else []


def _shares(ledgers: Sequence[Ledger]) -> Table:
    time = units.scale(units.SECONDS, [one.seconds.mean for one in ledgers])
    columns: list[tuple[Column, Cell]] = [
        (Column(f"mean\n{time.symbol}"), lambda one: time(one.seconds.mean)),
        *(_item(name) for name in ITEMS),
        (Column("layer /\nparts"), lambda one: f"{one.ratio.mean:.3f}" if one.ratio else NONE),
        (Column("±\n95%"), lambda one: units.width(one.ratio.relative if one.ratio else None)),
        (Column("verdict", number=False), lambda one: one.verdict or NONE),
        (Column("of\nfloor"), lambda one: percent(one.floor_share)),
        (Column("passes"), lambda one: f"{one.passes}"),
        (Column("missing", number=False, prose=True), lambda one: "; ".join(one.missing)),
    ]
    single = (SINGLE,) if any(one.passes == 1 for one in ledgers) else ()
    return _table("ledger", ledgers, columns, "shares of a layer's time in percent", (*NOTES, *single))


def _parts(ledgers: Sequence[Ledger]) -> Table:
    time = units.scale(units.SECONDS, [amount.mean for one in ledgers for amount in one.parts.values()])
    names = (*(name for group in GROUPS.values() for name in group), FUSED)
    columns: list[tuple[Column, Cell]] = [
        *(_part(name, time, ledgers) for name in names),
        (Column("together"), lambda one: time(one.together.mean) if one.together else NONE),
        (Column("layer"), lambda one: time(one.device.mean) if one.device else NONE),
    ]
    note = "layer is without launch gaps on a GPU, and as launched on a CPU; together is after fusion"
    return _table("parts", ledgers, columns, f"a call of each part alone, means in {time.symbol}", (note,))


def _table(
    title: str, ledgers: Sequence[Ledger], columns: Sequence[tuple[Column, Cell]], what: str, notes: tuple[str, ...]
) -> Table:
    labelled, names, shared = labels.choose([one.layer.case for one in ledgers], labels.OF_LAYERS)
    table = Table(
        title=title,
        columns=(*labelled, *(column for column, _ in columns)),
        groups=(tuple((*name, *(cell(one) for _, cell in columns)) for name, one in zip(names, ledgers, strict=True)),),
        caption=f"{shared} · {what}",
        notes=notes,
    )
    return table.without_empty(NONE)


def _item(name: str) -> tuple[Column, Cell]:
    return Column(name.replace(" ", "\n")), lambda one: _share(one.share(name))


def _share(share: Amount | None) -> str:
    """A share in percent, with the half-width of its interval in points: `93.1 ±0.4`."""
    if share is None or not any(share.by_pass):
        return NONE
    width = "" if share.half_width is None else f" ±{100 * share.half_width:.1f}"
    return f"{100 * share.mean:.1f}{width}"


def _part(name: str, time: units.Scale, ledgers: Sequence[Ledger]) -> tuple[Column, Cell]:
    calls = max((one.layer.calls(name) for one in ledgers if name in one.parts), default=1)
    title = f"{name}\n{calls}x" if calls > 1 else name
    return Column(title), lambda one: time(one.parts[name].mean) if name in one.parts else NONE

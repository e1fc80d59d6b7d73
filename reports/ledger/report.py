"""Report chapter on whole layers, and the `ledger` command.

The chapter has a ledger for each layer, and sentences on the fastest layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports import formatting, machine, output, result_tables, results
from reports.formatting import DASH, percent
from reports.ledger import ledger as layer_ledger
from reports.ledger.ledger import ITEM_PARTS, ITEMS, QUESTION, Ledger, LedgerItem, PassFigure, build_ledger
from reports.machine import distinct_gpu_name
from reports.output import Block, Column, Facts, Format, Table
from reports.results import ResultFile
from specs.errors import UserError
from specs.layer import FUSED_GATE_UP

# JSON record of a ledger: SI units, means, None for missing values.


def ledger_record(one: Ledger) -> dict[str, Any]:
    """Return the record of one layer; the shares of its items add up to 1."""
    case, ratio = one.layer.case, _interval(one.ratio)
    return {
        "file": str(one.layer.file.path),
        "model": case.model,
        "tp": case.tp,
        "pp": case.pp,
        "tokens": case.tokens,
        "batch": case.batch,
        "context": case.context,
        "dtype": case.dtype,
        "cache": case.cache,
        "implementation": case.implementation,
        "launch": case.launch,
        "passes": one.passes,
        "seconds": one.seconds.mean,
        "floor_share": one.floor_share,
        "items": [_item_record(item) for item in one.items],
        "parts": [
            {
                "layer": name,
                "kernel": one.layer.parts[name].case.kernel,
                "seconds": amount.mean,
                "per_layer": one.layer.calls(name),
            }
            for name, amount in one.parts.items()
        ],
        "sum_of_parts_seconds": one.sum_of_parts.mean if one.sum_of_parts else None,
        "ratio": one.ratio.mean if one.ratio else None,
        "ratio_low": ratio[0],
        "ratio_high": ratio[1],
        "verdict": one.verdict,
        "missing": one.missing,
    }


def _item_record(item: LedgerItem) -> dict[str, Any]:
    (low, high), (share_low, share_high) = _interval(item.seconds), _interval(item.share)
    return {
        "name": item.name,
        "seconds": item.seconds.mean,
        "low": low,
        "high": high,
        "share": item.share.mean,
        "share_low": share_low,
        "share_high": share_high,
    }


def _interval(amount: PassFigure | None) -> tuple[float, float] | tuple[None, None]:
    return (amount and amount.interval) or (None, None)


# Ledgers as tables: the share of each item, and each part alone.

Cell = Callable[[Ledger], str]
LEDGER_NOTES = (
    "linears, attention, norms: each part alone, as often as the layer calls it; norms are norm, rotary and swiglu",
    "launch gaps: eager less graph, on a CPU one launch a part times the launch latency",
    "fusion gain: what a fused part or torch.compile takes more than the plain ones",
    "cache effect: what is left; above zero where a part alone runs hotter than behind a layer's weights, below where "
    "calls overlap or find in a cache what the one before has left; with torch.compile it is that of torch's layer, as "
    "nobody knows its own parts",
)
NEEDS_PASSES = "a single pass gives no interval"


def ledger_tables(ledgers: Sequence[Ledger]) -> list[Table]:
    """Return the ledger and its parts as tables; none without a whole layer."""
    return [_shares(ledgers), _parts(ledgers)] if ledgers else []


def _shares(ledgers: Sequence[Ledger]) -> Table:
    time = formatting.choose_scale(formatting.SECONDS, [one.seconds.mean for one in ledgers])
    columns: list[tuple[Column, Cell]] = [
        (Column(f"mean\n{time.symbol}"), lambda one: time(one.seconds.mean)),
        *(_item_column(name) for name in ITEMS),
        (Column("layer /\nparts"), lambda one: f"{one.ratio.mean:.3f}" if one.ratio else DASH),
        (Column("±\n95%"), lambda one: formatting.interval_width(one.ratio.relative if one.ratio else None)),
        (Column("verdict", number=False), lambda one: one.verdict or DASH),
        (Column("of\nfloor"), lambda one: percent(one.floor_share)),
        (Column("passes"), lambda one: f"{one.passes}"),
        (Column("missing", number=False, prose=True), lambda one: "; ".join(one.missing)),
    ]
    single = (NEEDS_PASSES,) if any(one.passes == 1 for one in ledgers) else ()
    return _table("ledger", ledgers, columns, "shares of a layer's time in percent", (*LEDGER_NOTES, *single))


def _parts(ledgers: Sequence[Ledger]) -> Table:
    time = formatting.choose_scale(
        formatting.SECONDS, [amount.mean for one in ledgers for amount in one.parts.values()]
    )
    names = (*(name for group in ITEM_PARTS.values() for name in group), FUSED_GATE_UP)
    columns: list[tuple[Column, Cell]] = [
        *(_part(name, time, ledgers) for name in names),
        (Column("together"), lambda one: time(one.sum_of_parts.mean) if one.sum_of_parts else DASH),
        (Column("layer"), lambda one: time(one.device.mean) if one.device else DASH),
    ]
    note = "layer is without launch gaps on a GPU, and as launched on a CPU; together is after fusion"
    return _table("parts", ledgers, columns, f"a call of each part alone, means in {time.symbol}", (note,))


def _table(
    title: str, ledgers: Sequence[Ledger], columns: Sequence[tuple[Column, Cell]], what: str, notes: tuple[str, ...]
) -> Table:
    labelled, names, shared = formatting.label_columns([one.layer.case for one in ledgers], formatting.LAYER_FIELDS)
    table = Table(
        title=title,
        columns=(*labelled, *(column for column, _ in columns)),
        groups=(tuple((*name, *(cell(one) for _, cell in columns)) for name, one in zip(names, ledgers, strict=True)),),
        caption=f"{shared} · {what}",
        notes=notes,
    )
    return table.without_empty(DASH)


def _item_column(name: str) -> tuple[Column, Cell]:
    return Column(name.replace(" ", "\n")), lambda one: _share(one.share(name))


def _share(share: PassFigure | None) -> str:
    """Return a share in percent with its half-width in points: `93.1 ±0.4`."""
    if share is None or not any(share.by_pass):
        return DASH
    width = "" if share.half_width is None else f" ±{100 * share.half_width:.1f}"
    return f"{100 * share.mean:.1f}{width}"


def _part(name: str, time: formatting.Scale, ledgers: Sequence[Ledger]) -> tuple[Column, Cell]:
    calls = max((one.layer.calls(name) for one in ledgers if name in one.parts), default=1)
    title = f"{name}\n{calls}x" if calls > 1 else name
    return Column(title), lambda one: time(one.parts[name].mean) if name in one.parts else DASH


TITLE = "Layer"
ITEM_WORDS = {
    "linears": "in its linears",
    "attention": "in attention",
    "norms": "in norms",
    "launch gaps": "between launches",
    "fusion gain": "",
    "cache effect": "in the cache effect",
}
VERDICT_WORDS = {"straddles": "the interval reaches across 5 %"}
MIN_SHARE = 0.005
"""Share of a layer below which a sentence omits an item."""


@dataclass(frozen=True)
class FileLedgers:
    """Ledgers of one file; `name` identifies its machine within a report."""

    name: str
    file: ResultFile
    ledgers: Sequence[Ledger]

    def tables(self) -> list[Table]:
        """Return the tables of shares and of parts alone."""
        return ledger_tables(self.ledgers)

    def sentences(self) -> list[str]:
        """Return sentences on the fastest layer of each split of each model.

        Each split has a sentence for its smallest and for its largest batch, in tokens.
        """
        splits: dict[tuple[str | None, int | None, str], dict[int, list[Ledger]]] = {}
        for one in self.ledgers:
            case = one.layer.case
            if case.tokens and case.tokens == case.batch:
                by_tokens = splits.setdefault((case.model, case.tp, case.dtype), {})
                by_tokens.setdefault(case.tokens, []).append(one)
        ends = [by_tokens[end] for by_tokens in splits.values() for end in sorted({min(by_tokens), max(by_tokens)})]
        return [self._sentence(min(alike, key=lambda one: one.seconds.mean)) for alike in ends]

    def _sentence(self, one: Ledger) -> str:
        case = one.layer.case
        shares = {
            name: share.mean for name in ITEM_WORDS if (share := one.share(name)) and abs(share.mean) >= MIN_SHARE
        }
        fusion = shares.pop("fusion gain", 0.0) if _is_sure(one.share("fusion gain")) else 0.0
        shares.pop("fusion gain", None)
        said = [", ".join(f"{formatting.percent(share)} {ITEM_WORDS[name]}" for name, share in shares.items())]
        said += [f"fusion {'saves' if fusion < 0 else 'costs'} {formatting.percent(abs(fusion))}"] if fusion else []
        if one.ratio:
            why = VERDICT_WORDS.get(one.verdict or "", one.verdict) or NEEDS_PASSES
            said.append(f"together its parts take {one.ratio.mean:.2f} times as long as alone ({why})")
        said += [f"missing: {'; '.join(one.layer.gaps)}"] if one.layer.gaps else []
        return (
            f"On {self.name} a {case.dtype} layer of {case.model} at tp {case.tp}, "
            f"{formatting.pluralize(case.tokens or 0, 'token')} and context {case.context} takes "
            f"{formatting.with_unit(formatting.SECONDS, one.seconds.mean)} with {case.implementation}: "
            f"{'; '.join(filter(None, said))}."
        )


def _is_sure(share: PassFigure | None) -> bool:
    """Return whether the interval excludes zero."""
    return bool(share and share.interval and not share.interval[0] <= 0 <= share.interval[1])


@dataclass(frozen=True)
class LedgerSection:
    """Ledgers of all files."""

    file_ledgers: Sequence[FileLedgers]

    def __bool__(self) -> bool:
        return bool(self.file_ledgers)

    def sentences(self) -> list[str]:
        """Return the sentences of all files."""
        return [text for one in self.file_ledgers for text in one.sentences()]

    def blocks(self) -> list[Block]:
        """Return the blocks for the terminal."""
        if not self:
            return []
        blocks: list[Block] = [Facts(title=TITLE, rows=tuple(("", text) for text in self.sentences()), level=1)]
        for one in self.file_ledgers:
            blocks += [Facts(title=f"measured by {one.name}", rows=(("file", str(one.file.path)),)), *one.tables()]
        return blocks

    def data(self) -> list[dict[str, Any]]:
        """Return the JSON records of all ledgers."""
        return [ledger_record(ledger) for one in self.file_ledgers for ledger in one.ledgers]


def build_section(files: Sequence[ResultFile]) -> LedgerSection:
    """Build the section from the files that hold whole layers."""
    found = [
        FileLedgers(
            distinct_gpu_name(file, files), file, [build_ledger(layer) for layer in layer_ledger.collect_layers(file)]
        )
        for file in files
    ]
    return LedgerSection([one for one in found if one.ledgers])


# `ledger` command: where the time of each whole layer goes.

MEASURE_HINT = "`pytest suites/bench_layer.py suites/bench_ceilings.py --benchmark-json=out.json` measures them"


def ledger(paths: Sequence[Path], format: Format, to: Path | None) -> None:  # noqa: A002
    """Write the ledgers of each file; as JSON a list of all ledgers.

    Raises:
        UserError: a file cannot be read, no file holds a whole layer, or the report cannot be written.
    """
    loaded = results.load_all(paths)
    found = build_section(loaded)
    if not found:
        lost = any(f"bench_{QUESTION}" in name for file in loaded for name in (*file.failed, *file.not_run))
        why = "those in it failed or were not run, and `python -m reports show` says why" if lost else MEASURE_HINT
        raise UserError(f"{', '.join(map(str, paths))}: no whole layer among the cases; {why}")
    page = [block for one in found.file_ledgers for block in _section(one)]
    output.emit(page, found.data(), format, to, paths)


def _section(one: FileLedgers) -> list[Block]:
    above = result_tables.header_facts(one.file, machine.measured_ceilings(one.file), machine.known_gpu(one.file))
    return [above, *one.tables()]

"""Verdicts as tables: those on arithmetic, and those on times with their intervals."""

from collections.abc import Iterable, Sequence

from reports import units
from reports.finding import OVERALL, Finding, Judged
from reports.page import Block, Column, Table
from reports.units import NONE

ORDER = ("dense", "whole", "moe")
"""Linears, then the layers made of them, then experts."""
BY_SPECS = ("arithmetic", "datasheet")
"""Provenances of findings that need no file."""


def draw_up(judged: Sequence[Judged], *, every: bool = False, more: str = "") -> list[Block]:
    """A table for each measured claim and one for all arithmetic; single linears, layers and loads only with `every`.

    Args:
        judged: what to show.
        every: the findings on single ones too.
        more: where those are to be found, if not here.
    """
    arithmetic = [one for one in judged if one.finding.provenance in BY_SPECS]
    slugs = dict.fromkeys(one.id for one in judged if one.finding.provenance not in BY_SPECS)
    page = [_measured([one for one in judged if one.id == slug], every=every, more=more) for slug in slugs]
    return [*page, _arithmetic(arithmetic)] if arithmetic else [*page]


def figure(value: float | None, unit: str) -> str:
    """A value in the form that its unit is read in; the unit is part of it except for ratios and tokens."""
    if value is None:
        return NONE
    if unit == "ratio":
        return f"{value:.2f}"
    if unit == "share":
        return units.percent(value)
    if unit in ("bytes", "bytes a token"):
        return units.decimal_bytes(value)
    return f"{value:,.0f}"


def span(finding: Finding) -> str:
    """The interval, or a dash."""
    if finding.low is None or finding.high is None:
        return NONE
    return f"{figure(finding.low, finding.unit)} – {figure(finding.high, finding.unit)}"


def _measured(rows: Sequence[Judged], *, every: bool, more: str) -> Table:
    shown = [one.finding for one in rows if every or one.finding.scope == OVERALL]
    shown.sort(key=lambda finding: ORDER.index(finding.architecture or "dense"))
    names = ("gpu", "layers", "dtype", *(("model", "part") if every else ()), "verdict")
    columns = [Column(name, number=False) for name in names]
    unit = next((finding.unit for finding in shown if finding.unit), "")
    columns += [Column(unit or "value"), Column("interval"), Column("from", number=False), Column("interp. ±")]
    columns.append(Column("condition", number=False, prose=True))
    table = Table(
        title=rows[0].id,
        caption=rows[0].statement,
        columns=tuple(columns),
        groups=tuple(tuple(_row(one, every=every) for one in group) for group in _by_subject(shown)),
        notes=(f"{_rows(len(rows) - len(shown))} on {_singles(rows)}: {more}",)
        if more and len(rows) > len(shown)
        else (),
    )
    return table.without_empty(NONE)


def _singles(rows: Iterable[Judged]) -> str:
    """What the rows that are not shown are on."""
    found = [one.finding for one in rows if one.finding.scope != OVERALL]
    return f"single {' and '.join(dict.fromkeys(map(_kind, found)))}"


def _kind(finding: Finding) -> str:
    """Whether a row is on a linear, on a layer, or on one load of a whole model."""
    if finding.architecture != "whole":
        return "linears"
    return "layers" if finding.scope.startswith("layer") else "loads"


def _rows(count: int) -> str:
    return "1 more row" if count == 1 else f"{count} more rows"


def _by_subject(findings: Iterable[Finding]) -> list[list[Finding]]:
    groups: dict[tuple[str | None, ...], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.label, finding.dtype, finding.architecture), []).append(finding)
    one_each = all(len(group) == 1 for group in groups.values())
    return [[finding for group in groups.values() for finding in group]] if one_each else list(groups.values())


def _row(finding: Finding, *, every: bool) -> tuple[str, ...]:
    about = (finding.label or finding.gpu or NONE, finding.architecture or NONE, finding.dtype or NONE)
    part = (finding.model or NONE, finding.scope) if every else ()
    off = units.percent(finding.interpolation_error)
    figures = (figure(finding.value, finding.unit), span(finding), finding.provenance, off)
    return (*about, *part, finding.verdict, *figures, finding.condition)


def _arithmetic(rows: Sequence[Judged]) -> Table:
    columns = (
        Column("claim", number=False),
        Column("says", number=False, prose=True),
        Column("verdict", number=False),
        Column("found"),
        Column("unit", number=False),
        Column("condition", number=False, prose=True),
    )
    cells = tuple(
        (
            one.id,
            one.statement,
            one.finding.verdict,
            figure(one.finding.value, one.finding.unit),
            "" if one.finding.unit == "bytes" else one.finding.unit.removeprefix("bytes "),
            one.finding.condition,
        )
        for one in rows
    )
    return Table(title="arithmetic", caption="recomputed from the models' shapes", columns=columns, groups=(cells,))

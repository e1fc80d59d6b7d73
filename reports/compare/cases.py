"""Every case on a row: its times, what changed, how sure that is and what explains it."""

from collections.abc import Mapping, Sequence
from math import log

from reports import dependent, labels, questions, units
from reports.compare.explain import Explained
from reports.compare.groups import by_group
from reports.compare.verdict import Comparison
from reports.compare.versus import Versus
from reports.page import Column, Row, Table
from reports.units import NONE
from specs.measurement import Case

MOST_ROWS = 40
"""Rows of a table beyond which those without a change are left out, unless all are asked for."""


Line = tuple[Case, Mapping[str, Explained]]
"""A case, and by file how it compares."""


def tables(found: Sequence[Versus], names: Sequence[str], *, every: bool) -> list[Table]:
    """A table for each question of each group.

    Args:
        found: the files against the baseline.
        names: of the baseline, then of each.
        every: all cases, however many.
    """
    lines: dict[str, tuple[Case, dict[str, Explained]]] = {}
    for name, versus in zip(names[1:], found, strict=True):
        for one in versus.cases:
            case = one.pair.a.case
            lines.setdefault(case.name, (case, {}))[1][name] = one
    drawn = []
    for group, members in by_group(lines.values(), lambda line: line[0]).items():
        for question, alike in questions.by_question(members, lambda line: line[0]):
            title = group if question == group else f"{group}: {question}"
            shown = alike if every else _telling(alike)
            left_out = len(alike) - len(shown)
            drawn.append(_table(title, shown, names, left_out))
    return drawn


def _telling(lines: Sequence[Line]) -> Sequence[Line]:
    """Those that changed, the most first to be kept, where there are too many; in the order of the file."""
    if len(lines) <= MOST_ROWS:
        return lines
    kept = sorted(range(len(lines)), key=lambda at: _weight(lines[at]), reverse=True)[:MOST_ROWS]
    return [lines[at] for at in sorted(kept)]


def _weight(line: Line) -> tuple[bool, float]:
    pairs = [one.pair for one in line[1].values()]
    called = any(pair.verdict in ("faster", "slower") for pair in pairs)
    return called, max(abs(log(pair.ratio)) for pair in pairs)


def _table(title: str, lines: Sequence[Line], names: Sequence[str], left_out: int) -> Table:
    columns, cells, caption = labels.choose([case for case, _ in lines])
    draw = _two if len(names) == 2 else _several
    titles, rows = draw(lines, names)
    note = f"{units.counted(left_out, 'case')} that changed less left out: --all shows them"
    return Table(
        title=title,
        columns=(*columns, *titles),
        groups=(tuple((*cell, *row) for cell, row in zip(cells, rows, strict=True)),),
        caption=caption,
        notes=(*((note,) if left_out else ()), *dependent.notes(case.implementation for case, _ in lines)),
    ).without_empty(NONE)


def _two(lines: Sequence[Line], names: Sequence[str]) -> tuple[tuple[Column, ...], list[Row]]:
    a, b = names
    found = [by[b] for _, by in lines]
    time = units.scale(units.SECONDS, [of.median for one in found for of in (one.pair.a, one.pair.b)])
    over = "over frameworks" if all(one.pair.basis == "frameworks" for one in found) else "95% interval"
    titles = (f"{a} {time.symbol}", f"{b} {time.symbol}", f"{b}/{a}", over)
    columns = (*map(Column, titles), Column("verdict", number=False), Column("explained by", number=False))
    rows: list[Row] = [
        (
            time(one.pair.a.median),
            time(one.pair.b.median),
            units.ratio(one.pair.ratio),
            _interval(one.pair),
            one.pair.verdict,
            one.why.by or NONE,
            units.ratio(one.why.unexplained) if one.why.by else NONE,
        )
        for one in found
    ]
    return (*columns, Column("unexplained")), rows


def _several(lines: Sequence[Line], names: Sequence[str]) -> tuple[tuple[Column, ...], list[Row]]:
    """A column of ratios and one of verdicts for each file."""
    a, others = names[0], names[1:]
    bases = [next(iter(by.values())).pair.a.median for _, by in lines]
    time = units.scale(units.SECONDS, bases)
    columns = [Column(f"{a} {time.symbol}")]
    for name in others:
        columns += [Column(f"{name}/{a}"), Column(f"{name} is", number=False)]
    rows = []
    for base, (_, by) in zip(bases, lines, strict=True):
        row = [time(base)]
        for name in others:
            one = by.get(name)
            row += [units.ratio(one.pair.ratio), one.pair.verdict] if one else [NONE, NONE]
        rows.append(tuple(row))
    return tuple(columns), rows


def _interval(pair: Comparison) -> str:
    if pair.interval is None:
        return "single pass" if pair.a.provenance == "measured" else "one framework"
    return f"{units.ratio(pair.interval[0])} – {units.ratio(pair.interval[1])}"

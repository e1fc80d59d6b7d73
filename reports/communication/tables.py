"""Operations between ranks as tables: one for each question and operation, a matrix of pairs, and the fits."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from reports import labels, units
from reports.communication.fit import Fit
from reports.communication.point import Point
from reports.communication.series import Series, collect
from reports.line import Interval
from reports.page import Column, Table
from reports.tables import NOTES, shared_warnings
from reports.units import NONE, microseconds, percent
from specs.measurement import Case
from specs.traffic import TRAFFIC
from specs.units import binary_bytes

WHO = ("implementation", "launch", "gap_seconds", "pair", "ranks", "dtype")
"""What tells series of one operation apart."""
SHIPPED = ("model", "layer", "tp", "pp")
"""And what a model's messages are of, where they are one's."""
QUESTIONS = ("communication", "messages")
IN_THE_SWITCH = ("nvls", "multimem")
UNKNOWN = "unknown"
Cell = Callable[[Point], str]


def draw_up(points: Iterable[Point]) -> list[Table]:
    """A table for each question and operation, and for copies between several pairs a matrix beside it."""
    tables: dict[tuple[str, str], list[Point]] = {}
    for one in points:
        tables.setdefault((one.case.question, one.case.op), []).append(one)
    found = []
    for key in sorted(tables, key=_place):
        found.append(_table(*key, tables[key]))
        found += _matrices(tables[key])
    return found


def fits(found: Sequence[Fit]) -> list[Table]:
    """What was fitted, a row for each series; no table where nothing could be."""
    if not found:
        return []
    cases = [one.series.case for one in found]
    asked = {case.question for case in cases}
    fields = (*(("question",) if len(asked) > 1 else ()), *_fields(cases, "op"))
    labelled, names, caption = labels.choose(cases, fields)
    interval = Column("interval")
    columns = (
        Column("alpha\nus"),
        interval,
        Column("bandwidth\nGB/s"),
        interval,
        Column("is", number=False),
        Column("sizes"),
        Column("from"),
        Column("to"),
        Column("worst\nresidual"),
        Column("intervals from", number=False),
    )
    rows = [(*name, *_fitted(one)) for name, one in zip(names, found, strict=True)]
    notes = ["t = alpha + message / bandwidth, least squares of log t; a large residual says that it does not hold"]
    if any(case.op == "ping_pong" for case in cases):
        notes.append("ping_pong: alpha is of the round trip, a hop takes half of it")
    table = Table(
        title="fit", columns=(*labelled, *columns), groups=(tuple(rows),), caption=caption, notes=tuple(notes)
    )
    return [table.without_empty(NONE)]


def _fitted(one: Fit) -> tuple[str, ...]:
    sizes = one.sizes
    return (
        microseconds(one.line.alpha),
        _span(one.alpha, 1e6),
        units.digits(one.bandwidth / 1e9) if one.bandwidth else NONE,
        _span(one.bandwidth_interval, 1e-9),
        one.kind,
        f"{len(sizes)}",
        binary_bytes(min(sizes)),
        binary_bytes(max(sizes)),
        percent(one.worst),
        one.source or "single pass",
    )


def _span(interval: Interval | None, factor: float) -> str:
    return " – ".join(units.digits(end * factor) for end in interval) if interval else NONE


def _fields(cases: Sequence[Case], *first: str) -> tuple[str, ...]:
    shipped = SHIPPED if any(case.model for case in cases) else ()
    return (*first, *shipped, *WHO)


def _table(question: str, op: str, points: Sequence[Point]) -> Table:
    groups = [series.points for series in collect(points)]
    ordered = [one for group in groups for one in group]
    fields = (*_fields([one.case for one in ordered]), "tokens", "message_bytes")
    labelled, names, caption = labels.choose([one.case for one in ordered], fields)
    labelled = tuple(replace(one, title="ships") if one.title == "layer" else one for one in labelled)
    everywhere = shared_warnings([one.figures for one in ordered])
    columns = [*_numbers(ordered), (NOTES, lambda p: ", ".join(_notes(p, everywhere)))]
    name = iter(names)
    table = Table(
        title=f"{question}: {op}",
        columns=(*labelled, *(column for column, _ in columns)),
        groups=tuple(tuple((*next(name), *(cell(one) for _, cell in columns)) for one in group) for group in groups),
        caption=" · ".join(filter(None, [caption, *everywhere])),
        notes=tuple(_sources(ordered)),
    )
    return table.without_empty(NONE)


def _numbers(points: Sequence[Point]) -> list[tuple[Column, Cell]]:
    alg = units.scale(units.BYTES_PER_SECOND, [p.algbw for p in points])
    bus = units.scale(units.BYTES_PER_SECOND, [p.busbw for p in points])
    told = any(p.measurement.algorithm for p in points)
    return [
        (Column("median\nus"), lambda p: microseconds(p.measurement.median)),
        (Column("±\n95%"), lambda p: units.width(p.figures.half_width)),
        (Column("hop\nus"), lambda p: microseconds(p.hop_seconds)),
        (Column(f"algbw\n{alg.symbol}"), lambda p: alg(p.algbw)),
        (Column(f"busbw\n{bus.symbol}"), lambda p: bus(p.busbw)),
        (Column("skew\nus"), lambda p: microseconds(p.measurement.skew_seconds)),
        (Column("algorithm", number=False), lambda p: p.measurement.algorithm or (UNKNOWN if told else NONE)),
        (Column("of\nlink"), lambda p: percent(p.link_share)),
        (Column("published\nus"), lambda p: microseconds(p.reference.seconds) if p.reference else NONE),
        (Column("times\npublished"), lambda p: f"{p.ratio:.2f}" if p.ratio else NONE),
    ]


def _notes(one: Point, everywhere: Sequence[str]) -> list[str]:
    between = one.reference.between if one.reference else None
    own = [word for word in one.figures.warnings() if word not in everywhere]
    return [*own, *([f"published: interpolated {between}"] if between else [])]


def _sources(points: Sequence[Point]) -> list[str]:
    """Whose the published figures are, and what to mind about shares of the link."""
    named = dict.fromkeys(one.reference.source for one in points if one.reference)
    said = [f"published, the fastest of its kind: {'; '.join(named)}"] if named else []
    adds = any(word in (one.measurement.algorithm or "") for one in points for word in IN_THE_SWITCH)
    if adds and any(one.link_share for one in points):
        said.append(
            "where the switch adds up (NVLS, multimem) less crosses a link than busbw says: over 100% is no error"
        )
    return said


def _matrices(points: Sequence[Point]) -> list[Table]:
    """Who copies to whom how fast, at the largest message; nothing for a single pair."""
    alike: dict[Case, list[Series]] = {}
    for series in collect(points):
        if series.case.op == "peer_copy" and series.case.pair:
            alike.setdefault(replace(series.case, pair=None), []).append(series)
    return [_matrix(case, group) for case, group in alike.items() if len(group) > 1]


def _matrix(case: Case, group: Sequence[Series]) -> Table:
    largest = max(one.case.message_bytes or 0 for series in group for one in series.points)
    rates: dict[tuple[int, int], float] = {}
    for series in group:
        source, _, target = (series.case.pair or "").partition("-")
        for one in series.points:
            if one.case.message_bytes == largest and one.busbw and source.isdecimal() and target.isdecimal():
                rates[int(source), int(target)] = one.busbw
    ranks = sorted({rank for pair in rates for rank in pair})
    scale = units.scale(units.BYTES_PER_SECOND, rates.values())
    rows = tuple((f"{source}", *(scale(rates.get((source, target))) for target in ranks)) for source in ranks)
    told = " · ".join((case.implementation, case.launch, case.dtype, binary_bytes(largest), scale.symbol))
    return Table(
        title="peer_copy matrix",
        columns=(Column("from \\ to"), *(Column(f"{rank}") for rank in ranks)),
        groups=(rows,),
        caption=f"{told}; a row sends, a column receives",
    )


def _place(table: tuple[str, str]) -> tuple[int, int]:
    question, op = table
    known = QUESTIONS.index(question) if question in QUESTIONS else len(QUESTIONS)
    return known, list(TRAFFIC).index(op)

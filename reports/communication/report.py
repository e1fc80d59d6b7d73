"""Tables and report chapter on operations between ranks.

There is a table for each question and operation, a matrix of pairs, and a table of fits.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reports import formatting
from reports.communication import points as communication_points
from reports.communication.points import (
    SHOWN_SIZES,
    CommPoint,
    MessageSeries,
    PublishedAllReduces,
    SeriesFit,
    collect_series,
)
from reports.formatting import DASH, microseconds, percent
from reports.machine import distinct_gpu_name
from reports.output import Block, Column, Facts, Table
from reports.result_tables import NOTES_COLUMN, shared_warnings
from reports.results import ResultFile
from reports.roofline import CaseMetrics, Interval
from specs.measurement import WAITED_SHARE, Case
from specs.roofline import Ceilings
from specs.traffic import TRAFFIC
from specs.units import format_bytes

SERIES_FIELDS = ("implementation", "launch", "gap_seconds", "late_seconds", "pair", "ranks", "dtype")
"""Fields that distinguish the series of one operation."""
MESSAGE_FIELDS = ("model", "layer", "tp", "pp")
"""Further fields for the messages of a model."""
LATE_QUESTION = "late_ranks"
QUESTIONS = ("communication", "messages", LATE_QUESTION)
LATE_NOTES = (
    "median: from the end of a rank's own linear to the end of the all-reduce, mean over ranks, without one delayed "
    "on purpose",
    "skew: the part of it before the latest rank has come; of delay: that part over the delay of the late rank",
)
SWITCH_ALGORITHMS = ("nvls", "multimem")
UNKNOWN = "unknown"
Cell = Callable[[CommPoint], str]


def communication_tables(points: Iterable[CommPoint]) -> list[Table]:
    """Return a table for each question and operation.

    Copies between several pairs also get a matrix.
    """
    tables: dict[tuple[str, str], list[CommPoint]] = {}
    for one in points:
        tables.setdefault((one.case.question, one.case.op), []).append(one)
    repeated = back_to_back_seconds(one for group in tables.values() for one in group)
    found = []
    for key in sorted(tables, key=_table_order):
        found.append(_table(*key, tables[key], repeated))
        found += _matrices(tables[key])
    return found


MessageKey = tuple[str, str, str, str, int, int | None]


def back_to_back_seconds(points: Iterable[CommPoint]) -> dict[MessageKey, float]:
    """Return the median of back-to-back calls by message; a model's own message counts first."""
    found: dict[MessageKey, float] = {}
    for one in sorted(points, key=lambda one: one.case.question != "messages"):
        if one.case.is_back_to_back:
            found.setdefault(_message_key(one.case), one.measurement.median)
    return found


def _message_key(case: Case) -> MessageKey:
    return case.op, case.implementation, case.launch, case.dtype, case.ranks, case.message_bytes


def fit_table(found: Sequence[SeriesFit]) -> list[Table]:
    """Return the fits, a row for each series; no table without fits."""
    if not found:
        return []
    cases = [one.series.case for one in found]
    asked = {case.question for case in cases}
    fields = (*(("question",) if len(asked) > 1 else ()), *_fields(cases, "op"))
    labelled, names, caption = formatting.label_columns(cases, fields)
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
    rows = [(*name, *_fit_row(one)) for name, one in zip(names, found, strict=True)]
    notes = ["t = alpha + message / bandwidth, least squares of log t; a large residual says that it does not hold"]
    if any(case.op == "ping_pong" for case in cases):
        notes.append("ping_pong: alpha is of the round trip, a hop takes half of it")
    table = Table(
        title="fit", columns=(*labelled, *columns), groups=(tuple(rows),), caption=caption, notes=tuple(notes)
    )
    return [table.without_empty(DASH)]


def _fit_row(one: SeriesFit) -> tuple[str, ...]:
    sizes = one.sizes
    return (
        microseconds(one.line.alpha),
        _format_interval(one.alpha, 1e6),
        formatting.three_digits(one.bandwidth / 1e9) if one.bandwidth else DASH,
        _format_interval(one.bandwidth_interval, 1e-9),
        one.kind,
        f"{len(sizes)}",
        format_bytes(min(sizes)),
        format_bytes(max(sizes)),
        percent(one.worst_residual),
        one.source or "single pass",
    )


def _format_interval(interval: Interval | None, factor: float) -> str:
    return " – ".join(formatting.three_digits(end * factor) for end in interval) if interval else DASH


def _fields(cases: Sequence[Case], *first: str) -> tuple[str, ...]:
    shipped = MESSAGE_FIELDS if any(case.model for case in cases) else ()
    return (*first, *shipped, *SERIES_FIELDS)


def _table(question: str, op: str, points: Sequence[CommPoint], repeated: Mapping[MessageKey, float]) -> Table:
    groups = [series.points for series in collect_series(points)]
    ordered = [one for group in groups for one in group]
    fields = (*_fields([one.case for one in ordered]), "tokens", "message_bytes")
    labelled, names, caption = formatting.label_columns([one.case for one in ordered], fields)
    late = question == LATE_QUESTION
    ships = "linear" if late else "ships"
    labelled = tuple(replace(one, title=ships) if one.title == "layer" else one for one in labelled)
    everywhere = shared_warnings([one.figures for one in ordered])
    more = _late_numbers(repeated) if late else []
    columns = [*_numbers(ordered), *more, (NOTES_COLUMN, lambda p: ", ".join(_notes(p, everywhere)))]
    name = iter(names)
    table = Table(
        title=f"{question}: {op}",
        columns=(*labelled, *(column for column, _ in columns)),
        groups=tuple(tuple((*next(name), *(cell(one) for _, cell in columns)) for one in group) for group in groups),
        caption=" · ".join(filter(None, [caption, *everywhere])),
        notes=(*_sources(ordered), *(LATE_NOTES if late else ())),
    )
    return table.without_empty(DASH)


def _numbers(points: Sequence[CommPoint]) -> list[tuple[Column, Cell]]:
    alg = formatting.choose_scale(formatting.BYTES_PER_SECOND, [p.algbw for p in points])
    bus = formatting.choose_scale(formatting.BYTES_PER_SECOND, [p.busbw for p in points])
    told = any(p.measurement.algorithm for p in points)
    return [
        (Column("median\nus"), lambda p: microseconds(p.measurement.median)),
        (Column("±\n95%"), lambda p: formatting.interval_width(p.figures.half_width)),
        (Column("hop\nus"), lambda p: microseconds(p.hop_seconds)),
        (Column(f"algbw\n{alg.symbol}"), lambda p: alg(p.algbw)),
        (Column(f"busbw\n{bus.symbol}"), lambda p: bus(p.busbw)),
        (Column("skew\nus"), lambda p: microseconds(p.measurement.skew_seconds)),
        (Column("algorithm", number=False), lambda p: p.measurement.algorithm or (UNKNOWN if told else DASH)),
        (Column("of\nlink"), lambda p: percent(p.link_share)),
        (Column("published\nus"), lambda p: microseconds(p.reference.seconds) if p.reference else DASH),
        (Column("times\npublished"), lambda p: f"{p.ratio:.2f}" if p.ratio else DASH),
    ]


def _late_numbers(repeated: Mapping[MessageKey, float]) -> list[tuple[Column, Cell]]:
    """Return the columns of all-reduces behind a linear: part of the delay, and back-to-back calls beside them."""

    def back_to_back(one: CommPoint) -> float | None:
        return repeated.get(_message_key(one.case))

    def times(one: CommPoint) -> str:
        seconds = back_to_back(one)
        return f"{one.measurement.median / seconds:.2f}" if seconds else DASH

    return [
        (Column("of\ndelay"), lambda p: percent((p.measurement.telemetry or {}).get(WAITED_SHARE))),
        (Column("back-to-back\nus"), lambda p: microseconds(back_to_back(p))),
        (Column("times\nback-to-back"), times),
    ]


def _notes(one: CommPoint, everywhere: Sequence[str]) -> list[str]:
    between = one.reference.between if one.reference else None
    own = [word for word in one.figures.warnings() if word not in everywhere]
    return [*own, *([f"published: interpolated {between}"] if between else [])]


def _sources(points: Sequence[CommPoint]) -> list[str]:
    """Return the sources of published figures, and a caveat on link shares."""
    named = dict.fromkeys(one.reference.source for one in points if one.reference)
    said = [f"published, the fastest of its kind: {'; '.join(named)}"] if named else []
    adds = any(word in (one.measurement.algorithm or "") for one in points for word in SWITCH_ALGORITHMS)
    if adds and any(one.link_share for one in points):
        said.append(
            "where the switch adds up (NVLS, multimem) less crosses a link than busbw says: over 100% is no error"
        )
    return said


def _matrices(points: Sequence[CommPoint]) -> list[Table]:
    """Return copy rates between pairs at the largest message.

    Empty for a single pair.
    """
    alike: dict[Case, list[MessageSeries]] = {}
    for series in collect_series(points):
        if series.case.op == "peer_copy" and series.case.pair:
            alike.setdefault(replace(series.case, pair=None), []).append(series)
    return [_matrix(case, group) for case, group in alike.items() if len(group) > 1]


def _matrix(case: Case, group: Sequence[MessageSeries]) -> Table:
    largest = max(one.case.message_bytes or 0 for series in group for one in series.points)
    rates: dict[tuple[int, int], float] = {}
    for series in group:
        source, _, target = (series.case.pair or "").partition("-")
        for one in series.points:
            if one.case.message_bytes == largest and one.busbw and source.isdecimal() and target.isdecimal():
                rates[int(source), int(target)] = one.busbw
    ranks = sorted({rank for pair in rates for rank in pair})
    scale = formatting.choose_scale(formatting.BYTES_PER_SECOND, rates.values())
    rows = tuple((f"{source}", *(scale(rates.get((source, target))) for target in ranks)) for source in ranks)
    told = " · ".join((case.implementation, case.launch, case.dtype, format_bytes(largest), scale.symbol))
    return Table(
        title="peer_copy matrix",
        columns=(Column("from \\ to"), *(Column(f"{rank}") for rank in ranks)),
        groups=(rows,),
        caption=f"{told}; a row sends, a column receives",
    )


def _table_order(table: tuple[str, str]) -> tuple[int, int]:
    question, op = table
    known = QUESTIONS.index(question) if question in QUESTIONS else len(QUESTIONS)
    return known, list(TRAFFIC).index(op)


# Report chapter on communication: measured series with fits, and published figures.

TITLE = "Communication"
OPS = ("all_reduce", "send_recv")
"""Operations that TP and PP wait for."""


@dataclass(frozen=True)
class FileCommunication:
    """All-reduces and hops of one file: series, each with its fit if there is one."""

    name: str
    file: ResultFile
    series: Sequence[tuple[MessageSeries, SeriesFit | None]]

    @property
    def points(self) -> list[CommPoint]:
        """All points of the series."""
        return [one for each, _ in self.series for one in each.points]

    @property
    def fits(self) -> list[SeriesFit]:
        """Fits of the series."""
        return [found for _, found in self.series if found]

    def tables(self, *, every: bool = False) -> list[Table]:
        """Return tables of the points, at a few sizes or at all, and of the fits."""
        points = self.points if every else communication_points.at_sizes(self.points, SHOWN_SIZES)
        return [*communication_tables(points), *fit_table(self.fits)]

    def sentences(self) -> list[str]:
        """Return sentences on the fastest short message of each operation, and its fit."""
        return [text for op in OPS if (text := self._sentence(op))]

    def _sentence(self, op: str) -> str:
        small = [one for one in self.points if one.case.op == op and one.case.message_bytes == SHOWN_SIZES[0]]
        back_to_back = [one for one in small if one.case.is_back_to_back]
        if not back_to_back:
            return ""
        best = min(back_to_back, key=lambda one: one.measurement.median)
        case, busbw = best.case, best.busbw or 0.0
        line = next((found for each, found in self.series if found and best in each.points), None)
        fitted = f"; fitted over all sizes: {_fit_sentence(line)}" if line else ""
        return (
            f"At {format_bytes(SHOWN_SIZES[0])} over {case.ranks} ranks of {self.name} {case.op} takes "
            f"{formatting.microseconds(best.measurement.median)} us with {case.implementation} {case.launch}, "
            f"a busbw of {formatting.three_digits(busbw / 1e9)} GB/s{fitted} (measured)."
        )


def _fit_sentence(line: SeriesFit) -> str:
    parts = [f"{formatting.microseconds(line.line.alpha)} us"] if line.line.alpha else []
    parts += [f"{formatting.three_digits(line.bandwidth / 1e9)} GB/s"] if line.bandwidth else []
    return " and ".join(parts)


@dataclass(frozen=True)
class CommunicationSection:
    """Communication results of all files."""

    measured: Sequence[FileCommunication]
    published: Sequence[PublishedAllReduces]

    def __bool__(self) -> bool:
        return bool(self.measured or self.published)

    def sentences(self) -> list[str]:
        """Return the answer in words, published figures first: they are of GPUs."""
        said = [one.sentence(SHOWN_SIZES[0]) for one in self.published]
        return [*filter(None, said), *(text for one in self.measured for text in one.sentences())]

    def blocks(self) -> list[Block]:
        """Return short blocks for the terminal."""
        if not self:
            return []
        blocks: list[Block] = [Facts(title=TITLE, rows=tuple(("", text) for text in self.sentences()), level=1)]
        blocks += communication_points.published_table(self.published)
        for one in self.measured:
            blocks += [Facts(title=f"measured by {one.name}", rows=(("file", str(one.file.path)),)), *one.tables()]
        return blocks

    def data(self) -> dict[str, Any]:
        """Return the JSON data, in SI units."""
        return {
            "sentences": self.sentences(),
            "fits": [{"file": str(one.file.path), **line.record()} for one in self.measured for line in one.fits],
            "published": [
                {
                    "gpu": one.name,
                    "ranks": one.ranks,
                    "implementation": implementation,
                    "launch": launch,
                    "message_bytes": size,
                    "seconds": found.median,
                    "framework": found.framework,
                    "version": found.version,
                    "kernel": found.case.kernel,
                    "dtype": found.case.dtype,
                }
                for one in self.published
                for (implementation, launch), by_size in one.variants.items()
                for size, found in by_size.items()
            ],
        }


def build_section(files: Sequence[ResultFile]) -> CommunicationSection:
    """Build the section from the files."""
    references = communication_points.gather_references(files)
    measured = []
    for file in files:
        taken = [one for one in file.measurements if _is_shown(one.case.question, one.case.op, one.provenance)]
        figures = [
            CaseMetrics(one, Ceilings(None, {}), None)
            for one in taken
            if communication_points.is_between_ranks(one.case)
        ]
        if found := communication_points.collect_series(communication_points.build_points(file, figures, references)):
            found.sort(key=lambda one: OPS.index(one.case.op))
            measured.append(
                FileCommunication(
                    distinct_gpu_name(file, files), file, [(one, communication_points.fit_series(one)) for one in found]
                )
            )
    return CommunicationSection(measured, communication_points.collect_published(files))


def _is_shown(question: str, op: str, provenance: str) -> bool:
    return question == "communication" and op in OPS and provenance == "measured"

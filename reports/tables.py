"""A file's measurements as tables, one for each question."""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace

from reports import attention, dependent, labels, units
from reports.figures import Figures
from reports.page import Column, Table
from reports.questions import by_question, title
from reports.units import NONE, percent
from specs import layer
from specs.measurement import Case

Cell = Callable[[Figures], str]
NOTES = Column("notes", number=False, prose=True)


def draw_up(figures: Iterable[Figures]) -> list[Table]:
    """A table for each question."""
    return [_table(question, members) for question, members in by_question(figures, lambda f: f.measurement.case)]


def _table(question: str, figures: Sequence[Figures]) -> Table:
    groups = _groups(question, figures)
    figures = [one for group in groups for one in group]
    among = {"layer": labels.OF_PARTS, layer.QUESTION: labels.OF_SHARES}.get(question, labels.FIELDS)
    labelled, names, caption = labels.choose([one.measurement.case for one in figures], among)
    everywhere = shared_warnings(figures)
    columns = [*_numbers(figures), (NOTES, _notes(everywhere))]
    if question == "sweep":
        columns.insert(2, _growth(groups))
    name = iter(names)
    table = Table(
        title=title(question),
        columns=(*labelled, *(column for column, _ in columns)),
        groups=tuple(tuple((*next(name), *(cell(one) for _, cell in columns)) for one in group) for group in groups),
        caption=" · ".join([caption, *everywhere]),
        notes=(
            *_without_peak(figures),
            *attention.notes(figures),
            *dependent.notes(one.measurement.case.implementation for one in figures),
        ),
    )
    return table.without_empty(NONE)


def _numbers(figures: Sequence[Figures]) -> list[tuple[Column, Cell]]:
    """The numeric columns, each in one unit for the whole table."""
    time = units.scale(units.SECONDS, [f.measurement.median for f in figures])
    memory = units.scale(units.BYTES_PER_SECOND, [f.bytes_per_second for f in figures])
    compute = units.scale(units.FLOPS_PER_SECOND, [f.flops_per_second for f in figures])
    wire = units.scale(units.BYTES_PER_SECOND, [f.wire_bytes_per_second for f in figures])
    return [
        (Column(f"median\n{time.symbol}"), lambda f: time(f.measurement.median)),
        (Column("±\n95%"), lambda f: units.width(f.half_width)),
        (Column(memory.symbol), lambda f: memory(f.bytes_per_second)),
        (Column(compute.symbol), lambda f: compute(f.flops_per_second)),
        (Column(f"sent\n{wire.symbol}"), lambda f: wire(f.wire_bytes_per_second)),
        (Column("of\nfloor"), lambda f: percent(f.floor_share)),
        (Column("bound", number=False), lambda f: f.bound or NONE),
        (Column("of\nsheet"), lambda f: percent(f.datasheet_share)),
        (Column("noise"), lambda f: percent(f.noise)),
    ]


def shared_warnings(figures: Sequence[Figures]) -> list[str]:
    """What to mind about all rows: it stands in the caption."""
    return [word for word in figures[0].warnings() if all(word in one.warnings() for one in figures)]


def _notes(everywhere: Container[str]) -> Cell:
    """What to mind about a row, less what holds for all rows and stands in the caption."""
    return lambda f: ", ".join(word for word in f.warnings() if word not in everywhere)


def _without_peak(figures: Iterable[Figures]) -> tuple[str, ...]:
    """Why some cases have no floor in a file that has ceilings."""
    lacking = {
        f.measurement.case.dtype: None
        for f in figures
        if f.flops_per_second
        and f.measured.flops_per_second
        and f.measurement.case.dtype not in f.measured.flops_per_second
    }
    return tuple(f"no floor for {dtype}: this file has no matmul ceiling of that dtype" for dtype in lacking)


def _groups(question: str, figures: Sequence[Figures]) -> list[list[Figures]]:
    """What stands together: series over tokens, a layer with its parts, else all."""
    if question == "sweep":
        return _series(figures)
    if question == layer.QUESTION:
        return _parts(figures)
    return _layers(figures) if question == "layer" else [list(figures)]


def _parts(figures: Iterable[Figures]) -> list[list[Figures]]:
    """Layers, then heads, each by rising tokens."""
    found: dict[str | None, list[Figures]] = {}
    for one in sorted(figures, key=lambda f: f.measurement.case.tokens or 0):
        found.setdefault(one.measurement.case.layer, []).append(one)
    return [found[part] for part in sorted(found, key=str)]


def _layers(figures: Iterable[Figures]) -> list[list[Figures]]:
    """A whole layer under each launch, and its parts, by every implementation at one shape."""
    groups: dict[tuple[object, ...], list[Figures]] = {}
    for one in figures:
        case = one.measurement.case
        shape = case.tokens, case.batch, case.context
        groups.setdefault((case.model, case.tp, case.pp, *shape, case.dtype), []).append(one)
    return list(groups.values())


def _series(figures: Iterable[Figures]) -> list[list[Figures]]:
    """Cases that differ only in their tokens and in what follows from them, the kernel too, by rising tokens."""
    series: dict[Case, list[Figures]] = {}
    for one in figures:
        case = one.measurement.case
        bare = replace(case, name="", kernel="", tokens=None, message_bytes=None)
        key = replace(bare, flops=0, hbm_bytes=0, wire_bytes_sent_per_rank=0)
        series.setdefault(key, []).append(one)
    return [sorted(group, key=lambda f: f.measurement.case.tokens or 0) for group in series.values()]


def _growth(groups: Sequence[Sequence[Figures]]) -> tuple[Column, Cell]:
    """How the time grows over that of the fewest tokens of its group."""
    least = {id(one): group[0] for group in groups for one in group}
    fewest = {group[0].measurement.case.tokens for group in groups}
    title = f"t/t({fewest.pop()})" if len(fewest) == 1 else "t/t(least)"
    return Column(title), lambda f: f"{f.measurement.median / least[id(f)].measurement.median:.2f}"

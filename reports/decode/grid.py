"""The grid: every shape of a model against counts of tokens, ours beside the better library in each cell."""

from collections.abc import Sequence

from reports import dependent, machine, units
from reports.decode import candidates
from reports.decode.points import DEPENDENT, LIBRARIES, OURS, Point, Selection
from reports.decode.table import legend, shared, time
from reports.page import Column, Table
from specs.layer import LAYERS, MODEL, TOKENS, TP
from specs.models import model
from specs.parallel import Split

Shape = tuple[str, int, int, int]
"""layer, tp, n, k."""
MEANING = "cells: ours / better of cuBLAS and cuBLASLt"
NOTHING = "No GPU has been measured yet: the cells fill from result files that a GPU wrote."


def draw_up(selections: Sequence[Selection]) -> list[Table]:
    """For each GPU a table, another with dependent launch where that was measured; without any GPU an empty one."""
    gpus = [one for one in selections if one.points and one.file.machine.get("gpu")]
    tables = [_table(one, ours) for one in gpus for ours in (OURS, DEPENDENT) if ours is OURS or _any(one, ours)]
    return tables or [_empty()]


def _any(selection: Selection, ours: Sequence[str]) -> bool:
    return any(point.best(ours) for point in selection.points)


def _table(selection: Selection, ours: Sequence[str]) -> Table:
    points = {(_shape(point), point.case.tokens or 0): point for point in selection.points}
    used = [f for point in points.values() for names in (ours, LIBRARIES) if (f := point.best(names))]
    scale = units.scale(units.SECONDS, [figures.measurement.median for figures in used])
    shapes = _shapes(selection.model) or list(dict.fromkeys(shape for shape, _ in points if shape[0] in LAYERS))
    rows = [(*_names(shape), *(_cell(points.get((shape, m)), ours, scale) for m in TOKENS)) for shape in shapes]
    how = " · with dependent launch" if ours is DEPENDENT else ""
    minded = [*dependent.notes(ours), *candidates.notes(list(points.values()))]
    return Table(
        title=machine.name(selection.file.machine) + how,
        columns=_columns(),
        groups=_by_layer(rows),
        caption=f"{shared(selection)} · {MEANING}, medians in {scale.symbol} (ratio) · {selection.file.path.name}",
        notes=(*legend([figures for figures in used if figures.measurement.case.tokens in TOKENS]), *minded),
    )


def _empty() -> Table:
    rows = [(*_names(shape), *("" for _ in TOKENS)) for shape in _shapes(MODEL)]
    caption = f"{MODEL} · bf16 · cold · graph · {MEANING}, medians in us (ratio)"
    return Table(title="no GPU yet", columns=_columns(), groups=_by_layer(rows), caption=caption, notes=(NOTHING,))


def _columns() -> tuple[Column, ...]:
    return (
        Column("layer", number=False),
        *map(Column, ("tp", "n×k", "weights")),
        *(Column(f"M = {tokens}") for tokens in TOKENS),
    )


def _shapes(slug: str | None) -> list[Shape]:
    """The sixteen shapes that the targets are about; of another model what the file has."""
    if slug != MODEL:
        return []
    linears = [Split(model(MODEL), tp).linear(layer) for layer in LAYERS for tp in TP]
    return [(one.layer, one.tp, one.n, one.k) for one in linears]


def _shape(point: Point) -> Shape:
    case = point.case
    return case.layer or "", case.tp or 0, case.n or 0, case.k or 0


def _names(shape: Shape) -> tuple[str, ...]:
    """The cells before the times; a weight of bf16 has 2 bytes."""
    layer, tp, n, k = shape
    return layer, f"{tp}", f"{n}×{k}", units.decimal_bytes(2 * n * k)


def _cell(point: Point | None, ours: Sequence[str], scale: units.Scale) -> str:
    """`4.31 / 5.02 (1.165)`; empty where neither side was measured."""
    own, library = (point.best(ours), point.best(LIBRARIES)) if point else (None, None)
    if own is None and library is None:
        return ""
    speedup = point.speedup(ours) if point else None
    ratio = f" ({units.ratio(speedup.ratio)}{candidates.mark(point)})" if point and speedup else ""
    return f"{time(own, scale)} / {time(library, scale)}{ratio}"


def _by_layer(rows: Sequence[tuple[str, ...]]) -> tuple[tuple[tuple[str, ...], ...], ...]:
    layers = dict.fromkeys(row[0] for row in rows)
    return tuple(tuple(row for row in rows if row[0] == layer) for layer in layers)

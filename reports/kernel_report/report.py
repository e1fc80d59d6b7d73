"""Kernel report: layer tables, choices, targets, grids, and the command."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reports import formatting, machine, output, result_tables, results, roofline
from reports.formatting import DASH
from reports.kernel_report import points as kernel_points
from reports.kernel_report.points import (
    LIBRARIES,
    OURS,
    OURS_DEPENDENT,
    KernelPoint,
    LinearSelection,
    Speedup,
    TargetResult,
    select_linears,
)
from reports.output import Block, Column, Facts, Format, Table
from reports.roofline import CaseMetrics
from specs.layer import DECODE_TOKENS, DEFAULT_MODEL, LAYER_LINEARS, LINEAR_IMPLEMENTATIONS, TP_DEGREES
from specs.models import find_model
from specs.parallel import Split

WARNING_MARKS = {"noisy": "~", roofline.THROTTLED: "!", roofline.MOVED: "*", "contended": "^"}
"""Mark before a time, by the warning that makes it doubtful."""
WITHOUT_PDL, WITH_PDL = "without dependent launch", "with dependent launch"
KernelChoice = tuple[str, str]
"""A kernel and its configuration."""
Cell = Callable[[KernelPoint], str]


def layer_blocks(selection: LinearSelection) -> list[Block]:
    """Return a table for each layer, then configurations and targets."""
    points, choices = selection.points, _choices(selection.points)
    mind = Facts(title="mind", rows=tuple(("", note) for note in selection.notes), level=3)
    if not points:
        return [mind]
    layers = dict.fromkeys(point.case.layer for point in points)
    by_layer = [[point for point in points if point.case.layer == layer] for layer in layers]
    page: list[Block] = [_reading(points), *(_layer(selection, own, choices) for own in by_layer)]
    if choices:
        page.append(_configurations(points, choices))
    page += [*_targets(selection), _many_token_table(selection)]
    return [*page, mind] if mind.rows else page


def time_cell(figures: CaseMetrics | None, scale: formatting.Scale) -> str:
    """Return a median with the marks of its warnings; a dash where there is none."""
    if figures is None:
        return DASH
    return "".join(WARNING_MARKS.get(word, "") for word in figures.warnings()) + scale(figures.measurement.median)


def marks_legend(figures: Sequence[CaseMetrics]) -> tuple[str, ...]:
    """Return the legend of the marks before these times."""
    words = {word for one in figures for word in one.warnings()}
    marks = "; ".join(f"{mark} {word}" for word, mark in WARNING_MARKS.items() if word in words)
    return (marks,) if marks else ()


def shared_caption(selection: LinearSelection) -> str:
    """Return the properties that all points of a file share."""
    return f"{selection.model} · bf16 · cold · {selection.launch}"


def _reading(points: Sequence[KernelPoint]) -> Facts:
    """Return the legend of the columns that are present."""
    libraries, ours = " and ".join(LIBRARIES), " and ".join(OURS)
    rows = [("times", "medians of all passes; torch is what torch calls, on a GPU cuBLAS")]
    if any(point.speedup() for point in points):
        rows.append(("ratio", f"time of the better of {libraries} over that of the better of {ours}"))
    if any(point.best(OURS) and point.floor_seconds for point in points):
        rows.append(("of floor", f"of the better of {ours}, by the ceilings of this run"))
    if any(point.speedup(OURS_DEPENDENT) for point in points):
        rows.append(
            ("pdl", f"with programmatic dependent launch: in no other column; {formatting.DEPENDENT_LAUNCH_NOTE}")
        )
    if told := kernel_points.candidates_text(points):
        rows.append((kernel_points.CUBLASLT, told))
    return Facts(title="kernels", rows=tuple(rows), level=3)


def _layer(selection: LinearSelection, points: Sequence[KernelPoint], choices: Mapping[KernelChoice, int]) -> Table:
    measured = [figures for point in points for figures in point.by_implementation.values()]
    floors = [point.floor_seconds for point in points]
    scale = formatting.choose_scale(
        formatting.SECONDS, [*(figures.measurement.median for figures in measured), *floors]
    )
    columns: list[tuple[Column, Cell]] = [
        (Column("tp"), lambda p: f"{p.case.tp}"),
        (Column("n×k"), lambda p: f"{p.case.n}×{p.case.k}"),
        (Column("M"), lambda p: f"{p.case.tokens}"),
        *(_implementation(name, scale) for name in LINEAR_IMPLEMENTATIONS),
        (Column("floor"), lambda p: scale(p.floor_seconds)),
        (Column("of\nfloor"), lambda p: formatting.percent(_share(p))),
        (Column("ratio"), lambda p: _ratio(p, OURS)),
        (Column("±\n95%"), lambda p: _width(p.speedup())),
        (Column("ratio\npdl"), lambda p: _ratio(p, OURS_DEPENDENT)),
        (Column("#"), lambda p: str(choices.get(_choice(p), ""))),
    ]
    by_tp = [[point for point in points if point.case.tp == tp] for tp in dict.fromkeys(p.case.tp for p in points)]
    table = Table(
        title=points[0].case.layer or "",
        columns=tuple(column for column, _ in columns),
        groups=tuple(tuple(tuple(cell(point) for _, cell in columns) for point in group) for group in by_tp),
        caption=f"{shared_caption(selection)} · {scale.symbol} · M tokens",
        notes=(*marks_legend(measured), *kernel_points.candidates_notes(points)),
    )
    return table.without_empty(DASH)


def _implementation(name: str, scale: formatting.Scale) -> tuple[Column, Cell]:
    return Column(name.replace("-", "\n-")), lambda point: time_cell(point.by_implementation.get(name), scale)


def _share(point: KernelPoint) -> float | None:
    own = point.best(OURS)
    return own.floor_share if own else None


def _ratio(point: KernelPoint, ours: Sequence[str]) -> str:
    speedup = point.speedup(ours)
    return formatting.ratio(speedup.ratio) + kernel_points.candidates_mark(point) if speedup else DASH


def _width(speedup: Speedup | None) -> str:
    """Return the half-width of the interval, as a share of the ratio."""
    return formatting.interval_width(speedup.interval[1] / speedup.ratio - 1) if speedup and speedup.interval else DASH


def best_configuration(point: KernelPoint) -> str | None:
    """Return the configuration of our best kernel without dependent launch.

    None in files that do not record it.
    """
    own = point.best(OURS)
    return own.measurement.configuration if own else None


def _choice(point: KernelPoint) -> KernelChoice:
    """Return our fastest kernel and its configuration; empty where not recorded."""
    own, chosen = point.best(OURS), best_configuration(point)
    return (own.measurement.case.kernel, chosen) if own and chosen else ("", "")


def _choices(points: Sequence[KernelPoint]) -> dict[KernelChoice, int]:
    """Return each choice and its number, in the order of the rows."""
    found = dict.fromkeys(choice for point in points if any(choice := _choice(point)))
    return {choice: number for number, choice in enumerate(found, 1)}


def _configurations(points: Sequence[KernelPoint], choices: Mapping[KernelChoice, int]) -> Table:
    counts = Counter(map(_choice, points))
    rows = tuple((f"{number}", f"{counts[choice]}", *choice) for choice, number in choices.items())
    texts = (Column("kernel", number=False), Column("configuration", number=False, prose=True))
    columns = (Column("#"), Column("points"), *texts)
    return Table(title="configurations", columns=columns, groups=(rows,), caption="of the better of ours")


def _targets(selection: LinearSelection) -> list[Block]:
    """Return the targets without dependent launch, then with it.

    A note stands in where dependent launch was not measured.
    """
    remark = kernel_points.other_setting_remark(selection)
    if any(point.best(OURS_DEPENDENT) for point in selection.points):
        with_pdl = _target_table(selection, WITH_PDL, OURS_DEPENDENT, formatting.DEPENDENT_LAUNCH_NOTE, remark)
        return [_target_table(selection, WITHOUT_PDL, OURS, remark), with_pdl]
    return [_target_table(selection, WITHOUT_PDL, OURS, f"{WITH_PDL}: not measured", remark)]


def _many_token_table(selection: LinearSelection) -> Table:
    """Return the targets from 128 tokens on.

    Dependent launch does not matter there: a launch is short beside its kernel.
    """
    judged = kernel_points.judge_many_tokens(selection.points, OURS)
    return _verdicts(
        "targets from 128 tokens on", " and ".join(OURS), judged, kernel_points.other_setting_remark(selection)
    )


def _target_table(selection: LinearSelection, launch: str, ours: Sequence[str], *notes: str) -> Table:
    judged = kernel_points.judge_targets(selection.points, ours)
    read = "read is the read ceiling of this run"
    few = kernel_points.candidates_notes(selection.points)
    return _verdicts("targets", f"{launch}: {' and '.join(ours)}", judged, read, *notes, *few)


def _verdicts(title: str, caption: str, judged: Sequence[TargetResult], *notes: str) -> Table:
    texts = (Column("target", number=False), Column("verdict", number=False))
    table = Table(
        title=title,
        columns=(*texts, Column("figure"), Column("points"), Column("remark", number=False, prose=True)),
        groups=(tuple(map(_target, judged)),),
        caption=caption,
        notes=tuple(filter(None, notes)),
    )
    return table.without_empty(DASH)


def _target(target: TargetResult) -> tuple[str, ...]:
    if target.figure is None:
        figure = DASH
    else:
        figure = formatting.percent(target.figure) if target.unit == "share" else f"{formatting.ratio(target.figure)}x"
    return target.target, target.verdict, figure, f"{target.points} of {target.expected_points}", target.remark


# Grid: every shape of a model by token count, our time beside the better library's in each cell.

GridShape = tuple[str, int, int, int]
"""Layer, tp, n and k."""
CELL_LEGEND = "cells: ours / better of cuBLAS and cuBLASLt"
NO_GPU_NOTE = "No GPU has been measured yet: the cells fill from result files that a GPU wrote."


def ratio_grids(selections: Sequence[LinearSelection]) -> list[Table]:
    """Return a table per GPU, and another with dependent launch where measured.

    Without any GPU, an empty table.
    """
    gpus = [one for one in selections if one.points and one.file.machine.get("gpu")]
    tables = [
        _table(one, ours) for one in gpus for ours in (OURS, OURS_DEPENDENT) if ours is OURS or _has_any(one, ours)
    ]
    return tables or [_empty_grid()]


def _has_any(selection: LinearSelection, ours: Sequence[str]) -> bool:
    return any(point.best(ours) for point in selection.points)


def _table(selection: LinearSelection, ours: Sequence[str]) -> Table:
    points = {(_shape(point), point.case.tokens or 0): point for point in selection.points}
    used = [f for point in points.values() for names in (ours, LIBRARIES) if (f := point.best(names))]
    scale = formatting.choose_scale(formatting.SECONDS, [figures.measurement.median for figures in used])
    shapes = _shapes(selection.model) or list(dict.fromkeys(shape for shape, _ in points if shape[0] in LAYER_LINEARS))
    rows = [
        (*_shape_cells(shape), *(_cell(points.get((shape, m)), ours, scale) for m in DECODE_TOKENS)) for shape in shapes
    ]
    how = " · with dependent launch" if ours is OURS_DEPENDENT else ""
    minded = [*formatting.dependent_launch_notes(ours), *kernel_points.candidates_notes(list(points.values()))]
    return Table(
        title=machine.device_name(selection.file.machine) + how,
        columns=_columns(),
        groups=_by_layer(rows),
        caption=f"{shared_caption(selection)} · {CELL_LEGEND}, medians in {scale.symbol} (ratio) · "
        f"{selection.file.path.name}",
        notes=(
            *marks_legend([figures for figures in used if figures.measurement.case.tokens in DECODE_TOKENS]),
            *minded,
        ),
    )


def _empty_grid() -> Table:
    rows = [(*_shape_cells(shape), *("" for _ in DECODE_TOKENS)) for shape in _shapes(DEFAULT_MODEL)]
    caption = f"{DEFAULT_MODEL} · bf16 · cold · graph · {CELL_LEGEND}, medians in us (ratio)"
    return Table(title="no GPU yet", columns=_columns(), groups=_by_layer(rows), caption=caption, notes=(NO_GPU_NOTE,))


def _columns() -> tuple[Column, ...]:
    return (
        Column("layer", number=False),
        *map(Column, ("tp", "n×k", "weights")),
        *(Column(f"M = {tokens}") for tokens in DECODE_TOKENS),
    )


def _shapes(slug: str | None) -> list[GridShape]:
    """Return the sixteen shapes of the targets.

    Empty for another model, whose shapes come from the file.
    """
    if slug != DEFAULT_MODEL:
        return []
    linears = [Split(find_model(DEFAULT_MODEL), tp).linear(layer) for layer in LAYER_LINEARS for tp in TP_DEGREES]
    return [(one.layer, one.tp, one.n, one.k) for one in linears]


def _shape(point: KernelPoint) -> GridShape:
    case = point.case
    return case.layer or "", case.tp or 0, case.n or 0, case.k or 0


def _shape_cells(shape: GridShape) -> tuple[str, ...]:
    """Return the cells before the times; a bf16 weight has 2 bytes."""
    layer, tp, n, k = shape
    return layer, f"{tp}", f"{n}×{k}", formatting.decimal_bytes(2 * n * k)


def _cell(point: KernelPoint | None, ours: Sequence[str], scale: formatting.Scale) -> str:
    """Return `4.31 / 5.02 (1.165)`; empty where neither side was measured."""
    own, library = (point.best(ours), point.best(LIBRARIES)) if point else (None, None)
    if own is None and library is None:
        return ""
    speedup = point.speedup(ours) if point else None
    ratio = f" ({formatting.ratio(speedup.ratio)}{kernel_points.candidates_mark(point)})" if point and speedup else ""
    return f"{time_cell(own, scale)} / {time_cell(library, scale)}{ratio}"


def _by_layer(rows: Sequence[tuple[str, ...]]) -> tuple[tuple[tuple[str, ...], ...], ...]:
    layers = dict.fromkeys(row[0] for row in rows)
    return tuple(tuple(row for row in rows if row[0] == layer) for layer in layers)


# `kernels` command: how near the kernels of each file come to the floor, and to the library.


def kernels(
    paths: Sequence[Path],
    model: str | None,
    format: Format,  # noqa: A002
    to: Path | None,
    *,
    as_grid: bool = False,
) -> None:
    """Write the kernels of each file beside the library's.

    As JSON the output is a list with an object for each file.

    Args:
        paths: result files.
        model: model slug; by default Llama-3-70B where a file has it, else its first.
        format: output format.
        to: output path; None for standard output.
        as_grid: write grids of GPUs only, with a cell for each point.

    Raises:
        UserError: an unknown model, a file that cannot be read, or a report that cannot be written.
    """
    slug = find_model(model).slug if model else None
    selections = [select_linears(file, slug) for file in results.load_all(paths)]
    page = ratio_grids(selections) if as_grid else [block for one in selections for block in file_blocks(one)]
    output.emit(page, [selection_record(one) for one in selections], format, to, paths)


def file_blocks(selection: LinearSelection) -> list[Block]:
    """Return the blocks of one file: header, kernels, targets, missing points."""
    file = selection.file
    above = result_tables.header_facts(file, machine.measured_ceilings(file), machine.known_gpu(file))
    return [above, *layer_blocks(selection), *result_tables.footer_facts(file)]


def selection_record(selection: LinearSelection) -> dict[str, Any]:
    """Return the JSON record: SI units, medians, None for missing values."""
    judged = [
        (ours, target)
        for ours in (OURS, OURS_DEPENDENT)
        for target in kernel_points.judge_targets(selection.points, ours)
    ]
    judged += [(OURS, target) for target in kernel_points.judge_many_tokens(selection.points, OURS)]
    return {
        "file": str(selection.file.path),
        "gpu": selection.file.machine.get("gpu"),
        "model": selection.model,
        "launch": selection.launch,
        "points": [_point(point) for point in selection.points],
        "targets": [target.record(dependent_launch=ours is OURS_DEPENDENT) for ours, target in judged],
        "notes": [*selection.notes, *filter(None, [kernel_points.other_setting_remark(selection)])],
    }


def _point(point: KernelPoint) -> dict[str, Any]:
    case, own, library = point.case, point.best(OURS), point.best(LIBRARIES)
    speedup, dependent = point.speedup(), point.speedup(OURS_DEPENDENT)
    low, high = (speedup and speedup.interval) or (None, None)
    low_pdl, high_pdl = (dependent and dependent.interval) or (None, None)
    return {
        "layer": case.layer,
        "tp": case.tp,
        "n": case.n,
        "k": case.k,
        "tokens": case.tokens,
        "hbm_bytes": case.hbm_bytes,
        "seconds": {
            name: point.by_implementation[name].measurement.median if name in point.by_implementation else None
            for name in LINEAR_IMPLEMENTATIONS
        },
        "floor_seconds": point.floor_seconds,
        "of_floor": own.floor_share if own else None,
        "ours": own.measurement.case.implementation if own else None,
        "library": library.measurement.case.implementation if library else None,
        "ratio": speedup.ratio if speedup else None,
        "low": low,
        "high": high,
        "ratio_pdl": dependent.ratio if dependent else None,
        "low_pdl": low_pdl,
        "high_pdl": high_pdl,
        "cublaslt_candidates": kernel_points.candidate_count(point),
        "configuration": best_configuration(point),
        "warnings": {
            name: warnings for name in point.by_implementation if (warnings := point.by_implementation[name].warnings())
        },
    }

"""`kernels`: how near the kernels of each file come to the floor, and to what the library does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reports import ceilings, files, header, output
from reports.decode import candidates, grid, many_tokens, table, targets
from reports.decode.points import DEPENDENT, LIBRARIES, OURS, Point, Selection, select
from reports.output import Format
from reports.page import Block
from specs.layer import LINEAR_IMPLEMENTATIONS
from specs.models import model as find_model


def kernels(
    paths: Sequence[Path],
    model: str | None,
    format: Format,  # noqa: A002
    to: Path | None,
    *,
    as_grid: bool = False,
) -> None:
    """Write for each file its kernels beside the library's; as JSON a list with an object for each file.

    Args:
        paths: result files.
        model: whose linears; without it Llama-3-70B where a file has it, else its first.
        format: how to write it.
        to: where to; None for standard output.
        as_grid: of GPUs alone, with a cell for each point.

    Raises:
        UserError: an unknown model, a file that cannot be read, or a report that cannot be written.
    """
    slug = find_model(model).slug if model else None
    selections = [select(file, slug) for file in files.load_all(paths)]
    page = grid.draw_up(selections) if as_grid else [block for one in selections for block in section(one)]
    output.emit(page, [record(one) for one in selections], format, to, paths)


def section(selection: Selection) -> list[Block]:
    """One file: what it is, its kernels, the targets, what is missing."""
    file = selection.file
    above = header.above(file, ceilings.measured(file), ceilings.known_gpu(file))
    return [above, *table.draw_up(selection), *header.below(file)]


def record(selection: Selection) -> dict[str, Any]:
    """For a machine: SI units, medians, None where there is nothing to say."""
    judged = [(ours, target) for ours in (OURS, DEPENDENT) for target in targets.judge(selection.points, ours)]
    judged += [(OURS, target) for target in many_tokens.judge(selection.points, OURS)]
    return {
        "file": str(selection.file.path),
        "gpu": selection.file.machine.get("gpu"),
        "model": selection.model,
        "launch": selection.launch,
        "points": [_point(point) for point in selection.points],
        "targets": [target.record(dependent_launch=ours is DEPENDENT) for ours, target in judged],
        "notes": [*selection.notes, *filter(None, [targets.set_for_another(selection)])],
    }


def _point(point: Point) -> dict[str, Any]:
    case, own, library = point.case, point.best(OURS), point.best(LIBRARIES)
    speedup, dependent = point.speedup(), point.speedup(DEPENDENT)
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
            name: point.by[name].measurement.median if name in point.by else None for name in LINEAR_IMPLEMENTATIONS
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
        "cublaslt_candidates": candidates.asked(point),
        "configuration": table.configuration(point),
        "warnings": {name: warnings for name in point.by if (warnings := point.by[name].warnings())},
    }

"""`show`: what each file measured, one table for each question."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from reports import ceilings, files, header, output, tables
from reports.figures import Figures
from reports.files import ResultFile
from reports.output import Format
from reports.page import Block
from specs.roofline import Ceilings


def show(paths: Sequence[Path], format: Format, to: Path | None) -> None:  # noqa: A002
    """Write a section for each file; as JSON a list of all their cases.

    Raises:
        UserError: a file cannot be read, or the report cannot be written.
    """
    page: list[Block] = []
    data = []
    for file in map(files.load, paths):
        figures = read(file)
        page += section(file, figures)
        data += [{"file": str(file.path), **one.record()} for one in figures]
    output.emit(page, data, format, to, paths)


def read(file: ResultFile) -> list[Figures]:
    """Each measurement beside the file's own ceilings and its GPU's datasheet."""
    measured, gpu = ceilings.measured(file), ceilings.known_gpu(file)
    datasheet = Ceilings.datasheet(gpu) if gpu else None
    return [Figures(measurement, measured, datasheet) for measurement in file.measurements]


def section(file: ResultFile, figures: Iterable[Figures]) -> list[Block]:
    """One file: what it is, its tables, what is missing."""
    above = header.above(file, ceilings.measured(file), ceilings.known_gpu(file))
    return [above, *tables.draw_up(figures), *header.below(file)]

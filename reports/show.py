"""`show`: what each file measured, one table for each question."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from reports import ceilings, files, header, output, tables
from reports.communication import fit, point, reference, series
from reports.communication import tables as between_ranks
from reports.communication.point import Point
from reports.communication.reference import NOTHING, References
from reports.experiment import chapter as experiments
from reports.experiment import collect as experiment
from reports.figures import Figures
from reports.files import ResultFile
from reports.ledger import chapter as layers
from reports.output import Format
from reports.page import Block
from specs import measurement
from specs.roofline import Ceilings


def show(paths: Sequence[Path], format: Format, to: Path | None) -> None:  # noqa: A002
    """Write a section for each file; as JSON a list of all their cases.

    Raises:
        UserError: a file cannot be read, or the report cannot be written.
    """
    page: list[Block] = []
    data = []
    loaded = [files.load(path) for path in paths]
    references = reference.gather(loaded)
    for file in loaded:
        figures = read(file)
        if format is Format.JSON:
            found = point.points(file, figures, references)
            data += [
                {
                    "file": str(file.path),
                    **one.figures.record(),
                    **one.record(),
                    **measurement.step_figures(one.measurement),
                }
                for one in found
            ]
        else:
            page += section(file, figures, references)
    output.emit(page, data, format, to, paths)


def read(file: ResultFile) -> list[Figures]:
    """Each measurement beside the file's own ceilings and its GPU's datasheet."""
    measured, gpu = ceilings.measured(file), ceilings.known_gpu(file)
    datasheet = Ceilings.datasheet(gpu) if gpu else None
    return [Figures(measurement, measured, datasheet) for measurement in file.measurements]


def section(file: ResultFile, figures: Iterable[Figures], references: References = NOTHING) -> list[Block]:
    """One file: what it is, TP against PP, its other tables, what is missing."""
    above = header.above(file, ceilings.measured(file), ceilings.known_gpu(file))
    found = point.points(file, figures, references)
    general = [
        one.figures for one in found if not (point.between_ranks(one.case) or experiment.belongs(one.measurement))
    ]
    communication = [one for one in found if point.between_ranks(one.case)]
    answer = experiments.write([file]).blocks()
    others = [*tables.draw_up(general), *_ledger(file), *_communication(communication)]
    return [above, *answer, *others, *header.below(file)]


def _ledger(file: ResultFile) -> list[Block]:
    """Where the time of whole layers goes."""
    return [block for one in layers.write([file]).accounts for block in one.tables()]


def _communication(points: Sequence[Point]) -> list[Block]:
    """Tables of operations between ranks, and latency and bandwidth fitted to them."""
    fitted = [found for one in series.collect(points) if (found := fit.fit(one))]
    return [*between_ranks.draw_up(points), *between_ranks.fits(fitted)]

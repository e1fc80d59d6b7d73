"""`show`: what each file measured, one table for each question."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from reports import machine, output, result_tables, results
from reports.communication import points as communication_points
from reports.communication import report as between_ranks
from reports.communication.points import NOTHING, Point, References
from reports.ledger import report as layers
from reports.output import Block, Format
from reports.results import ResultFile
from reports.roofline import Figures
from reports.tp_vs_pp import compare as experiment
from reports.tp_vs_pp import report as experiments
from specs import measurement
from specs.roofline import Ceilings


def show(paths: Sequence[Path], format: Format, to: Path | None) -> None:  # noqa: A002
    """Write a section for each file; as JSON a list of all their cases.

    Raises:
        UserError: a file cannot be read, or the report cannot be written.
    """
    page: list[Block] = []
    data = []
    loaded = [results.load(path) for path in paths]
    references = communication_points.gather(loaded)
    for file in loaded:
        figures = read(file)
        if format is Format.JSON:
            found = communication_points.points(file, figures, references)
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
    measured, gpu = machine.measured(file), machine.known_gpu(file)
    datasheet = Ceilings.datasheet(gpu) if gpu else None
    return [Figures(measurement, measured, datasheet) for measurement in file.measurements]


def section(file: ResultFile, figures: Iterable[Figures], references: References = NOTHING) -> list[Block]:
    """One file: what it is, TP against PP, its other tables, what is missing."""
    above = result_tables.above(file, machine.measured(file), machine.known_gpu(file))
    found = communication_points.points(file, figures, references)
    general = [
        one.figures
        for one in found
        if not (communication_points.between_ranks(one.case) or experiment.belongs(one.measurement))
    ]
    communication = [one for one in found if communication_points.between_ranks(one.case)]
    answer = experiments.write([file]).blocks()
    others = [*result_tables.draw_up(general), *_ledger(file), *_communication(communication)]
    return [above, *answer, *others, *result_tables.below(file)]


def _ledger(file: ResultFile) -> list[Block]:
    """Where the time of whole layers goes."""
    return [block for one in layers.write([file]).accounts for block in one.tables()]


def _communication(points: Sequence[Point]) -> list[Block]:
    """Tables of operations between ranks, and latency and bandwidth fitted to them."""
    fitted = [found for one in communication_points.collect(points) if (found := communication_points.fit(one))]
    return [*between_ranks.draw_up(points), *between_ranks.fit_table(fitted)]

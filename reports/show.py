"""`show`: print the measurements of each file, one table for each question."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from reports import machine, output, result_tables, results
from reports.communication import points as communication_points
from reports.communication import report as communication_report
from reports.communication.points import NO_REFERENCES, CommPoint, References
from reports.ledger import report as ledger_report
from reports.output import Block, Format
from reports.results import ResultFile
from reports.roofline import CaseMetrics
from reports.tp_vs_pp import compare as tp_vs_pp_compare
from reports.tp_vs_pp import report as tp_vs_pp_report
from specs import measurement
from specs.roofline import Ceilings


def show(paths: Sequence[Path], format: Format, to: Path | None) -> None:  # noqa: A002
    """Write a section for each file, or as JSON a list of all cases.

    Raises:
        UserError: a file cannot be read, or the report cannot be written.
    """
    page: list[Block] = []
    data = []
    loaded = [results.load(path) for path in paths]
    references = communication_points.gather_references(loaded)
    for file in loaded:
        figures = case_metrics(file)
        if format is Format.JSON:
            found = communication_points.build_points(file, figures, references)
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
            page += file_blocks(file, figures, references)
    output.emit(page, data, format, to, paths)


def case_metrics(file: ResultFile) -> list[CaseMetrics]:
    """Each measurement with the file's own ceilings and its GPU's datasheet."""
    measured, gpu = machine.measured_ceilings(file), machine.known_gpu(file)
    datasheet = Ceilings.datasheet(gpu) if gpu else None
    return [CaseMetrics(measurement, measured, datasheet) for measurement in file.measurements]


def file_blocks(
    file: ResultFile, figures: Iterable[CaseMetrics], references: References = NO_REFERENCES
) -> list[Block]:
    """Header, TP against PP, other tables, and missing cases of one file."""
    above = result_tables.header_facts(file, machine.measured_ceilings(file), machine.known_gpu(file))
    found = communication_points.build_points(file, figures, references)
    general = [
        one.figures
        for one in found
        if not (communication_points.is_between_ranks(one.case) or tp_vs_pp_compare.is_experiment_step(one.measurement))
    ]
    communication = [one for one in found if communication_points.is_between_ranks(one.case)]
    answer = tp_vs_pp_report.build_section([file]).blocks()
    others = [*result_tables.build_tables(general), *_ledger(file), *_communication(communication)]
    return [above, *answer, *others, *result_tables.footer_facts(file)]


def _ledger(file: ResultFile) -> list[Block]:
    """Ledger tables of whole layers."""
    return [block for one in ledger_report.build_section([file]).file_ledgers for block in one.tables()]


def _communication(points: Sequence[CommPoint]) -> list[Block]:
    """Tables of operations between ranks, with fitted latency and bandwidth."""
    fitted = [
        found for one in communication_points.collect_series(points) if (found := communication_points.fit_series(one))
    ]
    return [*communication_report.communication_tables(points), *communication_report.fit_table(fitted)]

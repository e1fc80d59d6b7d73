"""`plan`: composes what files hold into steps of a whole model, for every way to cut it."""

from collections.abc import Sequence
from pathlib import Path

from reports import files, output
from reports.output import Format
from reports.plan import record, table
from reports.plan.asked import Asked
from reports.plan.plan import make


def plan(paths: Sequence[Path], asked: Asked, format: Format, to: Path | None) -> None:  # noqa: A002
    """Write the plan.

    Raises:
        UserError: a file cannot be read, it cannot be planned, or the report cannot be written.
    """
    made = make(files.load_all(paths), asked)
    data = record.record(made) if format is Format.JSON else None
    output.emit(table.draw_up(made), data, format, to, paths)

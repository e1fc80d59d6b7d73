"""`html`: write the whole report as one page, or print it in the terminal."""

from collections.abc import Sequence
from pathlib import Path

from reports import output, results
from reports.html.report import build_report
from reports.output import Format
from specs.errors import UserError

INSTALL_COMMAND = "`pip install --constraint constraints.txt --editable .`"


def html(paths: Sequence[Path], format: Format | None, to: Path | None) -> str:  # noqa: A002
    """Write the page to `to`, or the report as text; return a message.

    The report is written as text without `to`, or with a format.

    Raises:
        UserError: a file cannot be read, the page cannot be written, or a library is missing.
    """
    report = build_report(results.load_all(paths))
    if format is not None or to is None:
        output.emit(report.blocks(), report.data(), format or Format.TABLE, to, paths)
        return "" if format is not None else "the page itself: -o report.html"
    try:
        from reports.html.page import (
            render_page,  # altair and Vega take 2 s to import; machines that only measure GPUs lack them
        )
    except ImportError as error:
        raise UserError(
            f"{to}: {error.name} is not installed, which the page is made with; {INSTALL_COMMAND}"
        ) from error
    output.refuse_sources(to, paths)
    output.write_file(to, render_page(report))
    return f"{output.render_terminal(report.answers(), width=output.PIPE_WIDTH)}\n{to}: written"

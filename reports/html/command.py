"""`html`: the whole report as one page, or the same in the terminal."""

from collections.abc import Sequence
from pathlib import Path

from reports import output, results
from reports.html.report import tell
from reports.output import Format
from specs.errors import UserError

NEEDS = "`pip install --constraint constraints.txt --editable .`"


def html(paths: Sequence[Path], format: Format | None, to: Path | None) -> str:  # noqa: A002
    """Write the page to `to`; without it, or with a format, write the report as text. Returns what to say about it.

    Raises:
        UserError: a file cannot be read, the page cannot be written, or a library is missing.
    """
    story = tell(results.load_all(paths))
    if format is not None or to is None:
        output.emit(story.blocks(), story.data(), format or Format.TABLE, to, paths)
        return "" if format is not None else "the page itself: -o report.html"
    try:
        from reports.html.page import render  # altair and Vega: two seconds, and absent where only GPUs are measured
    except ImportError as error:
        raise UserError(f"{to}: {error.name} is not installed, which the page is made with; {NEEDS}") from error
    output.refuse_sources(to, paths)
    output.write(to, render(story))
    return f"{output.draw_terminal(story.answers(), width=output.PIPE_WIDTH)}\n{to}: written"

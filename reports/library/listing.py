"""`show` without a file: what the repository's own result files hold."""

from collections.abc import Sequence
from pathlib import Path

from reports import machine, output
from reports.library import shelf
from reports.library.shelf import Shelf
from reports.library.summary import Summary
from reports.output import Format
from reports.page import Block, Column, Facts, Table

NUMBERS = ("cases", "passes")
DIRTY = "+ behind a commit: with uncommitted changes"


def show_all(format: Format, to: Path | None, folder: Path = shelf.DATA) -> None:  # noqa: A002
    """Write the list of what lies in `reports/data`.

    Raises:
        UserError: nothing lies there, or the list cannot be written.
    """
    found = shelf.look(folder)
    summaries = by_date(found)
    data = {"files": [one.record() for one in summaries], "damaged": list(found.damaged)}
    output.emit(blocks(found, summaries), data, format, to, shelf.paths(folder))


def by_date(found: Shelf) -> list[Summary]:
    """What can be read, the latest last."""
    return [Summary(file) for file in sorted(found.files, key=lambda file: (file.datetime, file.path.name))]


def blocks(found: Shelf, summaries: Sequence[Summary]) -> list[Block]:
    """A table of the files, what each says, and those that cannot be read."""
    page: list[Block] = [table(summaries)] if summaries else []
    page += [
        Facts(
            title=str(one.file.path),
            rows=(("machine", machine.describe(one.file.machine)), ("certainty", one.certainty()), *one.headlines),
            level=3,
        )
        for one in summaries
    ]
    if found.damaged:
        page.append(Facts(title="cannot be read", rows=tuple(("", line) for line in found.damaged), level=3))
    return page


def table(summaries: Sequence[Summary]) -> Table:
    """A row for each file."""
    cells = [one.cells() for one in summaries]
    return Table(
        title="result files",
        caption=f"in {summaries[0].file.path.parent}",
        columns=tuple(Column(title, number=title in NUMBERS) for title in cells[0]),
        groups=(tuple(tuple(row.values()) for row in cells),),
        notes=(DIRTY,) * any(one.file.commit.get("dirty") for one in summaries),
    )

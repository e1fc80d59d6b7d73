"""Build a report from blocks, and write it as text, JSON or Markdown."""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from specs.errors import UserError

# Content of a report, apart from its format: blocks of facts and of tables.

Row = tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A column heading. Numbers align right, text left; only prose may wrap."""

    title: str
    number: bool = True
    prose: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows in groups under one title.

    `caption`: what all rows share. `notes`: caveats.
    """

    title: str
    columns: tuple[Column, ...]
    groups: tuple[tuple[Row, ...], ...]
    caption: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        odd = next((row for row in self.rows if len(row) != len(self.columns)), None)
        if odd:
            raise ValueError(f"{self.title}: {len(odd)} cells in a table of {len(self.columns)} columns: {odd}")

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """All rows, group after group."""
        return tuple(row for group in self.groups for row in group)

    def without_empty(self, blank: str) -> "Table":
        """Return the table without columns whose cells are all empty or `blank`."""
        keep = [i for i in range(len(self.columns)) if any(row[i] not in ("", blank) for row in self.rows)]
        return Table(
            title=self.title,
            columns=tuple(self.columns[i] for i in keep),
            groups=tuple(tuple(tuple(row[i] for i in keep) for row in group) for group in self.groups),
            caption=self.caption,
            notes=self.notes,
        )


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Short named lines. A heading of level 1 starts a new part of the page."""

    title: str
    rows: tuple[tuple[str, str], ...]
    level: int = 2


Block = Table | Facts
Page = Sequence[Block]


# Markdown as GitHub renders it.


def render_markdown(page: Page) -> str:
    """Render headings, lists and pipe tables.

    Columns are padded so that the source reads as a table, too.
    """
    return (
        "\n\n".join(_markdown_facts(block) if isinstance(block, Facts) else _markdown_table(block) for block in page)
        + "\n"
    )


def _markdown_facts(block: Facts) -> str:
    rows = (
        f"- {_escape_markdown(name)}: {_escape_markdown(text)}" if name else f"- {_escape_markdown(text)}"
        for name, text in block.rows
    )
    return "\n\n".join(filter(None, [f"{'#' * block.level} {_escape_markdown(block.title)}", "\n".join(rows)]))


def _markdown_table(block: Table) -> str:
    titles = [_escape_markdown(column.title.replace("\n", " ")) for column in block.columns]
    rows = [[_escape_markdown(cell) for cell in row] for row in block.rows]
    widths = [max(3, *(len(row[i]) for row in [titles, *rows])) for i in range(len(titles))]
    rule = ["-" * (w - 1) + ":" if c.number else "-" * w for c, w in zip(block.columns, widths, strict=True)]

    def line(cells: list[str]) -> str:
        padded = (
            cell.rjust(width) if column.number else cell.ljust(width)
            for cell, width, column in zip(cells, widths, block.columns, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    head = [f"### {_escape_markdown(block.title)}", *filter(None, [_escape_markdown(block.caption)])]
    body = "\n".join([line(titles), line(rule), *map(line, rows)])
    return "\n\n".join([*head, body, *map(_escape_markdown, block.notes)])


def _escape_markdown(text: str) -> str:
    """Escape characters that Markdown would take for markup."""
    return "".join(f"\\{letter}" if letter in "\\|<*`~" else letter for letter in text)


# Text for a terminal, or for a file.

COLUMN_GAP = "  "
"""Space between two columns."""


def render_terminal(page: Page, *, width: int, color: bool = False) -> str:
    """Render text at `width` columns; a wide table of numbers grows and is never cut."""
    console = Console(file=StringIO(), width=width, force_terminal=color, color_system="auto" if color else None)
    blocks = []
    for block in page:
        console.width = width
        blocks.append(_terminal_facts(block, console) if isinstance(block, Facts) else _terminal_table(block, console))
    return "\n".join(line.rstrip() for line in "\n".join(blocks).splitlines()) + "\n"


def _draw(console: Console, *parts: RenderableType) -> str:
    """Text of what rich renders at the console's width."""
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get()


def _terminal_facts(block: Facts, console: Console) -> str:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim", min_width=max((len(name) for name, _ in block.rows), default=0))
    grid.add_column(overflow="fold")
    for name, text in block.rows:
        grid.add_row(Text(_printable(name)), Text(_printable(text)))
    return _draw(console, Text(_printable(block.title), "bold"), grid)


def _terminal_table(block: Table, console: Console) -> str:
    """Draw a table, and widen the console where the table needs more.

    Rich draws the title, the header and the notes. The rows are joined here: rich takes a millisecond for each.
    """
    title = Text.assemble((block.title, "bold"), ("  " + block.caption if block.caption else "", "dim"))
    notes = [Text(note, style="dim") for note in block.notes]
    groups = [[tuple(map(_printable, row)) for row in group] for group in block.groups if group]
    cells = [[column.title, *(row[i] for group in groups for row in group)] for i, column in enumerate(block.columns)]
    least = [_least_width(each, words=column.prose) for each, column in zip(cells, block.columns, strict=True)]
    needed = sum(least) + len(COLUMN_GAP) * (len(least) - 1)
    console.width = max(console.width, needed, *(console.measure(text).minimum for text in (title, *notes)))
    widths = _narrow([_least_width(each, words=False) for each in cells], least, console.width)
    sections = [
        "".join(f"{line}\n" for row in group for line in _row_lines(row, block.columns, widths, console))
        for group in groups
    ]
    return _draw(console, title, _header(block.columns, widths)) + "\n".join(sections) + _draw(console, *notes)


def _header(columns: Sequence[Column], widths: Sequence[int]) -> Grid:
    """Titles of the columns, above a rule."""
    grid = Grid(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        grid.add_column(
            Text(column.title),
            justify="right" if column.number else "left",
            no_wrap=not column.prose,
            overflow="fold",
            width=width,
        )
    return grid


def _row_lines(row: Row, columns: Sequence[Column], widths: Sequence[int], console: Console) -> Iterator[str]:
    """Lines of a row: as many as its longest cell has."""
    cells = [
        _cell_lines(cell, column, width, console) for cell, column, width in zip(row, columns, widths, strict=True)
    ]
    for parts in zip_longest(*cells, fillvalue=""):
        yield COLUMN_GAP.join(map(_padded, parts, columns, widths))


def _cell_lines(cell: str, column: Column, width: int, console: Console) -> list[str]:
    """Lines of a cell: prose wraps at the width of its column."""
    if "\n" not in cell and (not column.prose or _width(cell) <= width):
        return [cell]
    return [line.plain for line in Text(cell).wrap(console, width, overflow="fold", no_wrap=not column.prose)]


def _padded(text: str, column: Column, width: int) -> str:
    """Align a line of a cell."""
    text = text.rstrip()
    blank = " " * (width - _width(text))
    return blank + text if column.number else text + blank


def _narrow(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Narrow the widest columns, as far as they may be, until a row fits the room."""
    spaces = [int(i < len(natural) - 1) for i in range(len(natural))]  # half of a gap belongs to the column before it
    widths = [width + space for width, space in zip(natural, spaces, strict=True)]
    floors = [width + space for width, space in zip(least, spaces, strict=True)]
    room -= len(natural) - 1
    while (excess := sum(widths) - room) > 0 and (loose := [i for i, width in enumerate(widths) if width > floors[i]]):
        widest = max(widths[i] for i in loose)
        shrinking = [i for i in loose if widths[i] == widest]
        stop = max([floors[i] for i in shrinking] + [widths[i] for i in loose if widths[i] < widest])
        for position, i in enumerate(shrinking):
            cut = min(widest - stop, round(excess / (len(shrinking) - position)))
            widths[i] -= cut
            excess -= cut
    return [width - space for width, space in zip(widths, spaces, strict=True)]


def _printable(text: str) -> str:
    """Text with control characters made visible: a file may hold terminal escapes."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _least_width(cells: Iterable[str], *, words: bool) -> int:
    """Width of the longest line, or of the longest word where words may wrap."""
    return max(_width(part) for cell in cells for part in (cell.split() if words else cell.split("\n")) or [""])


def _width(text: str) -> int:
    """Columns of a terminal that a line takes."""
    return len(text) if text.isascii() else cell_len(text)


PIPE_WIDTH = 120
"""Width in columns where no terminal reports one."""


class Format(StrEnum):
    """Output format of a report."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"


def emit(page: Page, data: Any, format: Format, output: Path | None, sources: Iterable[Path]) -> None:  # noqa: A002
    """Write the page, or for JSON the data, to a file or to standard output.

    Raises:
        UserError: the file cannot be written, or is one of the `sources`.
    """
    on_terminal = output is None and sys.stdout.isatty()
    if format is Format.JSON:
        text = json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    elif format is Format.MARKDOWN:
        text = render_markdown(page)
    else:
        width = shutil.get_terminal_size((PIPE_WIDTH, 40)).columns if output is None else PIPE_WIDTH
        text = render_terminal(page, width=width, color=on_terminal)
    if output is None:
        _print(text)
    else:
        refuse_sources(output, sources)
        write_file(output, text)


def announce(text: str, *, only_terminal: bool = False) -> None:
    """Write a line on progress to standard error; with `only_terminal` nothing into a file or pipe."""
    if sys.stderr.isatty() or not only_terminal:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def refuse_sources(output: Path, sources: Iterable[Path]) -> None:
    """Refuse to overwrite a source of the report.

    Raises:
        UserError: `output` is one of the sources.
    """
    if any(output.exists() and output.samefile(source) for source in sources):
        raise UserError(f"{output}: would overwrite a result file that this report reads; give another -o")


def write_file(path: Path, text: str) -> None:
    """Write a file atomically: first beside the target, then in its place.

    Raises:
        UserError: the file cannot be written.
    """
    target = path.resolve()
    if target.is_dir():
        raise UserError(f"{path}: a folder; give -o the name of a file in it")
    if not target.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it, or give another -o")
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    place = beside if target.is_file() or not target.exists() else target  # a device or pipe is written directly
    try:
        with place.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
            stream.flush()
            if place is beside:
                os.fsync(stream.fileno())
        if place is beside:
            beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot write it ({error.strerror}); give another -o") from error


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, errors="replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # `| head` has closed the pipe; typer exits quietly
    except OSError as error:
        # The rest of the buffer would fail again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UserError(f"standard output: cannot write it ({error.strerror}); give -o FILE elsewhere") from error

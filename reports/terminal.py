"""Draws a page for a terminal, or for a file that is read like one."""

from collections.abc import Iterable
from io import StringIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from reports.page import Facts, Page, Table

WIDEST = 10_000
"""Columns that no table needs: rich measures within a width."""


def draw(page: Page, *, width: int, color: bool = False) -> str:
    """Text of at least `width` columns: a table of numbers is never cut, it rather grows."""
    console = Console(file=StringIO(), width=width, force_terminal=color, color_system="auto" if color else None)
    with console.capture() as capture:
        for position, block in enumerate(page):
            if position:
                console.print()
            console.width = width
            drawn = _facts(block) if isinstance(block, Facts) else _table(block)
            if isinstance(block, Table):
                console.width = max(width, console.measure(drawn, options=console.options.update(width=WIDEST)).minimum)
            console.print(drawn)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _facts(block: Facts) -> RenderableType:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim", min_width=max((len(name) for name, _ in block.rows), default=0))
    grid.add_column(overflow="fold")
    for name, text in block.rows:
        grid.add_row(_plain(name), _plain(text))
    return Group(_plain(block.title, "bold"), grid)


def _table(block: Table) -> RenderableType:
    grid = Grid(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for position, column in enumerate(block.columns):
        cells = [row[position] for row in block.rows]
        grid.add_column(
            Text(column.title),
            justify="right" if column.number else "left",
            no_wrap=not column.prose,
            overflow="fold",
            min_width=_least_width([column.title, *cells], words=column.prose),
        )
    for group in block.groups:
        for row in group:
            grid.add_row(*map(_plain, row))
        grid.add_section()
    title = Text.assemble((block.title, "bold"), ("  " + block.caption if block.caption else "", "dim"))
    return Group(title, grid, *(Text(note, style="dim") for note in block.notes))


def _plain(text: str, style: str = "") -> Text:
    """Text from a file, with what would steer a terminal made visible."""
    return Text(
        "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text),
        style,
    )


def _least_width(cells: Iterable[str], *, words: bool) -> int:
    """Columns that the longest line needs, or the longest word where words may wrap."""
    return max(len(part) for cell in cells for part in (cell.split() if words else cell.split("\n")) or [""])

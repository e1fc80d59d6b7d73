"""Draws a page as GitHub's Markdown."""

from reports.page import Facts, Page, Table


def draw(page: Page) -> str:
    """Headings, lists and pipe tables, their columns padded so that the source reads as a table too."""
    return "\n\n".join(_facts(block) if isinstance(block, Facts) else _table(block) for block in page) + "\n"


def _facts(block: Facts) -> str:
    rows = (f"- {_safe(name)}: {_safe(text)}" if name else f"- {_safe(text)}" for name, text in block.rows)
    return "\n\n".join(filter(None, [f"{'#' * block.level} {_safe(block.title)}", "\n".join(rows)]))


def _table(block: Table) -> str:
    titles = [_safe(column.title.replace("\n", " ")) for column in block.columns]
    rows = [[_safe(cell) for cell in row] for row in block.rows]
    widths = [max(3, *(len(row[i]) for row in [titles, *rows])) for i in range(len(titles))]
    rule = ["-" * (w - 1) + ":" if c.number else "-" * w for c, w in zip(block.columns, widths, strict=True)]

    def line(cells: list[str]) -> str:
        padded = (
            cell.rjust(width) if column.number else cell.ljust(width)
            for cell, width, column in zip(cells, widths, block.columns, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    head = [f"### {_safe(block.title)}", *filter(None, [_safe(block.caption)])]
    body = "\n".join([line(titles), line(rule), *map(line, rows)])
    return "\n\n".join([*head, body, *map(_safe, block.notes)])


def _safe(text: str) -> str:
    """The text with what Markdown would take for markup made literal."""
    return "".join(f"\\{letter}" if letter in "\\|<*`~" else letter for letter in text)

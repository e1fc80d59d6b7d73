"""What a report says, apart from how it is drawn: blocks of facts and of tables."""

from collections.abc import Sequence
from dataclasses import dataclass

Row = tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A heading; numbers stand to the right, text to the left, and only prose may wrap."""

    title: str
    number: bool = True
    prose: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows in groups under one title; the caption says what all rows share, the notes what to mind."""

    title: str
    columns: tuple[Column, ...]
    groups: tuple[tuple[Row, ...], ...]
    caption: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        odd = next((row for row in self.rows if len(row) != len(self.columns)), None)
        if odd:
            raise ValueError(f"{self.title}: {len(odd)} cells in a table of {len(self.columns)} columns: {odd}")

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, group after group."""
        return tuple(row for group in self.groups for row in group)

    def without_empty(self, blank: str) -> "Table":
        """The same less the columns in which every cell is empty or `blank`."""
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
    """Short lines, each with a name; a heading of level 1 starts a new part of the page."""

    title: str
    rows: tuple[tuple[str, str], ...]
    level: int = 2


Block = Table | Facts
Page = Sequence[Block]

"""An SQLite file that `nsys export` wrote: its tables are made lazily, and their columns differ between versions."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from specs.errors import UserError

MAGIC = b"SQLite format 3\0"
EXPORT = "`nsys export --type sqlite -o trace.sqlite trace.nsys-rep`"
TEXTS = ("name", "text", "value")
"""Columns that hold text; SQLite itself would take it in any."""
REPORTS = (".nsys-rep", ".qdrep", ".qdstrm")


class Database:
    """Read only.

    Raises:
        UserError: it is none, or cut short.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _check(path)
        try:
            self._open = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            self._open.text_factory = _text  # one odd letter in a name must not cost the trace
            self._tables = {name for (name,) in self._open.execute("SELECT name FROM sqlite_master")}
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def has(self, *tables: str) -> bool:
        """Whether all of these are there."""
        return self._tables.issuperset(tables)

    def count(self, table: str) -> int:
        """Rows of a table; none where it is not there.

        Raises:
            UserError: the file is damaged.
        """
        if table not in self._tables:
            return 0
        try:
            return int(self._open.execute(f'SELECT COUNT(*) FROM "{table}"').fetchone()[0])  # noqa: S608 - as below
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def rows(
        self, table: str, needed: Sequence[str], others: Sequence[str] = (), where: str = "TRUE"
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of a table, as they stand in it: the columns `needed`, then `others`, None where there is none such.

        A table that is not there has no rows. `where` is SQL over needed columns.

        Raises:
            UserError: a needed column is missing, or the file is damaged.
        """
        if table not in self._tables:
            return
        try:
            there = {name for _, name, *_ in self._open.execute(f'PRAGMA table_info("{table}")')}
            if lacking := next((name for name in needed if name not in there), None):
                raise UserError(
                    f"{self._path}: {table} has no column {lacking}, which every documented export has; "
                    f"export it again with a newer Nsight Systems: {EXPORT}"
                )
            columns = [f'"{name}"' for name in needed] + [f'"{name}"' if name in there else "NULL" for name in others]
            query = f'SELECT {", ".join(columns)} FROM "{table}" WHERE {where}'  # noqa: S608 - names are this package's own
            numbers = [index for index, name in enumerate((*needed, *others)) if name not in TEXTS]
            texts = [index for index, name in enumerate((*needed, *others)) if name in TEXTS]
            for row in self._open.execute(query):
                odd = next((row[index] for index in numbers if isinstance(row[index], str | bytes)), None)
                if odd is not None:
                    raise UserError(
                        f"{self._path}: {table} holds {str(odd)[:40]!r} for a number; export it again: {EXPORT}"
                    )
                if any(isinstance(row[index], bytes) for index in texts):
                    row = tuple(_text(one) if isinstance(one, bytes) else one for one in row)
                yield row
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def _damaged(self, error: sqlite3.Error) -> UserError:
        return UserError(f"{self._path}: cut short or damaged ({error}); export it again: {EXPORT}")


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _check(path: Path) -> None:
    """Whether it is an SQLite file of its full length."""
    if path.suffix in REPORTS:
        raise UserError(f"{path}: a report of Nsight Systems; export it first: {EXPORT}")
    try:
        with path.open("rb") as stream:
            head = stream.read(100)
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}); give what this wrote: {EXPORT}") from error
    if not head:
        raise UserError(f"{path}: empty; give what this wrote: {EXPORT}")
    if not head.startswith(MAGIC):
        raise UserError(f"{path}: no SQLite file; give what this wrote: {EXPORT}")
    pages = int.from_bytes(head[28:32], "big")
    page_bytes = int.from_bytes(head[16:18], "big")
    whole = pages * (65536 if page_bytes == 1 else page_bytes)
    if len(head) < 100 or size < whole:
        raise UserError(f"{path}: cut short after {size} of {whole} bytes; export it again: {EXPORT}")

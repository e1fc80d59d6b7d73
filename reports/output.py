"""Where a report goes: standard output or a file, in one of three formats."""

import json
import os
import shutil
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

from reports import markdown, terminal
from reports.page import Page
from specs.errors import UserError

PIPE_WIDTH = 120
"""Columns where no terminal says how many it has."""


class Format(StrEnum):
    """How a report is written."""

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
        text = markdown.draw(page)
    else:
        width = shutil.get_terminal_size((PIPE_WIDTH, 40)).columns if output is None else PIPE_WIDTH
        text = terminal.draw(page, width=width, color=on_terminal)
    if output is None:
        _print(text)
    else:
        refuse_sources(output, sources)
        write(output, text)


def refuse_sources(output: Path, sources: Iterable[Path]) -> None:
    """Keep what a report reads.

    Raises:
        UserError: the report would be written over one of its sources.
    """
    if any(output.exists() and output.samefile(source) for source in sources):
        raise UserError(f"{output}: would overwrite a result file that this report reads; give another -o")


def write(path: Path, text: str) -> None:
    """Write a whole file or leave the old one: first beside it, then in its place.

    Raises:
        UserError: it cannot be written there.
    """
    target = path.resolve()
    if target.is_dir():
        raise UserError(f"{path}: a folder; give -o the name of a file in it")
    if not target.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it, or give another -o")
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    place = beside if target.is_file() or not target.exists() else target  # a device or pipe has no beside
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
        raise  # `| head` has seen enough; typer ends quietly
    except OSError as error:
        # What is left in the buffer would fail once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UserError(f"standard output: cannot write it ({error.strerror}); give -o FILE elsewhere") from error

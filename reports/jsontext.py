"""Reads a JSON file, and says in one line why it cannot be read."""

import json
from pathlib import Path
from typing import Any, NoReturn

from specs.errors import UserError

MOST_BYTES = 64 * 2**20
"""A larger file is no result file, and would take minutes and gigabytes to find that out."""


def read(path: Path) -> Any:
    """Parse a result file's text.

    Raises:
        UserError: not there, a folder, unreadable, empty, cut short, or not JSON.
    """
    if path.suffix == ".jsonl":
        raise UserError(f"{path}: a journal, not a result file; {_recover(path)}")
    text = _text(path)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        if _cut_short(text, error):
            size = path.stat().st_size
            raise UserError(f"{path}: cut short after {size} bytes; {_rescue(path)}") from error
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise UserError(f"{path}: not JSON ({where}); give a file that --benchmark-json wrote") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); {_rescue(path)}") from error


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(
                f"{path}: {size / 2**20:.0f} MiB, of {MOST_BYTES // 2**20} that are read: 10,000 cases take 14; give a "
                "result file, or import fewer models and formats into one"
            )
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {_rescue(path)}") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: a folder; give the result files in it, as in {path}/*.json") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); give a file that --benchmark-json wrote") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read it ({error}); check the path and its permissions") from error
    if not text.strip():
        raise UserError(f"{path}: empty; {_rescue(path)}")
    return text


def _cut_short(text: str, error: json.JSONDecodeError) -> bool:
    """Whether the text starts as an object and ends before it closes."""
    whole = text.strip()
    return whole.startswith("{") and (not whole.endswith("}") or error.pos >= len(text.rstrip()))


def _refuse_constant(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is no JSON number")


def _rescue(path: Path) -> str:
    journal = path.with_name(f"{path.name}.journal.jsonl")
    return _recover(journal) if path.name and journal.is_file() else "give a file that --benchmark-json wrote"


def _recover(journal: Path) -> str:
    target = journal.with_name(journal.name.partition(".journal")[0].removesuffix(".jsonl"))
    return f"use `python -m reports recover {journal} -o {target}`"

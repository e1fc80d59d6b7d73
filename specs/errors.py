"""The exception for mistakes of the user, and look-up of a row by its name."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar


class UserError(Exception):
    """A mistake in the user's input, in one line: value, limit and remedy."""


Row = TypeVar("Row")


def find(rows: Mapping[str, Row], name: str, noun: str) -> Row:
    """Return the row called `name`.

    Args:
        rows: all rows by name.
        name: the name that the user typed.
        noun: kind of row, for the message: model, GPU, layer.

    Raises:
        UserError: there is no such row; the message gives the nearest name and all names.
    """
    if name in rows:
        return rows[name]
    near = get_close_matches(name, rows, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"unknown {noun} {name!r}; {hint}known: {', '.join(rows)}")

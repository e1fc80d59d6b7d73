"""The one exception that a user is meant to read."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar


class UserError(Exception):
    """A mistake in what was asked for: one line that gives the value, the limit and what to do."""


# Finding a row by the name that a user typed.

Row = TypeVar("Row")


def find(rows: Mapping[str, Row], name: str, noun: str) -> Row:
    """The row called `name`.

    Args:
        rows: all rows by name.
        name: what was typed.
        noun: what a row is, for the message: model, GPU, layer.

    Raises:
        UserError: there is no such row; the message gives the nearest name and all of them.
    """
    if name in rows:
        return rows[name]
    near = get_close_matches(name, rows, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"unknown {noun} {name!r}; {hint}known: {', '.join(rows)}")

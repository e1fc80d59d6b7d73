"""Exceptions for mistakes of the user and for closed gates, and look-up of a row by its name."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TypeVar


class UserError(Exception):
    """A mistake in the user's input, in one line: value, limit and remedy."""


class GateError(Exception):
    """Failed gate, with a line for each unexpected result; the command exits with status 1."""


Row = TypeVar("Row")


def find(rows: Mapping[str, Row], name: str, noun: str, *, distinct: Callable[[str], object] = lambda _: None) -> Row:
    """Return the row called `name`.

    Args:
        rows: all rows by name.
        name: the name that the user typed.
        noun: kind of row, for the message: model, GPU, layer.
        distinct: the part of a name that tells rows apart; a name that differs in it is never suggested.

    Raises:
        UserError: there is no such row; the message gives the nearest name and all names.
    """
    if name in rows:
        return rows[name]
    alike = [row for row in rows if distinct(row) == distinct(name)]
    near = get_close_matches(name.lower(), alike, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"unknown {noun} {name!r}; {hint}known: {', '.join(rows)}")

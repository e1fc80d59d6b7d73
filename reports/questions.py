"""Which table a case belongs to, and the order of the tables on a page."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from specs import layer
from specs.measurement import Case

ORDER = ("decode", "prefill", "attention", "sweep", "layer", layer.QUESTION, "ceilings")
TITLES = {layer.QUESTION: "shares of a rank: a layer, and norm with LM head and sampling"}
"""Of tables whose question is no title."""

T = TypeVar("T")


def by_question(items: Iterable[T], case_of: Callable[[T], Case]) -> list[tuple[str, list[T]]]:
    """The members of each table under its question: those of `ORDER` first, then the others as they come.

    Launches make a table of their own: no unit of time fits them and the others.
    """
    tables: dict[tuple[str, bool], list[T]] = {}
    for item in items:
        case = case_of(item)
        tables.setdefault((case.question, is_launch(case)), []).append(item)
    return [(question, tables[question, launch]) for question, launch in sorted(tables, key=_place)]


def title(question: str) -> str:
    """What stands above a table."""
    return TITLES.get(question, question)


def is_share(case: Case) -> bool:
    """Whether it is run with one rank's part of the cores: a file's ceilings are the whole machine's."""
    return case.question == layer.QUESTION


def is_launch(case: Case) -> bool:
    """Whether the case is there for the latency of a call: the few bytes that it moves say nothing."""
    return case.op == "launch"


def _place(table: tuple[str, bool]) -> tuple[int, bool]:
    question, launch = table
    return ORDER.index(question) if question in ORDER else len(ORDER), launch

"""Our ranges and marks in a trace: which range of which case a moment on a thread lies in."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

from reports.profiles.database import Database
from specs.errors import UserError
from specs.journal import CALLS, DOMAIN, TIMED, WARM_UP

MARK, CATEGORY, PUSH_POP, DOMAIN_CREATED = 34, 33, 59, 75
"""`eventType`s of nsys."""
NEEDED = ("start", "eventType", "globalTid")
OTHERS = ("end", "category", "text", "textId", "domainId", "int64Value", "doubleValue")
NODE_ID = ".py::"


@dataclass(eq=False)
class Range:
    """A push/pop range; `above` is the one around it, `whole` says whether the trace saw its end."""

    name: str
    category: str
    thread: int
    start: int
    end: int
    whole: bool = True
    above: "Range | None" = None

    @property
    def path(self) -> list["Range"]:
        """From the outermost to this one."""
        return [*(self.above.path if self.above else ()), self]


class Mark(NamedTuple):
    """A moment that carries a figure, finite or not."""

    name: str
    thread: int
    at: int
    value: float

    @property
    def usable(self) -> bool:
        """Whether so many calls, or so many seconds, can be."""
        return isfinite(self.value) and self.value >= (1 if self.name == CALLS else 0)


@dataclass
class Thread:
    """The ranges of a thread by start; each lies within the one around it."""

    ranges: list[Range] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def innermost(self, at: int) -> Range | None:
        """The range that a moment lies in."""
        index = bisect_right(self.starts, at) - 1
        found = self.ranges[index] if index >= 0 else None
        while found and found.end < at:
            found = found.above
        return found


class Row(NamedTuple):
    """A row of NVTX_EVENTS with its text."""

    start: int
    kind: int
    thread: int
    end: int | None
    category: int | None
    text: str
    domain: int | None
    whole: int | None
    real: float | None

    @property
    def place(self) -> tuple[int, int | None]:
        """Its process and domain: each process numbers its own."""
        return process(self.thread), self.domain


def process(global_id: int) -> int:
    """What the ids of a process and of its threads have in common: all but the thread's lowest 24 bits."""
    return global_id >> 24


def read(database: Database, strings: Mapping[int, str]) -> tuple[dict[int, Thread], list[Mark]]:
    """Our ranges by thread, and our marks.

    Raises:
        UserError: there are no ranges, or none of ours.
    """
    rows = [_row(one, strings) for one in database.rows("NVTX_EVENTS", NEEDED, OTHERS) if None not in one[:3]]
    pushed = [one for one in rows if one.kind == PUSH_POP]
    if not pushed:
        raise UserError("no NVTX ranges in it; trace with `nsys profile --trace=cuda,nvtx`")
    ours = _our_domains(rows)
    named = {(*one.place, one.category): one.text for one in rows if one.kind == CATEGORY}
    last = max(max(one.start, one.end or 0) for one in rows)
    threads: dict[int, Thread] = {}
    for one in sorted(pushed, key=lambda one: (one.start, -(one.end or last))):
        if one.place in ours:
            category, end = named.get((*one.place, one.category), ""), last if one.end is None else one.end
            found = Range(one.text, category, one.thread, one.start, end, whole=one.end is not None)
            _put(threads.setdefault(one.thread, Thread()), found)
    if not threads:
        raise UserError(f"{len(pushed)} NVTX ranges, none of the domain {DOMAIN}; trace a run of `pytest suites/`")
    return threads, list(_marks(one for one in rows if one.kind == MARK and one.place in ours))


def _row(values: tuple[Any, ...], strings: Mapping[int, str]) -> Row:
    start, kind, thread, end, category, text, text_id, domain, whole, real = values
    return Row(start, kind, thread, end, category, text or strings.get(text_id, ""), domain, whole, real)


def _our_domains(rows: Iterable[Row]) -> set[tuple[int, int | None]]:
    """Process and domain of what is ours.

    A trace that began in the middle of a run may lack the row that names the domain: then its ranges tell.
    """
    created = [one for one in rows if one.kind == DOMAIN_CREATED]
    if named := {one.place for one in created if one.text == DOMAIN}:
        return named
    others = {one.place for one in created}
    found: dict[tuple[int, int | None], set[str]] = {}
    for one in rows:
        if one.kind == PUSH_POP and one.place not in others:
            found.setdefault(one.place, set()).add(one.text)
    return {
        place for place, names in found.items() if names & {TIMED, WARM_UP} and any(NODE_ID in name for name in names)
    }


def _put(thread: Thread, one: Range) -> None:
    above = thread.ranges[-1] if thread.ranges else None
    while above and above.end <= one.start:
        above = above.above
    one.above = above
    thread.ranges.append(one)
    thread.starts.append(one.start)


def _marks(rows: Iterable[Row]) -> Iterator[Mark]:
    """A payload is in the column of its type; old exports write 0 into the others."""
    for one in rows:
        if value := one.real or one.whole:
            yield Mark(one.text, one.thread, one.start, float(value))

"""Which of the kernels that were launched in `timed` belong to its calls, and which ranks launch in between.

Newer suites open a range of their own in between, which tells it. For the others: beside a graph's launches what is in
no graph is left out, and of the rest what the checked call does not launch, unless it ran as often as the calls did:
libraries may choose another kernel the second time, or one more.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from reports.profiles.activity import Activity
from reports.profiles.visit import Visit

NAMED = 3
"""Kernels that a note names."""
FOREIGN = "left out of `timed`, as values filled in and barriers are no call: {}, {:.4g} us a call in all"
OTHERS = "counted, though the checked call does not launch it: {}, which ran as often as the calls did"
UNLIKE = "`timed` holds none of the kernels of the checked call: all of it is counted"


class Belonging(NamedTuple):
    """Activities of a visit's calls, and those that are none of theirs."""

    ran: list[Activity]
    left: list[Activity]


def of_calls(visit: Visit, called: Sequence[Activity] | None, notes: list[str]) -> Belonging:
    """What calls launched, by the checked call where there is one; notes say what of it is odd."""
    graphs = any(one.in_graph for one in visit.timed)
    candidates = [one for one in visit.timed if one.in_graph] if graphs else visit.timed
    whole = any(one.kind == "graph" for one in candidates)
    names = {one.name for one in called or ()}
    counts = Counter(one.name for one in candidates)
    others = {name for name in counts if name not in names} if called and not whole else set()
    regular = {name for name in others if visit.calls and counts[name] % visit.calls == 0}
    if others == set(counts):
        notes.append(UNLIKE)
        regular = others
    elif regular:
        notes.append(OTHERS.format(_named(regular)))
    ours = [one for one in candidates if one.name not in others or one.name in regular]
    kept = set(map(id, ours))
    return Belonging(ours, [one for one in visit.timed if id(one) not in kept])


def said(left: Sequence[Activity], a_call: float) -> str:
    """The note on what is left out, `a_call` nanoseconds of it."""
    return FOREIGN.format(_named({one.name for one in left}), a_call / 1e3)


def _named(names: set[str]) -> str:
    first = sorted(names)[:NAMED]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")

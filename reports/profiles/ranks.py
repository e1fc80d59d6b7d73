"""Which visits ranks make together, and which one process makes after another."""

from collections.abc import Sequence

from reports.profiles.visit import Visit
from reports.units import counted

RANKS = "several processes ran it: a sample is the slowest one's, as in the suites"
IN_TURN = "several processes ran it one after another: each is a visit of its own"
LACKING = "{} that not all of {} processes have: left out"


def together(timed: Sequence[Visit], notes: list[str]) -> list[list[Visit]]:
    """The visits that ranks make together, by start: those of several processes that overlap in time."""
    groups: list[list[Visit]] = []
    for visit in sorted(timed, key=lambda one: one.start):
        open_to_it = (group for group in groups if _joins(visit, group))
        if (group := next(open_to_it, None)) is None:
            groups.append([visit])
        else:
            group.append(visit)
    most = max(map(len, groups))
    if most == 1:
        notes += [IN_TURN] if len({one.process for one in timed}) > 1 else []
        return groups
    notes.append(RANKS)
    if lacking := sum(len(group) < most for group in groups):
        notes.append(LACKING.format(counted(lacking, "visit"), most))
    return [group for group in groups if len(group) == most]


def _joins(visit: Visit, group: Sequence[Visit]) -> bool:
    return all(one.process != visit.process for one in group) and any(visit.start <= one.end for one in group)

"""Device time per call of cases and layer parts, beside the suites' clock."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from statistics import median
from typing import NamedTuple

from reports.formatting import pluralize
from reports.importers.profiler.profile import Activity, Profile, Visit, busy_time, span_time, summed_time

# Kernels in `timed` that belong to its calls, and kernels that ranks launch in between.
#
# Newer suites mark launches in between with a range of their own. For older suites, kernels outside of graphs are left
# out beside a graph's launches. So are kernels that the checked call does not launch, unless they ran as often as the
# calls did: a library may choose another kernel the second time, or launch one more.

MAX_NAMED = 3
"""Maximum number of kernels that a note names."""
LEFT_OUT_NOTE = "left out of `timed`, as values filled in and barriers are no call: {}, {:.4g} us a call in all"
COUNTED_NOTE = "counted, though the checked call does not launch it: {}, which ran as often as the calls did"
NO_MATCH_NOTE = "`timed` holds none of the kernels of the checked call: all of it is counted"


class CallActivities(NamedTuple):
    """Activities of a visit's calls, and activities in between."""

    ran: list[Activity]
    left: list[Activity]


def select_call_activities(visit: Visit, called: Sequence[Activity] | None, notes: list[str]) -> CallActivities:
    """Select the activities of the calls, by the checked call where there is one.

    `notes` receives the oddities.
    """
    graphs = any(one.in_graph for one in visit.timed)
    candidates = [one for one in visit.timed if one.in_graph] if graphs else visit.timed
    whole = any(one.kind == "graph" for one in candidates)
    names = {one.name for one in called or ()}
    counts = Counter(one.name for one in candidates)
    others = {name for name in counts if name not in names} if called and not whole else set()
    regular = {name for name in others if visit.calls and counts[name] % visit.calls == 0}
    if others == set(counts):
        notes.append(NO_MATCH_NOTE)
        regular = others
    elif regular:
        notes.append(COUNTED_NOTE.format(_join_names(regular)))
    ours = [one for one in candidates if one.name not in others or one.name in regular]
    kept = set(map(id, ours))
    return CallActivities(ours, [one for one in visit.timed if id(one) not in kept])


def left_out_note(left: Sequence[Activity], a_call: float) -> str:
    """Note on activities that are left out; `a_call`: their nanoseconds per call."""
    return LEFT_OUT_NOTE.format(_join_names({one.name for one in left}), a_call / 1e3)


def _join_names(names: set[str]) -> str:
    first = sorted(names)[:MAX_NAMED]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")


# Device time of a layer's parts.
#
# One call shows the parts by name. Every other call launches the same kernels in the same order, graph or not. The n-th
# kernel of each call therefore belongs to the part of the shown call's n-th kernel.

CountedVisits = Sequence[tuple[Visit, list[Activity], int]]
"""Visits, the activities of their calls, and the number of these calls."""
MIXED_PARTS_NOTE = (
    "kernels of one name from different parts ran at once, on different streams: which is whose cannot be told, and "
    "their parts may be swapped"
)
ONE_CALL_NOTE = "kernels of the timed calls do not follow in the order of the shown call: parts are of that call alone"


@dataclass(frozen=True)
class PartTimes:
    """Device time of a layer's part.

    Attributes:
        name: as in `specs.layer.LAYER_PARTS`.
        seconds: seconds per layer in each visit, all calls of the part together.
        per_layer: calls per layer.
        kernels: kernels per layer.
        kernel: name of the longest kernel.
        share: share of the device time of all parts.
        read_bytes: bytes read from DRAM per layer, where counted.
    """

    name: str
    seconds: Sequence[float]
    per_layer: int
    kernels: int
    kernel: str
    share: float
    read_bytes: float | None = None

    @property
    def busy(self) -> float:
        """Seconds per layer: the median over visits."""
        return median(self.seconds)


def part_times(visits: Sequence[Visit], kept: CountedVisits, notes: list[str]) -> list[PartTimes]:
    """Times of a layer's parts, in layer order; empty where the case shows no part.

    `notes` says where the times rest on the shown call alone.
    """
    shown = next((one.parts for one in visits if one.parts), None)
    if not shown:
        return []
    places = [name for name, activities in shown for _ in activities]
    order = [one.name for _, activities in shown for one in activities]
    times: dict[str, list[float]] = {name: [] for name, _ in shown}
    for _, ran, calls in kept:
        if _follows_order(order, ran):
            placed = [*zip(_launch_order(ran), places * (len(ran) // len(places)), strict=True)]
            notes += [MIXED_PARTS_NOTE] if _has_mixed_parts(placed) else []
            for name in times:
                times[name].append(busy_time(one for one, place in placed if place == name) * 1e-9 / calls)
    if not any(times.values()):
        if not any(one.kind == "graph" for _, ran, _ in kept for one in ran):
            notes.append(ONE_CALL_NOTE)
        for name in times:
            times[name].append(
                busy_time(one for named, activities in shown if named == name for one in activities) * 1e-9
            )
    per_layer = Counter(name for name, _ in shown)
    total = sum(median(seconds) for seconds in times.values())
    return [_part(name, shown, seconds, per_layer[name], total) for name, seconds in times.items()]


def _part(
    name: str, shown: Sequence[tuple[str, list[Activity]]], seconds: Sequence[float], per_layer: int, total: float
) -> PartTimes:
    own = [one for named, activities in shown if named == name for one in activities]
    read = [one.read_bytes for one in own if one.read_bytes is not None]
    return PartTimes(
        name=name,
        seconds=seconds,
        per_layer=per_layer,
        kernels=sum(one.kind == "kernel" for one in own),
        kernel=max(own, key=lambda one: one.end - one.start).name,
        share=median(seconds) / total if total else 0.0,
        read_bytes=sum(read) if read else None,
    )


def _launch_order(ran: Sequence[Activity]) -> list[Activity]:
    """Sort by launch, then by start: one launch starts all kernels of a graph."""
    return sorted(ran, key=lambda one: (one.launched, one.start))


def _has_mixed_parts(placed: Sequence[tuple[Activity, str]]) -> bool:
    """True where same-named kernels of different parts overlap in a graph.

    Only their order tells these kernels apart, and in a graph that is the order of their starts.
    """
    before: dict[str, tuple[Activity, str]] = {}
    for one, place in placed:
        last, place_of_last = before.get(one.name, (one, place))
        if one.in_graph and place != place_of_last and one.stream != last.stream and one.start < last.end:
            return True
        before[one.name] = one, place
    return False


def _follows_order(order: Sequence[str], ran: Sequence[Activity]) -> bool:
    """True where calls repeat the kernels of the shown call, in its order."""
    if not order or len(ran) % len(order):
        return False
    return [one.name for one in _launch_order(ran)] == list(order) * (len(ran) // len(order))


# Visits that ranks make together, and visits of one process after another.

RANKS_NOTE = "several processes ran it: a sample is the slowest one's, as in the suites"
IN_TURN_NOTE = "several processes ran it one after another: each is a visit of its own"
MISSING_RANKS_NOTE = "{} that not all of {} processes have: left out"


def combine_ranks(timed: Sequence[Visit], notes: list[str]) -> list[list[Visit]]:
    """Group the visits of several processes that overlap in time, by start."""
    groups: list[list[Visit]] = []
    for visit in sorted(timed, key=lambda one: one.start):
        open_to_it = (group for group in groups if _overlaps(visit, group))
        if (group := next(open_to_it, None)) is None:
            groups.append([visit])
        else:
            group.append(visit)
    most = max(map(len, groups))
    if most == 1:
        notes += [IN_TURN_NOTE] if len({one.process for one in timed}) > 1 else []
        return groups
    notes.append(RANKS_NOTE)
    if lacking := sum(len(group) < most for group in groups):
        notes.append(MISSING_RANKS_NOTE.format(pluralize(lacking, "visit"), most))
    return [group for group in groups if len(group) == most]


def _overlaps(visit: Visit, group: Sequence[Visit]) -> bool:
    return all(one.process != visit.process for one in group) and any(visit.start <= one.end for one in group)


WHOLE_GRAPHS_NOTE = (
    "graphs were traced as a whole: their device time holds the gaps between kernels, and parts are of the one call "
    "that was shown; `--cuda-graph-trace=node` shows the kernels"
)
GUESSED_CALLS_NOTE = "the trace does not say how many calls it holds: taken from the kernels of the checked call"
DIVISOR_NOTE = (
    "neither a mark nor a checked call says how many calls it holds: taken to be the greatest common divisor of how "
    "often each kernel ran, which is wrong by a factor where every kernel runs more than once a call"
)
MISCOUNT_NOTE = (
    "{} kernels and copies in {} calls, where the checked call launches {}: times are over the calls that the mark "
    "tells, too short where nsys lost events, too long where a barrier between calls runs the same kernel"
)


@dataclass(frozen=True)
class VisitSample:
    """Times of one visit, in seconds per call."""

    calls: int
    busy: float
    span: float
    summed: float
    clock: float | None


@dataclass(frozen=True)
class CaseTimes:
    """Device times of a case.

    Attributes:
        samples: one for each visit; with several processes, the slowest process's.
        kernels: names of all kernels of the calls, the longest first.
        kernels_per_call: None where graphs hide the kernels.
        streams: number of streams that ran anything, of the process with the most.
        launch: graph or eager.
        parts: parts of a layer.
        read_bytes: bytes read from DRAM per call, where counted.
        notes: caveats.
        complete: True where these times hold all activities of `timed`, as far as the trace tells.
        spanned: False where a profiler runs each kernel by itself, so that the span means nothing.
    """

    case: str
    question: str
    samples: Sequence[VisitSample]
    kernels: Sequence[str]
    kernels_per_call: float | None
    streams: int
    launch: str
    parts: Sequence[PartTimes]
    read_bytes: float | None
    notes: Sequence[str]
    complete: bool = True
    spanned: bool = True

    @cached_property
    def busy(self) -> float:
        """Seconds per call in which the device ran anything: the median over visits."""
        return median(one.busy for one in self.samples)

    @cached_property
    def span(self) -> float:
        """Seconds per call from the first start to the last end, median over visits."""
        return median(one.span for one in self.samples)

    @cached_property
    def summed(self) -> float:
        """Seconds per call of all kernels one after another, median over visits."""
        return median(one.summed for one in self.samples)

    @cached_property
    def clock(self) -> float | None:
        """Seconds per call by the suites' clock, median over visits; None if unknown."""
        return median(found) if (found := [one.clock for one in self.samples if one.clock]) else None

    @property
    def calls(self) -> int:
        """Number of calls in all visits."""
        return sum(one.calls for one in self.samples)


def collect_times(profile: Profile) -> tuple[list[CaseTimes], dict[str, str]]:
    """Return the cases with device time, and for all others the reason by name."""
    by_case: dict[str, list[Visit]] = {}
    for visit in profile.visits:
        by_case.setdefault(visit.case, []).append(visit)
    found, without = [], {}
    for case, visits in by_case.items():
        told = _times(case, visits)
        if isinstance(told, str):
            without[case] = told
        else:
            found.append(told)
    return found, without


def _times(case: str, visits: Sequence[Visit]) -> CaseTimes | str:
    """Times of a case, or the reason for their absence."""
    timed = [one for one in visits if one.timed]
    if not timed:
        return "no kernel was launched in `timed`"
    notes: list[str] = []
    called = next((one.call for one in visits if one.call), None)
    kept: list[tuple[Visit, list[Activity], int]] = []
    left: list[list[Activity]] = []
    together = combine_ranks(timed, notes)
    for visit in (one for of_ranks in together for one in of_ranks):
        ran, beside = select_call_activities(visit, called, notes)
        calls = _calls(visit, ran, called, notes)
        if calls is None:
            return "graphs were traced as a whole, and no mark says how many calls they hold: `--cuda-graph-trace=node`"
        kept.append((visit, ran, calls))
        left.append(beside)
    ran = [one for _, activities, _ in kept for one in activities]
    whole = any(one.kind == "graph" for one in ran)
    notes += [WHOLE_GRAPHS_NOTE] if whole else []
    total = sum(calls for *_, calls in kept)
    kernels = _longest_first(ran)
    launched = sum(one.kind == "kernel" for one in ran)
    a_call = None if whole else launched // total if launched % total == 0 else launched / total
    if whole and called:
        a_call, kernels = sum(one.kind == "kernel" for one in called), _longest_first(called)
    read = [one.read_bytes for one in ran if one.read_bytes is not None]
    each = iter(_sample(ran, calls, visit.clock_seconds) for visit, ran, calls in kept)
    samples = [max((next(each) for _ in of_ranks), key=lambda one: one.busy) for of_ranks in together]
    if not all(one.busy > 0 for one in samples):
        return "its kernels start and end at the same moment"
    left_out = sum(busy_time(beside) for beside in left) / total
    if left_out:
        notes.append(left_out_note([one for beside in left for one in beside], left_out))
    streams: dict[int, set[tuple[int, int]]] = {}
    for visit, activities, _ in kept:
        streams.setdefault(visit.process, set()).update(one.stream for one in activities)
    return CaseTimes(
        case=case,
        question=visits[0].question,
        samples=samples,
        kernels=kernels,
        kernels_per_call=a_call,
        streams=max(map(len, streams.values())),
        launch="graph" if any(one.in_graph for one in ran) else "eager",
        parts=part_times(visits, kept, notes),
        read_bytes=sum(read) / total if read else None,
        notes=list(dict.fromkeys(notes)),
        complete=not left_out
        and not any(_miscount_note(calls, activities, called or ()) for _, activities, calls in kept if not whole),
    )


def _sample(ran: Sequence[Activity], calls: int, clock: float | None) -> VisitSample:
    a_call = 1e-9 / calls
    return VisitSample(calls, busy_time(ran) * a_call, span_time(ran) * a_call, summed_time(ran) * a_call, clock)


def _calls(visit: Visit, ran: Sequence[Activity], called: Sequence[Activity] | None, notes: list[str]) -> int | None:
    """Number of calls in `timed`; None where nothing tells."""
    whole = any(one.kind == "graph" for one in ran)
    if visit.calls:
        if miscounted := not whole and _miscount_note(visit.calls, ran, called or ()):
            notes.append(miscounted)
        return visit.calls
    if whole:
        return None
    if called and len(ran) % len(called) == 0:
        notes.append(GUESSED_CALLS_NOTE)
        return len(ran) // len(called)
    notes.append(DIVISOR_NOTE)
    return gcd(*Counter(one.name for one in ran).values())


def _miscount_note(calls: int, ran: Sequence[Activity], called: Sequence[Activity]) -> str:
    """Note on calls that launched more or less than the checked call, or empty."""
    names = {one.name for one in called}
    alike = sum(one.name in names for one in ran)
    return MISCOUNT_NOTE.format(alike, calls, len(called)) if alike not in (0, calls * len(called)) else ""


def _longest_first(ran: Iterable[Activity]) -> list[str]:
    spent: Counter[str] = Counter()
    for one in ran:
        spent[one.name] += int(one.end - one.start)
    return [name for name, _ in spent.most_common()]

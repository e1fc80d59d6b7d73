"""Device time of a case from its visits: seconds a call of each, beside our own clock, and of a layer's parts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from statistics import median

from reports.profiles import belongs, ranks
from reports.profiles.activity import Activity, added, busy, span
from reports.profiles.parts import Part, parts
from reports.profiles.visit import Profile, Visit

WHOLE_GRAPHS = (
    "graphs were traced as a whole: their device time holds the gaps between kernels, and parts are of the one call "
    "that was shown; `--cuda-graph-trace=node` shows the kernels"
)
GUESSED = "the trace does not say how many calls it holds: taken from the kernels of the checked call"
DIVIDED = (
    "neither a mark nor a checked call says how many calls it holds: taken to be the greatest common divisor of how "
    "often each kernel ran, which is wrong by a factor where every kernel runs more than once a call"
)
MISCOUNTED = (
    "{} kernels and copies in {} calls, where the checked call launches {}: times are over the calls that the mark "
    "tells, too short where nsys lost events, too long where a barrier between calls runs the same kernel"
)


@dataclass(frozen=True)
class Sample:
    """One visit, a call; times in seconds."""

    calls: int
    busy: float
    span: float
    added: float
    clock: float | None


@dataclass(frozen=True)
class Times:
    """A case.

    Attributes:
        samples: of each visit, with several processes the slowest one's.
        kernels: names of all that `timed` launched, the longest first.
        kernels_per_call: None where graphs hide them.
        streams: that ran at all, of the process that has most.
        launch: graph or eager.
        parts: of a layer.
        read_bytes: from DRAM a call, where they were counted.
        notes: what to mind.
        complete: whether all that `timed` launched is in these times, as far as the trace tells.
        spanned: whether the span means anything: not so where a profiler runs each kernel by itself.
    """

    case: str
    question: str
    samples: Sequence[Sample]
    kernels: Sequence[str]
    kernels_per_call: float | None
    streams: int
    launch: str
    parts: Sequence[Part]
    read_bytes: float | None
    notes: Sequence[str]
    complete: bool = True
    spanned: bool = True

    @cached_property
    def busy(self) -> float:
        """Seconds a call in which the device ran anything: the median over visits."""
        return median(one.busy for one in self.samples)

    @cached_property
    def span(self) -> float:
        """Seconds a call from first to last."""
        return median(one.span for one in self.samples)

    @cached_property
    def added(self) -> float:
        """Seconds a call of all kernels one after another."""
        return median(one.added for one in self.samples)

    @cached_property
    def clock(self) -> float | None:
        """Seconds a call by our own clock."""
        return median(found) if (found := [one.clock for one in self.samples if one.clock]) else None

    @property
    def calls(self) -> int:
        """In all visits."""
        return sum(one.calls for one in self.samples)


def collect(profile: Profile) -> tuple[list[Times], dict[str, str]]:
    """Each case with device time, and by name why others have none."""
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


def _times(case: str, visits: Sequence[Visit]) -> Times | str:
    """A case, or why it has none."""
    timed = [one for one in visits if one.timed]
    if not timed:
        return "no kernel was launched in `timed`"
    notes: list[str] = []
    called = next((one.call for one in visits if one.call), None)
    kept: list[tuple[Visit, list[Activity], int]] = []
    left: list[list[Activity]] = []
    together = ranks.together(timed, notes)
    for visit in (one for of_ranks in together for one in of_ranks):
        ran, beside = belongs.of_calls(visit, called, notes)
        calls = _calls(visit, ran, called, notes)
        if calls is None:
            return "graphs were traced as a whole, and no mark says how many calls they hold: `--cuda-graph-trace=node`"
        kept.append((visit, ran, calls))
        left.append(beside)
    ran = [one for _, activities, _ in kept for one in activities]
    whole = any(one.kind == "graph" for one in ran)
    notes += [WHOLE_GRAPHS] if whole else []
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
    left_out = sum(busy(beside) for beside in left) / total
    if left_out:
        notes.append(belongs.said([one for beside in left for one in beside], left_out))
    streams: dict[int, set[tuple[int, int]]] = {}
    for visit, activities, _ in kept:
        streams.setdefault(visit.process, set()).update(one.stream for one in activities)
    return Times(
        case=case,
        question=visits[0].question,
        samples=samples,
        kernels=kernels,
        kernels_per_call=a_call,
        streams=max(map(len, streams.values())),
        launch="graph" if any(one.in_graph for one in ran) else "eager",
        parts=parts(visits, kept, notes),
        read_bytes=sum(read) / total if read else None,
        notes=list(dict.fromkeys(notes)),
        complete=not left_out
        and not any(_miscounted(calls, activities, called or ()) for _, activities, calls in kept if not whole),
    )


def _sample(ran: Sequence[Activity], calls: int, clock: float | None) -> Sample:
    a_call = 1e-9 / calls
    return Sample(calls, busy(ran) * a_call, span(ran) * a_call, added(ran) * a_call, clock)


def _calls(visit: Visit, ran: Sequence[Activity], called: Sequence[Activity] | None, notes: list[str]) -> int | None:
    """How many calls there are in `timed`; None where nothing tells."""
    whole = any(one.kind == "graph" for one in ran)
    if visit.calls:
        if miscounted := not whole and _miscounted(visit.calls, ran, called or ()):
            notes.append(miscounted)
        return visit.calls
    if whole:
        return None
    if called and len(ran) % len(called) == 0:
        notes.append(GUESSED)
        return len(ran) // len(called)
    notes.append(DIVIDED)
    return gcd(*Counter(one.name for one in ran).values())


def _miscounted(calls: int, ran: Sequence[Activity], called: Sequence[Activity]) -> str:
    """The note where calls launched more or less than the checked one did; empty where not."""
    names = {one.name for one in called}
    alike = sum(one.name in names for one in ran)
    return MISCOUNTED.format(alike, calls, len(called)) if alike not in (0, calls * len(called)) else ""


def _longest_first(ran: Iterable[Activity]) -> list[str]:
    spent: Counter[str] = Counter()
    for one in ran:
        spent[one.name] += int(one.end - one.start)
    return [name for name, _ in spent.most_common()]

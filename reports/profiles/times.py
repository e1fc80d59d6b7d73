"""Device time of a case from its visits: seconds a call of each, beside our own clock, and of a layer's parts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from statistics import median

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
RANKS = "several processes ran it: a sample is the slowest one's, as in the suites"
FOREIGN = "kernels that the checked call does not launch are left out of `timed`: values filled in, barriers"


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
        streams: that ran at all.
        launch: graph or eager.
        parts: of a layer.
        read_bytes: from DRAM a call, where they were counted.
        notes: what to mind.
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
    ranks: dict[int, list[Sample]] = {}
    kept: list[tuple[Visit, list[Activity], int]] = []
    for visit in timed:
        ran = _of_calls(visit.timed, called, notes)
        calls = _calls(visit, ran, called, notes)
        if calls is None:
            return "graphs were traced as a whole, and no mark says how many calls they hold: `--cuda-graph-trace=node`"
        ranks.setdefault(visit.process, []).append(_sample(ran, calls, visit.clock_seconds))
        kept.append((visit, ran, calls))
    if len(ranks) > 1:
        notes.append(RANKS)
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
    samples = [max(together, key=lambda one: one.busy) for together in _together(ranks)]
    if not all(one.busy > 0 for one in samples):
        return "its kernels start and end at the same moment"
    return Times(
        case=case,
        question=visits[0].question,
        samples=samples,
        kernels=kernels,
        kernels_per_call=a_call,
        streams=len({one.stream for one in ran}),
        launch="graph" if any(one.in_graph for one in ran) else "eager",
        parts=parts(visits, kept, notes),
        read_bytes=sum(read) / total if read else None,
        notes=list(dict.fromkeys(notes)),
    )


def _together(ranks: Mapping[int, Sequence[Sample]]) -> Iterable[tuple[Sample, ...]]:
    """The n-th visits of all processes; what one of them has more is left out."""
    return zip(*ranks.values(), strict=False)


def _sample(ran: Sequence[Activity], calls: int, clock: float | None) -> Sample:
    a_call = 1e-9 / calls
    return Sample(calls, busy(ran) * a_call, span(ran) * a_call, added(ran) * a_call, clock)


def _of_calls(timed: Sequence[Activity], called: Sequence[Activity] | None, notes: list[str]) -> list[Activity]:
    """What calls launched: ranks fill messages in between and wait for each other."""
    names = {one.name for one in called or ()}
    ours = [one for one in timed if one.kind == "graph" or one.name in names]
    if not ours or len(ours) == len(timed):
        return list(timed)
    notes.append(FOREIGN)
    return ours


def _calls(visit: Visit, ran: Sequence[Activity], called: Sequence[Activity] | None, notes: list[str]) -> int | None:
    """How many calls there are in `timed`; None where nothing tells."""
    whole = any(one.kind == "graph" for one in ran)
    if visit.calls:
        if called and not whole and len(ran) != visit.calls * len(called):
            notes.append(
                f"{len(ran)} kernels and copies in {visit.calls} calls, where the checked call launches {len(called)}: "
                "times are over the calls that the mark tells, too short where nsys lost events"
            )
        return visit.calls
    if whole:
        return None
    if called and len(ran) % len(called) == 0:
        notes.append(GUESSED)
        return len(ran) // len(called)
    notes.append(DIVIDED)
    return gcd(*Counter(one.name for one in ran).values())


def _longest_first(ran: Iterable[Activity]) -> list[str]:
    spent: Counter[str] = Counter()
    for one in ran:
        spent[one.name] += int(one.end - one.start)
    return [name for name, _ in spent.most_common()]

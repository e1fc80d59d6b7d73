"""Visits to cases in a profile, and the reader of Nsight Compute's tables.

ncu gives kernels with their ranges, and the duration of each kernel run by itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from specs.errors import UserError
from specs.journal import CALL_RANGE, NVTX_DOMAIN, TIMED_RANGE, UNTIMED_RANGE, WARM_UP_RANGE
from specs.layer import FUSED_GATE_UP, LAYER_PARTS
from specs.ncu import DURATION_METRIC, ProfiledKernel, parse_kernels

# Activities of a device and their busy time: the union of intervals, so that overlapping streams count once.


class Activity(NamedTuple):
    """A kernel, a copy or a whole graph on a device.

    Attributes:
        start, end: nanoseconds on the profiler's clock.
        name: name of the kernel; `memcpy`, `memset` or `graph` for other activities.
        stream: device and stream.
        kind: kernel, memory, or graph where graphs were traced as a whole.
        in_graph: True where a graph's launch started the activity.
        launched: start and number of the host's launching call, shared by all activities of a graph launch.
        read_bytes: bytes read from DRAM, where counted.
    """

    start: float
    end: float
    name: str
    stream: tuple[int, int]
    kind: str = "kernel"
    in_graph: bool = False
    launched: tuple[float, int] = (0, 0)
    read_bytes: float | None = None


def busy_time(activities: Iterable[Activity]) -> float:
    """Nanoseconds in which at least one activity ran."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted((one.start, one.end) for one in activities):
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total


def summed_time(activities: Iterable[Activity]) -> float:
    """Nanoseconds of all activities, one after another."""
    return sum(one.end - one.start for one in activities)


def span_time(activities: Iterable[Activity]) -> float:
    """Nanoseconds from the first start to the last end.

    Each graph launch counts by itself, all other activities together. The time between two launches of a graph is
    launch cost, which the suites' clock leaves out, too.
    """
    ends: dict[tuple[float, int] | None, tuple[float, float]] = {}
    for one in activities:
        key = one.launched if one.in_graph else None
        first, last = ends.get(key, (one.start, one.end))
        ends[key] = min(first, one.start), max(last, one.end)
    return sum(last - first for first, last in ends.values())


# Visits of the suites to a case, as a profiler saw them: checked call, parts, and timed calls.

PART_RANGES = (*LAYER_PARTS, FUSED_GATE_UP)
"""Names of ranges that are parts of a layer."""


@dataclass
class Visit:
    """A visit to a case, with activities and parts in launch order.

    Attributes:
        case: name of the case; `question` may be empty where a profiler does not tell.
        process: a rank, where there are several.
        start, end: bounds of the range in nanoseconds; equal where a profiler runs kernels one by one.
        call: activities of the first checked call, parts included; empty in later visits.
        parts: activities of a layer's checked call, by part; a part that comes twice stands twice.
        timed: activities launched to be timed, repetitions included.
        calls: number of calls in `timed`, as the suite says.
        clock_seconds: seconds per call, by the suite's own clock.
    """

    case: str
    question: str
    process: int
    start: int = 0
    end: int = 0
    call: list[Activity] = field(default_factory=list)
    parts: list[tuple[str, list[Activity]]] = field(default_factory=list)
    timed: list[Activity] = field(default_factory=list)
    calls: int | None = None
    clock_seconds: float | None = None


@dataclass(frozen=True)
class Profile:
    """Content of one profile.

    Attributes:
        visits: visits in the order of the run.
        profiler: name and version of the profiler.
        gpu: facts of the device for `machine_info`.
        notes: caveats.
    """

    visits: Sequence[Visit]
    profiler: str
    gpu: dict[str, object]
    notes: Sequence[str] = ()


MAX_BYTES = 1 << 30
CSV_COMMAND = "`ncu --import report.ncu-rep --csv --page raw`"
SERIALISED_NOTE = (
    "ncu runs kernels one at a time and each maybe several times over: no gaps and no overlap are in these times, and "
    "unless --cache-control none and --clock-control none were given it flushed caches before each and held clocks at "
    "base"
)
OUTSIDE_NOTE = "{} of {} kernels are in no range of ours: left out"
NO_CALL_NOTE = "no checked call is in the table of {}: its time is that of what was timed"


def read_ncu_csv(path: Path) -> Profile:
    """Read the visits to our cases from a table of ncu.

    Raises:
        UserError: the table cannot be used.
    """
    try:
        kernels = parse_kernels(_text(path), needed=(DURATION_METRIC,))
    except ValueError as error:
        raise UserError(
            f"{path}: {error}; give what ncu printed with --csv, {DURATION_METRIC} among its metrics"
        ) from error
    if not any(one.ranges for one in kernels):
        raise UserError(f"{path}: no column of NVTX ranges, or nothing in it; profile with `ncu --nvtx --csv`")
    visits: dict[tuple[str, str], Visit] = {}
    before: dict[str, list[str]] = {}
    at, inside = 0.0, 0
    for number, one in enumerate(kernels):
        path_of = [name for domain, name in one.ranges if domain == NVTX_DOMAIN]
        if len(path_of) >= 2 and path_of[1] in (WARM_UP_RANGE, TIMED_RANGE):
            visit = visits.setdefault((one.process, path_of[0]), Visit(path_of[0], "", number))
            inside += 1
            again = CALL_RANGE in path_of[2:3] and visit.call and before.get(one.process) != path_of[:3]
            if not again:  # older suites checked collectives twice
                at = _assign_kernel(visit, path_of, one, at, number)
                before[one.process] = path_of[:3]
        else:
            before.pop(one.process, None)
    if not visits:
        raise UserError(
            f"{path}: {len(kernels)} kernels, none in a range of the domain {NVTX_DOMAIN}; profile `pytest suites/`"
        )
    notes = [SERIALISED_NOTE]
    notes += [OUTSIDE_NOTE.format(len(kernels) - inside, len(kernels))] if inside < len(kernels) else []
    notes += [NO_CALL_NOTE.format(one.case) for one in visits.values() if not one.call and not one.parts and one.timed]
    found = [_use_checked_call(one) for one in visits.values()]
    return Profile(found, "Nsight Compute", _gpu(kernels), notes)


def _text(path: Path) -> str:
    if path.suffix == ".ncu-rep":
        raise UserError(f"{path}: a report of Nsight Compute; print it first: {CSV_COMMAND}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: over {MAX_BYTES >> 30} GiB; profile fewer kernels or metrics")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}); give what ncu printed with --csv") from error
    if not content.strip():
        raise UserError(f"{path}: empty; give what ncu printed with --csv")
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")  # UTF-16, as PowerShell redirects
    return content.decode("utf-16" if wide else "utf-8-sig", errors="replace")


def _assign_kernel(visit: Visit, ranges: Sequence[str], one: ProfiledKernel, at: float, number: int) -> float:
    """Place a kernel after the previous kernel; return its end in nanoseconds."""
    end = at + one.seconds * 1e9
    activity = Activity(at, end, one.kernel, (0, 0), launched=(at, number), read_bytes=one.read_bytes)
    if ranges[1] == TIMED_RANGE and UNTIMED_RANGE not in ranges[2:3]:
        visit.timed.append(activity)
    if CALL_RANGE in ranges[2:3]:
        visit.call.append(activity)
    if shown := next((name for name in ranges[2:] if name in PART_RANGES), None):
        if not visit.parts or visit.parts[-1][0] != shown:
            visit.parts.append((shown, []))
        visit.parts[-1][1].append(activity)
    return end


def _use_checked_call(visit: Visit) -> Visit:
    """Replace the timed calls by the checked call.

    ncu leaves the caches alike for every call.
    """
    shown = [one for _, activities in visit.parts for one in activities]
    if call := visit.call or shown:
        visit.timed, visit.call, visit.calls = call, call, 1
    return visit


def _gpu(kernels: Sequence[ProfiledKernel]) -> dict[str, object]:
    first = kernels[0]
    arch = f"sm_{first.arch.replace('.', '')}" if first.arch else None
    return {name: value for name, value in (("gpu", first.gpu or None), ("arch", arch)) if value}

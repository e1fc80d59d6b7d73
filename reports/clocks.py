"""The SM clock that times were taken at: its range over a run, and cases in which it moved or was held back."""

from collections.abc import Sequence

from reports.files import ResultFile
from reports.units import counted
from specs.measurement import Measurement

THROTTLED, MOVED = "throttled", "clock moved"


def doubts(one: Measurement) -> list[str]:
    """What is to be minded about the clock of a case, in a word each."""
    said = {THROTTLED: bool(one.throttled), MOVED: bool((one.telemetry or {}).get("moved_visits"))}
    return [word for word, applies in said.items() if applies]


def span(file: ResultFile) -> str:
    """`1965 to 1980 MHz`: the SM clock over the cases of a file; empty where it says none."""
    found = sorted(mhz for one in file.measurements for mhz in _mhz(one))
    return " to ".join(dict.fromkeys(f"{mhz:.0f}" for mhz in (found[0], found[-1]))) + " MHz" if found else ""


def told(file: ResultFile) -> str:
    """The clock of a run, and how many cases are in doubt about it; for a GPU whose clock nothing tells, that."""
    if not (clock := span(file)):
        return UNKNOWN if file.machine.get("gpu") and _timed_here(file.measurements) else ""
    words = [word for one in file.measurements for word in doubts(one)]
    cases = [f"{word} in {counted(words.count(word), 'case')}" for word in (MOVED, THROTTLED) if word in words]
    return ", ".join([clock, *cases])


UNKNOWN = "unknown: NVML told nothing (pip install nvidia-ml-py)"


def _timed_here(measurements: Sequence[Measurement]) -> bool:
    return any(one.clock == "cuda_event" for one in measurements)


def _mhz(one: Measurement) -> list[float]:
    """Readings before and after the samples; one of either in older files."""
    load = one.telemetry or {}
    ends = [load[name] for name in ("sm_mhz_before", "sm_mhz_after") if name in load]
    return ends or [load[name] for name in ("sm_mhz",) if name in load]

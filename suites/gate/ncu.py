"""What the gate takes from Nsight Compute's table: the kernels of each call, behind the mark that stands before it."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from specs.ncu import Profiled

MARK = "_gate_mark"
"""Name of the kernel that stands before every profiled call; its grid has as many programs as the call's number."""

CANNOT = ("ERR_NVGPUCTRPERM", "Failed to initialize the profiler", "Profiling is not supported", "LibraryNotLoaded")
"""What ncu says where a machine lets nobody read its counters."""


@dataclass(frozen=True)
class CallCounters:
    """All kernels of one call together."""

    read_bytes: float
    seconds: float
    kernels: int


def why_no_counters(text: str) -> str | None:
    """What ncu itself says where it could not measure at all."""
    lines = (line.strip() for line in text.splitlines() if line.startswith("==ERROR=="))
    return next((line for line in lines if any(word in line for word in CANNOT)), None)


def most_passes(text: str) -> int:
    """Times that ncu ran a kernel to read all metrics: with more than one, later runs may find warm caches."""
    return max((int(count) for count in re.findall(r"100% - (\d+) pass", text)), default=1)


def whole_calls(text: str) -> str:
    """The table without its last call, of which kernels may be missing where ncu did not come to its end."""
    lines = text.splitlines()
    marks = [number for number, line in enumerate(lines) if line.startswith('"') and MARK in line]
    if not marks:
        return ""
    last = lines[marks[-1]].split(",")[0]  # of the rows of one kernel all begin with its number
    return "\n".join(lines[: next(number for number in marks if lines[number].split(",")[0] == last)])


def by_call(kernels: Iterable[Profiled]) -> dict[int, list[CallCounters]]:
    """Calls by number, counting from 1; what ran before the first mark is left out."""
    calls: dict[int, list[CallCounters]] = {}
    for number, members in _between_marks(kernels):
        read, seconds = sum(one.read_bytes or 0.0 for one in members), sum(one.seconds for one in members)
        calls.setdefault(number, []).append(CallCounters(read, seconds, len(members)))
    return calls


def _between_marks(kernels: Iterable[Profiled]) -> Iterator[tuple[int, list[Profiled]]]:
    number, members = 0, list[Profiled]()
    for one in kernels:
        if MARK in one.kernel:
            if members:
                yield number, members
            number, members = one.programs, []
        elif number:
            members.append(one)
    if members:
        yield number, members

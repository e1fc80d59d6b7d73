"""A visit of the suites to a case as a profiler saw it: the call that was checked, its parts, and what was timed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from reports.profiles.activity import Activity
from specs.layer import FUSED, LAYER_PARTS

SHOWN = (*LAYER_PARTS, FUSED)
"""Names of ranges that are a layer's parts."""


@dataclass
class Visit:
    """Activities are in the order of their launches, `parts` too: each with the part that it belongs to.

    Attributes:
        case: its name; `question` may be empty where a profiler does not tell.
        process: a rank, where there are several.
        start, end: of its range, in nanoseconds; alike where a profiler runs kernels one by one.
        call: what the first checked call launched, its parts' included; none in later visits.
        parts: of a layer's checked call, by part; one that comes twice stands twice.
        timed: what was launched to be timed, whatever was repeated.
        calls: that `timed` holds, as the suite says.
        clock_seconds: a call, by the suite's own clock.
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
    """All that was read of one profile.

    Attributes:
        visits: in the order of the run.
        profiler: its name and version.
        gpu: facts of the device for `machine_info`.
        notes: what to mind.
    """

    visits: Sequence[Visit]
    profiler: str
    gpu: dict[str, object]
    notes: Sequence[str] = ()

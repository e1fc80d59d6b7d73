"""Agreement of two clocks: the limits, and the arithmetic of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from suites.gate.step import Verdict

NVBENCH_SHARE, NVBENCH_LEAST_SECONDS = 0.03, 50e-6
"""Within 3 % of NVBench, above 50 us: below that what an event costs is a share of the time."""
NCU_SHARE, NCU_SECONDS = 0.03, 1.5e-6
"""Within 3 % and 1.5 us of ncu, whose duration leaves out what lies between two kernels."""

Times = Mapping[str, Mapping[str, float]]
"""Seconds a call by case, then by clock."""


@dataclass(frozen=True)
class Pair:
    """Two clocks on one case.

    Attributes:
        case: which linear.
        ours: chain or isolated.
        other: nvbench batch, nvbench cold or ncu.
        seconds: ours.
        other_seconds: the other's.
        limit_seconds: largest difference that is accepted; None where there is only something to report.
    """

    case: str
    ours: str
    other: str
    seconds: float
    other_seconds: float
    limit_seconds: float | None

    @property
    def offset_seconds(self) -> float:
        """Ours less the other."""
        return self.seconds - self.other_seconds

    @property
    def agrees(self) -> bool | None:
        """None where nothing is asked."""
        return None if self.limit_seconds is None else abs(self.offset_seconds) <= self.limit_seconds

    def __str__(self) -> str:
        offset, share = 1e6 * self.offset_seconds, self.offset_seconds / self.other_seconds
        return (
            f"{self.case} {self.ours} {1e6 * self.seconds:.2f} us is {offset:+.2f} us ({share:+.1%}) off {self.other}"
        )

    def record(self) -> dict[str, Any]:
        """As it stands in gate.json."""
        return asdict(self) | {"offset_seconds": self.offset_seconds, "agrees": self.agrees}


def pairs(ours: Times, nvbench: Times, ncu: Mapping[str, float]) -> list[Pair]:
    """Chain beside batch, isolated beside cold, both beside ncu. By ncu the chain is judged: the suites' clock."""
    found = []
    for case, own in ours.items():
        for clock, mode in {"chain": "batch", "isolated": "cold"}.items():
            if clock in own and (theirs := nvbench.get(case, {}).get(mode)):
                limit = NVBENCH_SHARE * theirs if theirs > NVBENCH_LEAST_SECONDS else None
                found.append(Pair(case, clock, f"nvbench {mode}", own[clock], theirs, limit))
            if clock in own and (duration := ncu.get(case)):
                limit = NCU_SECONDS + NCU_SHARE * duration if clock == "chain" else None
                found.append(Pair(case, clock, "ncu", own[clock], duration, limit))
    return found


def judge(ours: Times, found: Sequence[Pair], missing: Sequence[str], cut: Sequence[str] = ()) -> Verdict:
    """The pairs that are apart, named and not judged: no GPU has shown yet how far apart sound clocks are.

    Args:
        ours: our times.
        found: pairs of clocks.
        missing: what could not be compared, and why.
        cut: tools that ended at their limit.
    """
    judged = [pair for pair in found if pair.agrees is not None]
    apart = [str(pair) for pair in judged if not pair.agrees]
    figures = {
        "ours": {case: dict(own) for case, own in ours.items()},
        "pairs": [pair.record() for pair in found],
        "apart": len(apart),
    }
    beside = "".join(f"; not run: {reason}" for reason in missing) + "".join(f"; {reason}" for reason in cut)
    if not judged:
        return Verdict("unfinished" if cut else "not_run", f"nothing to compare with{beside}", figures)
    if apart:
        told = f"{len(apart)} of {len(judged)} apart, reported and not judged: {', '.join(apart)}"
    else:
        furthest = max(judged, key=lambda pair: abs(pair.offset_seconds) / (pair.limit_seconds or 1))
        told = f"all {len(judged)} agree; furthest: {furthest}"
    return Verdict("unfinished" if cut else "passed", f"{told}{beside}", figures)

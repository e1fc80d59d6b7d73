"""What decode attention is meant to reach: one point of Llama-3-70B on H200, against the best library of the run."""

from collections.abc import Iterable
from typing import NamedTuple

from reports.figures import Figures
from specs.measurement import Case

MOST = 1.03
"""Our time over that of the fastest library."""
POINT = {"model": "llama-3-70b", "tp": 1, "batch": 32, "context": 8192, "dtype": "bf16"}
"""64 query heads on 8 kv heads: 1.07 GB of keys and values a layer."""
OURS = "triton"
LIBRARIES = ("torch", "flash-attn", "flashinfer")
TARGET = f"{OURS} at tp 1, batch 32, context 8192 ≤ {MOST}x the fastest of {', '.join(LIBRARIES)} (set for H200)"
PUBLISHED = "FlashAttention-3 on H200 is published at 247 us"


class Standing(NamedTuple):
    """How the target stands: `met` is None where a library that is missing could still decide it; a ratio of times."""

    met: bool | None
    ratio: float | None
    remark: str

    def __str__(self) -> str:
        verdict = "not measured" if self.met is None else "met" if self.met else "not met"
        return verdict if self.ratio is None else f"{verdict} at {self.ratio:.3f}x"


def judge(figures: Iterable[Figures]) -> Standing | None:
    """How the target stands, by medians of cold calls in a graph; None where nothing was measured at its point."""
    by = {one.measurement.case.implementation: one for one in figures if _is_point(one.measurement.case)}
    if not by:
        return None
    own = by.get(OURS)
    library = min((by[name] for name in LIBRARIES if name in by), key=lambda f: f.measurement.median, default=None)
    absent = [name for name in (OURS, *LIBRARIES) if name not in by]
    lack = f"no {', '.join(absent)}" if absent else ""
    if own is None or library is None:
        return Standing(None, None, lack)
    ratio = own.measurement.median / library.measurement.median
    met = False if ratio > MOST else None if absent else True
    best = f"{library.measurement.case.implementation} takes {1e6 * library.measurement.median:.1f} us"
    return Standing(met, ratio, "; ".join(filter(None, (best, lack))))


def notes(figures: Iterable[Figures]) -> tuple[str, ...]:
    """The target as a line under the table."""
    standing = judge(figures)
    return (f"target: {TARGET}: {standing} ({standing.remark}; {PUBLISHED})",) if standing else ()


def _is_point(case: Case) -> bool:
    at = all(getattr(case, name) == value for name, value in POINT.items())
    return at and case.op == "attention" and (case.cache, case.launch) == ("cold", "graph")

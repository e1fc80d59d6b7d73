"""How many of cuBLASLt's proposals a ratio stands on: the fastest of few may not be its best."""

import re
from collections.abc import Sequence

from reports.decode.points import Point
from specs.layer import CUBLASLT_CANDIDATES
from specs.measurement import Measurement

NAME, MARK = "cublaslt", "†"
ASKED = re.compile(r"\((\d+) asked\)|^algo \d+ of (\d+)")
"""In the configuration of a case; older files name those proposed alone."""


def asked(point: Point) -> int | None:
    """Proposals that were asked for at this size; None without cuBLASLt, and where its case does not say."""
    figures = point.by.get(NAME)
    return _asked(figures.measurement) if figures else None


def _asked(one: Measurement) -> int | None:
    found = [int(text) for groups in ASKED.findall(one.configuration or "") for text in groups if text]
    return max(found, default=None)


def mark(point: Point) -> str:
    """Behind a ratio that stands on fewer than are asked for now."""
    count = asked(point)
    return MARK if count is not None and count < CUBLASLT_CANDIDATES else ""


def told(points: Sequence[Point]) -> str:
    """Over how many candidates at a size; empty where nothing says so."""
    counts = sorted(count for point in points if (count := asked(point)) is not None)
    if not counts:
        return ""
    span = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
    return f"the fastest of what its heuristics propose when asked for {span} candidates a size"


def notes(points: Sequence[Point]) -> tuple[str, ...]:
    """The legend of the mark where a ratio has it."""
    if not any(map(mark, points)):
        return ()
    return (f"{MARK} against the fastest of fewer than {CUBLASLT_CANDIDATES} cublaslt candidates: measure again",)

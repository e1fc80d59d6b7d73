"""From the findings on single linears to the one on a GPU."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from reports.evidence import Evidence, weakest
from reports.finding import DECIDED, Finding

HOT = "the weights may have come from the L2: too few copies were rotated through"
ODD = "the times are odd: slower than with more tokens"


def coverage(evidence: Evidence, rows: Sequence[Finding], used: Sequence[Finding]) -> str:
    """How many linears an overall finding goes by, and how many it leaves out and why."""
    left = [row for row in rows if (row.model, row.scope) in evidence.parts and row not in used]
    hot = sum(1 for row in left if row.condition == HOT)
    undecided = sum(1 for row in left if row.verdict not in DECIDED) - hot
    reasons = {"maybe hot": hot, "undecided": undecided, "of interpolated shape": len(left) - hot - undecided}
    out = ", ".join(f"{count} {why}" for why, count in reasons.items() if count)
    what = {"dense": "linears", "whole": "layers", "moe": "cases"}[evidence.architecture]
    between = all(not one.shape_published for row in used for one in evidence.parts[row.model or "", row.scope])
    over = f"over {len(used)} {what if len(used) > 1 else what[:-1]}" + " of interpolated shape" * between
    return over + (f"; left out {out}" if out else "")


def decided(evidence: Evidence, rows: Sequence[Finding]) -> list[Finding]:
    """The rows to go by: linears that could be judged, of shapes that were measured themselves where there are any."""
    parts = evidence.parts
    singles = [row for row in rows if (row.model, row.scope) in parts and row.verdict in DECIDED]
    measured = {key for key, alike in parts.items() if all(one.shape_published for one in alike)}
    return [row for row in singles if (row.model, row.scope) in measured] or singles


def merged(evidence: Evidence, rows: Sequence[Finding], unit: str) -> Finding:
    """The middle figure and the whole range of these rows, its verdict still open; of undecided ones no range."""
    values = [row.value for row in rows if row.value is not None]
    errors = [row.interpolation_error for row in rows if row.interpolation_error is not None]
    lows, highs = [row.low for row in rows if row.low is not None], [row.high for row in rows if row.high is not None]
    return replace(
        evidence.blank(unit),
        value=median(values) if values else None,
        low=min(lows, default=None),
        high=max(highs, default=None),
        cases=tuple(dict.fromkeys(name for row in rows for name in row.cases)),
        provenance=weakest(row.provenance for row in rows),
        interpolation_error=median(errors) if errors else None,
    )

"""What a claim was found to be: a verdict, the figure behind it, and what it rests on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["HOLDS", "REFUTED", "HOLDS_IF", "UNDERPOWERED", "NOT_MEASURED"]
VERDICTS: tuple[Verdict, ...] = ("HOLDS", "REFUTED", "HOLDS_IF", "UNDERPOWERED", "NOT_MEASURED")
DECIDED: tuple[Verdict, ...] = ("HOLDS", "REFUTED", "HOLDS_IF")
"""Verdicts that the data were enough for."""
Architecture = Literal["dense", "whole", "moe"]
"""What was measured: the linears of dense layers, whole dense layers with attention, or experts."""
OVERALL = "overall"
"""Scope of the one row that answers for a whole GPU and architecture."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One verdict on one claim.

    Attributes:
        verdict: HOLDS, REFUTED, HOLDS_IF, UNDERPOWERED or NOT_MEASURED: never HOLDS for want of data.
        value: the figure that decides, in `unit`; None where there is none.
        low, high: interval on it: from passes where measured, over frameworks where published.
        unit: of value, low and high: bytes, tokens, ratio, share, …
        condition: what HOLDS_IF depends on, what is missing, or what qualifies the figure.
        gpu: GPU slug, or the machine's name where it has no row; None for arithmetic.
        dtype: of the cases; of arithmetic the format that its bytes are counted in.
        architecture: dense, whole or moe; None where nothing was found.
        cases: names of the cases that were used.
        provenance: arithmetic, datasheet, measured, published, interpolated, modelled or assumed; the weakest that was
            used, and of a plan modelled at best.
        scope: `OVERALL`, or what a row under it is about: `gate_up tp8`.
        model: slug of the model that the cases are cut from.
        interpolation_error: of a linear the larger of the points used, by leave-one-out; overall that of the middle
            linear. It is not in the interval, and cautious: leaving a neighbour out doubles the gap.
        file: where the cases stand.
        label: the GPU, with its file where several are of one.
    """

    verdict: Verdict
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    condition: str = ""
    gpu: str | None = None
    dtype: str | None = None
    architecture: Architecture | None = None
    cases: Sequence[str] = ()
    provenance: str = "arithmetic"
    scope: str = OVERALL
    model: str | None = None
    interpolation_error: float | None = None
    file: str | None = None
    label: str = ""


@dataclass(frozen=True)
class Judged:
    """A finding beside the claim that it is on."""

    id: str
    statement: str
    finding: Finding


def overall_on(judged: Iterable[Judged], slug: str) -> list[Finding]:
    """The overall findings on one claim."""
    return [one.finding for one in judged if one.id == slug and one.finding.scope == OVERALL]

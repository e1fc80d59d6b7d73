"""How far plans are off from what was run, in a sentence, a table and for a machine."""

from collections.abc import Iterator
from statistics import median
from typing import Any

from reports import units
from reports.experiment.words import of, spoken
from reports.page import Column, Table
from reports.plan.check import CLEAR, Check, Predicted
from reports.units import NONE, counted

NOTES = (
    "planned: put together from what ranks' own shares, all-reduces and hops took in this file, not from the steps",
    "event model: a timeline's own blocks through the schedule model, against the step of that one timeline; it may be "
    "off where a rank was held up in that window, which no schedule has",
)


def sentence(check: Check) -> str:
    """The error in the middle and at worst, and whether the plan would have chosen right."""
    if check.median_error is None:
        return "No step of a model that is cut can be put together from its parts."
    worst, runs = max(check.cut, key=lambda one: abs(one.error)), counted(len(check.cut), "run")
    said = (
        f"Put together from its parts, a step is off by {check.median_error:.0%} in the middle of {runs} and by "
        f"{abs(worst.error):.0%} at worst ({spoken(worst.deployment)} {of(worst.load)})"
    )
    if not check.clear:
        return f"{said}; no two splits differ by more than {CLEAR:.0%}."
    pairs = counted(len(check.clear), "pair")
    return f"{said}; of {pairs} that differ by more than {CLEAR:.0%} it names the faster in {check.right}."


def table(check: Check) -> Table:
    """A row for each run."""
    seconds = [value for one in check.rows for value in (one.measured.median, one.step.seconds)]
    time = units.scale(units.SECONDS, seconds)
    groups: dict[object, list[tuple[str, ...]]] = {}
    for one in check.rows:
        low, high = one.measured.interval or (None, None)
        row = (
            f"{one.load.batch}",
            str(one.deployment),
            time(one.measured.median),
            f"{time(low)}–{time(high)}" if low else NONE,
            time(one.step.seconds),
            f"{time(one.step.low)}–{time(one.step.high)}",
            f"{one.error:+.1%}",
            NONE if one.event_model_error is None else f"{one.event_model_error:+.2%}",
        )
        groups.setdefault(one.load, []).append(row)
    return Table(
        title="planned against run",
        columns=(
            Column("batch"),
            Column("deployment", number=False),
            Column(f"run\n{time.symbol}"),
            Column("95 %"),
            Column(f"planned\n{time.symbol}"),
            Column("range"),
            Column("plan\noff by"),
            Column("event model\noff by"),
        ),
        groups=tuple(map(tuple, groups.values())),
        caption=sentence(check),
        notes=(*_bias(check), *NOTES, *check.missing),
    ).without_empty(NONE)


def _bias(check: Check) -> Iterator[str]:
    """`planned steps come out, in the middle: TP 5.9% short, …`; apart those that the caption does not count."""
    if check.bias:
        said = ", ".join(f"{name} {_off(error)}" for name, error in check.bias.items())
        yield f"planned steps come out, in the middle: {said}"
    if check.whole:
        error = median(one.error for one in check.whole)
        yield f"replicas of a whole model send no messages and are not in the caption's figures: {_off(error)}"


def _off(error: float) -> str:
    return f"{abs(error):.1%} {'short' if error < 0 else 'long'}"


def record(check: Check | None) -> dict[str, Any] | None:
    """Each run beside its plan."""
    if check is None:
        return None
    return {
        "median_absolute_error": check.median_error,
        "median_error_by_kind": dict(check.bias),
        "clear_pairs": len(check.clear),
        "right_pairs": check.right,
        "runs": [_record(one) for one in check.rows],
        "missing": list(check.missing),
    }


def _record(one: Predicted) -> dict[str, Any]:
    return {
        "case": one.measured.case.name,
        "batch": one.load.batch,
        "deployment": str(one.deployment),
        "measured_seconds": one.measured.median,
        "planned_seconds": one.step.seconds,
        "low": one.step.low,
        "high": one.step.high,
        "error": one.error,
        "event_model_error": one.event_model_error,
    }

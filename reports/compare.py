"""`compare`: is B faster than A, case by case, and how far can that be trusted?"""

from collections import Counter
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from reports import comparability, files, labels, machine, output, units
from reports.drift import drift
from reports.files import ResultFile
from reports.output import Format
from reports.page import Block, Column, Facts, Table
from reports.questions import by_question
from reports.units import NONE
from reports.verdict import VERDICTS, Comparison
from specs.errors import UserError


def compare(paths: tuple[Path, Path], threshold: float, format: Format, to: Path | None) -> None:  # noqa: A002
    """Write the comparison of two files.

    Raises:
        UserError: a file cannot be read, they share no case, or the report cannot be written.
    """
    a, b = map(files.load, paths)
    pairs = match(a, b, threshold)
    output.emit(_page(a, b, pairs), _data(a, b, pairs), format, to, paths)


def match(a: ResultFile, b: ResultFile, threshold: float) -> list[Comparison]:
    """The cases that both files hold, in the order of the first.

    Raises:
        UserError: there are none.
    """
    others = {one.case.name: one for one in b.measurements}
    common = [(one, others[one.case.name]) for one in a.measurements if one.case.name in others]
    if not common:
        counts = f"{len(a.measurements)} and {len(b.measurements)} cases"
        raise UserError(f"{a.path} and {b.path}: {counts}, none in both; run the same suites with the same options")
    return [
        Comparison(one, other, threshold, len(common), drift(a, b, common, apart_from=one.case.name))
        for one, other in common
    ]


def only_in(one: ResultFile, other: ResultFile) -> list[str]:
    """Names of the cases that the other file lacks."""
    names = {measurement.case.name for measurement in other.measurements}
    return [measurement.case.name for measurement in one.measurements if measurement.case.name not in names]


def _page(a: ResultFile, b: ResultFile, pairs: list[Comparison]) -> list[Block]:
    described = [(side, f"{f.path}: {machine.describe(f.machine)}") for side, f in (("A", a), ("B", b))]
    page: list[Block] = [Facts(title="compare", rows=tuple(described))]
    if warnings := comparability.warnings(a, b, pairs):
        page.append(Facts(title="mind", rows=tuple(("", warning) for warning in warnings), level=3))
    page += [_table(question, members) for question, members in by_question(pairs, lambda pair: pair.a.case)]
    for side, names in (("A", only_in(a, b)), ("B", only_in(b, a))):
        if names:
            page.append(Facts(title=f"only in {side}", rows=tuple(("", name) for name in names), level=3))
    return [*page, Facts(title="summary", rows=_summary_rows(pairs), level=3)]


def _table(question: str, pairs: list[Comparison]) -> Table:
    cases = [pair.a.case for pair in pairs]
    columns, names, caption = labels.choose(cases)
    time = units.scale(units.SECONDS, [median for pair in pairs for median in (pair.a.median, pair.b.median)])
    rows = tuple(
        (*name, time(p.a.median), time(p.b.median), units.ratio(p.ratio), _span(p.interval), p.verdict)
        for name, p in zip(names, pairs, strict=True)
    )
    titles = (f"A {time.symbol}", f"B {time.symbol}", "B/A", "95% interval")
    columns = (*columns, *map(Column, titles), Column("verdict", number=False))
    return Table(title=question, columns=columns, groups=(rows,), caption=caption).without_empty(NONE)


def _span(interval: tuple[float, float] | None) -> str:
    return f"{units.ratio(interval[0])} – {units.ratio(interval[1])}" if interval else "single pass"


def _summary(pairs: list[Comparison]) -> dict[str, Any]:
    counts = Counter(pair.verdict for pair in pairs)
    ratio = geometric_mean(pair.ratio for pair in pairs)
    return {**{verdict: counts[verdict] for verdict in VERDICTS}, "geometric_mean_ratio": ratio}


def _summary_rows(pairs: list[Comparison]) -> tuple[tuple[str, str], ...]:
    summary = _summary(pairs)
    counts = ", ".join(f"{summary[verdict]} {verdict}" for verdict in VERDICTS)
    drifts = [bound for pair in pairs for bound in pair.drift]
    beyond = f"beyond {100 * pairs[0].threshold:.4g}%"
    return (
        ("verdicts", f"{len(pairs)} cases: {counts} (B against A)"),
        ("B/A", f"{units.ratio(summary['geometric_mean_ratio'])} in the geometric mean"),
        (
            "drift",
            f"{units.ratio(min(drifts))} – {units.ratio(max(drifts))}: what the ceilings of one machine changed by",
        ),
        ("rule", f"faster or slower: {beyond} with the interval widened for {len(pairs)} cases and the drift"),
    )


def _data(a: ResultFile, b: ResultFile, pairs: list[Comparison]) -> dict[str, Any]:
    cases = []
    for pair in pairs:
        (low, high), (widened_low, widened_high) = pair.interval or (None, None), pair.widened or (None, None)
        cases.append(
            {
                "case": pair.a.case.name,
                "a_median_seconds": pair.a.median,
                "b_median_seconds": pair.b.median,
                "ratio": pair.ratio,
                "low": low,
                "high": high,
                "widened_low": widened_low,
                "widened_high": widened_high,
                "drift_low": pair.drift[0],
                "drift_high": pair.drift[1],
                "verdict": pair.verdict,
            }
        )
    return {
        "files": {"A": str(a.path), "B": str(b.path)},
        "threshold": pairs[0].threshold,
        "cases": cases,
        "only_in": {"A": only_in(a, b), "B": only_in(b, a)},
        "warnings": comparability.warnings(a, b, pairs),
        "summary": _summary(pairs),
    }

"""Report of a comparison: questions, explanations, cases, and the JSON record."""

from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import Any

from reports import formatting, machine, roofline
from reports.compare.comparison import CaseGroup, Comparison, by_group, cases_only_in, missing_cases
from reports.compare.explain import FLOPS, RESOURCES, ExplainedCase, Explanation
from reports.compare.verdict import VERDICTS, CaseComparison
from reports.formatting import DASH
from reports.output import Block, Column, Facts, Row, Table
from reports.results import ResultFile
from specs.measurement import Case

# Case tables: times, change, certainty and explanation of every case.

MAX_ROWS = 40
"""Rows above which a table omits unchanged cases, unless all are asked for."""


CaseLine = tuple[Case, Mapping[str, ExplainedCase]]
"""A case, and its comparison by file."""


def case_tables(found: Sequence[Comparison], names: Sequence[str], *, every: bool) -> list[Table]:
    """Return a table for each question of each group.

    Args:
        found: comparisons with the baseline.
        names: name of the baseline, then of each file.
        every: show all cases, however many.
    """
    lines: dict[str, tuple[Case, dict[str, ExplainedCase]]] = {}
    for name, versus in zip(names[1:], found, strict=True):
        for one in versus.cases:
            case = one.pair.a.case
            lines.setdefault(case.name, (case, {}))[1][name] = one
    drawn = []
    for group, members in by_group(lines.values(), lambda line: line[0]).items():
        for question, alike in formatting.group_by_question(members, lambda line: line[0]):
            title = group if question == group else f"{group}: {question}"
            shown = alike if every else _largest_changes(alike)
            left_out = len(alike) - len(shown)
            drawn.append(_table(title, shown, names, left_out))
    return drawn


def _largest_changes(lines: Sequence[CaseLine]) -> Sequence[CaseLine]:
    """Return the most changed lines where there are too many, in file order."""
    if len(lines) <= MAX_ROWS:
        return lines
    kept = sorted(range(len(lines)), key=lambda at: _weight(lines[at]), reverse=True)[:MAX_ROWS]
    return [lines[at] for at in sorted(kept)]


def _weight(line: CaseLine) -> tuple[bool, float]:
    pairs = [one.pair for one in line[1].values()]
    called = any(pair.verdict in ("faster", "slower") for pair in pairs)
    return called, max(abs(log(pair.ratio)) for pair in pairs)


def _table(title: str, lines: Sequence[CaseLine], names: Sequence[str], left_out: int) -> Table:
    columns, cells, caption = formatting.label_columns([case for case, _ in lines])
    draw = _two_file_columns if len(names) == 2 else _many_file_columns
    titles, rows = draw(lines, names)
    note = f"{formatting.pluralize(left_out, 'case')} that changed less left out: --all shows them"
    return Table(
        title=title,
        columns=(*columns, *titles),
        groups=(tuple((*cell, *row) for cell, row in zip(cells, rows, strict=True)),),
        caption=caption,
        notes=(
            *((note,) if left_out else ()),
            *formatting.dependent_launch_notes(case.implementation for case, _ in lines),
        ),
    ).without_empty(DASH)


def _two_file_columns(lines: Sequence[CaseLine], names: Sequence[str]) -> tuple[tuple[Column, ...], list[Row]]:
    a, b = names
    found = [by[b] for _, by in lines]
    time = formatting.choose_scale(formatting.SECONDS, [of.median for one in found for of in (one.pair.a, one.pair.b)])
    over = "over frameworks" if all(one.pair.basis == "frameworks" for one in found) else "95% interval"
    titles = (f"{a} {time.symbol}", f"{b} {time.symbol}", f"{b}/{a}", over)
    columns = (*map(Column, titles), Column("verdict", number=False), Column("explained by", number=False))
    rows: list[Row] = [
        (
            time(one.pair.a.median),
            time(one.pair.b.median),
            formatting.ratio(one.pair.ratio),
            _interval(one.pair),
            one.pair.verdict,
            one.why.explained_by or DASH,
            formatting.ratio(one.why.unexplained) if one.why.explained_by else DASH,
        )
        for one in found
    ]
    return (*columns, Column("unexplained")), rows


def _many_file_columns(lines: Sequence[CaseLine], names: Sequence[str]) -> tuple[tuple[Column, ...], list[Row]]:
    """Return a column of ratios and one of verdicts for each file."""
    a, others = names[0], names[1:]
    bases = [next(iter(by.values())).pair.a.median for _, by in lines]
    time = formatting.choose_scale(formatting.SECONDS, bases)
    columns = [Column(f"{a} {time.symbol}")]
    for name in others:
        columns += [Column(f"{name}/{a}"), Column(f"{name} is", number=False)]
    rows = []
    for base, (_, by) in zip(bases, lines, strict=True):
        row = [time(base)]
        for name in others:
            one = by.get(name)
            row += [formatting.ratio(one.pair.ratio), one.pair.verdict] if one else [DASH, DASH]
        rows.append(tuple(row))
    return tuple(columns), rows


def _interval(pair: CaseComparison) -> str:
    if pair.interval is None:
        return "single pass" if pair.a.provenance == "measured" else "one framework"
    return f"{formatting.ratio(pair.interval[0])} – {formatting.ratio(pair.interval[1])}"


# Warnings on differences between two files besides the times.

CASE_FIELDS = ("cache", "launch", "implementation", "kernel", "backend", "flops", "hbm_bytes")
MEASUREMENT_FIELDS = ("clock", "provenance", "version", "kernel_source")
MAX_TEXT = 60
CLOCK_WORDS = {roofline.THROTTLED: "throttled", roofline.MOVED: "in which the SM clock moved"}


def comparability_warnings(versus: Comparison, a: str = "A", b: str = "B") -> list[str]:
    """Return differences of machines, then of matched cases, then weak verdicts."""
    found = [
        f"machines differ in {name}: {_shorten(left)} → {_shorten(right)}"
        for name, left, right in machine.differences(versus.a.machine, versus.b.machine)
    ]
    if versus.a.schema != versus.b.schema:
        found.append(f"schemas differ: {versus.a.schema} → {versus.b.schema}; measure both with one shardbench")
    for side, file in ((a, versus.a), (b, versus.b)):
        if profiler := file.machine.get("profiler"):
            found.append(f"{side} was timed with a profiler attached: {_shorten(str(profiler))}")
    if versus.mismatched:
        name, why = next(iter(versus.mismatched.items()))
        found.append(
            f"{_cases(len(versus.mismatched))} of one name but not of the same work, not compared: {name}: {why}"
        )
    return [*found, *_fields(versus.pairs), *_weak_verdicts(a, b, versus.pairs)]


def _fields(pairs: Iterable[CaseComparison]) -> list[str]:
    changes: dict[str, list[str]] = {}
    for pair in pairs:
        sides = [(name, getattr(pair.a.case, name), getattr(pair.b.case, name)) for name in CASE_FIELDS]
        sides += [(name, getattr(pair.a, name), getattr(pair.b, name)) for name in MEASUREMENT_FIELDS]
        for name, left, right in sides:
            if left != right:
                changes.setdefault(name, []).append(f"{left} → {right}")
    return [f"{name} differs in {_cases(len(found))}, as in {found[0]}" for name, found in changes.items()]


def _weak_verdicts(a: str, b: str, pairs: Iterable[CaseComparison]) -> list[str]:
    pairs, said = tuple(pairs), dict[str, int]()
    for side, one in ((a, [pair.a for pair in pairs]), (b, [pair.b for pair in pairs])):
        single = sum(1 for of in one if len(of.seconds) < 2 and of.provenance == "measured")
        for word in (roofline.THROTTLED, roofline.MOVED):
            count = sum(word in roofline.clock_doubts(of) for of in one)
            said[f"{side}: {_cases(count)} {CLOCK_WORDS[word]}"] = count
        said[
            f"{side}: {_cases(single)} with a single pass, which no interval can be made from: always ambiguous; "
            "measure with --passes 6"
        ] = single
    published = [pair for pair in pairs if pair.a.provenance != "measured"]
    by = sum(1 for pair in published if pair.basis == "frameworks")
    said[f"{_cases(by)} published as single figures: intervals are the range over frameworks, no statistics"] = by
    alone = len(published) - by
    said[f"{_cases(alone)} published by one framework alone: no interval, always ambiguous"] = alone
    return [text for text, count in said.items() if count]


def _cases(count: int) -> str:
    return "1 case" if count == 1 else f"{count} cases"


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


RATIO_NOTE = "ratios are times over those of {}: below 1 is faster; of a resource the time by it alone"
PUBLISHED_NOTE = "published times have no passes: verdicts are by the range over frameworks, whose versions may differ"
MAX_NAMES = 20
"""Cases in only one file that are named before the rest is counted."""


def comparison_page(
    files: Sequence[ResultFile], found: Sequence[Comparison], names: Sequence[str], *, every: bool
) -> list[Block]:
    """Return all blocks: files, warnings, groups, cases, unmatched cases, the rule.

    Args:
        files: the baseline, then the others.
        found: comparisons of the others with the baseline.
        names: A, B, C, … for each file.
        every: show each case; else large tables show the changed cases.
    """
    described = [(name, f"{file.path}: {_machine(file)}") for name, file in zip(names, files, strict=True)]
    blocks: list[Block] = [Facts(title="compare", rows=tuple(described))]
    for name, one in zip(names[1:], found, strict=True):
        if warnings := comparability_warnings(one, names[0], name):
            title = "mind" if len(found) == 1 else f"mind of {name}"
            blocks.append(Facts(title=title, rows=tuple(("", line) for line in warnings), level=3))
    blocks += [question_table(found, names), explanation_facts(found, names), *case_tables(found, names, every=every)]
    for name, file in zip(names, files, strict=True):
        others = [other for other in files if other is not file]
        for title, cases in (("only in", cases_only_in(file, others)), ("not in", missing_cases(file, others))):
            if cases:
                rows = tuple(("", line) for line in (cases if every else _first_names(cases)))
                blocks.append(Facts(title=f"{title} {name}", rows=rows, level=3))
    for name, one in zip(names[1:], found, strict=True):
        blocks.append(Facts(title=_title(name, found), rows=_summary_facts(one, names[0], name), level=3))
    return blocks


def _machine(file: ResultFile) -> str:
    """Return the machine, and the SM clock that it ran at."""
    clock = roofline.clock_range(file)
    return machine.describe(file.machine) + (f", SM clock {clock}" if clock else "")


def _first_names(cases: Sequence[str]) -> list[str]:
    left_out = len(cases) - MAX_NAMES
    return [*cases[:MAX_NAMES], *([f"… and {left_out} more: --all names them"] if left_out > 0 else [])]


def question_table(found: Sequence[Comparison], names: Sequence[str], what: str = "file") -> Table:
    """Return a table with a row per file and question.

    A row has the question's cases together, and the change of the resources that could explain it.
    """
    groups = tuple(
        tuple((name, *_row(group, one)) for group in one.groups) for name, one in zip(names[1:], found, strict=True)
    )
    published = any(pair.basis == "frameworks" for one in found for pair in one.pairs)
    titles = (what, "question", "cases", "time\nratio", "95 %\ninterval", "together", *VERDICTS)
    could = tuple(name.replace(" ", "\n", 1) for name in RESOURCES)
    return Table(
        title="by question",
        columns=tuple(
            Column(title, number=title not in (what, "question", "together"))
            for title in (*titles, *could, "left\nunexplained")
        ),
        groups=groups,
        notes=(RATIO_NOTE.format(names[0]), *([PUBLISHED_NOTE] if published else [])),
    ).without_empty(DASH)


def explanation_facts(found: Sequence[Comparison], names: Sequence[str]) -> Facts:
    """Return a sentence per file and question on which resources explain the change."""
    rows = tuple(
        (f"{name} {group.name}", explanation_sentence(group, one.threshold))
        for name, one in zip(names[1:], found, strict=True)
        for group in one.groups
    )
    return Facts(title="what explains it", rows=rows, level=3)


def explanation_sentence(group: CaseGroup, threshold: float) -> str:
    """Return which resources explain a group's change, which do not, and the rest."""
    total, parts = len(group.pairs), [f"{formatting.ratio(group.ratio)} of the time"]
    for names, count in group.explained.items():
        parts.append(f"{_resource_text(names, group)} {_verb(names)} {count} of {total}")
    idle = [name for name in group.resources if not any(name in names for names in group.explained)]
    parts += [f"{_resource_text(name, group)} {_verb(name)} nothing" for name in idle]
    if group.name == "ceilings" and not group.resources:
        return f"{parts[0]}: what the others are set against"
    if not group.resources:
        parts.append("nothing is known that could explain it")
    if group.unknown and group.resources:
        parts.append(f"of {group.unknown} no resource is known")
    if left := group.unexplained_count(threshold):
        parts.append(f"{left} changed by more than {formatting.percent(threshold)} and {_stay(left)} unexplained")
    return "; ".join(parts)


def _resource_text(name: str, group: CaseGroup) -> str:
    own = group.resource(name)
    return f"{name} ({_range_text(own)})" if own is not None else name


def _stay(count: int) -> str:
    return "stays" if count == 1 else "stay"


def _verb(name: str) -> str:
    return "explain" if name == FLOPS or " and " in name else "explains"


def _row(group: CaseGroup, one: Comparison) -> tuple[str, ...]:
    could = [_range_text(found) if (found := group.resource(name)) is not None else DASH for name in RESOURCES]
    counts = (str(count) if count else DASH for count in group.counts.values())
    return (
        group.name,
        str(len(group.pairs)),
        formatting.ratio(group.ratio),
        _range_text(group.interval) if group.interval else DASH,
        group.verdict_at(one.threshold) if group.interval else DASH,
        *counts,
        *could,
        formatting.ratio(group.unexplained),
    )


def _title(name: str, found: Sequence[Comparison]) -> str:
    return "summary" if len(found) == 1 else f"summary of {name}"


def _summary_facts(one: Comparison, a: str, b: str) -> tuple[tuple[str, str], ...]:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in one.counts.items())
    judged = sum(1 for pair in one.pairs if pair.basis == "passes")
    rows = [
        ("verdicts", f"{formatting.pluralize(len(one.pairs), 'case')}: {counts} ({b} against {a})"),
        (f"{b}/{a}", f"{formatting.ratio(one.ratio)} in the geometric mean"),
    ]
    if one.detectable is not None:
        rows.append(
            (
                "could see",
                f"a slow-down of {formatting.percent(one.detectable)} in half of such runs, in the middle case",
            )
        )
    if one.drift != (1.0, 1.0):
        rows.append(("drift", f"{_range_text(one.drift)}: what the ceilings of one machine changed by"))
    limit = f"{100 * one.threshold:.4g}%"
    surely = f"surely over half of it, for {formatting.pluralize(judged, 'case')} at once"
    rule = f"faster or slower: by over {limit}, {surely if judged else 'by all frameworks over half of it'}"
    return (*rows, ("rule", rule))


def _range_text(interval: tuple[float, float]) -> str:
    return " – ".join(dict.fromkeys(map(formatting.ratio, interval)))


# JSON record of a comparison; the names of its keys are a contract.

Record = dict[str, Any]


def comparison_record(files: Sequence[ResultFile], found: Sequence[Comparison], labels: Sequence[str]) -> Record:
    """Return each case of each file against the first, groups, and unmatched cases.

    Args:
        files: the baseline, then the others.
        found: comparisons of the others with the baseline.
        labels: A, B, C, … for each file.
    """
    against = list(zip(labels[1:], found, strict=True))
    several = list(zip(labels, files, strict=True))
    return {
        "files": {label: str(file.path) for label, file in several},
        **({"threshold": found[0].threshold, "summary": _summary_record(found[0])} if len(found) == 1 else {}),
        "thresholds": {label: one.threshold for label, one in against},
        "summaries": {label: _summary_record(one) for label, one in against},
        "cases": [{"file": label, **_case(pair, why)} for label, one in against for pair, why in one.cases],
        "groups": [{"file": label, **_group(group, one)} for label, one in against for group in one.groups],
        "only_in": {
            label: cases_only_in(file, [other for other in files if other is not file]) for label, file in several
        },
        "not_in": {
            label: missing_cases(file, [other for other in files if other is not file]) for label, file in several
        },
        "unlike": {label: dict(one.mismatched) for label, one in against},
        "warnings": [line for label, one in against for line in comparability_warnings(one, labels[0], label)],
    }


def _case(pair: CaseComparison, why: Explanation) -> Record:
    (low, high), (widened_low, widened_high) = pair.interval or (None, None), pair.widened_interval or (None, None)
    return {
        "case": pair.a.case.name,
        "a_median_seconds": pair.a.median,
        "b_median_seconds": pair.b.median,
        "ratio": pair.ratio,
        "low": low,
        "high": high,
        "interval_over": pair.basis,
        "widened_low": widened_low,
        "widened_high": widened_high,
        "drift_low": pair.drift[0],
        "drift_high": pair.drift[1],
        "verdict": pair.verdict,
        "detectable": pair.detectable,
        "explained_by": why.explained_by,
        "unexplained": why.unexplained,
        "expected_ratio": why.expected,
        "binding": list(why.bound) if why.bound else None,
        "binding_share": why.share,
        "could_explain": dict(why.resource_ratios),
    }


def _group(group: CaseGroup, one: Comparison) -> Record:
    low, high = group.interval or (None, None)
    return {
        "group": group.name,
        "cases": len(group.pairs),
        "ratio": group.ratio,
        "low": low,
        "high": high,
        "least": group.span[0],
        "greatest": group.span[1],
        "verdict": group.verdict_at(one.threshold),
        **group.counts,
        "could_explain": {name: list(span) for name, span in group.resources.items()},
        "explained": group.explained,
        "unexplained": group.unexplained,
    }


def _summary_record(versus: Comparison) -> Record:
    return {**versus.counts, "geometric_mean_ratio": versus.ratio, "detectable": versus.detectable}

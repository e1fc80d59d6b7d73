"""The comparison for people: what changed by question and what explains it, then each case."""

from collections.abc import Sequence

from reports import clocks, machine, units
from reports.compare import comparability
from reports.compare.cases import tables
from reports.compare.groups import Group
from reports.compare.match import lacking, only_in
from reports.compare.resources import FLOPS, RESOURCES
from reports.compare.verdict import VERDICTS
from reports.compare.versus import Versus
from reports.files import ResultFile
from reports.page import Block, Column, Facts, Table
from reports.units import NONE

RATIOS = "ratios are times over those of {}: below 1 is faster; of a resource the time by it alone"
PUBLISHED = "published times have no passes: verdicts are by the range over frameworks, whose versions may differ"
MOST_NAMES = 20
"""Cases that only one file has, before the rest is counted."""


def page(files: Sequence[ResultFile], found: Sequence[Versus], names: Sequence[str], *, every: bool) -> list[Block]:
    """All blocks: files, what to mind, groups, cases, what could not be compared, the rule.

    Args:
        files: the baseline, then the others.
        found: the others against it.
        names: A, B, C, … for each file.
        every: each case, else of large tables those that changed.
    """
    described = [(name, f"{file.path}: {_machine(file)}") for name, file in zip(names, files, strict=True)]
    blocks: list[Block] = [Facts(title="compare", rows=tuple(described))]
    for name, one in zip(names[1:], found, strict=True):
        if warnings := comparability.warnings(one, names[0], name):
            title = "mind" if len(found) == 1 else f"mind of {name}"
            blocks.append(Facts(title=title, rows=tuple(("", line) for line in warnings), level=3))
    blocks += [by_question(found, names), explained(found, names), *tables(found, names, every=every)]
    for name, file in zip(names, files, strict=True):
        others = [other for other in files if other is not file]
        for title, cases in (("only in", only_in(file, others)), ("not in", lacking(file, others))):
            if cases:
                rows = tuple(("", line) for line in (cases if every else _few(cases)))
                blocks.append(Facts(title=f"{title} {name}", rows=rows, level=3))
    for name, one in zip(names[1:], found, strict=True):
        blocks.append(Facts(title=_title(name, found), rows=_summary(one, names[0], name), level=3))
    return blocks


def _machine(file: ResultFile) -> str:
    """The machine, and the SM clock that it ran at."""
    clock = clocks.span(file)
    return machine.describe(file.machine) + (f", SM clock {clock}" if clock else "")


def _few(cases: Sequence[str]) -> list[str]:
    left_out = len(cases) - MOST_NAMES
    return [*cases[:MOST_NAMES], *([f"… and {left_out} more: --all names them"] if left_out > 0 else [])]


def by_question(found: Sequence[Versus], names: Sequence[str], what: str = "file") -> Table:
    """For each file a row a question: its cases together, and how resources changed that could explain it."""
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
        notes=(RATIOS.format(names[0]), *([PUBLISHED] if published else [])),
    ).without_empty(NONE)


def explained(found: Sequence[Versus], names: Sequence[str]) -> Facts:
    """A sentence for each question of each file: which resource explains the change, and which does not."""
    rows = tuple(
        (f"{name} {group.name}", sentence(group, one.threshold))
        for name, one in zip(names[1:], found, strict=True)
        for group in one.groups
    )
    return Facts(title="what explains it", rows=rows, level=3)


def sentence(group: Group, threshold: float) -> str:
    """What explains a group's change, what could not, and what is left."""
    total, parts = len(group.pairs), [f"{units.ratio(group.ratio)} of the time"]
    for names, count in group.explained.items():
        parts.append(f"{_named(names, group)} {_verb(names)} {count} of {total}")
    idle = [name for name in group.resources if not any(name in names for names in group.explained)]
    parts += [f"{_named(name, group)} {_verb(name)} nothing" for name in idle]
    if group.name == "ceilings" and not group.resources:
        return f"{parts[0]}: what the others are set against"
    if not group.resources:
        parts.append("nothing is known that could explain it")
    if group.unknown and group.resources:
        parts.append(f"of {group.unknown} no resource is known")
    if left := group.left(threshold):
        parts.append(f"{left} changed by more than {units.percent(threshold)} and {_stay(left)} unexplained")
    return "; ".join(parts)


def _named(name: str, group: Group) -> str:
    own = group.resource(name)
    return f"{name} ({_span(own)})" if own is not None else name


def _stay(count: int) -> str:
    return "stays" if count == 1 else "stay"


def _verb(name: str) -> str:
    return "explain" if name == FLOPS or " and " in name else "explains"


def _row(group: Group, one: Versus) -> tuple[str, ...]:
    could = [_span(found) if (found := group.resource(name)) is not None else NONE for name in RESOURCES]
    counts = (str(count) if count else NONE for count in group.counts.values())
    return (
        group.name,
        str(len(group.pairs)),
        units.ratio(group.ratio),
        _span(group.interval) if group.interval else NONE,
        group.at(one.threshold) if group.interval else NONE,
        *counts,
        *could,
        units.ratio(group.unexplained),
    )


def _title(name: str, found: Sequence[Versus]) -> str:
    return "summary" if len(found) == 1 else f"summary of {name}"


def _summary(one: Versus, a: str, b: str) -> tuple[tuple[str, str], ...]:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in one.counts.items())
    judged = sum(1 for pair in one.pairs if pair.basis == "passes")
    rows = [
        ("verdicts", f"{units.counted(len(one.pairs), 'case')}: {counts} ({b} against {a})"),
        (f"{b}/{a}", f"{units.ratio(one.ratio)} in the geometric mean"),
    ]
    if one.detectable is not None:
        rows.append(
            ("could see", f"a slow-down of {units.percent(one.detectable)} in half of such runs, in the middle case")
        )
    if one.drift != (1.0, 1.0):
        rows.append(("drift", f"{_span(one.drift)}: what the ceilings of one machine changed by"))
    limit = f"{100 * one.threshold:.4g}%"
    surely = f"surely over half of it, for {units.counted(judged, 'case')} at once"
    rule = f"faster or slower: by over {limit}, {surely if judged else 'by all frameworks over half of it'}"
    return (*rows, ("rule", rule))


def _span(interval: tuple[float, float]) -> str:
    return " – ".join(dict.fromkeys(map(units.ratio, interval)))

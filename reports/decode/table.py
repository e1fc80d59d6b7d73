"""The kernels of each layer side by side, what the best of ours chose, and the targets beneath."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from reports import clocks, dependent, units
from reports.decode import candidates, many_tokens, targets
from reports.decode.points import DEPENDENT, LIBRARIES, OURS, Point, Selection, Speedup
from reports.decode.targets import Target
from reports.figures import Figures
from reports.page import Block, Column, Facts, Table
from reports.units import NONE
from specs.layer import LINEAR_IMPLEMENTATIONS

MARKS = {"noisy": "~", clocks.THROTTLED: "!", clocks.MOVED: "*", "contended": "^"}
"""Before a time: what makes it doubtful."""
WITHOUT, WITH = "without dependent launch", "with dependent launch"
Choice = tuple[str, str]
"""A kernel and its configuration."""
Cell = Callable[[Point], str]


def draw_up(selection: Selection) -> list[Block]:
    """A table for each layer, then configurations and targets."""
    points, choices = selection.points, _choices(selection.points)
    mind = Facts(title="mind", rows=tuple(("", note) for note in selection.notes), level=3)
    if not points:
        return [mind]
    layers = dict.fromkeys(point.case.layer for point in points)
    by_layer = [[point for point in points if point.case.layer == layer] for layer in layers]
    page: list[Block] = [_reading(points), *(_layer(selection, own, choices) for own in by_layer)]
    if choices:
        page.append(_configurations(points, choices))
    page += [*_targets(selection), _many_tokens(selection)]
    return [*page, mind] if mind.rows else page


def time(figures: Figures | None, scale: units.Scale) -> str:
    """A median behind the marks of its labels; a dash where there is none."""
    if figures is None:
        return NONE
    return "".join(MARKS.get(word, "") for word in figures.warnings()) + scale(figures.measurement.median)


def legend(figures: Sequence[Figures]) -> tuple[str, ...]:
    """What the marks before these times say."""
    words = {word for one in figures for word in one.warnings()}
    marks = "; ".join(f"{mark} {word}" for word, mark in MARKS.items() if word in words)
    return (marks,) if marks else ()


def shared(selection: Selection) -> str:
    """What holds for all points of a file."""
    return f"{selection.model} · bf16 · cold · {selection.launch}"


def _reading(points: Sequence[Point]) -> Facts:
    """What the columns mean that are there."""
    libraries, ours = " and ".join(LIBRARIES), " and ".join(OURS)
    rows = [("times", "medians of all passes; torch is what torch calls, on a GPU cuBLAS")]
    if any(point.speedup() for point in points):
        rows.append(("ratio", f"time of the better of {libraries} over that of the better of {ours}"))
    if any(point.best(OURS) and point.floor_seconds for point in points):
        rows.append(("of floor", f"of the better of {ours}, by the ceilings of this run"))
    if any(point.speedup(DEPENDENT) for point in points):
        rows.append(("pdl", f"with programmatic dependent launch: in no other column; {dependent.NOTE}"))
    if told := candidates.told(points):
        rows.append((candidates.NAME, told))
    return Facts(title="kernels", rows=tuple(rows), level=3)


def _layer(selection: Selection, points: Sequence[Point], choices: Mapping[Choice, int]) -> Table:
    measured = [figures for point in points for figures in point.by.values()]
    floors = [point.floor_seconds for point in points]
    scale = units.scale(units.SECONDS, [*(figures.measurement.median for figures in measured), *floors])
    columns: list[tuple[Column, Cell]] = [
        (Column("tp"), lambda p: f"{p.case.tp}"),
        (Column("n×k"), lambda p: f"{p.case.n}×{p.case.k}"),
        (Column("M"), lambda p: f"{p.case.tokens}"),
        *(_implementation(name, scale) for name in LINEAR_IMPLEMENTATIONS),
        (Column("floor"), lambda p: scale(p.floor_seconds)),
        (Column("of\nfloor"), lambda p: units.percent(_share(p))),
        (Column("ratio"), lambda p: _ratio(p, OURS)),
        (Column("±\n95%"), lambda p: _width(p.speedup())),
        (Column("ratio\npdl"), lambda p: _ratio(p, DEPENDENT)),
        (Column("#"), lambda p: str(choices.get(_choice(p), ""))),
    ]
    by_tp = [[point for point in points if point.case.tp == tp] for tp in dict.fromkeys(p.case.tp for p in points)]
    table = Table(
        title=points[0].case.layer or "",
        columns=tuple(column for column, _ in columns),
        groups=tuple(tuple(tuple(cell(point) for _, cell in columns) for point in group) for group in by_tp),
        caption=f"{shared(selection)} · {scale.symbol} · M tokens",
        notes=(*legend(measured), *candidates.notes(points)),
    )
    return table.without_empty(NONE)


def _implementation(name: str, scale: units.Scale) -> tuple[Column, Cell]:
    return Column(name.replace("-", "\n-")), lambda point: time(point.by.get(name), scale)


def _share(point: Point) -> float | None:
    own = point.best(OURS)
    return own.floor_share if own else None


def _ratio(point: Point, ours: Sequence[str]) -> str:
    speedup = point.speedup(ours)
    return units.ratio(speedup.ratio) + candidates.mark(point) if speedup else NONE


def _width(speedup: Speedup | None) -> str:
    """Half-width of the interval, as a share of the ratio."""
    return units.width(speedup.interval[1] / speedup.ratio - 1) if speedup and speedup.interval else NONE


def configuration(point: Point) -> str | None:
    """What the best of ours without dependent launch ran with; None in files that do not say."""
    own = point.best(OURS)
    return own.measurement.configuration if own else None


def _choice(point: Point) -> Choice:
    """The kernel that won among ours, and its configuration; empty where none is said."""
    own, chosen = point.best(OURS), configuration(point)
    return (own.measurement.case.kernel, chosen) if own and chosen else ("", "")


def _choices(points: Sequence[Point]) -> dict[Choice, int]:
    """Each choice and its number, in the order of the rows."""
    found = dict.fromkeys(choice for point in points if any(choice := _choice(point)))
    return {choice: number for number, choice in enumerate(found, 1)}


def _configurations(points: Sequence[Point], choices: Mapping[Choice, int]) -> Table:
    counts = Counter(map(_choice, points))
    rows = tuple((f"{number}", f"{counts[choice]}", *choice) for choice, number in choices.items())
    texts = (Column("kernel", number=False), Column("configuration", number=False, prose=True))
    columns = (Column("#"), Column("points"), *texts)
    return Table(title="configurations", columns=columns, groups=(rows,), caption="of the better of ours")


def _targets(selection: Selection) -> list[Block]:
    """Without dependent launch, then with it, or a word that it was not measured."""
    remark = targets.set_for_another(selection)
    if any(point.best(DEPENDENT) for point in selection.points):
        with_pdl = _judged(selection, WITH, DEPENDENT, dependent.NOTE, remark)
        return [_judged(selection, WITHOUT, OURS, remark), with_pdl]
    return [_judged(selection, WITHOUT, OURS, f"{WITH}: not measured", remark)]


def _many_tokens(selection: Selection) -> Table:
    """Dependent launch is no matter there: a launch is little beside what follows it."""
    judged = many_tokens.judge(selection.points, OURS)
    return _verdicts("targets from 128 tokens on", " and ".join(OURS), judged, targets.set_for_another(selection))


def _judged(selection: Selection, launch: str, ours: Sequence[str], *notes: str) -> Table:
    judged = targets.judge(selection.points, ours)
    read = "read is the read ceiling of this run"
    few = candidates.notes(selection.points)
    return _verdicts("targets", f"{launch}: {' and '.join(ours)}", judged, read, *notes, *few)


def _verdicts(title: str, caption: str, judged: Sequence[Target], *notes: str) -> Table:
    texts = (Column("target", number=False), Column("verdict", number=False))
    table = Table(
        title=title,
        columns=(*texts, Column("figure"), Column("points"), Column("remark", number=False, prose=True)),
        groups=(tuple(map(_target, judged)),),
        caption=caption,
        notes=tuple(filter(None, notes)),
    )
    return table.without_empty(NONE)


def _target(target: Target) -> tuple[str, ...]:
    if target.figure is None:
        figure = NONE
    else:
        figure = units.percent(target.figure) if target.unit == "share" else f"{units.ratio(target.figure)}x"
    return target.target, target.verdict, figure, f"{target.points} of {target.of}", target.remark

"""A plan as tables: what is best first, then every split at every batch, then what is missing and what is assumed."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from reports import formatting
from reports.formatting import NONE
from reports.output import Block, Column, Facts, Row, Table
from reports.plan import estimate, names, step
from reports.plan.answer import sentence
from reports.plan.crossover import Crossover
from reports.plan.names import command
from reports.plan.planner import LeftOut, Plan, Point
from reports.plan.query import Asked
from specs.parallel import Deployment

# What a plan has no figures of, a line for each reason; and the figures that it assumes.

UNITS = (("BYTES_PER_SECOND", 1e9, "GB/s"), ("SECONDS", 1e-6, "us"), ("BYTES", 2.0**30, "GiB"))
"""How the name of an assumed figure ends, and what it is written in."""
BETWEEN_NODES = "NODE_"


def left_out_tables(plan: Plan) -> list[Block]:
    """Both tables; the first where anything is left out."""
    rows = [*_no_room(plan), *_missing(plan.left_out)]
    found: list[Block] = []
    if rows:
        columns = Column("splits", number=False, prose=True), Column("why", number=False, prose=True)
        found.append(Table(title="what is not planned", columns=columns, groups=(tuple(rows),)))
    return [*found, _assumed(plan.asked)]


def _no_room(plan: Plan) -> Iterator[Row]:
    """All that memory holds too few sequences for, in one line."""
    tight = dict.fromkeys(one.deployment for one in plan.points if not one.fits)
    if not tight:
        return
    most: dict[Deployment, int] = {one: step.most_sequences(one, plan.asked, plan.system) for one in tight}
    said = [f"{one} {f'above {count}' if count else 'at any batch'}" for one, count in most.items()]
    memory = (plan.system.memory_bytes or 0) / 1e9
    yield (
        ", ".join(said),
        f"memory: {memory:,.1f} GB hold no more weights, sequences of context {plan.asked.context} and workspace",
    )


def _missing(left_out: Iterable[LeftOut]) -> Iterator[Row]:
    """Reasons that differ in their numbers alone are one."""
    alike: dict[str, list[LeftOut]] = {}
    for one in left_out:
        alike.setdefault(re.sub(r"[\d.,]+", "#", one.why), []).append(one)
    for found in alike.values():
        reasons = dict.fromkeys(one.why for one in found)
        first = next(iter(reasons))
        yield (
            ", ".join(_where(found)),
            first + (f" (and {len(reasons) - 1} more like this)" if len(reasons) > 1 else ""),
        )


def _where(found: Sequence[LeftOut]) -> Iterator[str]:
    """`tp8`, or with its batches: `tp4x2 at 1, 8`."""
    batches: dict[Deployment, list[str]] = {}
    for one in found:
        batches.setdefault(one.deployment, []).extend([str(one.batch)] if one.batch else [])
    for deployment, at in batches.items():
        yield f"{deployment} at {' and '.join(at)}" if at else str(deployment)


def _assumed(asked: Asked) -> Table:
    """What no file holds; what lies between hosts only where there are several."""
    rows = []
    for name, one in estimate.every().items():
        if name.startswith(BETWEEN_NODES) and asked.fabric.nodes == 1:
            continue
        end, factor, unit = next(row for row in UNITS if name.endswith(row[0]))
        figure, low, high = (f"{value / factor:g}" for value in (one.value, one.low, one.high))
        what = name.removesuffix(end).strip("_").lower().replace("_", " ") + (" link" if end == UNITS[0][0] else "")
        rows.append((what, f"{figure} {unit}", f"{low}–{high}" if low != high else "", one.why))
    return Table(
        title="assumed",
        columns=(
            Column("what", number=False),
            Column("figure"),
            Column("range"),
            Column("why", number=False, prose=True),
        ),
        groups=(tuple(rows),),
        caption="no file holds these; ranges above span them",
    )


Cell = Callable[[Point], str]
NOTES = (
    "step: what a sequence waits for a token; low–high over implementations, elementwise kernels, caches, passes",
    "comm: all-reduces, and hops that the loop waits for; bubble: waiting for stages; of the middle implementation",
    "rests on: the weakest of its parts, + those that are assumed or modelled",
    "best: nothing at that batch is faster; tied: its range reaches the best's; front: none is better in both",
)
TRACE = "{} has the cases of each point, by their names in `python -m reports show FILE --format json`"


def draw_up(plan: Plan) -> list[Block]:
    """All of it, the answer first."""
    found: list[Block] = [_head(plan)]
    found += [_crossover(plan, plan.crossover)] if plan.crossover else []
    found += [_targets(plan), _front(plan), _points(plan)]
    return [*found, *left_out_tables(plan)]


def _head(plan: Plan) -> Facts:
    asked = plan.asked
    rows = [
        ("", sentence(plan)),
        ("what if", names.what_if(asked)),
        ("asked", names.load(asked)),
        ("all-reduces", names.all_reduces(plan)),
        ("files", ", ".join(map(str, plan.system.paths))),
    ]
    title = f"TP or PP over {asked.gpus} x {plan.system.name}"
    return Facts(title=title, rows=tuple((name, text) for name, text in rows if text), level=1)


def _crossover(plan: Plan, found: Crossover) -> Table:
    """The batch from which on PP leads, a column for each way to deal layers."""
    ways = list(dict.fromkeys(way for _, way in found.by))
    rows = [
        (
            who.implementation,
            "counted" if who.elementwise else "fused",
            *(_batch(found.by.get((who, way))) for way in ways),
        )
        for who in dict.fromkeys(who for who, _ in found.by)
    ]
    gpus = plan.asked.gpus
    first, last = found.looked_at
    return Table(
        title="crossover",
        columns=(
            Column("implementation", number=False),
            Column("elementwise", number=False),
            *(Column(f"layers\n{way}") for way in ways),
        ),
        groups=(tuple(rows),),
        caption=(
            f"batch from which on async PP {gpus} gives more tokens a second than TP {gpus} for good: "
            f"{_range(found)} ({found.verdict})"
        ),
        notes=tuple(
            filter(
                None,
                (
                    f"multiples of {gpus} from {first} to {last}" + (f": {found.bound_by}" if found.bound_by else ""),
                    f"{NONE}: it does not, up to there" if None in found.by.values() else "",
                    names.FOR_GOOD,
                    names.VARIANTS,
                    names.UNSEEN,
                    *formatting.dependent_launch_notes(who.implementation for who, _ in found.by),
                ),
            )
        ),
    )


def _range(found: Crossover) -> str:
    """What is known of all variants together."""
    if found.low is None:
        return "none"
    surely = f"surely {found.high}" if found.high else "in some variants none"
    middle = f"about {found.batch} in the middle of the variants, " if found.batch else ""
    return f"{middle}{surely}; it may be ahead from {found.low} on"


def _batch(batch: int | None) -> str:
    return str(batch) if batch else NONE


def _targets(plan: Plan) -> Table:
    """Of each latency the split with the most tokens a second."""
    tied = Column("tied with", number=False, prose=True)
    return Table(
        title="best split for a latency",
        columns=(Column("at most\nms"), *(column for column, _ in SHORTLY), tied),
        groups=(
            tuple((f"{1e3 * one.latency_seconds:g}", *shortly(one.best), names.tied(one)) for one in plan.targets),
        ),
        caption="among the batches asked for the most tokens a second within what a token may take",
        notes=(names.OTHER_BATCHES,),
    )


def shortly(one: Point | None) -> tuple[str, ...]:
    """A point without where its time goes; None for a latency that nothing reaches."""
    return tuple(cell(one) for _, cell in SHORTLY) if one else ("none is as fast", *[NONE] * (len(SHORTLY) - 1))


def _front(plan: Plan) -> Table:
    return Table(
        title="Pareto front",
        columns=tuple(column for column, _ in SHORTLY),
        groups=(tuple(map(shortly, plan.front)),),
        caption="among the batches asked for nothing is better in both latency and tokens a second",
        notes=(names.OTHER_BATCHES,),
    )


def _points(plan: Plan) -> Table:
    """A group of rows for each batch."""
    there = [one for one in plan.points if one.fits]
    everywhere = set.intersection(*map(names.guessed, there)) if there else set()
    columns: list[tuple[Column, Cell]] = [
        (Column("batch"), lambda one: str(one.batch)),
        (Column("split", number=False), lambda one: names.cut(one.deployment)),
        (Column("schedule", number=False), lambda one: one.deployment.schedule),
        (Column("micro-\nbatches"), lambda one: str(one.deployment.micro_batches) if _is_async(one) else NONE),
        *FIGURES,
        (Column("comm\n%"), lambda one: _percent(one.account.communication_share if one.account else 0)),
        (Column("bubble\n%"), lambda one: _percent(one.account.bubble_share if one.account else 0)),
        (Column("rests on", number=False, prose=True), lambda one: names.provenance(one, everywhere)),
    ]
    groups = []
    for batch in plan.batches:
        alike = plan.at(batch)
        marks = _marks(plan, alike)
        groups.append(tuple((*(cell(one) for _, cell in columns), marks[id(one)]) for one in alike))
    guessed = f"assumed or modelled in every row: {', '.join(sorted(everywhere))}" if everywhere else ""
    return Table(
        title="every split",
        columns=(*(column for column, _ in columns), Column("note", number=False)),
        groups=tuple(groups),
        caption=" · ".join(filter(None, (names.load(plan.asked), guessed))),
        notes=(*NOTES, TRACE.format(f"`{command(plan.system.paths, plan.asked)} --format json`")),
    )


def _marks(plan: Plan, alike: Iterable[Point]) -> dict[int, str]:
    """By point of one batch: best or tied, and whether it is on the front."""
    best = min(alike, key=lambda one: one.seconds)
    told = {id(one): "best" if one is best else "tied" if one.low <= best.high else "" for one in alike}
    front = {id(one) for one in plan.front}
    return {key: ", ".join(filter(None, (word, "front" * (key in front)))) for key, word in told.items()}


def _is_async(one: Point) -> bool:
    return one.deployment.schedule == "async"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if share else NONE


FIGURES: tuple[tuple[Column, Cell], ...] = (
    (Column("step\nms"), lambda one: names.milliseconds(one.seconds)),
    (Column("low–high\nms"), names.bounds),
    (Column("tokens/s"), lambda one: formatting.digits(one.tokens_per_second)),
)
SHORTLY: tuple[tuple[Column, Cell], ...] = (
    (Column("split", number=False), lambda one: str(one.deployment)),
    (Column("batch"), lambda one: str(one.batch)),
    *FIGURES,
)

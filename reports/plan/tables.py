"""A plan as tables: what is best first, then every split at every batch, then what is missing and what is assumed."""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from reports import formatting
from reports.formatting import NONE, counted
from reports.output import Block, Column, Facts, Row, Table
from reports.plan import estimate, step
from reports.plan.answer import sentence
from reports.plan.crossover import Crossover
from reports.plan.planner import LeftOut, Plan, Point, Target
from reports.plan.query import Asked, Fabric
from reports.plan.step import ALL_REDUCE
from reports.provenance import weakest
from specs.parallel import Deployment

# How a plan's splits, ranges, parts and what-ifs are written.

# The command that makes a plan again.

USUAL = Asked(model="llama-3-70b", gpus=8)
"""What `python -m reports plan` is asked where no option says otherwise."""
PLAIN = ("model", "gpus", "context", "dtype", "backend", "partition", "draft_tokens", "prefill_chunk", "layers")
LISTS = {"batches": "batch", "latencies": "latency"}
LINKS = {
    "nodes": "nodes",
    "gpus_per_node": "gpus-per-node",
    "bytes_per_second": "link-bandwidth",
    "latency_seconds": "link-latency",
    "share": "link-share",
}


def command(paths: Iterable[Path], asked: Asked) -> str:
    """`python -m reports plan FILE --context 256`: the options that differ from the usual ones."""
    return shlex.join(["python", "-m", "reports", "plan", *map(str, paths), *_options(asked)])


def _options(asked: Asked) -> Iterator[str]:
    for name in PLAIN:
        if (value := getattr(asked, name)) != getattr(USUAL, name):
            yield from (f"--{name.replace('_', '-')}", str(value))
    if asked.launches != USUAL.launches:
        yield from ("--launch", asked.launches[0])
    for name, option in LISTS.items():
        if tuple(values := getattr(asked, name)) != tuple(getattr(USUAL, name)):
            yield from (f"--{option}", ",".join(map(str, values)))
    for name, option in LINKS.items():
        if (value := getattr(asked.fabric, name)) != getattr(Fabric(), name):
            yield from (f"--{option}", str(value))


GUESSED = ("assumed", "modelled")
SHORT = {"interpolated": "interp.", "lm_head": "head"}
VARIANTS = (
    "variants: whose kernels run; elementwise kernels (norms, rotary embedding, SwiGLU) counted as launches of their "
    "own, or fused into others at no cost; layers dealt evenly or balanced"
)
FOR_GOOD = "for good: at every larger batch looked at; before that the lead may change more than once, at tile sizes"
UNSEEN = (
    "not in the range: errors of straight lines between tabulated shapes and tokens; a tile cliff between two "
    "tabulated tokens is not seen"
)
OTHER_BATCHES = "powers of two fill tiles, and batches just above them do not: --batch asks for others"
LAUNCHED = {"graph": "in a graph", "eager": "eagerly"}
FEW = 4
"""Splits that a cell names; of more it says how many."""


def cut(one: Deployment) -> str:
    """`tp2-pp4x2`: how the model is cut, without schedule."""
    words = [f"tp{one.tp}"] if one.tp > 1 or one.pp == 1 else []
    words += [f"pp{one.pp}"] if one.pp > 1 else []
    return "-".join(words) + (f"x{one.replicas}" if one.replicas > 1 else "")


def kind(one: Deployment) -> str:
    """What a split is an example of: whatever has replicas is of that kind, whatever has both TP and PP is mixed."""
    if one.replicas > 1:
        return "replicas"
    if one.pp == 1:
        return "TP"
    return "mixed TP x PP" if one.tp > 1 else f"{one.schedule} PP"


def milliseconds(seconds: float) -> str:
    """To three digits, or all of those before the point."""
    number = 1e3 * seconds
    return formatting.digits(float(f"{number:.3g}")) if number < 1000 else f"{number:,.0f}"


def bounds(one: Point) -> str:
    """The least and the most that its step may take, in milliseconds."""
    return f"{milliseconds(one.low)}–{milliseconds(one.high)}"


def guessed_parts(one: Point) -> set[str]:
    """Parts that rest on an assumption or on a model."""
    return {name for name, how in one.account.provenance.items() if how in GUESSED} if one.account else set()


def provenance(one: Point, everywhere: Iterable[str] = ()) -> str:
    """`interp. + hop`: the weakest that parts with a measurement rest on, then those that are assumed or modelled."""
    if one.account is None:
        return ""
    found = [how for how in one.account.provenance.values() if how not in GUESSED]
    how = weakest(found) if found else ""
    extra = sorted(SHORT.get(name, name) for name in guessed_parts(one) - set(everywhere))
    return " + ".join(filter(None, (SHORT.get(how, how), ", ".join(extra))))


def tied_with(one: Target) -> str:
    """The splits that cannot be told from the best: those of its batch first."""
    best = one.best
    if best is None:
        return ""
    found = sorted(one.tied, key=lambda other: other.batch != best.batch)
    named = [str(other.deployment) + (f" at {other.batch}" if other.batch != best.batch else "") for other in found]
    more = [f"{len(named) - FEW} more"] if len(named) > FEW else []
    return ", ".join([*named[:FEW], *more])


def load(asked: Asked) -> str:
    """`llama-3-70b · bf16 · context 256 · …`."""
    return " · ".join(_load(asked))


def _load(asked: Asked) -> Iterator[str]:
    yield asked.model + (f" cut to {asked.layers} layers" if asked.layers else "")
    yield asked.dtype
    yield f"context {asked.context}"
    yield f"all-reduce: {asked.backend}"
    yield f"layers dealt {asked.partition}ly" if asked.partition == "even" else f"layers {asked.partition}"
    if asked.draft_tokens:
        yield f"{asked.draft_tokens} draft tokens"
    if asked.prefill_chunk:
        yield f"{asked.prefill_chunk} tokens of prompts in a step"


def what_if(asked: Asked) -> str:
    """What is imagined of the links; empty where nothing is."""
    fabric = asked.fabric
    if not fabric.imagined:
        return ""
    said = []
    if fabric.gpus_per_node:
        said.append(f"{counted(fabric.nodes, 'node')} of {counted(fabric.gpus_per_node, 'GPU')}")
    if fabric.bytes_per_second is not None:
        said.append(f"a link of {fabric.bytes_per_second / 1e9:g} GB/s in one direction")
    if fabric.latency_seconds is not None:
        said.append(f"{1e6 * fabric.latency_seconds:g} us a message")
    if fabric.share != 1:
        said.append(f"{fabric.share:.0%} of the link left by others")
    which = "all-reduces and hops that cross nodes" if fabric.nodes > 1 else "all all-reduces and hops"
    return f"{', '.join(said)}: {which} are modelled, nobody measured them"


def all_reduces(plan: Plan) -> str:
    """`behind the middle figures: custom (vllm) timed in a graph, of bf16; …`; none where nothing is reduced."""
    known = {one.case.name: one for one in plan.system.by_op.get("all_reduce", ())}
    used = [
        known[name]
        for one in plan.points
        if one.account
        for name in one.account.cases.get(ALL_REDUCE, ())
        if name in known
    ]
    found: dict[str, dict[str, None]] = {}
    for one in used:
        how = LAUNCHED.get(one.case.launch or "", "nobody says how")
        what = f"{one.case.implementation}{{}} timed {how}, of {one.case.dtype}"
        found.setdefault(what, {}).update({one.framework: None} if one.framework else {})
    said = [what.format(f" ({', '.join(sorted(who))})" if who else "") for what, who in found.items()]
    return f"behind the middle figures: {'; '.join(said)}" if said else ""


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
        ("what if", what_if(asked)),
        ("asked", load(asked)),
        ("all-reduces", all_reduces(plan)),
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
                    FOR_GOOD,
                    VARIANTS,
                    UNSEEN,
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
        groups=(tuple((f"{1e3 * one.latency_seconds:g}", *shortly(one.best), tied_with(one)) for one in plan.targets),),
        caption="among the batches asked for the most tokens a second within what a token may take",
        notes=(OTHER_BATCHES,),
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
        notes=(OTHER_BATCHES,),
    )


def _points(plan: Plan) -> Table:
    """A group of rows for each batch."""
    there = [one for one in plan.points if one.fits]
    everywhere = set.intersection(*map(guessed_parts, there)) if there else set()
    columns: list[tuple[Column, Cell]] = [
        (Column("batch"), lambda one: str(one.batch)),
        (Column("split", number=False), lambda one: cut(one.deployment)),
        (Column("schedule", number=False), lambda one: one.deployment.schedule),
        (Column("micro-\nbatches"), lambda one: str(one.deployment.micro_batches) if _is_async(one) else NONE),
        *FIGURES,
        (Column("comm\n%"), lambda one: _percent(one.account.communication_share if one.account else 0)),
        (Column("bubble\n%"), lambda one: _percent(one.account.bubble_share if one.account else 0)),
        (Column("rests on", number=False, prose=True), lambda one: provenance(one, everywhere)),
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
        caption=" · ".join(filter(None, (load(plan.asked), guessed))),
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
    (Column("step\nms"), lambda one: milliseconds(one.seconds)),
    (Column("low–high\nms"), bounds),
    (Column("tokens/s"), lambda one: formatting.digits(one.tokens_per_second)),
)
SHORTLY: tuple[tuple[Column, Cell], ...] = (
    (Column("split", number=False), lambda one: str(one.deployment)),
    (Column("batch"), lambda one: str(one.batch)),
    *FIGURES,
)

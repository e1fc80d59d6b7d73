"""Tables of a plan: answer, best splits, every split, gaps and assumptions."""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from reports import formatting
from reports.formatting import DASH, pluralize
from reports.output import Block, Column, Facts, Row, Table
from reports.plan import capacity, estimate
from reports.plan.answer import all_reduces_used, answer_sentence
from reports.plan.crossover import PlannedCrossover
from reports.plan.planner import LatencyTarget, Plan, PlanPoint, UnplannableDeployment
from reports.plan.query import Interconnect, PlanQuery
from specs.measurement import weakest_provenance
from specs.models import MODELS, find_model
from specs.parallel import Deployment

# Command line that reproduces a plan.

COMMAND_DEFAULTS = PlanQuery(model="llama-3-70b", gpus=8)
"""Query of `python -m reports plan` without options."""
PLAIN_OPTIONS = ("model", "gpus", "context", "dtype", "backend", "partition", "draft_tokens", "prefill_chunk", "layers")
LIST_OPTIONS = {"batches": "batch", "latencies": "latency"}
LINK_OPTIONS = {
    "nodes": "nodes",
    "gpus_per_node": "gpus-per-node",
    "bytes_per_second": "link-bandwidth",
    "latency_seconds": "link-latency",
    "share": "link-share",
}


def reproduce_command(paths: Iterable[Path], query: PlanQuery, gpus: Sequence[str] = ()) -> str:
    """`python -m reports plan FILE --context 256`, without default options; `gpus` are those of `--gpu`."""
    imported = ["--gpu", ",".join(gpus)] if gpus else []
    return shlex.join(["python", "-m", "reports", "plan", *map(str, paths), *imported, *_options(query)])


def plan_command(plan: Plan) -> str:
    """Command line that reproduces a plan from its files, or from the installed package."""
    profile = plan.profile
    if profile.imported:
        return reproduce_command([], plan.query, [profile.name])
    return reproduce_command(profile.paths, plan.query)


def _options(query: PlanQuery) -> Iterator[str]:
    for name in PLAIN_OPTIONS:
        if (value := getattr(query, name)) != getattr(COMMAND_DEFAULTS, name):
            given = _model_option(query) if name == "model" else str(value)
            yield from (f"--{name.replace('_', '-')}", given)
    if query.launches != COMMAND_DEFAULTS.launches:
        yield from ("--launch", query.launches[0])
    for name, option in LIST_OPTIONS.items():
        if tuple(values := getattr(query, name)) != tuple(getattr(COMMAND_DEFAULTS, name)):
            yield from (f"--{option}", ",".join(map(str, values)))
    for name, option in LINK_OPTIONS.items():
        if (value := getattr(query.interconnect, name)) != getattr(Interconnect(), name):
            yield from (f"--{option}", str(value))


def _model_option(query: PlanQuery) -> str:
    """Return the slug of a known model, or the path of a model's file."""
    return query.model if query.model in MODELS else find_model(query.model).source


# Text of a plan's splits, ranges, parts and hypothetical links.

UNMEASURED = ("assumed", "modelled")
SHORT_NAMES = {"interpolated": "interp.", "lm_head": "head"}
VARIANTS_NOTE = (
    "variants: whose kernels run; elementwise kernels (norms, rotary embedding, SwiGLU) counted as launches of their "
    "own, or fused into others at no cost; layers dealt evenly or balanced"
)
FOR_GOOD_NOTE = (
    "for good: at every larger batch looked at; before that the lead may change more than once, at tile sizes"
)
UNSEEN_NOTE = (
    "not in the range: errors of straight lines between tabulated shapes and tokens; a tile cliff between two "
    "tabulated tokens is not seen"
)
BATCHES_NOTE = "powers of two fill tiles, and batches just above them do not: --batch asks for others"
KERNELS_NOTE = "steps are of kernels and messages alone; an engine takes longer, as the table of every split shows"
LAUNCH_NAMES = {"graph": "in a graph", "eager": "eagerly"}
MAX_NAMED = 4
"""Splits named in a cell; further ones are counted."""


def parallelism_label(one: Deployment) -> str:
    """Label of how the model is cut, without schedule: `tp2-pp4x2`."""
    words = [f"tp{one.tp}"] if one.tp > 1 or one.pp == 1 else []
    words += [f"pp{one.pp}"] if one.pp > 1 else []
    return "-".join(words) + (f"x{one.replicas}" if one.replicas > 1 else "")


def deployment_kind(one: Deployment) -> str:
    """Kind of a deployment: replicas where it has any, else TP, PP or mixed."""
    if one.replicas > 1:
        return "replicas"
    if one.pp == 1:
        return "TP"
    return "mixed TP x PP" if one.tp > 1 else f"{one.schedule} PP"


def format_milliseconds(seconds: float) -> str:
    """Format seconds in ms to three digits, or all digits before the point."""
    number = 1e3 * seconds
    return formatting.three_digits(float(f"{number:.3g}")) if number < 1000 else f"{number:,.0f}"


def step_range(one: PlanPoint) -> str:
    """Lower and upper bound of a point's step, in ms."""
    return f"{format_milliseconds(one.low)}–{format_milliseconds(one.high)}"


def unmeasured_parts(one: PlanPoint) -> set[str]:
    """Parts of a point's step that are assumed or modelled."""
    return {name for name, how in one.breakdown.provenance.items() if how in UNMEASURED} if one.breakdown else set()


def provenance_cell(one: PlanPoint, everywhere: Iterable[str] = ()) -> str:
    """`interp. + hop`: weakest measured provenance, then assumed or modelled parts.

    Parts in `everywhere` are left out.
    """
    if one.breakdown is None:
        return ""
    found = [how for how in one.breakdown.provenance.values() if how not in UNMEASURED]
    how = weakest_provenance(found) if found else ""
    extra = sorted(SHORT_NAMES.get(name, name) for name in unmeasured_parts(one) - set(everywhere))
    return " + ".join(filter(None, (SHORT_NAMES.get(how, how), ", ".join(extra))))


def tied_names(one: LatencyTarget) -> str:
    """Names of the splits tied with the best, those at its batch first."""
    best = one.best
    if best is None:
        return ""
    found = sorted(one.tied, key=lambda other: other.batch != best.batch)
    named = [str(other.deployment) + (f" at {other.batch}" if other.batch != best.batch else "") for other in found]
    more = [f"{len(named) - MAX_NAMED} more"] if len(named) > MAX_NAMED else []
    return ", ".join([*named[:MAX_NAMED], *more])


def query_summary(query: PlanQuery) -> str:
    """Summary of a query: `llama-3-70b · bf16 · context 256 · …`."""
    return " · ".join(_query_parts(query))


def _query_parts(query: PlanQuery) -> Iterator[str]:
    yield query.model + (f" cut to {query.layers} layers" if query.layers else "")
    yield query.dtype
    yield f"context {query.context}"
    yield f"all-reduce: {'fastest measured' if query.backend == 'best' else query.backend}"
    yield f"layers dealt {query.partition}ly" if query.partition == "even" else f"layers {query.partition}"
    if query.draft_tokens:
        yield f"{query.draft_tokens} draft tokens"
    if query.prefill_chunk:
        yield f"{query.prefill_chunk} tokens of prompts in a step"


def hypothetical_links(query: PlanQuery) -> str:
    """Description of the hypothetical links; empty where there are none."""
    fabric = query.interconnect
    if not fabric.is_hypothetical:
        return ""
    said = []
    if fabric.gpus_per_node:
        said.append(f"{pluralize(fabric.nodes, 'node')} of {pluralize(fabric.gpus_per_node, 'GPU')}")
    if fabric.bytes_per_second is not None:
        said.append(f"a link of {fabric.bytes_per_second / 1e9:g} GB/s in one direction")
    if fabric.latency_seconds is not None:
        said.append(f"{1e6 * fabric.latency_seconds:g} us a message")
    if fabric.share != 1:
        said.append(f"{fabric.share:.0%} of the link left by others")
    which = "all-reduces and hops that cross nodes" if fabric.nodes > 1 else "all all-reduces and hops"
    return f"{', '.join(said)}: {which} are modelled, nobody measured them"


def all_reduce_sources(plan: Plan) -> str:
    """`behind the middle figures: custom (vllm) timed in a graph, of bf16; …`.

    Empty where no split reduces.
    """
    found: dict[str, dict[str, None]] = {}
    for one in all_reduces_used(plan):
        how = LAUNCH_NAMES.get(one.case.launch or "", "nobody says how")
        what = f"{one.case.implementation}{{}} timed {how}, of {one.case.dtype}"
        found.setdefault(what, {}).update({one.framework: None} if one.framework else {})
    said = [what.format(f" ({', '.join(sorted(who))})" if who else "") for what, who in found.items()]
    return f"behind the middle figures: {'; '.join(said)}" if said else ""


# Splits without figures, a row for each reason, and the assumed figures.

ASSUMPTION_UNITS = (("BYTES_PER_SECOND", 1e9, "GB/s"), ("SECONDS", 1e-6, "us"), ("BYTES", 2.0**30, "GiB"))
"""(ending of an assumption's name, value of the unit, unit)."""
NODE_PREFIX = "NODE_"


def unplannable_tables(plan: Plan) -> list[Block]:
    """Tables of splits without figures, if any, and of assumptions."""
    rows = [*_memory_rows(plan), *_missing_rows(plan.unplannable)]
    found: list[Block] = []
    if rows:
        columns = Column("splits", number=False, prose=True), Column("why", number=False, prose=True)
        found.append(Table(title="what is not planned", columns=columns, groups=(tuple(rows),)))
    return [*found, _assumption_table(plan.query)]


def _memory_rows(plan: Plan) -> Iterator[Row]:
    """Yield one row for all splits that exceed memory."""
    tight = dict.fromkeys(one.deployment for one in plan.points if not one.fits)
    if not tight:
        return
    most: dict[Deployment, int] = {one: capacity.max_sequences(one, plan.query, plan.profile) for one in tight}
    said = [f"{one} {f'above {count}' if count else 'at any batch'}" for one, count in most.items()]
    memory = (plan.profile.memory_bytes or 0) / 1e9
    yield (
        ", ".join(said),
        f"memory: {memory:,.1f} GB hold no more weights, sequences of context {plan.query.context} and workspace",
    )


def _missing_rows(unplannable: Iterable[UnplannableDeployment]) -> Iterator[Row]:
    """Yield a row per reason; reasons that differ only in numbers share it."""
    alike: dict[str, list[UnplannableDeployment]] = {}
    for one in unplannable:
        alike.setdefault(re.sub(r"[\d.,]+", "#", one.why), []).append(one)
    for found in alike.values():
        reasons = dict.fromkeys(one.why for one in found)
        first = next(iter(reasons))
        yield (
            ", ".join(_deployments_with_batches(found)),
            first + (f" (and {len(reasons) - 1} more like this)" if len(reasons) > 1 else ""),
        )


def _deployments_with_batches(found: Sequence[UnplannableDeployment]) -> Iterator[str]:
    """Yield `tp8`, or a deployment with its batches: `tp4x2 at 1 and 8`."""
    batches: dict[Deployment, list[str]] = {}
    for one in found:
        batches.setdefault(one.deployment, []).extend([str(one.batch)] if one.batch else [])
    for deployment, at in batches.items():
        yield f"{deployment} at {' and '.join(at)}" if at else str(deployment)


def _assumption_table(query: PlanQuery) -> Table:
    """Table of assumptions; links between hosts only with several hosts."""
    rows = []
    for name, one in estimate.all_assumptions().items():
        if name.startswith(NODE_PREFIX) and query.interconnect.nodes == 1:
            continue
        end, factor, unit = next(row for row in ASSUMPTION_UNITS if name.endswith(row[0]))
        figure, low, high = (f"{value / factor:g}" for value in (one.value, one.low, one.high))
        what = name.removesuffix(end).strip("_").lower().replace("_", " ") + (
            " link" if end == ASSUMPTION_UNITS[0][0] else ""
        )
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


Cell = Callable[[PlanPoint], str]
NOTES = (
    "step: what a sequence waits for a token; low–high over implementations, elementwise kernels, caches, passes",
    "comm: all-reduces, and hops that the loop waits for; bubble: waiting for stages; of the middle implementation",
    "engine: with the host and late ranks of the middle implementation; ~: more sequences than any served run had",
    "rests on: the weakest of its parts, + those that are assumed or modelled",
    "best: nothing at that batch is faster; tied: its range reaches the best's; front: none is better in both",
)
CASES_NOTE = "{} has the cases of each point, by their names in {}"
SHOW_COMMAND, IMPORT_COMMAND = (
    "`python -m reports show FILE --format json`",
    "`python -m reports import aiconfigurator`",
)


def build_tables(plan: Plan) -> list[Block]:
    """Build all blocks of a plan, the answer first."""
    found: list[Block] = [_header_facts(plan)]
    found += [_crossover_table(plan, plan.crossover)] if plan.crossover else []
    found += [_latency_table(plan), _pareto_table(plan), _point_table(plan)]
    return [*found, *unplannable_tables(plan)]


def _header_facts(plan: Plan) -> Facts:
    query = plan.query
    rows = [
        ("", answer_sentence(plan)),
        ("what if", hypothetical_links(query)),
        ("asked", query_summary(query)),
        ("parts", "; ".join(plan.notes)),
        ("all-reduces", all_reduce_sources(plan)),
        ("in engines", engine_note(plan)),
        ("published" if plan.profile.imported else "files", ", ".join(map(str, plan.profile.paths))),
    ]
    title = f"TP or PP over {query.gpus} x {plan.profile.name}"
    return Facts(title=title, rows=tuple((name, text) for name, text in rows if text), level=1)


def _crossover_table(plan: Plan, found: PlannedCrossover) -> Table:
    """Table of batches from which PP leads, a column per partition."""
    ways = list(dict.fromkeys(way for _, way in found.leads_from))
    rows = [
        (
            who.implementation,
            "counted" if who.elementwise else "fused",
            *(_batch_cell(found.leads_from.get((who, way))) for way in ways),
        )
        for who in dict.fromkeys(who for who, _ in found.leads_from)
    ]
    gpus = plan.query.gpus
    first, last = found.batch_range
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
            f"{_crossover_range(found)} ({found.verdict})"
        ),
        notes=tuple(
            filter(
                None,
                (
                    f"multiples of {gpus} from {first} to {last}" + (f": {found.bound_by}" if found.bound_by else ""),
                    f"{DASH}: it does not, up to there" if None in found.leads_from.values() else "",
                    FOR_GOOD_NOTE,
                    VARIANTS_NOTE,
                    UNSEEN_NOTE,
                    *formatting.dependent_launch_notes(who.implementation for who, _ in found.leads_from),
                ),
            )
        ),
    )


def _crossover_range(found: PlannedCrossover) -> str:
    """Text on the crossover's range over all variants."""
    if found.low is None:
        return "none"
    surely = f"surely {found.high}" if found.high else "in some variants none"
    middle = f"about {found.batch} in the middle of the variants, " if found.batch else ""
    return f"{middle}{surely}; it may be ahead from {found.low} on"


def _batch_cell(batch: int | None) -> str:
    return str(batch) if batch else DASH


def _latency_table(plan: Plan) -> Table:
    """Table of the split with the most tokens/s within each latency."""
    tied = Column("tied with", number=False, prose=True)
    return Table(
        title="best split for a latency",
        columns=(Column("at most\nms"), *(column for column, _ in POINT_COLUMNS), tied),
        groups=(
            tuple((f"{1e3 * one.latency_seconds:g}", *point_cells(one.best), tied_names(one)) for one in plan.targets),
        ),
        caption="among the batches asked for the most tokens a second within what a token may take",
        notes=(KERNELS_NOTE, BATCHES_NOTE),
    )


def point_cells(one: PlanPoint | None) -> tuple[str, ...]:
    """Cells of a point without its breakdown; dashes for None."""
    return (
        tuple(cell(one) for _, cell in POINT_COLUMNS)
        if one
        else ("none is as fast", *[DASH] * (len(POINT_COLUMNS) - 1))
    )


def _pareto_table(plan: Plan) -> Table:
    return Table(
        title="Pareto front",
        columns=tuple(column for column, _ in POINT_COLUMNS),
        groups=(tuple(map(point_cells, plan.front)),),
        caption="among the batches asked for nothing is better in both latency and tokens a second",
        notes=(KERNELS_NOTE, BATCHES_NOTE),
    )


def _point_table(plan: Plan) -> Table:
    """Table of every split that fits, grouped by batch."""
    there = [one for one in plan.points if one.fits]
    everywhere = set.intersection(*map(unmeasured_parts, there)) if there else set()
    columns: list[tuple[Column, Cell]] = [
        (Column("batch"), lambda one: str(one.batch)),
        (Column("split", number=False), lambda one: parallelism_label(one.deployment)),
        (Column("schedule", number=False), lambda one: one.deployment.schedule),
        (Column("micro-\nbatches"), lambda one: str(one.deployment.micro_batches) if _is_async(one) else DASH),
        *STEP_COLUMNS,
        (Column("comm\n%"), lambda one: _percent(one.breakdown.communication_share if one.breakdown else 0)),
        (Column("bubble\n%"), lambda one: _percent(one.breakdown.bubble_share if one.breakdown else 0)),
        (Column("rests on", number=False, prose=True), lambda one: provenance_cell(one, everywhere)),
    ]
    if any(one.engine for one in there):
        columns.insert(len(columns) - 1, (Column("engine\nms"), _engine_cell))
    groups = []
    for batch in plan.batches:
        alike = plan.at(batch)
        marks = _point_marks(plan, alike)
        groups.append(tuple((*(cell(one) for _, cell in columns), marks[id(one)]) for one in alike))
    guessed = f"assumed or modelled in every row: {', '.join(sorted(everywhere))}" if everywhere else ""
    return Table(
        title="every split",
        columns=(*(column for column, _ in columns), Column("note", number=False)),
        groups=tuple(groups),
        caption=" · ".join(filter(None, (query_summary(plan.query), guessed))),
        notes=(
            *NOTES,
            CASES_NOTE.format(
                f"`{plan_command(plan)} --format json`", IMPORT_COMMAND if plan.profile.imported else SHOW_COMMAND
            ),
        ),
    )


def _point_marks(plan: Plan, alike: Iterable[PlanPoint]) -> dict[int, str]:
    """Marks of one batch's points by `id`: best or tied, and front."""
    best = min(alike, key=lambda one: one.seconds)
    told = {id(one): "best" if one is best else "tied" if one.low <= best.high else "" for one in alike}
    front = {id(one) for one in plan.front}
    return {key: ", ".join(filter(None, (word, "front" * (key in front)))) for key, word in told.items()}


def _engine_cell(one: PlanPoint) -> str:
    """Cell of a step in the engine whose kernels it runs; `~238` beyond the sequences of served runs."""
    if one.engine is None:
        return DASH
    return f"{'~' * one.engine.extrapolated}{format_milliseconds(one.engine.seconds)}"


def engine_note(plan: Plan) -> str:
    """Text on the steps in engines: `host's time and waits for late ranks, fitted on …`; empty without any."""
    found = dict.fromkeys(
        f"{one.engine.fitted.source} (±{one.engine.fitted.tpot_range:.0%})" for one in plan.points if one.engine
    )
    return f"the host's time and waits for late ranks added, fitted on {'; '.join(found)}" if found else ""


def _is_async(one: PlanPoint) -> bool:
    return one.deployment.schedule == "async"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if share else DASH


STEP_COLUMNS: tuple[tuple[Column, Cell], ...] = (
    (Column("step\nms"), lambda one: format_milliseconds(one.seconds)),
    (Column("low–high\nms"), step_range),
    (Column("tokens/s"), lambda one: formatting.three_digits(one.tokens_per_second)),
)
POINT_COLUMNS: tuple[tuple[Column, Cell], ...] = (
    (Column("split", number=False), lambda one: str(one.deployment)),
    (Column("batch"), lambda one: str(one.batch)),
    *STEP_COLUMNS,
)

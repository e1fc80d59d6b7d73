"""How a plan's splits, ranges, parts and what-ifs are written."""

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from reports import formatting
from reports.formatting import counted
from reports.plan.planner import Plan, Point, Target
from reports.plan.query import Asked, Fabric
from reports.plan.step import ALL_REDUCE
from reports.provenance import weakest
from specs.parallel import Deployment

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


def guessed(one: Point) -> set[str]:
    """Parts that rest on an assumption or on a model."""
    return {name for name, how in one.account.provenance.items() if how in GUESSED} if one.account else set()


def provenance(one: Point, everywhere: Iterable[str] = ()) -> str:
    """`interp. + hop`: the weakest that parts with a measurement rest on, then those that are assumed or modelled."""
    if one.account is None:
        return ""
    found = [how for how in one.account.provenance.values() if how not in GUESSED]
    how = weakest(found) if found else ""
    extra = sorted(SHORT.get(name, name) for name in guessed(one) - set(everywhere))
    return " + ".join(filter(None, (SHORT.get(how, how), ", ".join(extra))))


def tied(one: Target) -> str:
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

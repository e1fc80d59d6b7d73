"""Whether what a file says of a step can be true: its deployment, the shares of its ledgers, its timeline."""

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, TypeGuard

from specs import measurement
from specs.measurement import Measurement
from specs.parallel import Deployment

CLOSED = 1e-3
"""By how much the shares of a ledger may miss 1, and a block the window of its timeline."""
NEEDED = ("model", "layers", "vocab", "tp", "pp", "replicas", "micro_batches", "batch", "tokens")
WIDTH = len(measurement.Block._fields)


def why_not(one: Measurement) -> str | None:
    """In a few words what cannot be true; None where all can."""
    return next(_faults(one), None)


def _faults(one: Measurement) -> Iterator[str]:
    case = one.case
    if case.op != measurement.OP:
        if one.ledgers is not None or one.timeline is not None:
            yield f"ledgers and timelines are of a {measurement.OP}, and this is a {case.op}"
        return
    if lacking := next((name for name in NEEDED if not getattr(case, name)), None):
        yield f"a step without {lacking}"
    elif any(getattr(case, name) < 1 for name in NEEDED[1:]):
        yield "a step of less than one layer, rank, micro-batch, sequence or token"
    elif (case.tokens or 0) % (case.batch or 1):
        yield f"{case.tokens} tokens do not divide over a batch of {case.batch}"
    elif why := deployment(one).why_not(case.ranks, case.batch or 0):
        yield why
    else:
        yield from _ledgers(one.ledgers, case.pp or 1, len(one.seconds)) if one.ledgers is not None else ()
        yield from _timeline(one.timeline, case.ranks) if one.timeline is not None else ()


def deployment(one: Measurement) -> Deployment:
    """How a step's model was laid over its ranks."""
    case = one.case
    return Deployment(
        tp=case.tp or 1,
        pp=case.pp or 1,
        replicas=case.replicas or 1,
        schedule=case.schedule or "",
        micro_batches=case.micro_batches or 1,
        partition=case.partition or "",
    )


def _ledgers(ledgers: Any, stages: int, passes: int) -> Iterator[str]:
    if not isinstance(ledgers, list) or len(ledgers) != passes:
        yield f"ledgers are not one for each of its {passes} passes"
        return
    for one in ledgers:
        if not isinstance(one, list) or len(one) != stages:
            yield f"a ledger is not one for each of its {stages} stages"
            continue
        for shares in one:
            yield from _shares(shares)


def _shares(shares: Any) -> Iterator[str]:
    if not isinstance(shares, Mapping):
        yield f"a ledger is {str(shares)[:40]!r}, not shares by item"
    elif unknown := next((item for item in shares if item not in measurement.ITEMS), None):
        yield f"a ledger has the item {unknown[:40]!r}; known: {', '.join(measurement.ITEMS)}"
    elif odd := next((item for item, share in shares.items() if not _is_number(share) or share < -CLOSED), None):
        yield f"the share of {odd} is {str(shares[odd])[:40]}, not a share"
    elif abs(sum(shares.values()) - 1) > CLOSED:
        yield f"the shares of a ledger add up to {sum(shares.values()):.4g}, not 1"


def _timeline(timeline: Any, ranks: int) -> Iterator[str]:
    found: Mapping[str, Any] = timeline if isinstance(timeline, dict) else {}
    seconds, blocks = found.get("seconds"), found.get("blocks")
    if not _is_number(seconds) or not isinstance(blocks, list) or seconds <= 0:
        yield "a timeline is not a window in seconds with its blocks"
        return
    for block in blocks:
        yield from _block(block, seconds, ranks)
    for rank in range(ranks):
        edges = [0.0, *(edge for block in blocks if block[0] == rank for edge in block[2:4]), seconds]
        if any(abs(end - start) > CLOSED * seconds for end, start in zip(edges[::2], edges[1::2], strict=True)):
            yield f"the blocks of rank {rank} do not fill its timeline of {seconds:.4g} s one after another"


def _block(block: Any, seconds: float, ranks: int) -> Iterator[str]:
    if not isinstance(block, list) or len(block) != WIDTH:
        yield f"a block of a timeline is {str(block)[:40]!r}, not {', '.join(measurement.Block._fields)}"
        return
    rank, kind, start, end, turn, slot = block
    if kind not in measurement.BLOCKS:
        yield f"a block of a timeline is of kind {str(kind)[:40]!r}; known: {', '.join(measurement.BLOCKS)}"
    elif not all(type(one) is int for one in (rank, turn, slot)):
        yield f"rank, step and slot of a block are {rank!r}, {turn!r} and {slot!r}, not whole numbers"[:120]
    elif not 0 <= rank < ranks:
        yield f"a block of a timeline is of rank {rank}, and there are {ranks} ranks"
    elif not (_is_number(start) and _is_number(end)) or end < start:
        yield f"a block of a timeline lasts from {str(start)[:20]} to {str(end)[:20]} s"
    elif start < 0 or end > seconds * (1 + CLOSED):
        yield f"a block of a timeline lies from {start:.4g} to {end:.4g} s, outside its window of {seconds:.4g} s"


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)

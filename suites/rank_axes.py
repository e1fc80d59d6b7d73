"""The axes of collectives: which ones, over what, at which messages, in a graph or eager, after which idle gap."""

from collections.abc import Mapping, Sequence
from itertools import product

import pytest

from comm.backend import Backend
from comm.backends.all import BACKENDS
from comm.collectives import COLLECTIVES
from specs.units import ITEMSIZE, binary_bytes
from suites.axes import MODELS
from suites.how import RankHow
from suites.options import Options, read_options
from suites.world.rank_case import ALONE, WITH_RESIDUAL, Shipment
from suites.world.ranks import Ranks, plan_ranks

GAP_SECONDS = 1e-3
"""An idle gap as a host that samples and schedules leaves between two steps."""
GAP_BYTES = 16 * 2**10
"""One token's hidden state of a 70B model in bf16: the message whose latency decides."""
DTYPES = ("bf16",)
LAUNCHES = {"cpu": ("eager",), "cuda": ("graph", "eager")}
"""Other than of kernels, both on a GPU: the method decides what a message costs."""
AFTER_GAPS = ("all_reduce", "send_recv", "ping_pong")
"""What a step waits for first."""
TELLS_ABSENCE = ("all_reduce", "peer_copy")
"""Where a backend that cannot start here is listed with the reason: once is enough."""


TOKENS = {"cpu": (1, 16, 128), "cuda": (1, 16, 64, 256, 2048)}
"""Decode batches, and a prefill's chunk."""


def powers(low: int, high: int, factor: int) -> tuple[int, ...]:
    """Messages from low to high bytes, each `factor` times the one before."""
    found = [low]
    while found[-1] * factor <= high:
        found.append(found[-1] * factor)
    return tuple(found)


LADDER = {"cpu": powers(2**10, 2**28, 4), "cuda": powers(2**10, 2**28, 2)}
"""1 KiB to 256 MiB."""
SHORT_LADDER = {"cpu": powers(2**10, 2**22, 16), "cuda": powers(2**10, 2**28, 4)}
"""For what is asked less often."""


def ranks_of(metafunc: pytest.Metafunc, kind: str) -> Ranks:
    """The ranks that the run will have."""
    return plan_ranks(read_options(metafunc.config).ranks, kind)


def add_collectives(
    metafunc: pytest.Metafunc, ladders: Mapping[str, Mapping[str, Sequence[int]]], ranks: Ranks
) -> None:
    """Parametrise `op`, `message` and `how` together, because what can run differs by each.

    Args:
        metafunc: pytest's view of the bench function.
        ladders: by op and kind of device the messages, where the options name none.
        ranks: the ranks of the run.
    """
    options = read_options(metafunc.config)
    cases = [
        (op, message, how)
        for op, ladder in ladders.items()
        for rung, dtype, launch, gap in _axes(options, op, ladder[ranks.kind], ranks)
        for message in [rung if options.message else _whole(op, rung, dtype, ranks)]
        for how in _hows(options, op, ranks, message, dtype, launch, gap)
    ]
    ids = [f"{op}-{ranks.count}ranks-{binary_bytes(message).replace(' ', '')}-{how}" for op, message, how in cases]
    metafunc.parametrize(("op", "message", "how"), cases, ids=ids)


def _whole(op: str, rung: int, dtype: str, ranks: Ranks) -> int:
    """A rung of the ladder that the ranks divide: the next lower one, as nccl-tests does."""
    return rung - rung % (ranks.count * ITEMSIZE[dtype]) if COLLECTIVES[op].divided else rung


def _axes(options: Options, op: str, ladder: Sequence[int], ranks: Ranks) -> list[tuple[int, str, str, float]]:
    messages, launches = options.message or ladder, options.launch or LAUNCHES[ranks.kind]
    found = list(product(messages, options.dtype or DTYPES, launches, options.gap or (0.0,)))
    if options.gap is None and op in AFTER_GAPS:
        found += product(
            [one for one in messages if one == GAP_BYTES], options.dtype or DTYPES, launches, (GAP_SECONDS,)
        )
    return found


def _hows(options: Options, op: str, ranks: Ranks, message: int, dtype: str, launch: str, gap: float) -> list[RankHow]:
    """One for each backend that was asked for, or that offers the op here; the others once each, to tell why not."""
    found = []
    for backend in backends_for(op, options):
        absent = options.impl is None and _cannot(backend, ranks)
        told_once = op in TELLS_ABSENCE and (message, launch, gap) == (GAP_BYTES, "eager", 0.0)
        beyond_graph = options.launch is None and launch == "graph" and not backend.graph
        if (not absent or told_once) and not beyond_graph:
            found.append(RankHow(dtype, launch, gap, backend.name))
    return found


def _cannot(backend: Backend, ranks: Ranks) -> bool:
    return ranks.why_not() is not None or ranks.kind not in backend.kinds or backend.why_not(ranks.world) is not None


def add_pairs(metafunc: pytest.Metafunc, ranks: Ranks) -> None:
    """Parametrise `pair` with every ordered pair of ranks."""
    pairs = [(a, b) for a in range(ranks.count) for b in range(ranks.count) if a != b] or [(0, 1)]
    metafunc.parametrize("pair", pairs, ids=[f"{a}to{b}" for a, b in pairs])


def add_shipments(metafunc: pytest.Metafunc, ops: Sequence[str], ranks: Ranks, *, under_tp: bool) -> None:
    """Parametrise `op`, `shipment` and `how`: what the models send when they are cut over all ranks.

    Args:
        metafunc: pytest's view of the bench function.
        ops: what it is sent by.
        ranks: the ranks of the run.
        under_tp: cut within layers, else into stages.
    """
    options = read_options(metafunc.config)
    contents = (ALONE,) if under_tp else (ALONE, WITH_RESIDUAL)
    launches = options.launch or LAUNCHES[ranks.kind]
    tp, pp = (ranks.count, 1) if under_tp else (1, ranks.count)
    shipments = [
        Shipment(name, tp, pp, tokens, content)
        for name in options.model or MODELS[ranks.kind]
        for content in contents
        for tokens in options.tokens or TOKENS[ranks.kind]
    ]
    cases = [
        (op, shipment, RankHow(dtype, launch, gap, backend.name))
        for op in ops
        for shipment in shipments
        for dtype, launch, gap in product(options.dtype or DTYPES, launches, options.gap or (0.0,))
        for backend in backends_for(op, options)
        if options.impl is not None or not (_cannot(backend, ranks) or (launch == "graph" and not backend.graph))
    ]
    ids = [f"{op}-{ranks.count}ranks-{shipment}-{how}" for op, shipment, how in cases]
    metafunc.parametrize(("op", "shipment", "how"), cases, ids=ids)


def backends_for(op: str, options: Options) -> list[Backend]:
    """Backends that offer an op, of those that were asked for."""
    method = COLLECTIVES[op].method
    asked = BACKENDS if options.impl is None else [name for name in options.impl if name in BACKENDS]
    return [BACKENDS[name] for name in asked if method in BACKENDS[name].methods]

"""Every way to run a model over so many GPUs."""

from collections.abc import Iterator

from specs.parallel import Deployment

MICRO_BATCHES = (1, 2)
"""Multiples of the stages that async runs are planned with: as many as keep all busy, and twice that."""


def ways(gpus: int, partition: str) -> list[Deployment]:
    """Each tp x pp x replicas that makes up `gpus`, with each schedule; TP first."""
    return [one for tp in _divisors(gpus) for pp in _divisors(gpus // tp) for one in _with(gpus, tp, pp, partition)]


def _with(gpus: int, tp: int, pp: int, partition: str) -> Iterator[Deployment]:
    replicas = gpus // (tp * pp)
    if pp == 1:
        yield Deployment(tp, 1, replicas)
        return
    yield Deployment(tp, pp, replicas, "sync", 1, partition)
    for factor in MICRO_BATCHES:
        yield Deployment(tp, pp, replicas, "async", factor * pp, partition)


def _divisors(count: int) -> list[int]:
    """The largest first: TP over all ranks leads."""
    return [one for one in range(count, 0, -1) if count % one == 0]

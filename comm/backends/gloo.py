"""gloo through torch.distributed: collectives between CPUs, over TCP also on one host. It comes with torch."""

from collections.abc import Sequence

import torch.distributed as dist

from comm.backend import Backend, Communicator
from comm.backends.through_torch import IN_PLACE, METHODS, TorchCommunicator, group_of, own_group
from comm.world import World


def why_not(_: World) -> str | None:
    """Some builds of torch lack it."""
    return None if dist.is_gloo_available() else "this torch is built without gloo; install one that has it"


def connect(world: World) -> Communicator:
    """A group of its own, so that its traffic mixes with no other's."""
    return TorchCommunicator(world, group_of(world, "gloo"))


def within(world: World, groups: Sequence[Sequence[int]]) -> Communicator:
    """Likewise, of some ranks."""
    return own_group(groups, "gloo", world)


GLOO = Backend(
    name="gloo",
    methods=METHODS,
    in_place=IN_PLACE,
    why_not=why_not,
    connect=connect,
    within=within,
    graph=False,
    kinds=frozenset({"cpu"}),
)

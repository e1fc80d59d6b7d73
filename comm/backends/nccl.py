"""NCCL through torch.distributed, as most frameworks call it; on ROCm builds of torch the same calls are RCCL's."""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from comm.backend import Backend, Communicator
from comm.backends.needs import first_line, gpus, nccl_for_shared_gpu
from comm.backends.through_torch import IN_PLACE, METHODS, TorchCommunicator, group_of, own_group
from comm.world import World
from specs.errors import UserError

NAME = "rccl" if torch.version.hip else "nccl"


def version() -> int:
    """Of the NCCL that torch has, as ncclGetVersion counts: 22907 is 2.29.7."""
    major, minor, patch = torch.cuda.nccl.version()[:3]
    return int(major) * 10_000 + int(minor) * 100 + int(patch)


def why_not(world: World) -> str | None:
    """GPUs, and a torch that is built with it."""
    if reason := gpus(world):
        return reason
    if not dist.is_nccl_available():
        return f"this torch is built without {NAME.upper()}; install one that has it"
    return nccl_for_shared_gpu(world, version())


def connect(world: World) -> Communicator:
    """A group of its own. NCCL joins the ranks at the first call, so one is made here.

    Raises:
        UserError: it does not come together.
    """
    return _started(TorchCommunicator(world, group_of(world, "nccl")))


def within(world: World, groups: Sequence[Sequence[int]]) -> Communicator:
    """Likewise, of some ranks.

    Raises:
        UserError: they do not come together.
    """
    return _started(own_group(groups, "nccl", world))


def _started(communicator: TorchCommunicator) -> Communicator:
    try:
        communicator.barrier()
        torch.cuda.synchronize(communicator.world.device)
    except RuntimeError as error:
        raise UserError(f"{NAME} does not start: {first_line(error)}; NCCL_DEBUG=WARN says more") from error
    return communicator


NCCL = Backend(name=NAME, methods=METHODS, in_place=IN_PLACE, why_not=why_not, connect=connect, within=within)

"""What backends of GPUs need alike, each in one line with how to get it.

Nothing here makes a CUDA context or a process group: it is asked while cases are planned, too.
"""

import os

import torch

from comm.world import World

MULTI_RANK = "NCCL_MULTI_RANK_GPU_ENABLE"
OVERLAPPING = "TORCH_SYMM_MEM_ALLOW_OVERLAPPING_DEVICES"
MULTI_RANK_SINCE = 23_000
"""The first NCCL that lets several ranks share a GPU, as ncclGetVersion counts: 2.30.0."""


def gpus(world: World) -> str | None:
    """A GPU for each rank of this host, unless ranks are meant to share one."""
    if world.kind != "cuda":
        return f"it moves messages between GPUs and the ranks are on {world.kind}; run it where torch sees a GPU"
    there, needed = torch.cuda.device_count(), 1 if world.overlapping else world.local_ranks
    if there == 1 < needed and world.launcher != "own":
        return f"each of {needed} ranks sees one GPU of its host; let each see all (no --gpus-per-task)"
    if there < needed:
        return f"{needed} ranks need {needed} GPUs, torch sees {there} on this host; start {max(there, 1)} or add GPUs"
    return None


def one_host(world: World) -> str | None:
    """Memory that is mapped from GPU to GPU ends at the host."""
    if world.hosts > 1:
        return f"it reaches the GPUs of one host and these ranks are on {world.hosts}; run it on one"
    return None


def all_ranks(world: World) -> str | None:
    """Libraries that join all ranks that were started, or none."""
    return (
        None if world.group is None else f"it joins all ranks that were started, and these are the first {world.ranks}"
    )


def nccl_for_shared_gpu(world: World, version: int) -> str | None:
    """An NCCL that lets ranks share a GPU and has been told to; `version` as ncclGetVersion counts."""
    if not world.overlapping:
        return None
    if version < MULTI_RANK_SINCE:
        told = f"{version // 10_000}.{version // 100 % 100}.{version % 100}"
        return f"NCCL {told} takes one rank a GPU; several need 2.30 or later"
    return variable(MULTI_RANK)


def overlapping_memory(world: World) -> str | None:
    """Symmetric memory has to be told that ranks share a GPU."""
    return variable(OVERLAPPING) if world.overlapping else None


def variable(name: str) -> str | None:
    """A switch of the environment that has to be on."""
    return None if os.environ.get(name) == "1" else f"ranks share a GPU; set {name}=1 for them"


def first_line(error: BaseException) -> str:
    """What a library's exception says, without its stack of C++ frames."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:240] if lines else type(error).__name__

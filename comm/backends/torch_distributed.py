"""torch.distributed's backends: gloo on a CPU, NCCL or RCCL on GPUs.

The file also has the requirements of GPU backends, and the reader of NCCL's log.
"""

import os
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from comm.backend import Backend, Communicator, PendingMessage, World
from specs.errors import UserError

METHODS = frozenset({"all_reduce", "all_gather", "reduce_scatter", "broadcast", "send", "exchange"})
IN_PLACE = frozenset({"all_reduce"})
# torch 2.13 renamed both.
_all_gather: Any = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_reduce_scatter: Any = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


class TorchCommunicator(Communicator):
    """Connection through a process group.

    Args:
        world: the ranks.
        group: process group of all ranks.
    """

    def __init__(self, world: World, group: Any) -> None:
        super().__init__(world)
        self.group = group
        self._token = torch.zeros(1, device=world.device)

    def barrier(self) -> None:
        """Run an all-reduce of four bytes; on a GPU the stream waits and not the host."""
        dist.all_reduce(self._token, group=self.group)

    def all_reduce(self, message: torch.Tensor, out: torch.Tensor) -> None:  # noqa: ARG002
        """Run an all-reduce in place; torch.distributed has no other form."""
        dist.all_reduce(message, group=self.group)

    def all_gather(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Run an all-gather into one tensor."""
        _all_gather(out, message, group=self.group)

    def reduce_scatter(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Run a reduce-scatter out of one tensor."""
        _reduce_scatter(out, message, group=self.group)

    def broadcast(self, message: torch.Tensor, root: int) -> None:
        """Run a broadcast from rank `root`."""
        dist.broadcast(message, root, group=self.group)

    def send(self, message: torch.Tensor, to: int) -> None:
        """Send to rank `to`."""
        dist.send(message, to, group=self.group)

    def recv(self, out: torch.Tensor, source: int) -> None:
        """Receive from rank `source`."""
        dist.recv(out, source, group=self.group)

    def isend(self, message: torch.Tensor, to: int) -> PendingMessage:
        """Send to rank `to`; on a GPU from the library's own stream."""
        return _require_pending(dist.isend(message, to, group=self.group))

    def irecv(self, out: torch.Tensor, source: int) -> PendingMessage:
        """Receive from rank `source`."""
        return _require_pending(dist.irecv(out, source, group=self.group))

    def exchange(self, message: torch.Tensor, to: int, out: torch.Tensor, source: int) -> None:
        """Send and receive at once, in one batch."""
        both = [dist.P2POp(dist.isend, message, to, self.group), dist.P2POp(dist.irecv, out, source, self.group)]
        for one in dist.batch_isend_irecv(both):
            one.wait()

    def close(self) -> None:
        """Destroy the group."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dist.destroy_process_group(self.group)


def _require_pending(work: PendingMessage | None) -> PendingMessage:
    """Return the work; None means that this rank is not in the group."""
    if work is None:
        raise RuntimeError("this rank is not in the group that it sends through")
    return work


def process_group(world: World, backend: str) -> Any:
    """Return a new group of all ranks, or the group of fewer ranks.

    A new group keeps its traffic apart from other traffic.
    """
    return world.group or dist.new_group(backend=backend)


def connect_groups(groups: Sequence[Sequence[int]], backend: str, world: World) -> TorchCommunicator:
    """Connect this rank's group of several disjoint groups.

    Every rank has to create all groups, in the same order.
    """
    made = {tuple(ranks): dist.new_group(list(ranks), backend=backend) for ranks in groups}
    return TorchCommunicator(world, next(group for ranks, group in made.items() if world.rank in ranks))


# gloo through torch.distributed: collectives between CPUs, over TCP even on one host. torch includes it.


def why_no_gloo(_: World) -> str | None:
    """Return one line where this build of torch lacks gloo; None elsewhere."""
    return None if dist.is_gloo_available() else "this torch is built without gloo; install one that has it"


def connect_gloo(world: World) -> Communicator:
    """Connect all ranks through a new group."""
    return TorchCommunicator(world, process_group(world, "gloo"))


def connect_gloo_groups(world: World, groups: Sequence[Sequence[int]]) -> Communicator:
    """Connect the ranks of each group."""
    return connect_groups(groups, "gloo", world)


GLOO = Backend(
    name="gloo",
    methods=METHODS,
    in_place=IN_PLACE,
    why_not=why_no_gloo,
    connect=connect_gloo,
    connect_groups=connect_gloo_groups,
    graph=False,
    device_kinds=frozenset({"cpu"}),
)


# Requirements of GPU backends, each as one line with its remedy.
#
# Nothing here creates a CUDA context or a process group, since planning of cases asks too.

MULTI_RANK_VARIABLE = "NCCL_MULTI_RANK_GPU_ENABLE"
OVERLAPPING_VARIABLE = "TORCH_SYMM_MEM_ALLOW_OVERLAPPING_DEVICES"
MULTI_RANK_MIN_VERSION = 23_000
"""First NCCL that lets ranks share a GPU, as ncclGetVersion counts: 2.30.0."""


def why_no_gpus(world: World) -> str | None:
    """Return one line where a rank of this host has no GPU; None elsewhere.

    Ranks that are meant to share a GPU need only one.
    """
    if world.kind != "cuda":
        return f"it moves messages between GPUs and the ranks are on {world.kind}; run it where torch sees a GPU"
    there, needed = torch.cuda.device_count(), 1 if world.overlapping else world.local_ranks
    if there == 1 < needed and world.launcher != "own":
        return f"each of {needed} ranks sees one GPU of its host; let each see all (no --gpus-per-task)"
    if there < needed:
        return f"{needed} ranks need {needed} GPUs, torch sees {there} on this host; start {max(there, 1)} or add GPUs"
    return None


def why_not_one_host(world: World) -> str | None:
    """Return one line where ranks span hosts; None on one host.

    Memory that is mapped from GPU to GPU ends at the host.
    """
    if world.hosts > 1:
        return f"it reaches the GPUs of one host and these ranks are on {world.hosts}; run it on one"
    return None


def why_not_all_ranks(world: World) -> str | None:
    """Return one line where not all started ranks are in the group; None elsewhere.

    Some libraries join all started ranks or none.
    """
    return (
        None if world.group is None else f"it joins all ranks that were started, and these are the first {world.ranks}"
    )


def why_no_shared_gpu(world: World, version: int) -> str | None:
    """Return one line where NCCL does not let ranks share a GPU; None elsewhere.

    NCCL must support it and be told to; `version` counts as ncclGetVersion does.
    """
    if not world.overlapping:
        return None
    if version < MULTI_RANK_MIN_VERSION:
        told = f"{version // 10_000}.{version // 100 % 100}.{version % 100}"
        return f"NCCL {told} takes one rank a GPU; several need 2.30 or later"
    return why_not_enabled(MULTI_RANK_VARIABLE)


def why_no_overlapping_memory(world: World) -> str | None:
    """Return one line where symmetric memory is not told that ranks share a GPU."""
    return why_not_enabled(OVERLAPPING_VARIABLE) if world.overlapping else None


def why_not_enabled(name: str) -> str | None:
    """Return one line where an environment variable is not set to 1; None elsewhere."""
    return None if os.environ.get(name) == "1" else f"ranks share a GPU; set {name}=1 for them"


def first_line(error: BaseException) -> str:
    """Return the message of a library's exception without its stack of C++ frames."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:240] if lines else type(error).__name__


# NCCL through torch.distributed, as most frameworks call it. On ROCm builds of torch the same calls use RCCL.

NCCL_NAME = "rccl" if torch.version.hip else "nccl"


def nccl_version() -> int:
    """Return the version of torch's NCCL as ncclGetVersion counts: 22907 is 2.29.7."""
    major, minor, patch = torch.cuda.nccl.version()[:3]
    return int(major) * 10_000 + int(minor) * 100 + int(patch)


def why_no_nccl(world: World) -> str | None:
    """Return one line where GPUs or a torch with NCCL are missing; None elsewhere."""
    if reason := why_no_gpus(world):
        return reason
    if not dist.is_nccl_available():
        return f"this torch is built without {NCCL_NAME.upper()}; install one that has it"
    return why_no_shared_gpu(world, nccl_version())


def connect_nccl(world: World) -> Communicator:
    """Connect all ranks through a new group.

    NCCL joins the ranks at the first call, so a barrier follows.

    Raises:
        UserError: NCCL does not connect the ranks.
    """
    return _complete_start(TorchCommunicator(world, process_group(world, "nccl")))


def connect_nccl_groups(world: World, groups: Sequence[Sequence[int]]) -> Communicator:
    """Connect the ranks of each group.

    Raises:
        UserError: NCCL does not connect the ranks.
    """
    return _complete_start(connect_groups(groups, "nccl", world))


def _complete_start(communicator: TorchCommunicator) -> Communicator:
    try:
        communicator.barrier()
        torch.cuda.synchronize(communicator.world.device)
    except RuntimeError as error:
        raise UserError(f"{NCCL_NAME} does not start: {first_line(error)}; NCCL_DEBUG=WARN says more") from error
    return communicator


NCCL = Backend(
    name=NCCL_NAME,
    methods=METHODS,
    in_place=IN_PLACE,
    why_not=why_no_nccl,
    connect=connect_nccl,
    connect_groups=connect_nccl_groups,
)


# Reader of NCCL's choices in its log, with NCCL_DEBUG=INFO and NCCL_DEBUG_SUBSYS=TUNING.
#
#     NCCL INFO AllReduce: 16384 Bytes -> Algo RING proto LL channel{Lo..Hi}={0..3}
#     NCCL INFO AllReduce: 16384 Bytes -> Algo 1 proto 0 time 12.300000                        (before 2.24)
#     NCCL INFO AllReduce [Symmetric]: 16384 Bytes -> Kernel AllReduce_AGxLL_R nchannels 4 …   (from 2.27)
#
# The bytes are the larger of sent and received bytes of a rank: the message of nccl-tests and specs/traffic.py.
# Symmetric kernels print the bytes that a rank sends instead. They therefore count only for operations whose ranks send
# the message.

NCCL_OPS = {
    "AllReduce": "all_reduce",
    "AllGather": "all_gather",
    "ReduceScatter": "reduce_scatter",
    "Broadcast": "broadcast",
}
NCCL_ALGORITHMS = ("tree", "ring", "collnet-direct", "collnet-chain", "nvls", "nvls-tree", "pat")
"""Algorithms in the order of NCCL's numbers, which older versions print."""
NCCL_PROTOCOLS = ("LL", "LL128", "SIMPLE")
_ALGORITHM_ALIASES = {"COLLNETDIRECT": "collnet-direct", "COLLNETCHAIN": "collnet-chain", "NVLSTREE": "nvls-tree"}

_CHOICE_PATTERN = re.compile(
    r"(?P<op>[A-Z][A-Za-z]+)(?: \[[^\]]+\])?: (?P<bytes>\d+) Bytes -> "
    r"(?:Algo (?P<algorithm>\w+) proto (?P<protocol>\w+)|Kernel (?P<kernel>\w+))"
)


def parse_choices(log: str) -> dict[tuple[str, int], str]:
    """Return algorithm and protocol by (op, message bytes), such as `ring LL`.

    Messages for which NCCL made several choices are left out.
    """
    told = defaultdict[tuple[str, int], set[str]](set)
    for line in _CHOICE_PATTERN.finditer(log):
        if (op := NCCL_OPS.get(line["op"])) and (choice := _parse_choice(line)):
            told[op, int(line["bytes"])].add(choice)
    return {case: found.pop() for case, found in told.items() if len(found) == 1}


def _parse_choice(line: re.Match[str]) -> str | None:
    if line["kernel"]:
        return f"symmetric {line['kernel']}" if line["op"] in ("AllReduce", "Broadcast") else None
    algorithm, protocol = (
        _canonical_name(line["algorithm"], NCCL_ALGORITHMS),
        _canonical_name(line["protocol"], NCCL_PROTOCOLS),
    )
    return f"{algorithm} {protocol}" if algorithm and protocol else None


def _canonical_name(word: str, names: tuple[str, ...]) -> str | None:
    """Return a name as in `names`, from a number or a word in any case.

    None for an unknown name.
    """
    if word.isdecimal():
        return names[int(word)] if int(word) < len(names) else None
    plain = word.upper().replace("_", "")
    return next((name for name in names if _ALGORITHM_ALIASES.get(plain, plain).upper() == name.upper()), None)

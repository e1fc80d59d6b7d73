"""Backends over GPU memory that all ranks map: peer copies and all-reduces.

The memory is PyTorch's symmetric memory: memory of all ranks' GPUs is mapped into every rank, and all-reduce kernels
use it. One-shot: each rank adds up all messages itself. Two-shot: each rank adds up one part and writes it to all
ranks. Multimem: two-shot where the switch adds up, on NVSwitch systems from Hopper on.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._symmetric_memory as symm_mem
from torch._C._distributed_c10d import _SymmetricMemory

from comm.backend import TORCH_DTYPES, Backend, Communicator, World
from comm.backends.torch_distributed import first_line, why_no_gpus, why_no_overlapping_memory, why_not_one_host
from specs.errors import UserError

# Peer copies: the source's copy engine writes into another GPU's memory. No other rank takes part, so the time is that
# of the bare link.

DIRECT_PATH, STAGED_PATH = "peer", "host"


class PeerCommunicator(Communicator):
    """Copies that this process makes between its GPU and the other ranks' GPUs.

    Args:
        world: the ranks.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._token = torch.zeros(1)

    def barrier(self) -> None:
        """Wait for the stream, then for the ranks, over their group's gloo.

        There is no device between the ranks.
        """
        torch.cuda.current_stream().synchronize()
        dist.all_reduce(self._token, group=self.world.group)

    def buffer_at(self, rank: int, elements: int, dtype: str) -> torch.Tensor:
        """Return a buffer in the memory of a rank's GPU."""
        return torch.empty(elements, dtype=TORCH_DTYPES[dtype], device=torch.device("cuda", rank))

    def copy_to(self, message: torch.Tensor, to: int, out: torch.Tensor) -> None:
        """Copy on the stream of the source's device, which is the current stream.

        torch makes `out`'s stream wait for it.
        """
        if out.device.index != to:
            raise ValueError(f"out lies on {out.device}, not with rank {to}; take it from buffer_at")
        out.copy_(message, non_blocking=True)

    def transfer_path(self, rank: int) -> str:
        """Return `peer` where the GPUs reach each other's memory, else `host`.

        With `host` the driver stages the copy in the host's memory.
        """
        return DIRECT_PATH if torch.cuda.can_device_access_peer(self.world.device.index, rank) else STAGED_PATH


def why_no_peer_memory(world: World) -> str | None:
    """Return one line where there are not two GPUs of one host; None elsewhere."""
    if reason := why_no_gpus(world):
        return reason
    if world.overlapping or world.ranks < 2:
        return "a copy to a peer needs two GPUs, and all ranks are on one; run it where there are two"
    return why_not_one_host(world)


PEER = Backend(
    name="peer",
    methods=frozenset({"copy_to"}),
    why_not=why_no_peer_memory,
    connect=PeerCommunicator,
    graph=False,  # the target's stream, which the copy waits for, is not part of a capture
)


AllReduceFunction = Callable[[torch.Tensor, torch.Tensor, str], object]
"""Arguments: message, out, name of the group."""
METHODS = frozenset({"all_reduce"})
REDUCIBLE_DTYPES = ("fp32", "bf16")
"""Dtypes that torch's kernels are compiled for."""


def allocate_shared(elements: int, dtype: torch.dtype, world: World) -> tuple[torch.Tensor, Any]:
    """Return memory that all ranks reach, and torch's handle; call it on every rank.

    Each result is an allocation of its own. `symm_mem.empty` would take memory from a pool. Ranks may then get
    different offsets once memory is reused, while torch's all-reduce kernels count from the start of an allocation.

    Raises:
        UserError: the GPUs do not reach one another's memory.
    """
    try:
        memory = _SymmetricMemory.empty_strided_p2p((elements,), (1,), dtype, world.device)
        handle = symm_mem.rendezvous(memory, group_name(world))
    except RuntimeError as error:
        raise UserError(f"symmetric memory does not start: {first_line(error)}") from error
    return memory, handle


class SymmetricCommunicator(Communicator):
    """Ranks whose messages lie in shared memory.

    Args:
        world: the ranks.
        all_reduce: torch's operator.
        multicast: True where it needs an address that reads and writes all ranks' memory at once.

    Raises:
        UserError: the memory cannot be shared, or there is no such address.
    """

    def __init__(self, world: World, all_reduce: AllReduceFunction, *, multicast: bool = False) -> None:
        super().__init__(world)
        self._token, self._handle = allocate_shared(1024, torch.float32, world)
        self._all_reduce, self._group = all_reduce, group_name(world)
        self._kept: dict[tuple[int, str], list[torch.Tensor]] = defaultdict(list)
        self._given: Counter[tuple[int, str]] = Counter()
        if multicast and not self._handle.multicast_ptr:
            raise UserError(f"{world.device} has no multicast to its peers; it takes NVSwitch and Hopper or later")

    def buffer(self, elements: int, dtype: str) -> torch.Tensor:
        """Return shared memory.

        All ranks call this together, with the same sizes in the same order. The memory is kept and reused: to share new
        memory costs every visit to a case an exchange between all ranks.
        """
        key = elements, dtype
        kept, taken = self._kept[key], self._given[key]
        self._given[key] += 1
        if taken == len(kept):
            kept.append(allocate_shared(elements, TORCH_DTYPES[dtype], self.world)[0])
        return kept[taken]

    def recycle_buffers(self) -> None:
        """Reuse buffers from the first of each size."""
        self._given.clear()

    def barrier(self) -> None:
        """Wait on the stream, with the token's own flags."""
        self._handle.barrier(channel=0)

    def all_reduce(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Run an all-reduce, out of place or in place as `Backend.in_place` says."""
        self._all_reduce(message, out, self._group)


def group_name(world: World) -> Any:
    """Return the name of these ranks' torch group, whose store connects them."""
    return (world.group or dist.distributed_c10d._get_default_group()).group_name


def one_shot_all_reduce(message: torch.Tensor, out: torch.Tensor, group: str) -> None:
    """Run a one-shot all-reduce out of place."""
    torch.ops.symm_mem.one_shot_all_reduce_out(message, "sum", group, out)


def two_shot_all_reduce(message: torch.Tensor, _: torch.Tensor, group: str) -> None:
    """Run a two-shot all-reduce in place; this form takes any number of ranks."""
    torch.ops.symm_mem.two_shot_all_reduce_(message, "sum", group)


def multimem_all_reduce(message: torch.Tensor, _: torch.Tensor, group: str) -> None:
    """Run a multimem all-reduce in place."""
    torch.ops.symm_mem.multimem_all_reduce_(message, "sum", group)


def why_no_symmetric_memory(world: World) -> str | None:
    """Return one line where there are no GPUs of one host; None elsewhere."""
    return why_no_gpus(world) or why_not_one_host(world) or why_no_overlapping_memory(world)


def why_no_multimem(world: World) -> str | None:
    """Return one line on missing requirements; None when all are met.

    Multimem needs symmetric memory and a GPU for each rank. A missing multicast shows only on connection.
    """
    if torch.version.hip:
        return "multicast is NVIDIA's; on ROCm take symm-one-shot or symm-two-shot"
    if world.kind == "cuda" and world.overlapping:
        return "ranks share a GPU, and a GPU has no multicast to itself; it needs a GPU for each rank"
    return why_no_symmetric_memory(world)


SYMM_ONE_SHOT = Backend(
    name="symm-one-shot",
    methods=METHODS,
    why_not=why_no_symmetric_memory,
    connect=partial(SymmetricCommunicator, all_reduce=one_shot_all_reduce),
    dtypes=REDUCIBLE_DTYPES,
    algorithm="one-shot",
)
SYMM_TWO_SHOT = Backend(
    name="symm-two-shot",
    methods=METHODS,
    in_place=METHODS,
    why_not=why_no_symmetric_memory,
    connect=partial(SymmetricCommunicator, all_reduce=two_shot_all_reduce),
    dtypes=REDUCIBLE_DTYPES,
    algorithm="two-shot",
)
SYMM_MULTIMEM = Backend(
    name="symm-multimem",
    methods=METHODS,
    in_place=METHODS,
    why_not=why_no_multimem,
    connect=partial(SymmetricCommunicator, all_reduce=multimem_all_reduce, multicast=True),
    dtypes=REDUCIBLE_DTYPES,
    algorithm="two-shot",
)


# Our one-shot all-reduce over symmetric memory: messages and results may lie anywhere, since the kernel copies.

try:
    from comm.one_shot import MOST_BYTES, OneShotAllReduce, buffer_bytes
except ImportError:  # no Triton here: `why_not` reports it before other functions are called
    MOST_BYTES = 0


class TritonOneShotCommunicator(Communicator):
    """Ranks that each share two slots and flags.

    Args:
        world: the ranks.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._shared, self._handle = allocate_shared(buffer_bytes(world.ranks), torch.uint8, world)
        self._shared.zero_()
        torch.cuda.synchronize(world.device)
        self._handle.barrier(channel=0)
        torch.cuda.synchronize(world.device)  # from here on every rank's flags are zero, on any stream
        self._sum = OneShotAllReduce(world.rank, buffer_addresses(self._handle), world.device)

    def barrier(self) -> None:
        """Wait on the stream, with torch's own flags."""
        self._handle.barrier(channel=0)

    def all_reduce(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Run an all-reduce out of place."""
        self._sum(message, out)


def buffer_addresses(handle: Any) -> list[int]:
    """Return the address of each rank's memory in this process."""
    offset = getattr(handle, "offset", 0)  # offset of the tensor in its allocation
    return [pointer + offset for pointer in handle.buffer_ptrs]


def why_no_one_shot(world: World) -> str | None:
    """Return one line where symmetric memory or Triton is missing; None elsewhere."""
    if reason := why_no_symmetric_memory(world):
        return reason
    return "it needs Triton: pip install -c constraints.txt triton (on Linux)" if not MOST_BYTES else None


TRITON_ONE_SHOT = Backend(
    name="triton-one-shot",
    methods=frozenset({"all_reduce"}),
    why_not=why_no_one_shot,
    connect=TritonOneShotCommunicator,
    max_bytes=MOST_BYTES or None,
    algorithm="one-shot",
)

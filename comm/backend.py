"""The nouns `Backend`, a library that carries messages, and `Communicator`, one rank's connection through it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

# The ranks of a run, as one of them sees it.


@dataclass(frozen=True)
class World:
    """Where this rank stands.

    Attributes:
        rank, ranks: this one of how many.
        local_rank, local_ranks: the same on this host; `local_rank` is the GPU's number.
        kind: torch's device name, cpu or cuda.
        launcher: who started the ranks: own (the suites), torchrun, srun or mpirun.
        timeout_seconds: how long a rank waits for the others.
        generation: how often the ranks of this run have been started.
        group: torch's process group of these ranks, where they are the first of those that were started; None for all.
            It carries tensors of every device, so a backend of torch.distributed uses it as it is.
        overlapping: several ranks share one GPU: a functional check, whose times say nothing of a link.
    """

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    kind: str
    launcher: str = "own"
    timeout_seconds: float = 60.0
    overlapping: bool = False
    generation: int = 1
    group: Any = None

    @property
    def device(self) -> torch.device:
        """The device of this rank."""
        if self.kind == "cpu":
            return torch.device("cpu")
        return torch.device(self.kind, 0 if self.overlapping else self.local_rank)

    @property
    def hosts(self) -> int:
        """Hosts, if each has as many ranks as this one."""
        return -(-self.ranks // self.local_ranks)


TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""torch's name for each short dtype name that messages may have."""


class PendingMessage(Protocol):
    """A message under way."""

    def wait(self) -> object:
        """Hold the current stream, on a CPU this rank, until the message is there, or its memory may be written."""


class Communicator:
    """One rank's connection to the others. A backend overrides what it offers and lists it in `Backend.methods`.

    On a GPU every method queues its work on the current stream and returns; on a CPU it returns when the
    message is where it belongs.

    Args:
        world: the ranks.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def buffer(self, elements: int, dtype: str) -> torch.Tensor:
        """Room for a message or a result in memory that this backend can use at once; its values are undefined."""
        return torch.empty(elements, dtype=TORCH_DTYPES[dtype], device=self.world.device)

    def recycle_buffers(self) -> None:
        """Let the buffers that were given be given again: the case that had them is over."""

    def buffer_at(self, rank: int, elements: int, dtype: str) -> torch.Tensor:  # noqa: ARG002
        """The same in another rank's memory, where a backend can write to that without the rank's help."""
        return self.buffer(elements, dtype)

    def transfer_path(self, rank: int) -> str | None:  # noqa: ARG002
        """How a message to a rank goes, where this rank knows: `peer` directly, `host` through the host's memory."""
        return None

    def barrier(self) -> None:
        """Hold this rank's stream, on a CPU this rank, until all are there."""
        raise NotImplementedError

    def all_reduce(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Write the sum over ranks of message to `out`, which is `message` where the backend works in place."""
        raise NotImplementedError

    def all_gather(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Write the ranks' messages to `out`, one after another."""
        raise NotImplementedError

    def reduce_scatter(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Write this rank's part of the sum over ranks of message to `out`."""
        raise NotImplementedError

    def broadcast(self, message: torch.Tensor, root: int) -> None:
        """Give every rank the root's message."""
        raise NotImplementedError

    def send(self, message: torch.Tensor, to: int) -> None:
        """Send to a rank that receives."""
        raise NotImplementedError

    def recv(self, out: torch.Tensor, source: int) -> None:
        """Receive from a rank that sends."""
        raise NotImplementedError

    def isend(self, message: torch.Tensor, to: int) -> PendingMessage:
        """Send without waiting for the rank that receives; of messages to one rank the first comes first."""
        raise NotImplementedError

    def irecv(self, out: torch.Tensor, source: int) -> PendingMessage:
        """Receive when the message comes."""
        raise NotImplementedError

    def exchange(self, message: torch.Tensor, to: int, out: torch.Tensor, source: int) -> None:
        """Send and receive at the same time."""
        raise NotImplementedError

    def copy_to(self, message: torch.Tensor, to: int, out: torch.Tensor) -> None:
        """Write the message into memory of another rank's device, where `out` lies, without that rank's help."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the other ranks."""


@dataclass(frozen=True)
class Backend:
    """One library.

    Attributes:
        name: what `--impl` and result files call it.
        methods: the methods of its communicator that it offers.
        in_place: those among them whose result is written over the message.
        why_not: `why_not(world)` gives one line on what it lacks here and how to get it; None when it can start.
        connect: `connect(world)` joins the other ranks, on every rank alike. torch.distributed is initialised then.
        graph: whether its calls can be captured in a CUDA graph.
        device_kinds: kinds of devices that it serves.
        max_bytes: the longest message that it is made for; None without a limit.
        dtypes: formats of messages that it adds up.
        connect_groups: `within(world, groups)` joins the ranks of this rank's group alone, on every rank alike, with
        the same
            disjoint groups; None where it connects all or none. Ranks keep their numbers in the world.
        algorithm: what it always runs, one-shot or two-shot; None where the library chooses.
    """

    name: str
    methods: frozenset[str]
    why_not: Callable[[World], str | None]
    connect: Callable[[World], Communicator]
    in_place: frozenset[str] = frozenset()
    graph: bool = True
    device_kinds: frozenset[str] = frozenset({"cuda"})
    max_bytes: int | None = None
    dtypes: tuple[str, ...] = ("fp32", "bf16", "fp16")
    connect_groups: Callable[[World, Sequence[Sequence[int]]], Communicator] | None = None
    algorithm: str | None = None

    def __str__(self) -> str:
        return self.name

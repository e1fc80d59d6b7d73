"""The types `World`, `Backend` (a library) and `Communicator` (a connection)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class World:
    """Place of this rank among the ranks of a run.

    Attributes:
        rank, ranks: number of this rank, and count of ranks.
        local_rank, local_ranks: the same on this host; `local_rank` is the GPU's number.
        kind: torch's device name, cpu or cuda.
        launcher: program that started the ranks: own (the suites), torchrun, srun or mpirun.
        timeout_seconds: time that a rank waits for other ranks.
        generation: number of starts of this run's ranks so far.
        group: torch's process group of these ranks, where they are the first of all started ranks; None for all ranks.
            It carries tensors of every device, so a backend of torch.distributed uses it directly.
        overlapping: several ranks share one GPU: a functional check, whose times say nothing about a link.
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
        """Number of hosts, if each has as many ranks as this host."""
        return -(-self.ranks // self.local_ranks)


TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""torch's dtype for each short dtype name of messages."""


class PendingMessage(Protocol):
    """A message in flight."""

    def wait(self) -> object:
        """Block until the message is there, or until its memory may be written.

        On a GPU the current stream waits, on a CPU this rank.
        """


class Communicator:
    """One rank's connection to the other ranks.

    A backend overrides the methods that it supports and lists them in `Backend.methods`. On a GPU every method queues
    its work on the current stream and returns. On a CPU it returns when the message has arrived.

    Args:
        world: the ranks.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def buffer(self, elements: int, dtype: str) -> torch.Tensor:
        """Return memory for a message or a result that this backend can use directly.

        Its values are undefined.
        """
        return torch.empty(elements, dtype=TORCH_DTYPES[dtype], device=self.world.device)

    def recycle_buffers(self) -> None:
        """Allow reuse of the buffers that a finished case took."""

    def buffer_at(self, rank: int, elements: int, dtype: str) -> torch.Tensor:  # noqa: ARG002
        """Return a buffer in another rank's memory.

        The backend must be able to write there without that rank's help.
        """
        return self.buffer(elements, dtype)

    def transfer_path(self, rank: int) -> str | None:  # noqa: ARG002
        """Return the path of a message to a rank; None where this rank does not know.

        `peer` is direct, `host` goes through the host's memory.
        """
        return None

    def barrier(self) -> None:
        """Block this rank's stream, on a CPU this rank, until all ranks are there."""
        raise NotImplementedError

    def all_reduce(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Write the sum over ranks of message to `out`.

        `out` is `message` where the backend works in place.
        """
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
        """Send without waiting for the receiving rank.

        Messages to one rank arrive in the order of sending.
        """
        raise NotImplementedError

    def irecv(self, out: torch.Tensor, source: int) -> PendingMessage:
        """Receive without waiting; the message may come later."""
        raise NotImplementedError

    def exchange(self, message: torch.Tensor, to: int, out: torch.Tensor, source: int) -> None:
        """Send and receive at the same time."""
        raise NotImplementedError

    def copy_to(self, message: torch.Tensor, to: int, out: torch.Tensor) -> None:
        """Write the message to `out` in another rank's device memory.

        That rank does not take part.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Disconnect from the other ranks."""


@dataclass(frozen=True)
class Backend:
    """One communication library.

    Attributes:
        name: name in `--impl` and in result files.
        methods: methods of its communicator that it supports.
        in_place: methods whose result is written over the message.
        why_not: `why_not(world)` gives one line on missing requirements and their remedy; None when it can start.
        connect: `connect(world)` joins the other ranks, in the same way on every rank. torch.distributed is initialised
            then.
        graph: True where its calls can be captured in a CUDA graph.
        device_kinds: kinds of devices that it serves.
        max_bytes: longest supported message; None without a limit.
        dtypes: formats of messages that it adds up.
        connect_groups: `connect_groups(world, groups)` joins only the ranks of this rank's group. Every rank passes the
            same disjoint groups, and keeps its number in the world. None where the backend connects all ranks or none.
        algorithm: the algorithm that it always runs, one-shot or two-shot; None where the library chooses.
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

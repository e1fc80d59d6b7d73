"""Whom a rank talks to: those that share its layers, the stage before, the stage behind."""

from collections.abc import Callable, Mapping

import torch

from comm.backend import Backend, Communicator, Pending, World
from specs.errors import UserError
from specs.parallel import Deployment, Seat


class Switchboard:
    """The connections of one rank, each made once.

    Hidden states and token ids go through groups of their own: between two stages both may be under way at once, in
    opposite directions, and a library serves one pair of ranks in the order of its calls.

    Args:
        world: all ranks.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._made: dict[tuple[object, ...], Communicator] = {}

    def links(self, backend: Backend, deployment: Deployment) -> "Links":
        """This rank's in a deployment. Every rank has to ask for the same ones in the same order.

        Raises:
            UserError: the backend cannot join some ranks alone.
        """
        if backend.within is None:
            raise UserError(f"{backend} joins all ranks or none; tensor parallelism within stages needs gloo or nccl")
        every = self._make(backend, "all")
        group = None
        if deployment.tp > 1:
            group = self._make(backend, "layer", deployment.tp, deployment.ranks)
        hidden, ids = (self._make(backend, way) for way in ("hidden", "ids")) if deployment.pp > 1 else (None, None)
        return Links(self._world, deployment, every, group, hidden, ids)

    def barrier_of(self, backend: Backend, ranks: int) -> Callable[[], None]:
        """Holds the first `ranks` ranks until they are all there. Every rank has to ask for it.

        Raises:
            UserError: the backend cannot join some ranks alone.
        """
        every = self._world.ranks
        if ranks == 1:
            return _go_on
        if ranks == every:
            return self._make(backend, "all").barrier
        if backend.within is None:
            raise UserError(f"{backend} joins all ranks or none; {ranks} of {every} need gloo or nccl")
        return self._make(backend, "layer", ranks, every).barrier

    def close(self) -> None:
        """Let go of the others."""
        for communicator in self._made.values():
            communicator.close()

    def _make(self, backend: Backend, what: str, tp: int = 0, ranks: int = 0) -> Communicator:
        key = backend.name, what, tp, ranks
        if key not in self._made:
            groups = [range(first, min(first + tp, ranks)) for first in range(0, ranks, tp)] if tp else []
            connect = backend.within
            self._made[key] = connect(self._world, groups) if groups and connect else backend.connect(self._world)
        return self._made[key]


class Links:
    """One rank's links in a deployment.

    Attributes:
        group: the ranks that share its layers; None where it has them whole.
        early: whether to ask for a message before it is needed. gloo sends when it has been asked, so that saves a
            round trip; NCCL's kernel would keep a multiprocessor busy until the message comes.
    """

    def __init__(
        self,
        world: World,
        deployment: Deployment,
        every: Communicator,
        group: Communicator | None,
        hidden: Communicator | None,
        ids: Communicator | None,
    ) -> None:
        self._every, self.group, self._hidden, self._ids = every, group, hidden, ids
        self.early = world.kind == "cpu"
        seat, stages = deployment.seat(world.rank), deployment.pp
        self.first, self.last = seat.stage == 0, seat.stage == stages - 1
        around: Mapping[str, int] = {"before": seat.stage - 1, "behind": seat.stage + 1, "first": 0, "last": stages - 1}
        self._ranks = {name: deployment.rank(Seat(seat.replica, stage, seat.shard)) for name, stage in around.items()}

    def barrier(self) -> None:
        """All ranks."""
        self._every.barrier()

    def send_on(self, hidden: torch.Tensor) -> Pending:
        """The residual stream to the next stage."""
        return _there(self._hidden).isend(hidden, self._ranks["behind"])

    def receive(self, hidden: torch.Tensor) -> Pending:
        """The residual stream from the stage before."""
        return _there(self._hidden).irecv(hidden, self._ranks["before"])

    def send_back(self, ids: torch.Tensor) -> Pending:
        """Sampled tokens from the last stage to the first."""
        return _there(self._ids).isend(ids, self._ranks["first"])

    def receive_back(self, ids: torch.Tensor) -> Pending:
        """Sampled tokens at the first stage."""
        return _there(self._ids).irecv(ids, self._ranks["last"])


def _go_on() -> None:
    """Where there is nobody to wait for."""


def _there(communicator: Communicator | None) -> Communicator:
    if communicator is None:
        raise UserError("one stage has nobody to send to")
    return communicator

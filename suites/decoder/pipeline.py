"""The pipeline as one rank runs it: receive, compute, send on, micro-batch after micro-batch.

Decode is a closed loop: a micro-batch enters the first stage again when the last one has sent its tokens back, so m of
them are under way and no more. With one micro-batch that is the synchronous schedule, with one stage plain tensor
parallelism. A prefill runs once through, so that the stages fill and drain.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from comm.backend import Backend, Communicator, Pending, World
from kernels.timing.host import without_collector
from specs.errors import UserError
from specs.parallel import Deployment, Seat
from suites.decoder.microbatch import Slot
from suites.decoder.trace import TRACE_START, Trace

# Whom a rank talks to: those that share its layers, the stage before, the stage behind.


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


class Pipeline:
    """One rank's part.

    Args:
        slots: the micro-batches, in the order in which they run.
        links: to the other ranks.
    """

    def __init__(self, slots: Sequence[Slot], links: Links) -> None:
        self._slots, self._links = slots, links
        self._asked: dict[int, Pending] = {}
        self._sent: dict[int, Pending] = {}
        self._alone = links.first and links.last

    def decode(self, steps: int, trace: Trace) -> None:
        """So many tokens for every sequence, from the tokens that the slots hold; the trace is told what was when."""
        with without_collector():
            self._begin(0, trace)
            for step in range(steps):
                for number in range(len(self._slots)):
                    self._turn(trace, step, number, loop=step > 0, again=step + 1 < steps)
            self._finish()

    def prefill(self, steps: int, trace: Trace) -> None:
        """Every prompt once, `steps` times over, each time from empty stages on."""
        with without_collector():
            for step in range(steps):
                self._begin(step, trace)
                for number in range(len(self._slots)):
                    self._turn(trace, step, number, loop=False, again=False)
                self._finish()

    def _begin(self, step: int, trace: Trace) -> None:
        """All ranks at once; those behind the first ask for the first message of every slot."""
        self._links.barrier()
        trace.mark(TRACE_START, step, -1)
        if self._links.early and not self._links.first:
            for number in range(len(self._slots)):
                self._ask_for(number)

    def _ask_for(self, number: int) -> None:
        slot, links = self._slots[number], self._links
        self._asked[number] = links.receive_back(slot.ids) if links.first else links.receive(slot.entering)

    def _turn(self, trace: Trace, step: int, number: int, *, loop: bool, again: bool) -> None:
        """One micro-batch through this stage; `loop` says that its tokens come from the last stage."""
        slot, links, run = self._slots[number], self._links, trace.run
        if not self._alone and (loop or not links.first):
            run("recv", step, number, partial(self._arrive, number))
        for kind, call in slot.segments:
            run(kind, step, number, call)
        slot.end_step()
        if self._alone:
            return
        if not links.last or again:
            run("send", step, number, partial(self._send, number))
        if again and links.early:
            self._ask_for(number)

    def _arrive(self, number: int) -> None:
        if number not in self._asked:
            self._ask_for(number)
        self._asked.pop(number).wait()

    def _send(self, number: int) -> None:
        """Without waiting: a slot comes round again when its message has been used, so its memory is free by then."""
        slot = self._slots[number]
        if slot.leaving is not None:
            self._sent[number] = self._links.send_on(slot.leaving)
        else:
            slot.returned.copy_(slot.sampled)
            self._sent[number] = self._links.send_back(slot.returned)

    def _finish(self) -> None:
        for pending in self._sent.values():
            pending.wait()
        self._sent.clear()

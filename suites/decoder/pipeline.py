"""Pipeline of one rank: receive, compute and send, microbatch after microbatch.

Decode is a closed loop: a microbatch re-enters the first stage once the last stage has returned its tokens, so m
microbatches are in flight. One microbatch gives the synchronous schedule; one stage gives plain tensor parallelism. A
prefill runs once through, so the stages fill and drain.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from comm.backend import Backend, Communicator, PendingMessage, World
from kernels.timing.host import gc_disabled
from specs.errors import UserError
from specs.parallel import Deployment, RankPosition
from suites.decoder.microbatch import Microbatch
from suites.decoder.trace import START, Tracer

# Connections of a rank: to the ranks that share its layers, to the previous stage, to the next stage


class CommunicatorCache:
    """Connections of one rank, each made once.

    Hidden states and token ids use separate groups: both may be in flight between two stages, in opposite directions. A
    library serves a pair of ranks in the order of its calls.

    Args:
        world: all ranks.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._made: dict[tuple[object, ...], Communicator] = {}

    def channels(self, backend: Backend, deployment: Deployment) -> "PipelineChannels":
        """Connections of this rank in a deployment.

        All ranks must request the same ones in the same order.

        Raises:
            UserError: the backend cannot connect a subset of the ranks.
        """
        if backend.connect_groups is None:
            raise UserError(f"{backend} joins all ranks or none; tensor parallelism within stages needs gloo or nccl")
        every = self._make(backend, "all")
        group = None
        if deployment.tp > 1:
            group = self._make(backend, "layer", deployment.tp, deployment.ranks)
        hidden, ids = (self._make(backend, way) for way in ("hidden", "ids")) if deployment.pp > 1 else (None, None)
        return PipelineChannels(self._world, deployment, every, group, hidden, ids)

    def barrier_for(self, backend: Backend, ranks: int) -> Callable[[], None]:
        """Barrier of the first `ranks` ranks. Every rank must request it.

        Raises:
            UserError: the backend cannot connect a subset of the ranks.
        """
        every = self._world.ranks
        if ranks == 1:
            return _skip_barrier
        if ranks == every:
            return self._make(backend, "all").barrier
        if backend.connect_groups is None:
            raise UserError(f"{backend} joins all ranks or none; {ranks} of {every} need gloo or nccl")
        return self._make(backend, "layer", ranks, every).barrier

    def close(self) -> None:
        """Close all connections."""
        for communicator in self._made.values():
            communicator.close()

    def _make(self, backend: Backend, what: str, tp: int = 0, ranks: int = 0) -> Communicator:
        key = backend.name, what, tp, ranks
        if key not in self._made:
            groups = [range(first, min(first + tp, ranks)) for first in range(0, ranks, tp)] if tp else []
            connect = backend.connect_groups
            self._made[key] = connect(self._world, groups) if groups and connect else backend.connect(self._world)
        return self._made[key]


class PipelineChannels:
    """Connections of one rank in a deployment.

    Attributes:
        group: ranks that share its layers; None if this rank holds whole layers.
        posts_receives_early: whether to post a receive before its message is needed. gloo sends only after the receive
            is posted, so this saves a round trip. NCCL's kernel would occupy a multiprocessor until the message
            arrives.
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
        self.posts_receives_early = world.kind == "cpu"
        seat, stages = deployment.position(world.rank), deployment.pp
        self.is_first, self.is_last = seat.stage == 0, seat.stage == stages - 1
        around: Mapping[str, int] = {"before": seat.stage - 1, "behind": seat.stage + 1, "first": 0, "last": stages - 1}
        self._ranks = {
            name: deployment.rank(RankPosition(seat.replica, stage, seat.shard)) for name, stage in around.items()
        }

    def barrier(self) -> None:
        """Wait for all ranks."""
        self._every.barrier()

    def send_hidden(self, hidden: torch.Tensor) -> PendingMessage:
        """Send the residual stream to the next stage."""
        return _require(self._hidden).isend(hidden, self._ranks["behind"])

    def receive_hidden(self, hidden: torch.Tensor) -> PendingMessage:
        """Receive the residual stream from the previous stage."""
        return _require(self._hidden).irecv(hidden, self._ranks["before"])

    def send_tokens(self, ids: torch.Tensor) -> PendingMessage:
        """Send sampled tokens from the last stage to the first."""
        return _require(self._ids).isend(ids, self._ranks["first"])

    def receive_tokens(self, ids: torch.Tensor) -> PendingMessage:
        """Receive sampled tokens on the first stage."""
        return _require(self._ids).irecv(ids, self._ranks["last"])


def _skip_barrier() -> None:
    """Return at once: a single rank waits for no other."""


def _require(communicator: Communicator | None) -> Communicator:
    if communicator is None:
        raise UserError("one stage has nobody to send to")
    return communicator


class Pipeline:
    """Schedule of one rank.

    Args:
        microbatches: microbatches in the order in which they run.
        channels: connections to the other ranks.
    """

    def __init__(self, microbatches: Sequence[Microbatch], channels: PipelineChannels) -> None:
        self._microbatches, self._channels = microbatches, channels
        self._pending_receives: dict[int, PendingMessage] = {}
        self._pending_sends: dict[int, PendingMessage] = {}
        self._is_single_stage = channels.is_first and channels.is_last

    def decode(self, steps: int, trace: Tracer) -> None:
        """Decode `steps` tokens per sequence and record a trace."""
        with gc_disabled():
            self._begin(0, trace)
            for step in range(steps):
                for number in range(len(self._microbatches)):
                    self._run_microbatch(trace, step, number, loop=step > 0, again=step + 1 < steps)
            self._finish()

    def prefill(self, steps: int, trace: Tracer) -> None:
        """Run every prompt `steps` times, each time from empty stages."""
        with gc_disabled():
            for step in range(steps):
                self._begin(step, trace)
                for number in range(len(self._microbatches)):
                    self._run_microbatch(trace, step, number, loop=False, again=False)
                self._finish()

    def _begin(self, step: int, trace: Tracer) -> None:
        """Start all ranks at once; later stages post each microbatch's first receive."""
        self._channels.barrier()
        trace.mark(START, step, -1)
        if self._channels.posts_receives_early and not self._channels.is_first:
            for number in range(len(self._microbatches)):
                self._post_receive(number)

    def _post_receive(self, number: int) -> None:
        slot, links = self._microbatches[number], self._channels
        self._pending_receives[number] = (
            links.receive_tokens(slot.ids) if links.is_first else links.receive_hidden(slot.hidden_in)
        )

    def _run_microbatch(self, trace: Tracer, step: int, number: int, *, loop: bool, again: bool) -> None:
        """Run one microbatch; with `loop`, the last stage sends its tokens."""
        slot, links, run = self._microbatches[number], self._channels, trace.run
        if not self._is_single_stage and (loop or not links.is_first):
            run("recv", step, number, partial(self._wait_receive, number))
        for kind, call in slot.segments:
            run(kind, step, number, call)
        slot.end_step()
        if self._is_single_stage:
            return
        if not links.is_last or again:
            run("send", step, number, partial(self._send, number))
        if again and links.posts_receives_early:
            self._post_receive(number)

    def _wait_receive(self, number: int) -> None:
        if number not in self._pending_receives:
            self._post_receive(number)
        self._pending_receives.pop(number).wait()

    def _send(self, number: int) -> None:
        """Send without waiting.

        A microbatch returns only once its message was used, so its memory is free by then.
        """
        slot = self._microbatches[number]
        if slot.hidden_out is not None:
            self._pending_sends[number] = self._channels.send_hidden(slot.hidden_out)
        else:
            slot.returned_ids.copy_(slot.sampled_ids)
            self._pending_sends[number] = self._channels.send_tokens(slot.returned_ids)

    def _finish(self) -> None:
        for pending in self._pending_sends.values():
            pending.wait()
        self._pending_sends.clear()

"""What a rank is told of whole models: set one up, show that its logits are right, run steps and say what was when."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isnan
from typing import Any

import torch

from comm.backends.all import BACKENDS
from comm.world import World
from kernels.timing.device import current_device
from specs import memory
from specs.deployment import Deployment
from specs.dtypes import ITEMSIZE
from specs.models import Model, model
from specs.scaled import scaled
from suites import ranges
from suites.decoder.common_clock import ahead_of_first
from suites.decoder.links import Links, Switchboard
from suites.decoder.pipeline import Pipeline
from suites.decoder.proof import STEPS, Proof
from suites.decoder.shards import Shard
from suites.decoder.slot import Rows, Slot
from suites.decoder.stage import Stage
from suites.decoder.trace import Clock, CudaTrace, HostTrace, Shown, Trace


class Desk:
    """What a rank keeps between cases: connections, and the weights of as many stages as there is room for.

    Args:
        world: all ranks.
        host: what tells this host from others.
    """

    def __init__(self, world: World, host: str) -> None:
        self._world, self._board = world, Switchboard(world)
        self._host, self._ahead = host, 0.0
        self._clock: Clock = HostTrace() if world.kind == "cpu" else CudaTrace()
        self._stages: dict[tuple[object, ...], Stage] = {}
        self._proof = Proof()
        self._case: Case | None = None

    def build(
        self,
        deployment: Mapping[str, Any],
        model: str,
        layers: int,
        tokens: int,
        batch: int,
        context: int,
        dtype: str,
        implementation: str,
        backend: str,
        label: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Set a case up; `specs.case.Case` says what the words mean."""
        self._case = None  # its memory goes before the next one's comes
        self._ahead = ahead_of_first(self._world.rank, self._world.ranks, self._host)  # anew: clocks drift apart
        laid, whole = Deployment(**deployment), _model(model, layers)
        links = self._board.links(BACKENDS[backend], laid)
        stage = self._stage(laid, whole, dtype, implementation, batch * context)
        length = tokens // batch
        slots = [Slot(stage, rows, links.group) for rows in _dealt(laid, batch, length, context)]
        self._case = Case(laid, whole, stage, slots, links, Pipeline(slots, links), label)
        return {"bytes": stage.bytes}

    def prove(self) -> dict[str, Any]:
        """The error of this rank's logits, see `suites.decoder.proof`; None where it has none."""
        case = self._set_up()
        with case.marked("warm-up"), torch.inference_mode():
            for slot in case.slots:
                slot.begin_proof()
            case.run(STEPS, case.shown())
            for slot in case.slots:
                slot.end_proof()
            error = self._proof.error(case.model, case.slots) if case.stage.last else None
        return {"error": "nan" if error is not None and isnan(error) else error}

    def walk(self, steps: int) -> dict[str, Any]:
        """Run steps; gives the trace of all."""
        case = self._set_up()
        with case.marked("timed"), torch.inference_mode():
            self._clock.begin()
            case.run(steps, self._clock)
            return {"clock": self._clock.name, "trace": self._clock.rows(self._ahead)}

    def close(self) -> None:
        """Let go of the others."""
        self._case = None
        self._board.close()

    def _set_up(self) -> "Case":
        if self._case is None:
            raise RuntimeError("told to run a model before one was set up")
        return self._case

    def _stage(self, laid: Deployment, whole: Model, dtype: str, implementation: str, tokens: int) -> Stage:
        """This rank's; the others are let go where memory is short."""
        split, seat, device = laid.split(whole), laid.seat(self._world.rank), self._world.device
        key = (whole, split.tp, split.pp, split.stage_layers(), seat.stage, seat.shard, dtype, implementation)
        if key not in self._stages:
            size = ITEMSIZE[dtype]
            need = memory.stage_weight_bytes(split, seat.stage, size, replicated_embedding=True)
            need += memory.kv_bytes_per_token_per_rank(split, seat.stage, size) * tokens // laid.replicas
            here = self._world.local_ranks if self._world.kind == "cpu" else 1
            if need > current_device().free_bytes() / 2 / here:
                self._stages.clear()
                self._proof.forget()
                if self._world.kind == "cuda":
                    torch.cuda.empty_cache()
            with torch.inference_mode():
                self._stages[key] = Stage(Shard(split, seat.shard, dtype, device), seat, implementation)
        return self._stages[key]


class Case:
    """A model as it is set up."""

    def __init__(
        self,
        deployment: Deployment,
        model: Model,
        stage: Stage,
        slots: Sequence[Slot],
        links: Links,
        pipeline: Pipeline,
        label: Mapping[str, Any],
    ) -> None:
        self.deployment, self.model, self.stage, self.slots, self.links = deployment, model, stage, slots, links
        self._pipeline, self._label = pipeline, label
        self.decode = slots[0].rows.decode

    def run(self, steps: int, trace: Trace) -> None:
        """Tokens for every sequence, or every prompt so many times."""
        (self._pipeline.decode if self.decode else self._pipeline.prefill)(steps, trace)

    def shown(self) -> Shown:
        """A trace that makes every segment a range."""
        return Shown(self._label["question"], self._label["number"])

    @contextmanager
    def marked(self, part: str) -> Iterator[None]:
        """NVTX ranges: the case, and in it warm-up or timed."""
        name, question, number = (self._label[key] for key in ("name", "question", "number"))
        with ranges.mark(name, question, number), ranges.mark(part, question, number):
            yield


def _model(slug: str, layers: int) -> Model:
    return scaled(model(slug), layers)


def _dealt(laid: Deployment, batch: int, length: int, context: int) -> Iterator[Rows]:
    """The micro-batches of one replica."""
    first = 0
    for sequences in laid.micro_batch_sizes(batch):
        yield Rows(first, sequences, length, context)
        first += sequences

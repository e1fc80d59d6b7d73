"""What a rank is told of whole models, or of its share of one: set it up, show that it is right, run it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import Any

import torch

from comm.backend import World
from comm.backends.all import BACKENDS
from kernels.timing.device import current_device
from specs.journal import TIMED, WARM_UP
from specs.parallel import Deployment, Seat
from suites import ranges
from suites.decoder.common_clock import ahead_of_first
from suites.decoder.links import Switchboard
from suites.decoder.pipeline import Pipeline
from suites.decoder.proof import STEPS, Proof
from suites.decoder.shards import Shard
from suites.decoder.share import Known, Nothing, ShareCase, Unheard
from suites.decoder.slot import Rows, Slot
from suites.decoder.stage import Stage
from suites.decoder.trace import Clock, CudaTrace, HostTrace, Shown, Trace
from suites.steps import room
from suites.steps.part import StepPart


@dataclass(frozen=True)
class Told:
    """How a model is run; `specs.parallel` and `suites.steps.part` say what the words mean."""

    deployment: Mapping[str, Any]
    model: str
    layers: int
    tokens: int
    batch: int
    context: int
    dtype: str
    implementation: str
    backend: str

    @cached_property
    def laid(self) -> Deployment:
        """How it lies over the ranks."""
        return Deployment(**self.deployment)

    @cached_property
    def part(self) -> StepPart:
        """What is run of it."""
        return StepPart(self.model, self.layers, self.tokens, self.batch, self.context)


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
        self._proof, self._known = Proof(), dict[int, Known]()
        self._case: Case | ShareCase | Nothing | None = None

    def build(self, label: Mapping[str, Any], **words: Any) -> dict[str, Any]:
        """Set a case up; the words are `Told`'s."""
        self._case = None  # its memory goes before the next one's comes
        self._ahead = ahead_of_first(self._world.rank, self._world.ranks, self._host)  # anew: clocks drift apart
        told = Told(**words)
        links = self._board.links(BACKENDS[told.backend], told.laid)
        stage = self._stage(told, told.laid.seat(self._world.rank))
        slots = [Slot(stage, rows, links.group) for rows in _dealt(told.laid, told.part)]
        self._case = Case(told.part, stage, slots, Pipeline(slots, links), label)
        return {"bytes": stage.bytes}

    def share(self, ranks: int, label: Mapping[str, Any], **words: Any) -> dict[str, Any]:
        """Set this rank's share of a model up: the last stage of a deployment, of which `ranks` ranks compute one each.

        A rank beyond them has nothing; the words are `Told`'s.
        """
        self._case = Nothing()
        told = Told(**words)
        barrier = self._board.barrier_of(BACKENDS[told.backend], ranks)
        if self._world.rank >= ranks:
            return {}
        stage = self._stage(told, Seat(0, told.laid.pp - 1, self._world.rank % told.laid.tp))
        with torch.inference_mode():
            group = Unheard(self._world) if told.laid.tp > 1 else None
            slot = Slot(stage, Rows(0, told.batch, 1, told.context), group)
            self._case = ShareCase(slot, label, barrier, self._known.setdefault(id(stage), {}))
        return {"bytes": stage.bytes}

    def prove(self) -> dict[str, Any]:
        """The error of this rank's results; None where it has none."""
        with torch.inference_mode():
            case = self._set_up()
            return case.prove(self._proof) if isinstance(case, Case) else case.prove()

    def walk(self, steps: int) -> dict[str, Any]:
        """Run steps; gives the trace of all, or the seconds of a share in each."""
        with torch.inference_mode():
            case = self._set_up()
            if not isinstance(case, Case):
                return case.walk(steps, self._clock)
            return case.walk(steps, self._clock, self._ahead)

    def close(self) -> None:
        """Let go of the others."""
        self._case = None
        self._board.close()

    def _set_up(self) -> "Case | ShareCase | Nothing":
        if self._case is None:
            raise RuntimeError("told to run a model before one was set up")
        return self._case

    def _stage(self, told: Told, seat: Seat) -> Stage:
        """The one at a seat; the others are let go where memory is short."""
        laid, part, dtype, implementation = told.laid, told.part, told.dtype, told.implementation
        split, device = laid.split(part.scaled), self._world.device
        key = (split.model, split.tp, split.pp, split.stage_layers(), seat.stage, seat.shard, dtype, implementation)
        if key not in self._stages:
            if room.need_bytes(laid, part, dtype) > room.free_bytes(current_device(), self._world) / 2:
                self._stages.clear()
                self._proof.forget()
                self._known.clear()
                if self._world.kind == "cuda":
                    torch.cuda.empty_cache()
            with torch.inference_mode():
                self._stages[key] = Stage(Shard(split, seat.shard, dtype, device), seat, implementation)
        return self._stages[key]


class Case:
    """A model as it is set up."""

    def __init__(
        self, part: StepPart, stage: Stage, slots: Sequence[Slot], pipeline: Pipeline, label: Mapping[str, Any]
    ) -> None:
        self._part, self._stage, self._slots, self._label = part, stage, slots, label
        self._pipeline = pipeline

    def prove(self, proof: Proof) -> dict[str, Any]:
        """The error of this rank's logits, see `suites.decoder.proof`; None where it has none."""
        with ranges.visit(self._label, WARM_UP):
            for slot in self._slots:
                slot.begin_proof()
            self._run(STEPS, Shown(self._label["question"], self._label["number"]))
            for slot in self._slots:
                slot.end_proof()
            error = proof.error(self._part.scaled, self._slots) if self._stage.last else None
        return {"error": "nan" if error is not None and isnan(error) else error}

    def walk(self, steps: int, clock: Clock, ahead_seconds: float) -> dict[str, Any]:
        """Run steps; gives the trace of all."""
        with ranges.visit(self._label, TIMED):
            clock.begin()
            self._run(steps, clock)
            rows = clock.rows(ahead_seconds)
            ranges.tell(self._label["question"], steps, [(max(rows["end"]) - min(rows["start"])) / steps])
        return {"clock": clock.name, "trace": rows}

    def _run(self, steps: int, trace: Trace) -> None:
        """Tokens for every sequence, or every prompt so many times."""
        (self._pipeline.decode if self._part.decode else self._pipeline.prefill)(steps, trace)


def _dealt(laid: Deployment, part: StepPart) -> Iterator[Rows]:
    """The micro-batches of one replica."""
    first = 0
    for sequences in laid.micro_batch_sizes(part.batch):
        yield Rows(first, sequences, part.tokens // part.batch, part.context)
        first += sequences

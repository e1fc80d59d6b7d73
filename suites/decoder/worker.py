"""A rank's share of a model by itself: its layers, and the end of the last stage, without its messages.

A step of it is each of its layers and then the end (norm, LM head, the largest logit), in the tensors that a whole
model has, so that as much is streamed between two uses of a weight. Ranks that compute at once begin each step
together, and under tensor parallelism each stretch between two messages, outside of what is timed: so they meet there
as often as in a whole model. The other ranks have nothing to do and sleep until they are told of the next case.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import isnan, nan, sqrt
from typing import Any, NamedTuple

import torch

from comm.backend import Communicator, World
from comm.backends.all import BACKENDS
from kernels.decoder_layer import ELEMENTWISE, layer
from kernels.kernel import Result
from kernels.registry import linear
from kernels.timing.device import current_device
from kernels.timing.host import without_collector
from specs.journal import TIMED, WARM_UP
from specs.layer import HEAD, LAYER_SHARE, SHARE_PARTS
from specs.parallel import Deployment, Seat
from suites import nvtx
from suites.decoder import model, workload
from suites.decoder.microbatch import Rows, Slot
from suites.decoder.model import Shard, Stage, Tensors
from suites.decoder.pipeline import Pipeline, Switchboard
from suites.decoder.reference import STEPS, Proof
from suites.decoder.trace import ALL_REDUCE, Call, Clock, CudaTrace, HostTrace, Shown, Trace, ahead_of_first
from suites.decoder.workload import StepPart

OF_SEQUENCES = ("x", "residual", "cos", "sin", "lengths", "key", "value")
"""Tensors of a layer that have a row for each sequence."""


Known = dict[tuple[object, ...], Sequence[torch.Tensor]]


class ShareCase:
    """What one rank computes.

    Args:
        slot: a micro-batch of decode on a last stage, whose group is `Unheard` where others share its layers.
        label: of the case, for its ranges.
        barrier: holds this rank until all that compute are there.
        known: references that were worked out for the slot's stage, by layer and shape; here more are added.
    """

    def __init__(self, slot: Slot, label: Mapping[str, Any], barrier: Callable[[], None], known: Known) -> None:
        self._slot, self._label, self._barrier, self._known = slot, label, barrier, known
        self._classes = torch.arange(slot.rows.sequences, device=slot.entering.device) % model.PERIOD
        self._draw("entering", slot.entering)

    def prove(self) -> dict[str, Any]:
        """By part the largest ‖out − reference‖ / ‖reference‖; of layers each one's, from what is drawn for it."""
        shown = Shown(self._label["question"], self._label["number"])
        with nvtx.visit(self._label, WARM_UP):
            layers = [self._layer_error(number, shown) for number in range(len(self._slot.layers))]
            errors = {LAYER_SHARE: nan if any(map(isnan, layers)) else max(layers), HEAD: self._head_error(shown)}
        return {"errors": {part: "nan" if isnan(error) else error for part, error in errors.items()}}

    def walk(self, steps: int, clock: Clock) -> dict[str, Any]:
        """By part, for each step, the seconds of each stretch, of all layers one after another; and those of a step."""
        stretches = [(one.part, one.meets, partial(_run, one.calls)) for one in _stretches(self._slot)]
        with nvtx.visit(self._label, TIMED), without_collector():
            clock.begin()
            for step in range(steps):
                for part, meets, run in stretches:
                    if meets:
                        self._barrier()
                    clock.run(part, step, 0, run)
            rows = clock.rows(0.0)
            step_seconds = (rows["end"][-1] - rows["start"][0]) / steps
            nvtx.tell(self._label["question"], steps, [step_seconds])
        seconds: dict[str, list[list[float]]] = {part: [[] for _ in range(steps)] for part in SHARE_PARTS}
        for part, start, end, step in zip(rows["kind"], rows["start"], rows["end"], rows["step"], strict=True):
            seconds[part][step].append(end - start)
        return {"clock": clock.name, "seconds": seconds, "step_seconds": step_seconds}

    def _layer_error(self, number: int, shown: Shown) -> float:
        """Outputs are poisoned; where they are the inputs too, what stands in them is wrong."""
        slot = self._slot
        tensors = slot.given[number]
        for name in ("out", "total"):
            tensors[name].fill_(nan)
        for name in ("x", "residual"):
            self._draw(f"{name} of layer {number}", tensors[name])
        right = self._reference(number, partial(self._right_layer, tensors))
        for kind, call in slot.layers[number]:
            shown.run(f"{LAYER_SHARE} {number} {kind}", 0, 0, call)
        return self._worst(zip((tensors["out"], tensors["total"]), right, strict=True))

    def _right_layer(self, tensors: Tensors) -> Result:
        slot, rows = self._slot, self._slot.rows
        given = {name: self._few(one) if name in OF_SEQUENCES else one for name, one in tensors.items()}
        shape = {"tokens": rows.sequences, "batch": rows.sequences, "context": rows.context}
        return layer(slot.implementation, slot.shard.widths, **shape).reference(**_but(given, ("out", "total")))

    def _head_error(self, shown: Shown) -> float:
        slot = self._slot
        if slot.logits is None or slot.stage.head is None:
            raise RuntimeError("told to check the LM head of a stage that has none")
        last = slot.given[-1]
        for name in ("out", "total"):
            self._draw(f"{name} of the last layer", last[name])
        slot.logits.fill_(nan)
        for kind, call in slot.ending:
            shown.run(f"{HEAD} {kind}", 0, 0, call)
        return self._worst([(slot.logits, self._reference(None, partial(self._right_head, last))[0])])

    def _right_head(self, last: Tensors) -> Result:
        slot = self._slot
        norm = ELEMENTWISE[slot.implementation]["norm"].reference
        normed = norm(x=self._few(last["out"]), residual=self._few(last["total"]), weight=slot.stage.gain)[0]
        return linear(slot.implementation, slot.rows.sequences).reference(normed, slot.stage.head)

    def _reference(self, number: int | None, worked_out: Callable[[], Result]) -> Sequence[torch.Tensor]:
        """Of a layer, or of the head; the same for all batches of a period or more."""
        key = number, min(model.PERIOD, self._slot.rows.sequences), self._slot.rows.context
        if key not in self._known:
            found = worked_out()
            self._known[key] = [one.double() for one in (found if isinstance(found, tuple) else (found,))]
        return self._known[key]

    def _draw(self, name: str, tensor: torch.Tensor) -> None:
        """Values by which sequences differ as their caches do: a period of them stands for all in the reference."""
        columns, device = slice(0, tensor.shape[1]), tensor.device
        tensor.copy_(model.block(name, self._classes, columns, self._slot.dtype, device))

    def _few(self, tensor: torch.Tensor) -> torch.Tensor:
        """The rows of the first period."""
        return tensor[: model.PERIOD]

    def _worst(self, pairs: Iterable[tuple[torch.Tensor, Any]]) -> float:
        """Of results of all sequences against the reference's few."""
        errors = []
        for found, few in pairs:
            right = few[self._classes]
            errors.append(sqrt(float(torch.sum((found.double() - right) ** 2)) / float(torch.sum(right**2))))
        return nan if any(map(isnan, errors)) else max(errors)


class Nothing:
    """What a rank computes of a case that needs fewer ranks."""

    def prove(self) -> dict[str, Any]:
        """There is nothing to be right."""
        return {"errors": {}}

    def walk(self, steps: int, clock: Clock) -> dict[str, Any]:  # noqa: ARG002 - as a share is asked
        """It takes no time."""
        return {"clock": clock.name, "seconds": {}}


class Unheard(Communicator):
    """What stands for the other shards of a layer where there is nothing to be sent."""

    def all_reduce(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """The sum is this rank's part."""

    def all_gather(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """All are as this rank's."""
        out.view(-1, len(message))[:] = message


class Stretch(NamedTuple):
    """Calls of a part between two messages; `meets` says that ranks have waited for each other before them."""

    part: str
    meets: bool
    calls: list[Call]


def _stretches(slot: Slot) -> list[Stretch]:
    """Of a step: what a message writes here is part of the stretch behind it."""
    found: list[Stretch] = []
    meets, heard = True, list[Call]()
    for part, segments in [*((LAYER_SHARE, one) for one in slot.layers), (HEAD, slot.ending)]:
        fresh = True
        for kind, call in segments:
            if kind == ALL_REDUCE:
                meets, heard, fresh = True, [call], True
                continue
            if fresh:
                found.append(Stretch(part, meets, heard))
                meets, heard, fresh = False, [], False
            found[-1].calls.append(call)
    return found


def _run(calls: Iterable[Call]) -> None:
    for call in calls:
        call()


def _but(tensors: Tensors, names: Iterable[str]) -> Tensors:
    """All but these."""
    return {name: one for name, one in tensors.items() if name not in names}


# What a rank is told of whole models, or of its share of one: set it up, show that it is right, run it.


@dataclass(frozen=True)
class Told:
    """How a model is run; `specs.parallel` and `suites.decoder.workload` say what the words mean."""

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
            if workload.need_bytes(laid, part, dtype) > workload.free_bytes(current_device(), self._world) / 2:
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
        """The error of this rank's logits, see `suites.decoder.reference`; None where it has none."""
        with nvtx.visit(self._label, WARM_UP):
            for slot in self._slots:
                slot.begin_proof()
            self._run(STEPS, Shown(self._label["question"], self._label["number"]))
            for slot in self._slots:
                slot.end_proof()
            error = proof.error(self._part.scaled, self._slots) if self._stage.last else None
        return {"error": "nan" if error is not None and isnan(error) else error}

    def walk(self, steps: int, clock: Clock, ahead_seconds: float) -> dict[str, Any]:
        """Run steps; gives the trace of all."""
        with nvtx.visit(self._label, TIMED):
            clock.begin()
            self._run(steps, clock)
            rows = clock.rows(ahead_seconds)
            nvtx.tell(self._label["question"], steps, [(max(rows["end"]) - min(rows["start"])) / steps])
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

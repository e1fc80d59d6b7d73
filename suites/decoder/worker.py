"""Commands of a rank on whole models, and on shares of a model without messages.

A step of a share runs each of its layers and then the end (norm, LM head, largest logit). It uses a whole model's
tensors, so the bytes streamed between two uses of a weight are the same. Ranks that compute at once start each step
together. Under tensor parallelism they also start each stretch between two messages together, outside the timing: they
meet as often as in a whole model. Idle ranks sleep until the next case.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import isnan, nan, sqrt
from typing import Any, NamedTuple

import torch

from comm.backend import Communicator, World
from comm.backends import BACKENDS
from kernels.decoder_layer import ELEMENTWISE_KERNELS, layer_kernel
from kernels.kernel import Result
from kernels.registry import select_linear
from kernels.timing.device import current_device
from kernels.timing.host import gc_disabled
from specs.journal import TIMED_RANGE, WARM_UP_RANGE
from specs.layer import HEAD_SHARE, LAYER_SHARE, SHARE_PARTS
from specs.models import Model, remember_model
from specs.parallel import Deployment, RankPosition
from suites import nvtx
from suites.decoder import model, workload
from suites.decoder.microbatch import Microbatch, MicrobatchSpec
from suites.decoder.model import ModelShard, Stage, Tensors
from suites.decoder.pipeline import CommunicatorCache, Pipeline
from suites.decoder.reference import VERIFY_STEPS, LogitsVerifier
from suites.decoder.trace import (
    ALL_REDUCE,
    Call,
    CudaTraceRecorder,
    HostTraceRecorder,
    NvtxTracer,
    Tracer,
    TraceRecorder,
    clock_offset,
)
from suites.decoder.workload import StepWorkload

SEQUENCE_TENSORS = ("x", "residual", "cos", "sin", "lengths", "key", "value")
"""Tensors of a layer that have a row for each sequence."""


KnownReferences = dict[tuple[object, ...], Sequence[torch.Tensor]]


class ShareCase:
    """Share of one rank.

    Args:
        slot: decode microbatch on a last stage; its group is `NoOpCommunicator` if several ranks share its layers.
        label: name, question and number of the case, for its NVTX ranges.
        barrier: waits for all computing ranks.
        known: references computed for the microbatch's stage, by layer and shape; new ones are added here.
    """

    def __init__(
        self, slot: Microbatch, label: Mapping[str, Any], barrier: Callable[[], None], known: KnownReferences
    ) -> None:
        self._microbatch, self._label, self._barrier, self._references = slot, label, barrier, known
        self._classes = torch.arange(slot.rows.sequences, device=slot.hidden_in.device) % model.DISTINCT_SEQUENCES
        self._fill_synthetic("entering", slot.hidden_in)

    def prove(self) -> dict[str, Any]:
        """Largest ‖out − reference‖ / ‖reference‖ by part; each layer has drawn inputs."""
        shown = NvtxTracer(self._label["question"], self._label["number"])
        with nvtx.annotate_case(self._label, WARM_UP_RANGE):
            layers = [self._layer_error(number, shown) for number in range(len(self._microbatch.layers))]
            errors = {LAYER_SHARE: nan if any(map(isnan, layers)) else max(layers), HEAD_SHARE: self._head_error(shown)}
        return {"errors": {part: "nan" if isnan(error) else error for part, error in errors.items()}}

    def walk(self, steps: int, clock: TraceRecorder) -> dict[str, Any]:
        """Run steps; return seconds by part, step and stretch, and seconds per step."""
        stretches = [
            (one.part, one.starts_with_barrier, partial(_run_calls, one.calls))
            for one in _compute_stretches(self._microbatch)
        ]
        with nvtx.annotate_case(self._label, TIMED_RANGE), gc_disabled():
            clock.begin()
            for step in range(steps):
                for part, meets, run in stretches:
                    if meets:
                        self._barrier()
                    clock.run(part, step, 0, run)
            rows = clock.columns(0.0)
            step_seconds = (rows["end"][-1] - rows["start"][0]) / steps
            nvtx.mark_timing(self._label["question"], steps, [step_seconds])
        seconds: dict[str, list[list[float]]] = {part: [[] for _ in range(steps)] for part in SHARE_PARTS}
        for part, start, end, step in zip(rows["kind"], rows["start"], rows["end"], rows["step"], strict=True):
            seconds[part][step].append(end - start)
        return {"clock": clock.name, "seconds": seconds, "step_seconds": step_seconds}

    def _layer_error(self, number: int, shown: NvtxTracer) -> float:
        """Error of one layer.

        Outputs are poisoned; outputs that are also inputs hold wrong values instead.
        """
        slot = self._microbatch
        tensors = slot.layer_tensors[number]
        for name in ("out", "total"):
            tensors[name].fill_(nan)
        for name in ("x", "residual"):
            self._fill_synthetic(f"{name} of layer {number}", tensors[name])
        right = self._reference(number, partial(self._layer_reference, tensors))
        for kind, call in slot.layers[number]:
            shown.run(f"{LAYER_SHARE} {number} {kind}", 0, 0, call)
        return self._worst(zip((tensors["out"], tensors["total"]), right, strict=True))

    def _layer_reference(self, tensors: Tensors) -> Result:
        slot, rows = self._microbatch, self._microbatch.rows
        given = {name: self._first_period(one) if name in SEQUENCE_TENSORS else one for name, one in tensors.items()}
        shape = {"tokens": rows.sequences, "batch": rows.sequences, "context": rows.context}
        return layer_kernel(slot.implementation, slot.shard.layer_shape, **shape).reference(
            **_without(given, ("out", "total"))
        )

    def _head_error(self, shown: NvtxTracer) -> float:
        slot = self._microbatch
        if slot.logits is None or slot.stage.head is None:
            raise RuntimeError("told to check the LM head of a stage that has none")
        last = slot.layer_tensors[-1]
        for name in ("out", "total"):
            self._fill_synthetic(f"{name} of the last layer", last[name])
        slot.logits.fill_(nan)
        for kind, call in slot.output_segments:
            shown.run(f"{HEAD_SHARE} {kind}", 0, 0, call)
        return self._worst([(slot.logits, self._reference(None, partial(self._head_reference, last))[0])])

    def _head_reference(self, last: Tensors) -> Result:
        slot = self._microbatch
        norm = ELEMENTWISE_KERNELS[slot.implementation]["norm"].reference
        normed = norm(
            x=self._first_period(last["out"]), residual=self._first_period(last["total"]), weight=slot.stage.gain
        )[0]
        return select_linear(slot.implementation, slot.rows.sequences).reference(normed, slot.stage.head)

    def _reference(self, number: int | None, worked_out: Callable[[], Result]) -> Sequence[torch.Tensor]:
        """Reference of a layer, or of the head if `number` is None.

        All batches of `DISTINCT_SEQUENCES` or more have the same reference.
        """
        key = number, min(model.DISTINCT_SEQUENCES, self._microbatch.rows.sequences), self._microbatch.rows.context
        if key not in self._references:
            found = worked_out()
            self._references[key] = [one.double() for one in (found if isinstance(found, tuple) else (found,))]
        return self._references[key]

    def _fill_synthetic(self, name: str, tensor: torch.Tensor) -> None:
        """Fill with values that repeat every `DISTINCT_SEQUENCES` rows, as the caches do."""
        columns, device = slice(0, tensor.shape[1]), tensor.device
        tensor.copy_(model.synthetic_block(name, self._classes, columns, self._microbatch.dtype, device))

    def _first_period(self, tensor: torch.Tensor) -> torch.Tensor:
        """Rows of the first `DISTINCT_SEQUENCES` sequences."""
        return tensor[: model.DISTINCT_SEQUENCES]

    def _worst(self, pairs: Iterable[tuple[torch.Tensor, Any]]) -> float:
        """Largest error of the results, against references of the distinct sequences."""
        errors = []
        for found, few in pairs:
            right = few[self._classes]
            errors.append(sqrt(float(torch.sum((found.double() - right) ** 2)) / float(torch.sum(right**2))))
        return nan if any(map(isnan, errors)) else max(errors)


class IdleCase:
    """Case of a rank that a case does not need."""

    def prove(self) -> dict[str, Any]:
        """Return no errors: nothing was computed."""
        return {"errors": {}}

    def walk(self, steps: int, clock: TraceRecorder) -> dict[str, Any]:  # noqa: ARG002 - as a share is asked
        """Return no timings: nothing was computed."""
        return {"clock": clock.name, "seconds": {}}


class NoOpCommunicator(Communicator):
    """Communicator in place of a layer's other shards, where no message is sent."""

    def all_reduce(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Do nothing: this rank's part counts as the sum."""

    def all_gather(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Fill every part with this rank's message."""
        out.view(-1, len(message))[:] = message


class ComputeStretch(NamedTuple):
    """Calls of a part between two messages, after a barrier if `starts_with_barrier`."""

    part: str
    starts_with_barrier: bool
    calls: list[Call]


def _compute_stretches(slot: Microbatch) -> list[ComputeStretch]:
    """Stretches of a step; a local write for a message belongs to the next stretch."""
    found: list[ComputeStretch] = []
    meets, heard = True, list[Call]()
    for part, segments in [*((LAYER_SHARE, one) for one in slot.layers), (HEAD_SHARE, slot.output_segments)]:
        fresh = True
        for kind, call in segments:
            if kind == ALL_REDUCE:
                meets, heard, fresh = True, [call], True
                continue
            if fresh:
                found.append(ComputeStretch(part, meets, heard))
                meets, heard, fresh = False, [], False
            found[-1].calls.append(call)
    return found


def _run_calls(calls: Iterable[Call]) -> None:
    for call in calls:
        call()


def _without(tensors: Tensors, names: Iterable[str]) -> Tensors:
    """Tensors without the given names."""
    return {name: one for name, one in tensors.items() if name not in names}


# Commands on whole models and shares: set up, verify, run


@dataclass(frozen=True)
class ModelRunConfig:
    """Configuration of a run, in terms of `specs.parallel` and `decoder.workload`.

    `shapes` are the fields of a model that was read from a file.
    """

    deployment: Mapping[str, Any]
    model: str
    layers: int
    tokens: int
    batch: int
    context: int
    dtype: str
    implementation: str
    backend: str
    shapes: Mapping[str, Any] | None = None

    @cached_property
    def parsed_deployment(self) -> Deployment:
        """Layout of the model over the ranks."""
        return Deployment(**self.deployment)

    @cached_property
    def part(self) -> StepWorkload:
        """Workload of the step."""
        if self.shapes:
            remember_model(Model(**self.shapes))
        return StepWorkload(self.model, self.layers, self.tokens, self.batch, self.context)


class ModelWorker:
    """State of a rank between cases: connections, and as many stages as fit.

    Args:
        world: all ranks.
        host: digest that identifies this host.
    """

    def __init__(self, world: World, host: str) -> None:
        self._world, self._communicators = world, CommunicatorCache(world)
        self._host, self._ahead = host, 0.0
        self._clock: TraceRecorder = HostTraceRecorder() if world.kind == "cpu" else CudaTraceRecorder()
        self._stages: dict[tuple[object, ...], Stage] = {}
        self._verifier, self._references = LogitsVerifier(), dict[int, KnownReferences]()
        self._case: ModelCase | ShareCase | IdleCase | None = None

    def build(self, label: Mapping[str, Any], **words: Any) -> dict[str, Any]:
        """Set a case up; `words` are the fields of `ModelRunConfig`."""
        self._case = None  # free its memory before the next case allocates
        self._ahead = clock_offset(self._world.rank, self._world.ranks, self._host)  # for each case: clocks drift
        config = ModelRunConfig(**words)
        links = self._communicators.channels(BACKENDS[config.backend], config.parsed_deployment)
        stage = self._stage(config, config.parsed_deployment.position(self._world.rank))
        slots = [
            Microbatch(stage, rows, links.group) for rows in _microbatch_specs(config.parsed_deployment, config.part)
        ]
        self._case = ModelCase(config.part, stage, slots, Pipeline(slots, links), label)
        return {"bytes": stage.total_bytes}

    def share(self, ranks: int, label: Mapping[str, Any], **words: Any) -> dict[str, Any]:
        """Set up this rank's share: the last stage of a deployment.

        `ranks` ranks compute a share each; further ranks stay idle. `words` are the fields of `ModelRunConfig`.
        """
        self._case = IdleCase()
        config = ModelRunConfig(**words)
        barrier = self._communicators.barrier_for(BACKENDS[config.backend], ranks)
        if self._world.rank >= ranks:
            return {}
        stage = self._stage(
            config, RankPosition(0, config.parsed_deployment.pp - 1, self._world.rank % config.parsed_deployment.tp)
        )
        with torch.inference_mode():
            group = NoOpCommunicator(self._world) if config.parsed_deployment.tp > 1 else None
            slot = Microbatch(stage, MicrobatchSpec(0, config.batch, 1, config.context), group)
            self._case = ShareCase(slot, label, barrier, self._references.setdefault(id(stage), {}))
        return {"bytes": stage.total_bytes}

    def prove(self) -> dict[str, Any]:
        """Return the error of this rank's results; None if it has none."""
        with torch.inference_mode():
            case = self._require_case()
            return case.prove(self._verifier) if isinstance(case, ModelCase) else case.prove()

    def walk(self, steps: int) -> dict[str, Any]:
        """Run steps; return the trace of a whole model, or the seconds of a share."""
        with torch.inference_mode():
            case = self._require_case()
            if not isinstance(case, ModelCase):
                return case.walk(steps, self._clock)
            return case.walk(steps, self._clock, self._ahead)

    def close(self) -> None:
        """Close the connections to the other ranks."""
        self._case = None
        self._communicators.close()

    def _require_case(self) -> "ModelCase | ShareCase | IdleCase":
        if self._case is None:
            raise RuntimeError("told to run a model before one was set up")
        return self._case

    def _stage(self, config: ModelRunConfig, seat: RankPosition) -> Stage:
        """Stage at a position; other stages are freed if memory is short."""
        laid, part, dtype, implementation = config.parsed_deployment, config.part, config.dtype, config.implementation
        split, device = laid.split(part.scaled_model), self._world.device
        key = (split.model, split.tp, split.pp, split.stage_layers(), seat.stage, seat.shard, dtype, implementation)
        if key not in self._stages:
            if workload.need_bytes(laid, part, dtype) > workload.free_bytes(current_device(), self._world) / 2:
                self._stages.clear()
                self._verifier.forget()
                self._references.clear()
                if self._world.kind == "cuda":
                    torch.cuda.empty_cache()
            with torch.inference_mode():
                self._stages[key] = Stage(ModelShard(split, seat.shard, dtype, device), seat, implementation)
        return self._stages[key]


class ModelCase:
    """A whole model on this rank."""

    def __init__(
        self,
        part: StepWorkload,
        stage: Stage,
        slots: Sequence[Microbatch],
        pipeline: Pipeline,
        label: Mapping[str, Any],
    ) -> None:
        self._part, self._stage, self._microbatches, self._label = part, stage, slots, label
        self._pipeline = pipeline

    def prove(self, proof: LogitsVerifier) -> dict[str, Any]:
        """Error of this rank's logits (`suites.decoder.reference`); None without logits."""
        with nvtx.annotate_case(self._label, WARM_UP_RANGE):
            for slot in self._microbatches:
                slot.begin_verification()
            self._run(VERIFY_STEPS, NvtxTracer(self._label["question"], self._label["number"]))
            for slot in self._microbatches:
                slot.end_verification()
            error = proof.error(self._part.scaled_model, self._microbatches) if self._stage.is_last else None
        return {"error": "nan" if error is not None and isnan(error) else error}

    def walk(self, steps: int, clock: TraceRecorder, ahead_seconds: float) -> dict[str, Any]:
        """Run steps; return their trace."""
        with nvtx.annotate_case(self._label, TIMED_RANGE):
            clock.begin()
            self._run(steps, clock)
            rows = clock.columns(ahead_seconds)
            nvtx.mark_timing(self._label["question"], steps, [(max(rows["end"]) - min(rows["start"])) / steps])
        return {"clock": clock.name, "trace": rows}

    def _run(self, steps: int, trace: Tracer) -> None:
        """Decode `steps` tokens per sequence, or run every prompt `steps` times."""
        (self._pipeline.decode if self._part.decode else self._pipeline.prefill)(steps, trace)


def _microbatch_specs(laid: Deployment, part: StepWorkload) -> Iterator[MicrobatchSpec]:
    """Microbatches of one replica."""
    first = 0
    for sequences in laid.micro_batch_sizes(part.batch):
        yield MicrobatchSpec(first, sequences, part.tokens // part.batch, part.context)
        first += sequences

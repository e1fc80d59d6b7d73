"""A rank's share of a model by itself: its layers, and the end of the last stage, without its messages.

A step of it is each of its layers and then the end (norm, LM head, the largest logit), in the tensors that a whole
model has, so that as much is streamed between two uses of a weight. Ranks that compute at once begin each step
together, and under tensor parallelism each stretch between two messages, outside of what is timed: so they meet there
as often as in a whole model. The other ranks have nothing to do and sleep until they are told of the next case.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import isnan, nan, sqrt
from typing import Any, NamedTuple

import torch

from comm.backend import Communicator
from kernels.decoder_layer import ELEMENTWISE, layer
from kernels.kernel import Result
from kernels.registry import linear
from kernels.timing.host import without_collector
from specs.journal import TIMED, WARM_UP
from specs.layer import HEAD, LAYER_SHARE, SHARE_PARTS
from suites import ranges
from suites.decoder import values
from suites.decoder.slot import Slot
from suites.decoder.stage import Tensors
from suites.decoder.trace import Call, Clock, Shown
from suites.steps.trace import ALL_REDUCE

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
        self._classes = torch.arange(slot.rows.sequences, device=slot.entering.device) % values.PERIOD
        self._draw("entering", slot.entering)

    def prove(self) -> dict[str, Any]:
        """By part the largest ‖out − reference‖ / ‖reference‖; of layers each one's, from what is drawn for it."""
        shown = Shown(self._label["question"], self._label["number"])
        with ranges.visit(self._label, WARM_UP):
            layers = [self._layer_error(number, shown) for number in range(len(self._slot.layers))]
            errors = {LAYER_SHARE: nan if any(map(isnan, layers)) else max(layers), HEAD: self._head_error(shown)}
        return {"errors": {part: "nan" if isnan(error) else error for part, error in errors.items()}}

    def walk(self, steps: int, clock: Clock) -> dict[str, Any]:
        """By part, for each step, the seconds of each stretch, of all layers one after another; and those of a step."""
        stretches = [(one.part, one.meets, partial(_run, one.calls)) for one in _stretches(self._slot)]
        with ranges.visit(self._label, TIMED), without_collector():
            clock.begin()
            for step in range(steps):
                for part, meets, run in stretches:
                    if meets:
                        self._barrier()
                    clock.run(part, step, 0, run)
            rows = clock.rows(0.0)
            step_seconds = (rows["end"][-1] - rows["start"][0]) / steps
            ranges.tell(self._label["question"], steps, [step_seconds])
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
        key = number, min(values.PERIOD, self._slot.rows.sequences), self._slot.rows.context
        if key not in self._known:
            found = worked_out()
            self._known[key] = [one.double() for one in (found if isinstance(found, tuple) else (found,))]
        return self._known[key]

    def _draw(self, name: str, tensor: torch.Tensor) -> None:
        """Values by which sequences differ as their caches do: a period of them stands for all in the reference."""
        columns, device = slice(0, tensor.shape[1]), tensor.device
        tensor.copy_(values.block(name, self._classes, columns, self._slot.dtype, device))

    def _few(self, tensor: torch.Tensor) -> torch.Tensor:
        """The rows of the first period."""
        return tensor[: values.PERIOD]

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

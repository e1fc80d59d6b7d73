"""Whether a stage's logits are right, and its tokens: two steps, from tokens that are known beforehand.

In the first step of a proof the first tokens enter. What the last stage samples is held against the reference and then
replaced by tokens that are known too: they have to come back to the first stage, to their own micro-batch, for the
second step's logits to be right. What a step has used is poisoned before the next.
"""

from collections.abc import Mapping, Sequence
from math import isnan, nan, sqrt

import torch

from specs.models import Model
from suites.decoder import reference, values
from suites.decoder.reference import rtol
from suites.decoder.slot import Slot

STEPS = 2
MOST_TOKENS = 128
"""Of prompts that are checked, the last of a batch besides: a float64 reference takes its time."""
WRONG = 1.0
"""The error of a step that sampled other tokens than the reference would."""
MARGIN = 8
"""Of the tolerance, by which the logit of a sampled token may miss the largest: both may be off, and some element of a
vocabulary is off by four times what all are on average."""


class Proof:
    """References of the cases that were proven, each worked out once."""

    def __init__(self) -> None:
        self._right: dict[tuple[object, ...], torch.Tensor] = {}

    def forget(self) -> None:
        """Let their memory go."""
        self._right.clear()

    def error(self, model: Model, slots: Sequence[Slot]) -> float:
        """The larger ‖logits − reference‖ / ‖reference‖ of two steps, over this rank's part of the vocabulary.

        Args:
            model: the whole of it.
            slots: the micro-batches of a last stage, after `STEPS` steps since they began anew.

        Returns:
            `WRONG` where other tokens were sampled, NaN where an element was not written.
        """
        errors = [self._step(model, slots, step) for step in range(STEPS)]
        return nan if any(map(isnan, errors)) else max(errors)

    def _step(self, model: Model, slots: Sequence[Slot], step: int) -> float:
        wrong = exact = 0.0
        right = self._reference(model, slots, step)
        for slot in slots:
            classes = torch.arange(slot.rows.first, slot.rows.first + slot.rows.sequences) % values.PERIOD
            rows = [row for row, one in enumerate(classes.tolist()) if one in right]
            if not rows:
                continue
            expected = torch.stack([right[int(classes[row])] for row in rows])
            logits, sampled = slot.kept[step]
            part = expected[:, slot.vocabulary]
            wrong += float(torch.sum((logits[rows].double() - part) ** 2))
            exact += float(torch.sum(part**2))
            if not _greedy(expected, sampled[rows], MARGIN * rtol(slot.dtype, model.layers)):
                return WRONG
        return sqrt(wrong / exact)

    def _reference(self, model: Model, slots: Sequence[Slot], step: int) -> Mapping[int, torch.Tensor]:
        """Logits by number of a sequence below the period, of those that are checked."""
        rows, dtype, device = slots[0].rows, slots[0].dtype, slots[0].ids.device
        last = slots[-1].rows.first + slots[-1].rows.sequences - 1
        few = min(values.PERIOD, last + 1, max(1, MOST_TOKENS // rows.length - 1))
        numbers = range(values.PERIOD) if rows.decode else sorted({*range(few), last % values.PERIOD})
        turn = step if rows.decode else 0
        found = {}
        for number in numbers:
            key = model, rows.length, rows.context, dtype, turn, number
            if key not in self._right:
                wanted = torch.tensor([one for one in numbers if (*key[:-1], one) not in self._right])
                logits = reference.logits(model, wanted, rows.length, rows.context, dtype, device, turn)
                self._right |= {(*key[:-1], int(one)): of for one, of in zip(wanted, logits, strict=True)}
            found[number] = self._right[key]
        return found


def _greedy(expected: torch.Tensor, sampled: torch.Tensor, tolerance: float) -> bool:
    """Whether each token's logit is the largest of its row, but for `tolerance` times what a logit is on average."""
    if not bool(((sampled >= 0) & (sampled < expected.shape[1])).all()):
        return False
    missed = expected.amax(1) - expected.gather(1, sampled[:, None])[:, 0]
    return bool((missed <= tolerance * expected.square().mean(1).sqrt()).all())

"""A model cut down to fewer layers, for machines that cannot hold or step through all of them."""

from dataclasses import replace

from specs.errors import UserError
from specs.models import Model

ROWS = 128
"""The vocabulary of a model cut down stays a multiple of this, so that tensor parallelism divides it."""


def scaled(model: Model, layers: int) -> Model:
    """The first `layers` layers, under a vocabulary cut in the same proportion; the model itself where it has no more.

    The LM head then weighs as much beside a layer as in the whole model, so stages are as uneven, and a step takes
    about that share of a whole one. Hops do not shrink: beside a step they look longer than they are.

    Raises:
        UserError: the model has fewer layers.
    """
    if layers == model.layers:
        return model
    if not 1 <= layers < model.layers:
        raise UserError(f"{model}: --layers {layers} exceeds its {model.layers} layers; choose 1 to {model.layers}")
    vocab = max(1, round(model.vocab * layers / model.layers / ROWS)) * ROWS
    return replace(model, layers=layers, vocab=vocab)

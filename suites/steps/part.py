"""What is run of which model: so many of its layers, on a batch of sequences that each add a token, or of prompts."""

from typing import NamedTuple

from specs.measurement import is_decode
from specs.models import MODELS, Model, scaled


class StepPart(NamedTuple):
    """One step's work, over all replicas; strings and integers only, for JSON.

    Attributes:
        model: by its slug.
        layers: that are kept of it.
        tokens: rows of the whole batch's forward pass.
        batch: sequences: as many as tokens in decode, else each is a prompt of tokens / batch.
        context: tokens in each sequence's cache, the new one included; of a prompt its tokens.
    """

    model: str
    layers: int
    tokens: int
    batch: int
    context: int

    def __str__(self) -> str:
        phase = f"{self.batch}tok-ctx{self.context}" if self.decode else f"prompt{self.context}x{self.batch}"
        return f"{self.model}-{self.layers}layers-{phase}"

    @property
    def decode(self) -> bool:
        """Whether each sequence adds one token."""
        return is_decode(self.tokens, self.batch)

    @property
    def whole(self) -> Model:
        """The model with all its layers."""
        return MODELS[self.model]

    @property
    def scaled(self) -> Model:
        """The model that is run.

        Raises:
            UserError: it has fewer layers.
        """
        return scaled(self.whole, self.layers)

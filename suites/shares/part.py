"""A share: what one rank computes of a model between two messages, and how many ranks compute theirs meanwhile."""

from typing import NamedTuple

from specs.parallel import Deployment
from suites.steps.part import StepPart


class Share(NamedTuple):
    """Strings and integers only, for JSON.

    Attributes:
        model: by its slug.
        layers: that are kept of it, which say how large its vocabulary is.
        tp: ranks that share every layer.
        ranks: that compute at once, one share each; the others have nothing to do.
        sequences: of the micro-batch, each of which adds a token.
        context: tokens in each sequence's cache, the new one included.
        part: one of `specs.layer.SHARE_PARTS`.
    """

    model: str
    layers: int
    tp: int
    ranks: int
    sequences: int
    context: int
    part: str

    def __str__(self) -> str:
        return f"{self.step}-tp{self.tp}-{self.ranks}atonce-{self.part}"

    @property
    def step(self) -> StepPart:
        """The same as a step of a whole model."""
        return StepPart(self.model, self.layers, self.sequences, self.sequences, self.context)

    def laid(self, stages: int) -> Deployment:
        """Of so many stages the last is what each rank has."""
        return Deployment(self.tp, stages, schedule="sync" if stages > 1 else "tp")

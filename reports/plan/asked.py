"""What a plan is asked for: the model, the GPUs, the load, and what is to be imagined of the links."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from reports.plan.fabric import Fabric
from specs.errors import UserError
from specs.layer import why_no_layer
from specs.models import MODELS, Model, model, scaled
from specs.parallel import PARTITIONS

BACKENDS = ("best", "custom", "nccl")
"""Whose all-reduce: the faster one at each message, an engine's own kernel, or the library's."""
BATCHES = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
MOST_GPUS = 1024
LATENCIES = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
"""Seconds a token that somebody may have promised."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The question.

    Attributes:
        model: slug.
        gpus: in all; tp x pp x replicas of every way to cut the model.
        context: tokens in each sequence's cache, the new one included.
        batches: sequences in all, over all replicas.
        dtype: of weights, caches and messages.
        backend: one of `BACKENDS`.
        launches: of all-reduces, the first one that was timed counts: a decode step runs in a graph.
        partition: how layers are dealt to stages.
        draft_tokens: that each sequence has checked in a step beside its own.
        prefill_chunk: tokens of prompts that a step takes along.
        layers: that the model is cut down to; None for all.
        latencies: seconds a token for which the best split is named.
        fabric: the links, as they are or as they are imagined.

    Raises:
        UserError: it cannot be asked so.
    """

    model: str
    gpus: int
    context: int = 2048
    batches: Sequence[int] = BATCHES
    dtype: str = "bf16"
    backend: str = "best"
    launches: Sequence[str] = ("graph", "eager")
    partition: str = "even"
    draft_tokens: int = 0
    prefill_chunk: int = 0
    layers: int | None = None
    latencies: Sequence[float] = LATENCIES
    fabric: Fabric = field(default_factory=Fabric)

    def __post_init__(self) -> None:
        least = {"gpus": 1, "context": 1, "draft_tokens": 0, "prefill_chunk": 0, "layers": 1}
        for name, limit in least.items():
            if (value := getattr(self, name)) is not None and value < limit:
                raise UserError(f"--{name.replace('_', '-')} {value}: below {limit}; give {limit} or more")
        if self.gpus > MOST_GPUS:
            raise UserError(f"--gpus {self.gpus}: over {MOST_GPUS}; a plan is for what serves one model, so give fewer")
        if odd := [one for one in self.batches if one < 1]:
            raise UserError(f"--batch {odd[0]}: below 1; give sequences, as in --batch 1,8,64")
        if not self.batches:
            raise UserError("--batch: no batch; give sequences, as in --batch 1,8,64")
        if self.backend not in BACKENDS:
            raise UserError(f"--backend {self.backend!r} is unknown; choose from {', '.join(BACKENDS)}")
        if self.partition not in PARTITIONS:
            raise UserError(f"--partition {self.partition!r} is unknown; choose from {', '.join(PARTITIONS)}")
        if reason := why_no_layer(model(self.model)):
            dense = ", ".join(slug for slug, one in MODELS.items() if not why_no_layer(one))
            raise UserError(
                f"{reason}: mixtures of experts and other layers are out of a plan's scope; choose among {dense}"
            )
        self.fabric.check(self.gpus)
        _ = self.cut

    @cached_property
    def cut(self) -> Model:
        """The model that is planned for.

        Raises:
            UserError: it has fewer layers.
        """
        whole = model(self.model)
        return scaled(whole, self.layers) if self.layers else whole

    @property
    def rows_a_sequence(self) -> int:
        """Rows of a forward pass that each sequence has: its own token and those that are checked."""
        return 1 + self.draft_tokens

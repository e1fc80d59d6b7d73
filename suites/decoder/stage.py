"""One rank's stage of a decoder: a shard of some layers, the embedding before the first, the head behind the last."""

from dataclasses import dataclass, field

import torch

from kernels.decoder_layer import names
from specs.parallel import Seat
from suites.decoder.shards import Shard

Tensors = dict[str, torch.Tensor]


@dataclass
class Stage:
    """Weights and caches, made once for all batches that run through it.

    Args:
        shard: of every layer.
        seat: which stage.
        implementation: of the kernels: torch or triton.
    """

    shard: Shard
    seat: Seat
    implementation: str
    layers: list[Tensors] = field(init=False)
    embedding: torch.Tensor | None = field(init=False)
    head: torch.Tensor | None = field(init=False)
    gain: torch.Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        parts = names(self.implementation)
        self.layers = [self.shard.layer(number, parts) for number in self.numbers]
        self.embedding = self.shard.embedding() if self.first else None
        self.head, self.gain = (self.shard.head(), self.shard.final_gain()) if self.last else (None, None)
        self._caches: list[Tensors] = []
        self._room = 0, 0

    @property
    def numbers(self) -> range:
        """Of its layers, counted over the whole model."""
        counts = self.shard.split.stage_layers()
        begin = sum(counts[: self.seat.stage])
        return range(begin, begin + counts[self.seat.stage])

    @property
    def first(self) -> bool:
        """Whether it looks tokens up."""
        return self.seat.stage == 0

    @property
    def last(self) -> bool:
        """Whether it samples."""
        return self.seat.stage == self.shard.split.pp - 1

    @property
    def bytes(self) -> int:
        """Of weights and caches."""
        ends = [one for one in (self.embedding, self.head, self.gain) if one is not None]
        held = [tensor for one in (*self.layers, *self._caches) for tensor in one.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in (*ends, *held))

    def caches(self, sequences: int, context: int) -> list[Tensors]:
        """Of each layer key and value[at least `sequences`, context, kv_heads, head_dim]."""
        if self._room[1] != context or self._room[0] < sequences:
            self._caches = []  # gone before the next ones come
            self._caches = [self.shard.cache(number, sequences, context) for number in self.numbers]
            self._room = sequences, context
        return self._caches

"""Synthetic model of a rank: weights, caches, tokens, and the rank's stage.

A rank holds rows of qkv, gate_up and the head, and columns of o and down.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from math import sqrt

import torch

from kernels.decoder_layer import part_names
from kernels.kernel import TORCH_DTYPES
from specs.layer import FUSED_GATE_UP, LayerShape, layer_shape
from specs.parallel import RankPosition, Split

# Values of weights, caches and prompts: any rank can make its part of any tensor, and all ranks agree
#
# A tensor's row is a window of one long table of normal values, at an offset given by the tensor's name and the row's
# number. A shard is a narrower window of fewer rows, so making it is a memory copy and needs no other part.

TABLE_LENGTH = 1_048_573
ROW_STRIDE = 7919
"""Offset between the windows of two rows.

It and TABLE_LENGTH are primes, so rows of a tensor repeat only after TABLE_LENGTH rows.
"""
MAX_COLUMNS = 65_536
"""Most columns of a window."""
DISTINCT_SEQUENCES = 7
"""Distinct sequences; further ones repeat their values in memory of their own.

Few, so that a float64 reference of all is quick. A prime, so that no two microbatches of a power of two begin alike.
"""


@cache
def _random_table(dtype: str, device: torch.device) -> torch.Tensor:
    drawn = torch.randn(TABLE_LENGTH, generator=torch.Generator().manual_seed(TABLE_LENGTH))
    return torch.cat((drawn, drawn[:MAX_COLUMNS])).to(TORCH_DTYPES[dtype]).to(device)


def synthetic_block(
    name: str, rows: torch.Tensor, columns: slice, dtype: str, device: torch.device, scale: float = 1.0
) -> torch.Tensor:
    """Rows and columns of the tensor called `name`: normal values times `scale`.

    Args:
        name: tensor name, such as `layer 3 qkv`.
        rows: row numbers, int64.
        columns: start and stop.
        dtype: short name.
        device: device of the result.
        scale: 1 / √k for a weight, which keeps outputs as large as inputs.
    """
    entered = (zlib.crc32(name.encode()) + columns.start + rows.to(device) * ROW_STRIDE) % TABLE_LENGTH
    windows = _random_table(dtype, device).unfold(0, columns.stop - columns.start, 1)
    found = windows.index_select(0, entered)
    return found if scale == 1.0 else found.mul_(scale)


def synthetic_weight(
    name: str, rows: torch.Tensor, columns: slice, k: int, dtype: str, device: torch.device
) -> torch.Tensor:
    """Rows and columns of a weight W[n, k], scaled by its full length k."""
    return synthetic_block(name, rows, columns, dtype, device, 1 / sqrt(k))


def synthetic_kv(
    name: str, sequences: int, context: int, heads: slice, head_dim: int, dtype: str, device: torch.device
) -> torch.Tensor:
    """Keys or values[sequences, context, heads, head_dim] of a filled cache."""
    places = (torch.arange(sequences) % DISTINCT_SEQUENCES)[:, None] * context + torch.arange(context)
    columns = slice(heads.start * head_dim, heads.stop * head_dim)
    found = synthetic_block(name, places.flatten(), columns, dtype, device)
    return found.view(sequences, context, heads.stop - heads.start, head_dim)


def synthetic_tokens(sequences: int, length: int, vocab: int, turn: int = 0) -> torch.Tensor:
    """Token ids[sequences, length]; each turn gives different tokens."""
    places = (torch.arange(sequences) % DISTINCT_SEQUENCES)[:, None] * length + torch.arange(length)
    return (places * 104_729 + turn * 15_485_863 + 3) % TABLE_LENGTH % vocab


@dataclass(frozen=True)
class ModelShard:
    """One of tp shards of every layer of a model.

    Attributes:
        split: split of the model.
        index: index of the shard.
        dtype: dtype of weights and activations.
        device: device of the tensors.
    """

    split: Split
    index: int
    dtype: str
    device: torch.device

    @property
    def layer_shape(self) -> LayerShape:
        """Shape of one layer of the shard."""
        return layer_shape(self.split)

    @property
    def kv_heads(self) -> slice:
        """Key-value heads of this shard; several shards may hold the same head."""
        each = self.split.kv_heads_per_rank
        first = self.index * self.split.model.kv_heads // self.split.tp
        return slice(first, first + each)

    @property
    def vocab_slice(self) -> slice:
        """Rows of the LM head; the last shard may be shorter."""
        each = self.split.vocab_per_rank
        return slice(self.index * each, min((self.index + 1) * each, self.split.model.vocab))

    def layer(self, number: int, parts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Weights and gains of one layer.

        `number` counts over the whole model. `parts` decides whether gate and up rows alternate.
        """
        model, widths = self.split.model, self.layer_shape
        hidden, intermediate, dim = model.hidden, model.intermediate, model.head_dim
        queries = slice(self.index * widths.queries, (self.index + 1) * widths.queries)
        middle = slice(self.index * widths.intermediate, (self.index + 1) * widths.intermediate)
        keys = _indices(self.kv_heads, dim)
        heads = model.heads * dim
        qkv = torch.cat((_indices(queries), heads + keys, heads + model.kv_heads * dim + keys))
        gate, up = _indices(middle), intermediate + _indices(middle)
        both = torch.stack((gate, up), 1).flatten() if FUSED_GATE_UP in parts else torch.cat((gate, up))
        every = _indices(slice(0, hidden))
        return {
            "first_gain": self._gain(f"layer {number} first"),
            "second_gain": self._gain(f"layer {number} second"),
            "qkv_weight": self._weight(f"layer {number} qkv", qkv, slice(0, hidden), hidden),
            "o_weight": self._weight(f"layer {number} o", every, queries, heads),
            "gate_up_weight": self._weight(f"layer {number} gate_up", both, slice(0, hidden), hidden),
            "down_weight": self._weight(f"layer {number} down", every, middle, intermediate),
        }

    def embedding(self) -> torch.Tensor:
        """Embedding[vocab, hidden], whole on every shard: a look-up needs no all-reduce."""
        model = self.split.model
        rows = _indices(slice(0, model.vocab))
        return synthetic_block("embedding", rows, slice(0, model.hidden), self.dtype, self.device)

    def head(self) -> torch.Tensor:
        """LM head[vocab rows of this shard, hidden]."""
        hidden = self.split.model.hidden
        return self._weight("head", _indices(self.vocab_slice), slice(0, hidden), hidden)

    def final_gain(self) -> torch.Tensor:
        """Gain[hidden] of the norm before the LM head."""
        return self._gain("final")

    def cache(self, number: int, sequences: int, context: int) -> dict[str, torch.Tensor]:
        """Keys and values of one layer, filled with `context` tokens of each sequence."""
        dim = self.split.model.head_dim
        return {
            name: synthetic_kv(
                f"layer {number} {name}", sequences, context, self.kv_heads, dim, self.dtype, self.device
            )
            for name in ("key", "value")
        }

    def _weight(self, name: str, rows: torch.Tensor, columns: slice, k: int) -> torch.Tensor:
        return synthetic_weight(name, rows, columns, k, self.dtype, self.device)

    def _gain(self, name: str) -> torch.Tensor:
        """Gain[hidden] with values near 1."""
        drawn = synthetic_block(
            name, torch.zeros(1, dtype=torch.int64), slice(0, self.split.model.hidden), self.dtype, self.device, 0.1
        )
        return drawn[0] + 1


def _indices(part: slice, each: int = 1) -> torch.Tensor:
    return torch.arange(part.start * each, part.stop * each)


# Stage of a rank: a shard of some layers, with the embedding on the first stage and the LM head on the last

Tensors = dict[str, torch.Tensor]


@dataclass
class Stage:
    """Weights and caches of one rank, made once for all batches.

    Args:
        shard: shard of every layer.
        position: replica, stage and shard of the rank.
        implementation: kernels, torch or triton.
    """

    shard: ModelShard
    position: RankPosition
    implementation: str
    layers: list[Tensors] = field(init=False)
    embedding: torch.Tensor | None = field(init=False)
    head: torch.Tensor | None = field(init=False)
    gain: torch.Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        parts = part_names(self.implementation)
        self.layers = [self.shard.layer(number, parts) for number in self.layer_numbers]
        self.embedding = self.shard.embedding() if self.is_first else None
        self.head, self.gain = (self.shard.head(), self.shard.final_gain()) if self.is_last else (None, None)
        self._caches: list[Tensors] = []
        self._cache_shape = 0, 0

    @property
    def layer_numbers(self) -> range:
        """Numbers of the stage's layers, counted over the whole model."""
        counts = self.shard.split.stage_layers()
        begin = sum(counts[: self.position.stage])
        return range(begin, begin + counts[self.position.stage])

    @property
    def is_first(self) -> bool:
        """True for the stage with the embedding."""
        return self.position.stage == 0

    @property
    def is_last(self) -> bool:
        """True for the stage that samples."""
        return self.position.stage == self.shard.split.pp - 1

    @property
    def total_bytes(self) -> int:
        """Bytes of weights and caches."""
        ends = [one for one in (self.embedding, self.head, self.gain) if one is not None]
        held = [tensor for one in (*self.layers, *self._caches) for tensor in one.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in (*ends, *held))

    def caches(self, sequences: int, context: int) -> list[Tensors]:
        """Key and value[at least `sequences`, context, kv_heads, head_dim] of each layer."""
        if self._cache_shape[1] != context or self._cache_shape[0] < sequences:
            self._caches = []  # free the old caches before allocating new ones
            self._caches = [self.shard.cache(number, sequences, context) for number in self.layer_numbers]
            self._cache_shape = sequences, context
        return self._caches

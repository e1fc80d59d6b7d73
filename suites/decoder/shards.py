"""Which part of each weight a rank holds: rows of qkv, gate_up and the head, columns of o and down."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from specs.layer import FUSED, LayerShape, layer_shape
from specs.parallel import Split
from suites.decoder import values


@dataclass(frozen=True)
class Shard:
    """One of tp shards of every layer of a model.

    Attributes:
        split: how the model is cut.
        index: which shard.
        dtype: of weights and activations.
        device: where they are.
    """

    split: Split
    index: int
    dtype: str
    device: torch.device

    @property
    def widths(self) -> LayerShape:
        """Of one layer here."""
        return layer_shape(self.split)

    @property
    def kv_heads(self) -> slice:
        """Key-value heads of this shard; where there are fewer than shards, several have the same one."""
        each = self.split.kv_heads_per_rank
        first = self.index * self.split.model.kv_heads // self.split.tp
        return slice(first, first + each)

    @property
    def vocabulary(self) -> slice:
        """Rows of the LM head: with its last shard shorter where they do not divide."""
        each = self.split.vocab_per_rank
        return slice(self.index * each, min((self.index + 1) * each, self.split.model.vocab))

    def layer(self, number: int, parts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Weights and gains of one layer, counted over the whole model; `parts` says whether gate and up alternate."""
        model, widths = self.split.model, self.widths
        hidden, intermediate, dim = model.hidden, model.intermediate, model.head_dim
        queries = slice(self.index * widths.queries, (self.index + 1) * widths.queries)
        middle = slice(self.index * widths.intermediate, (self.index + 1) * widths.intermediate)
        keys = _range(self.kv_heads, dim)
        heads = model.heads * dim
        qkv = torch.cat((_range(queries), heads + keys, heads + model.kv_heads * dim + keys))
        gate, up = _range(middle), intermediate + _range(middle)
        both = torch.stack((gate, up), 1).flatten() if FUSED in parts else torch.cat((gate, up))
        every = _range(slice(0, hidden))
        return {
            "first_gain": self._gain(f"layer {number} first"),
            "second_gain": self._gain(f"layer {number} second"),
            "qkv_weight": self._weight(f"layer {number} qkv", qkv, slice(0, hidden), hidden),
            "o_weight": self._weight(f"layer {number} o", every, queries, heads),
            "gate_up_weight": self._weight(f"layer {number} gate_up", both, slice(0, hidden), hidden),
            "down_weight": self._weight(f"layer {number} down", every, middle, intermediate),
        }

    def embedding(self) -> torch.Tensor:
        """[vocab, hidden], whole on every shard: a look-up then needs no all-reduce."""
        model = self.split.model
        rows = _range(slice(0, model.vocab))
        return values.block("embedding", rows, slice(0, model.hidden), self.dtype, self.device)

    def head(self) -> torch.Tensor:
        """The LM head's rows of this shard, over hidden."""
        hidden = self.split.model.hidden
        return self._weight("head", _range(self.vocabulary), slice(0, hidden), hidden)

    def final_gain(self) -> torch.Tensor:
        """Of the norm before the head."""
        return self._gain("final")

    def cache(self, number: int, sequences: int, context: int) -> dict[str, torch.Tensor]:
        """Keys and values of one layer, as if `context` tokens of each sequence had been read."""
        dim = self.split.model.head_dim
        return {
            name: values.cached(
                f"layer {number} {name}", sequences, context, self.kv_heads, dim, self.dtype, self.device
            )
            for name in ("key", "value")
        }

    def _weight(self, name: str, rows: torch.Tensor, columns: slice, k: int) -> torch.Tensor:
        return values.weight(name, rows, columns, k, self.dtype, self.device)

    def _gain(self, name: str) -> torch.Tensor:
        """Near one."""
        drawn = values.block(
            name, torch.zeros(1, dtype=torch.int64), slice(0, self.split.model.hidden), self.dtype, self.device, 0.1
        )
        return drawn[0] + 1


def _range(part: slice, each: int = 1) -> torch.Tensor:
    return torch.arange(part.start * each, part.stop * each)

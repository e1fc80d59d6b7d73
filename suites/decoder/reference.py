"""The model on one rank in float64, from the same values: what every split's logits are held against.

Written out once more, layer by layer, and not with the kernels under test; only the products of a linear are taken in
slices as elsewhere, because a whole weight in float64 is large.
"""

from math import sqrt
from typing import cast

import torch

from kernels.linear import TORCH_LINEAR
from kernels.rmsnorm import EPS
from specs.models import Model
from specs.parallel import Split
from suites.decoder import values
from suites.decoder.shards import Shard
from suites.decoder.slot import THETA

ROUNDING = {"fp32": 2e-6, "bf16": 1.2e-2, "fp16": 1.5e-3}
"""What a layer may add to the error, in quadrature: some ten roundings, for bf16 1.1e-3 each, and what attention makes
of them. A shard too many, a message too late, a sequence in another's place gives over 100 %."""


def rtol(dtype: str, layers: int) -> float:
    """Largest accepted ‖logits − reference‖ / ‖reference‖ after so many layers."""
    return ROUNDING[dtype] * sqrt(layers + 1)


def logits(
    model: Model, sequences: torch.Tensor, length: int, context: int, dtype: str, device: torch.device, turn: int = 0
) -> torch.Tensor:
    """Of the last token of each sequence, [sequences, vocab].

    Args:
        model: the whole of it.
        sequences: numbers of sequences below `values.PERIOD`.
        length: tokens that each brings; with 1 they follow context − 1 others that its cache holds.
        context: tokens in its cache, the new one included.
        dtype: of the weights and of the cache.
        device: where to work it out.
        turn: which tokens enter, see `suites.decoder.values.tokens`.
    """
    whole = Shard(Split(model), 0, dtype, device)
    ids = values.tokens(values.PERIOD, length, model.vocab, turn)[sequences].flatten().to(device)
    stream = whole.embedding()[ids].double()
    places = torch.arange(length, device=device) if length > 1 else torch.tensor([context - 1], device=device)
    for number in range(model.layers):
        weights = whole.layer(number, ())
        normed = _norm(stream, weights["first_gain"])
        query, key, value = _heads(model, _linear(normed, weights["qkv_weight"]), len(sequences), places)
        if length == 1:
            cache = whole.cache(number, values.PERIOD, context)
            old = [cache[name][sequences.to(device), :-1].double() for name in ("key", "value")]
            key, value = (torch.cat(pair, 1) for pair in zip(old, (key, value), strict=True))
        attended = _attention(query, key, value)
        stream = stream + _linear(attended.flatten(0, 1).flatten(1), weights["o_weight"])
        gate, up = _linear(_norm(stream, weights["second_gain"]), weights["gate_up_weight"]).chunk(2, dim=1)
        stream = stream + _linear(gate * torch.sigmoid(gate) * up, weights["down_weight"])
    last = stream.view(len(sequences), length, -1)[:, -1]
    return _linear(_norm(last, whole.final_gain()), whole.head())


def _linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return cast("torch.Tensor", TORCH_LINEAR.reference(x, weight))


def _norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    return x / torch.sqrt((x * x).mean(1, keepdim=True) + EPS) * gain.double()


def _heads(model: Model, qkv: torch.Tensor, sequences: int, places: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values[sequences, length, heads, head_dim], the first two turned."""
    heads = qkv.view(sequences, len(places), -1, model.head_dim)
    query, key, value = heads.split((model.heads, model.kv_heads, model.kv_heads), dim=2)
    steps = torch.arange(0, model.head_dim, 2, device=qkv.device).double() / model.head_dim
    angles = (places[:, None] * THETA**-steps)[:, None]

    def turned(part: torch.Tensor) -> torch.Tensor:
        first, second = part.chunk(2, dim=3)
        along, across = torch.cos(angles), torch.sin(angles)
        return torch.cat((first * along - second * across, second * along + first * across), 3)

    return turned(query), turned(key), value


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Each query against what lies at or before its own place, the last of them at the end of the keys."""
    length, context = query.shape[1], key.shape[1]
    grouped = query.unflatten(2, (key.shape[2], -1))
    scores = torch.einsum("bqghd,bkgd->bghqk", grouped, key) / sqrt(query.shape[3])
    place = torch.arange(context, device=query.device)
    later = place[None] > place[context - length :, None]
    weights = torch.softmax(scores.masked_fill(later, -torch.inf), dim=4)
    return torch.einsum("bghqk,bkgd->bqghd", weights, value).flatten(2, 3)

"""Reference model on one rank in float64, to check the logits of every split.

It uses the same values, but not the kernels under test. Only the product of a linear is shared with them, in slices,
because a whole weight in float64 is large.
"""

from collections.abc import Mapping, Sequence
from math import isnan, nan, sqrt
from typing import cast

import torch

from kernels.linear import TORCH_LINEAR
from kernels.rmsnorm import EPS
from specs.models import Model
from specs.parallel import Split
from suites.decoder import model as decoder_model
from suites.decoder.microbatch import ROPE_THETA, Microbatch
from suites.decoder.model import ModelShard

LAYER_ERRORS = {"fp32": 2e-6, "bf16": 1.2e-2, "fp16": 1.5e-3}
"""Error that one layer may add, in quadrature.

It covers about ten roundings, of 1.1e-3 each in bf16, and their growth in attention. An extra shard, a late message or
a misplaced sequence gives over 100 %.
"""


def logits_rtol(dtype: str, layers: int) -> float:
    """Largest accepted ‖logits − reference‖ / ‖reference‖ after this many layers."""
    return LAYER_ERRORS[dtype] * sqrt(layers + 1)


def reference_logits(
    model: Model, sequences: torch.Tensor, length: int, context: int, dtype: str, device: torch.device, turn: int = 0
) -> torch.Tensor:
    """Logits[sequences, vocab] of the last token of each sequence.

    Args:
        model: the whole model.
        sequences: sequence numbers below `suites.decoder.model.DISTINCT_SEQUENCES`.
        length: new tokens per sequence; a single one follows context − 1 tokens in the cache.
        context: tokens in the cache, including the new one.
        dtype: dtype of the weights and of the cache.
        device: device of the computation.
        turn: selects the input tokens, see `suites.decoder.model.synthetic_tokens`.
    """
    whole = ModelShard(Split(model), 0, dtype, device)
    ids = (
        decoder_model.synthetic_tokens(decoder_model.DISTINCT_SEQUENCES, length, model.vocab, turn)[sequences]
        .flatten()
        .to(device)
    )
    stream = whole.embedding()[ids].double()
    places = torch.arange(length, device=device) if length > 1 else torch.tensor([context - 1], device=device)
    for number in range(model.layers):
        weights = whole.layer(number, ())
        normed = _norm(stream, weights["first_gain"])
        query, key, value = _rotated_heads(model, _linear(normed, weights["qkv_weight"]), len(sequences), places)
        if length == 1:
            cache = whole.cache(number, decoder_model.DISTINCT_SEQUENCES, context)
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


def _rotated_heads(model: Model, qkv: torch.Tensor, sequences: int, places: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values[sequences, length, heads, head_dim] after rotation."""
    heads = qkv.view(sequences, len(places), -1, model.head_dim)
    query, key, value = heads.split((model.heads, model.kv_heads, model.kv_heads), dim=2)
    steps = torch.arange(0, model.head_dim, 2, device=qkv.device).double() / model.head_dim
    angles = (places[:, None] * ROPE_THETA**-steps)[:, None]

    def turned(part: torch.Tensor) -> torch.Tensor:
        first, second = part.chunk(2, dim=3)
        along, across = torch.cos(angles), torch.sin(angles)
        return torch.cat((first * along - second * across, second * along + first * across), 3)

    return turned(query), turned(key), value


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Causal attention of each query; the last query is at the end of the keys."""
    length, context = query.shape[1], key.shape[1]
    grouped = query.unflatten(2, (key.shape[2], -1))
    scores = torch.einsum("bqghd,bkgd->bghqk", grouped, key) / sqrt(query.shape[3])
    place = torch.arange(context, device=query.device)
    later = place[None] > place[context - length :, None]
    weights = torch.softmax(scores.masked_fill(later, -torch.inf), dim=4)
    return torch.einsum("bghqk,bkgd->bqghd", weights, value).flatten(2, 3)


# Verification of a stage's logits and sampled tokens: two steps from known tokens
#
# The first step starts from the first tokens. The last stage's sampled tokens are checked against the reference and
# then replaced by known tokens. The second step's logits are right only if these return to the first stage, to their
# own microbatch. Buffers of a step are poisoned before the next.

VERIFY_STEPS = 2
MAX_REFERENCE_TOKENS = 128
"""Most prompt tokens to check, besides the last prompt: float64 is slow."""
WRONG_TOKEN_ERROR = 1.0
"""Error of a step that sampled other tokens than the reference would."""
ARGMAX_MARGIN = 8
"""Multiple of the tolerance by which a sampled token may miss the largest logit.

Both logits may be off, and some element of a vocabulary is off by four times the average.
"""


class LogitsVerifier:
    """References of the verified cases, each computed once."""

    def __init__(self) -> None:
        self._references: dict[tuple[object, ...], torch.Tensor] = {}

    def forget(self) -> None:
        """Free the references."""
        self._references.clear()

    def error(self, model: Model, microbatches: Sequence[Microbatch]) -> float:
        """Larger relative error of two steps' logits, over this rank's vocabulary.

        The error is ‖logits − reference‖ / ‖reference‖.

        Args:
            model: the whole model.
            microbatches: microbatches of a last stage, `VERIFY_STEPS` steps after `begin_verification`.

        Returns:
            `WRONG_TOKEN_ERROR` if wrong tokens were sampled, NaN if an element was not written.
        """
        errors = [self._step(model, microbatches, step) for step in range(VERIFY_STEPS)]
        return nan if any(map(isnan, errors)) else max(errors)

    def _step(self, model: Model, microbatches: Sequence[Microbatch], step: int) -> float:
        wrong = exact = 0.0
        right = self._reference(model, microbatches, step)
        for slot in microbatches:
            classes = (
                torch.arange(slot.rows.first, slot.rows.first + slot.rows.sequences) % decoder_model.DISTINCT_SEQUENCES
            )
            rows = [row for row, one in enumerate(classes.tolist()) if one in right]
            if not rows:
                continue
            expected = torch.stack([right[int(classes[row])] for row in rows])
            logits, sampled = slot.step_outputs[step]
            part = expected[:, slot.vocab_slice]
            wrong += float(torch.sum((logits[rows].double() - part) ** 2))
            exact += float(torch.sum(part**2))
            if not _is_greedy(expected, sampled[rows], ARGMAX_MARGIN * logits_rtol(slot.dtype, model.layers)):
                return WRONG_TOKEN_ERROR
        return sqrt(wrong / exact)

    def _reference(self, model: Model, microbatches: Sequence[Microbatch], step: int) -> Mapping[int, torch.Tensor]:
        """Reference logits by sequence number below `DISTINCT_SEQUENCES`."""
        rows, dtype, device = microbatches[0].rows, microbatches[0].dtype, microbatches[0].ids.device
        last = microbatches[-1].rows.first + microbatches[-1].rows.sequences - 1
        few = min(decoder_model.DISTINCT_SEQUENCES, last + 1, max(1, MAX_REFERENCE_TOKENS // rows.length - 1))
        numbers = (
            range(decoder_model.DISTINCT_SEQUENCES)
            if rows.decode
            else sorted({*range(few), last % decoder_model.DISTINCT_SEQUENCES})
        )
        turn = step if rows.decode else 0
        found = {}
        for number in numbers:
            key = model, rows.length, rows.context, dtype, turn, number
            if key not in self._references:
                wanted = torch.tensor([one for one in numbers if (*key[:-1], one) not in self._references])
                logits = reference_logits(model, wanted, rows.length, rows.context, dtype, device, turn)
                self._references |= {(*key[:-1], int(one)): of for one, of in zip(wanted, logits, strict=True)}
            found[number] = self._references[key]
        return found


def _is_greedy(expected: torch.Tensor, sampled: torch.Tensor, tolerance: float) -> bool:
    """True if each token's logit is its row's largest, within `tolerance` x RMS."""
    if not bool(((sampled >= 0) & (sampled < expected.shape[1])).all()):
        return False
    missed = expected.amax(1) - expected.gather(1, sampled[:, None])[:, 0]
    return bool((missed <= tolerance * expected.square().mean(1).sqrt()).all())

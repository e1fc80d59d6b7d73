"""The float64 reference is a decoder: what it says of a prompt, it says of the same tokens one by one."""

import pytest
import torch

from specs.models import MODELS, scaled_model
from suites.decoder import model, reference
from suites.decoder.model import ModelShard

CPU = torch.device("cpu")
MODEL = scaled_model(MODELS["tiny"], 2)


@pytest.fixture
def remembered(monkeypatch):
    """Caches that hold what a prompt has put there, instead of drawn values."""
    seen = []
    heads = reference._rotated_heads

    def keeping(*given):
        found = heads(*given)
        seen.append(found[1:])
        return found

    monkeypatch.setattr(reference, "_rotated_heads", keeping)
    return seen


def test_a_token_behind_its_prompt_gives_what_the_longer_prompt_gives(remembered, monkeypatch):
    sequences = torch.tensor([0, 3])
    whole = reference.reference_logits(MODEL, sequences, 6, 6, "fp32", CPU)
    caches = [
        {name: tensor.clone() for name, tensor in zip(("key", "value"), pair, strict=True)} for pair in remembered
    ]
    ids = model.synthetic_tokens(model.DISTINCT_SEQUENCES, 6, MODEL.vocab)[:, -1:]
    monkeypatch.setattr(model, "synthetic_tokens", lambda *_: ids)

    def cache(self, number, *_):
        found = {
            name: torch.zeros(model.DISTINCT_SEQUENCES, *tensor.shape[1:]) for name, tensor in caches[number].items()
        }
        for name, tensor in found.items():
            tensor[sequences] = caches[number][name].float()
        return found

    monkeypatch.setattr(ModelShard, "cache", cache)
    last = reference.reference_logits(MODEL, sequences, 1, 6, "fp32", CPU)
    assert torch.linalg.norm(last - whole) < 1e-5 * torch.linalg.norm(whole)  # the caches were rounded to fp32


def test_attention_is_torchs():
    query, key, value = (
        torch.randn(2, 5, heads, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(heads))
        for heads in (6, 3, 2 + 1)
    )
    ours = reference._attention(query, key, value)
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(ours, theirs.transpose(1, 2))


def test_the_first_token_of_a_prompt_reaches_the_last(monkeypatch):
    ids = model.synthetic_tokens(model.DISTINCT_SEQUENCES, 4, MODEL.vocab)
    before = reference.reference_logits(MODEL, torch.tensor([1]), 4, 4, "fp32", CPU)
    other = ids.clone()
    other[1, 0] += 1
    monkeypatch.setattr(model, "synthetic_tokens", lambda *_: other)
    after = reference.reference_logits(MODEL, torch.tensor([1]), 4, 4, "fp32", CPU)
    assert torch.linalg.norm(after - before) > 1e-3 * torch.linalg.norm(before)

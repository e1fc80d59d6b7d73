"""What is left of a layer on one rank."""

import pytest

from specs.errors import UserError
from specs.layer import layer_part, layer_shape, why_unplannable_layer
from specs.models import MODELS, find_model
from specs.parallel import Split


def test_widths_of_a_rank_are_its_linears():
    """Llama-3-70B over 8: 64 / 8 heads, 8 / 8 kv heads, 28672 / 8; 8 + 2 heads of 128 are qkv."""
    split = Split(find_model("llama-3-70b"), 8)
    widths = layer_shape(split)
    assert vars(widths) == {
        "hidden": 8192, "heads": 8, "kv_heads": 1, "head_dim": 128, "intermediate": 3584,
    }  # fmt: skip
    assert (widths.qkv, widths.queries) == (1280, 1024)
    linears = split.linears
    assert (widths.qkv, widths.hidden) == (linears["qkv"].n, linears["qkv"].k)
    assert (widths.hidden, widths.queries) == (linears["o"].n, linears["o"].k)
    assert (2 * widths.intermediate, widths.intermediate) == (linears["gate_up"].n, linears["down"].k)


def test_key_value_heads_are_replicated_beyond_their_number():
    assert layer_shape(Split(find_model("llama-3-70b"), 16)).kv_heads == 1


@pytest.mark.parametrize(
    ("slug", "lacks"),
    [
        ("gpt-3-175b", "biases, no gate in its MLP"),
        ("qwen3-235b-a22b", "experts, norms on queries and keys"),
        ("qwen2.5-7b", "biases on queries, keys and values"),
        ("qwen3-8b", "norms on queries and keys"),
    ],
)
def test_layers_of_another_kind_are_refused_with_what_they_have(slug, lacks):
    with pytest.raises(UserError, match=f"{slug}: a whole layer of it is not made, it has {lacks}; choose a dense"):
        layer_shape(Split(find_model(slug)))


def test_a_part_says_whether_it_is_of_a_batch_or_of_a_prompt():
    split = Split(find_model("llama-3-70b"), 8)
    batch = layer_part(split, "norm", tokens=32, batch=32, context=2048)
    prompt = layer_part(split, "layer", tokens=2048, batch=1, context=2048)
    assert str(batch) == "llama-3-70b-tp8-pp1-32tok-ctx2048-norm"
    assert str(prompt) == "llama-3-70b-tp8-pp1-prompt2048-layer"
    assert (batch.per_layer, prompt.per_layer) == (2, 1)


def test_a_plan_covers_more_kinds_of_layers_than_the_kernels():
    planned = {slug for slug in MODELS if not why_unplannable_layer(find_model(slug))}
    assert set(MODELS) - planned == {"gpt-3-175b", "seed-32x12288", "qwen3-235b-a22b", "deepseek-v3"}
    assert "it has experts, attention of another kind" in why_unplannable_layer(find_model("deepseek-v3"))

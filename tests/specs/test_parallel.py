import json
from dataclasses import replace

import pytest

from specs.errors import UserError
from specs.models import MODELS, find_model
from specs.parallel import Shard, Split

LLAMA = find_model("llama-3-70b")


@pytest.mark.parametrize(
    ("layer", "n", "k"),
    [
        ("qkv", 1280, 8192),  # (64/8 + 2·8/8)·128 = 10·128
        ("o", 8192, 1024),  # 64/8·128
        ("gate_up", 7168, 8192),  # 2·28672/8
        ("down", 8192, 3584),  # 28672/8
        ("lm_head", 16032, 8192),  # 128256/8
    ],
)
def test_llama_70b_over_eight_ranks(layer, n, k):
    assert Split(LLAMA, tp=8).linear(layer) == Shard("llama-3-70b", 8, 1, layer, n, k)


def test_one_rank_holds_whole_matrices():
    shapes = {layer: (shard.n, shard.k) for layer, shard in Split(LLAMA).linears.items()}
    assert shapes == {
        "qkv": (10240, 8192),  # (64 + 2·8)·128
        "o": (8192, 8192),
        "gate_up": (57344, 8192),
        "down": (8192, 28672),
        "lm_head": (128256, 8192),
    }


def test_stages_cut_between_layers_never_through_a_linear():
    whole, staged = Split(LLAMA), Split(LLAMA, pp=8)
    assert [shard[3:] for shard in staged.linears.values()] == [shard[3:] for shard in whole.linears.values()]
    assert staged.linear("qkv").pp == 8


def test_kv_heads_are_replicated_beyond_their_number():
    qwen = find_model("qwen3-235b-a22b")  # 64 heads, 4 kv_heads, head_dim 128
    assert Split(qwen, tp=8).kv_heads_per_rank == 1
    assert Split(qwen, tp=8).linear("qkv").n == 1280  # (64/8 + 2·1)·128; uncut kv_heads would give 1,152
    assert Split(qwen, tp=2).linear("qkv").n == 4608  # (64/2 + 2·2)·128


def test_experts_are_cut_like_a_dense_mlp():
    split = Split(find_model("deepseek-v3"), tp=8)
    assert (split.linear("gate_up").n, split.linear("down").k) == (512, 256)  # 2·2048/8 and 2048/8
    assert list(split.linears) == ["gate_up", "down", "lm_head"]


def test_a_vocabulary_that_does_not_divide_is_padded_up():
    # 50257 = 8·6282 + 1, so the largest slice has 6283 rows
    assert Split(find_model("gpt-3-175b"), tp=8).linear("lm_head").n == 6283


def test_an_ungated_mlp_calls_its_linear_up():
    split = Split(find_model("gpt-3-175b"), tp=8)
    assert split.linear("up").n == 6144  # 49152/8
    with pytest.raises(UserError, match=r"unknown layer of gpt-3-175b 'gate_up'; .*known: qkv, o, up, down, lm_head"):
        split.linear("gate_up")


def test_an_unknown_linear_is_refused_with_a_suggestion():
    with pytest.raises(UserError, match=r"unknown layer of llama-3-70b 'gateup'; did you mean gate_up\?"):
        Split(LLAMA).linear("gateup")


@pytest.mark.parametrize("layer", ["qkv", "o"])
def test_latent_attention_has_no_linears_here(layer):
    with pytest.raises(UserError, match="deepseek-v3: its attention is not grouped-query"):
        Split(find_model("deepseek-v3")).linear(layer)


@pytest.mark.parametrize(
    ("pp", "layers"),
    [
        (8, (10,) * 8),
        (1, (80,)),
        (6, (14, 14, 13, 13, 13, 13)),  # 80 = 6·13 + 2
        (80, (1,) * 80),
    ],
)
def test_stages_share_the_layers_and_the_first_take_the_rest(pp, layers):
    assert Split(LLAMA, pp=pp).stage_layers() == layers
    assert sum(layers) == 80


@pytest.mark.parametrize("stage", [-1, 8])
def test_a_stage_outside_is_refused(stage):
    with pytest.raises(UserError, match=rf"llama-3-70b-tp1-pp8: stage {stage} is outside 0 … 7"):
        Split(LLAMA, pp=8).layers_of(stage)


@pytest.mark.parametrize(
    ("tp", "pp", "message"),
    [
        (0, 1, "tp=0 and pp=1, both must be at least 1"),
        (1, 0, "tp=1 and pp=0, both must be at least 1"),
        (3, 1, r"tp=3 must divide 64 heads .*choose among 1, 2, 4, 8, 16, 32, 64$"),
        (128, 1, r"tp=128 must divide 64 heads .*choose among 1, 2, 4, 8, 16, 32, 64$"),
        (1, 81, "pp=81 exceeds its 80 layers; choose pp of at most 80"),
    ],
)
def test_an_impossible_split_is_refused_with_what_to_do(tp, pp, message):
    with pytest.raises(UserError, match=message):
        Split(LLAMA, tp, pp)


def test_kv_heads_that_neither_divide_nor_are_divided_are_refused():
    # 96 heads and 49152 divide by 6; 8 kv_heads neither divide by 6 nor divide 6
    odd = replace(find_model("gpt-3-175b"), kv_heads=8)
    assert Split(odd, tp=16).kv_heads_per_rank == 1
    with pytest.raises(UserError, match=r"tp=6 must divide .* 8 kv_heads"):
        Split(odd, tp=6)


def divides(row, tp):
    """By the rule of the refusals above; the small Qwen2.5 have 2 and 4 kv_heads."""
    return not row.heads % tp and not row.intermediate % tp and not (row.kv_heads % tp and tp % row.kv_heads)


@pytest.mark.parametrize(
    ("tp", "row"), [(tp, row) for tp in (1, 2, 4, 8, 16) for row in MODELS.values() if divides(row, tp)], ids=str
)
def test_shards_put_together_are_the_whole(row, tp):
    whole, cut = Split(row), Split(row, tp)
    for layer, shard in cut.linears.items():
        full = whole.linear(layer)
        if layer in ("o", "down"):
            assert (shard.n, shard.k * tp) == (full.n, full.k)
        elif layer == "qkv":
            copies = max(1, tp // row.kv_heads)
            assert shard.n * tp == full.n + 2 * (copies - 1) * row.kv_heads * row.head_dim
        else:
            assert 0 <= shard.n * tp - full.n < tp
            assert shard.k == full.k


def test_a_shard_is_ready_for_json():
    assert json.loads(json.dumps(Split(LLAMA, 8, 2).linear("o")._asdict())) == {
        "model": "llama-3-70b",
        "tp": 8,
        "pp": 2,
        "layer": "o",
        "n": 8192,
        "k": 1024,
    }

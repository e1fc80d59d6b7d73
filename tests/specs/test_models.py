import pytest

from specs.errors import UserError
from specs.models import MODELS, find_model


def test_a_llama_70b_layer():
    # attention 8192·(8192 + 2·1024) + 8192·8192 = 150,994,944; MLP 3·8192·28672 = 704,643,072; norms 2·8192 = 16,384
    assert find_model("llama-3-70b").layer_parameters == 150_994_944 + 704_643_072 + 16_384 == 855_654_400


@pytest.mark.parametrize(
    ("slug", "parameters"),
    [
        ("tiny", 6_426_880),  # 8·541,184 + 2·1,048,576 + 256
        ("llama-3-70b", 70_553_706_496),  # 80·855,654,400 + 2·1,050,673,152 + 8,192
        ("llama-3-8b", 8_030_261_248),  # 32·218,112,000 + 2·525,336,576 + 4,096
        ("llama-3.2-1b", 1_235_814_400),  # 16·60,821,504 + one 262,668,288 + 2,048
        ("llama-3.1-405b", 405_853_388_800),  # 126·3,187,703,808 + 2·2,101,346,304 + 16,384
        ("gpt-3-175b", 174_604_259_328),  # 96·(12·12288² + 13·12288) + (50257 + 2048)·12288 + 2·12288
        ("qwen3-235b-a22b", 235_093_634_560),  # 94·2,487,755,008 + 2·622,329,856 + 4,096
    ],
)
def test_parameters_are_exact(slug, parameters):
    assert find_model(slug).parameters == parameters


def test_an_expert_layer_counts_experts_router_and_head_norms():
    # 4096·(8192 + 2·512) + 8192·4096 + 128·3·4096·1536 + 4096·128 + 2·4096 + 2·128
    expected = 37_748_736 + 33_554_432 + 2_415_919_104 + 524_288 + 8_192 + 256
    assert find_model("qwen3-235b-a22b").layer_parameters == expected


def test_an_ungated_mlp_enters_through_one_matrix():
    assert (find_model("gpt-3-175b").up_layer, find_model("gpt-3-175b").up_width) == ("up", 49152)
    assert (find_model("llama-3-70b").up_layer, find_model("llama-3-70b").up_width) == ("gate_up", 57344)


@pytest.mark.parametrize("of", ["parameters", "layer_parameters"])
def test_latent_attention_is_refused_not_faked(of):
    with pytest.raises(UserError, match="deepseek-v3: its attention is not grouped-query"):
        getattr(find_model("deepseek-v3"), of)


def test_the_seed_example_has_the_seed_sizes():
    assert (find_model("seed-32x12288").layers, find_model("seed-32x12288").hidden) == (32, 12288)


def test_every_row_is_found_by_its_own_slug_and_says_where_it_comes_from():
    for slug, row in MODELS.items():
        assert str(find_model(slug)) == slug
        assert row.source
        assert row.heads * row.head_dim in (row.hidden, 0) or row.qk_norm  # Qwen3's heads are wider than its stream
        assert 0 <= row.top_k <= row.experts


def test_an_unknown_model_is_refused_with_a_suggestion():
    with pytest.raises(UserError, match=r"unknown model 'llama-3-70'; did you mean llama-3-70b\? known: .*gpt-3-175b"):
        find_model("llama-3-70")


def test_nothing_near_means_no_suggestion():
    with pytest.raises(UserError, match=r"unknown model 'zzz'; known: "):
        find_model("zzz")

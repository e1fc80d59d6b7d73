from dataclasses import replace

import pytest

from specs import models
from specs.errors import UserError
from specs.models import ALIASES, MODELS, find_model


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
        # Llama-2: layers of 202,383,360, 317,204,480 and 855,654,400, and 2·32000·hidden
        ("llama-2-7b", 6_738_415_616),  # 32·202,383,360 + 2·131,072,000 + 4,096
        ("llama-2-13b", 13_015_864_320),  # 40·317,204,480 + 2·163,840,000 + 5,120
        ("llama-2-70b", 68_976_648_192),  # 80·855,654,400 + 2·262,144,000 + 8,192
        ("llama-3.2-3b", 3_212_749_824),  # 28·100,669,440 + one 394,002,432 + 3,072
        ("mistral-7b-v0.2", 7_241_732_096),  # 32·218,112,000 + 2·131,072,000 + 4,096
        ("mistral-7b-v0.3", 7_248_023_552),  # 32·218,112,000 + 2·134,217,728 + 4,096
        # 5120·(32 + 2·8)·128 + 32·128·5120 + 3·5120·32768 + 2·5120 = 555,755,520: heads of 128, not of 5120/32
        ("mistral-small-24b", 23_572_403_200),  # 40·555,755,520 + 2·671,088,640 + 5,120
        # Qwen2.5: biases of (heads + 2·kv_heads)·head_dim, as 896·(14 + 4)·64 + 896² + 3·896·4864 + 2·896 + 1,152
        ("qwen2.5-0.5b", 494_032_768),  # 24·14,912,384 + one 136,134,656 + 896
        ("qwen2.5-1.5b", 1_543_714_304),  # 28·46,797,824 + one 233,373,696 + 1,536
        ("qwen2.5-3b", 3_085_938_688),  # 36·77,076,992 + one 311,164,928 + 2,048
        ("qwen2.5-7b", 7_615_616_512),  # 28·233,057,792 + 2·544,997,376 + 3,584
        ("qwen2.5-14b", 14_770_033_664),  # 48·275,273,728 + 2·778,567,680 + 5,120
        ("qwen2.5-32b", 32_763_876_352),  # 64·487,600,128 + 2·778,567,680 + 5,120
        ("qwen2.5-72b", 72_706_203_648),  # 80·877,685,760 + 2·1,245,708,288 + 8,192
        # Qwen3: two norms of 128, as 1024·(16 + 2·8)·128 + 16·128·1024 + 3·1024·3072 + 2·1024 + 2·128 = 15,730,944
        ("qwen3-0.6b", 596_049_920),  # 28·15,730,944 + one 155,582,464 + 1,024
        ("qwen3-1.7b", 1_720_574_976),  # 28·50,336,000 + one 311,164,928 + 2,048
        ("qwen3-4b", 4_022_468_096),  # 36·100,930,816 + one 388,956,160 + 2,560
        ("qwen3-8b", 8_190_735_360),  # 36·192,946,432 + 2·622,329,856 + 4,096
        ("qwen3-14b", 14_768_307_200),  # 40·330,311,936 + 2·777,912,320 + 5,120
        ("qwen3-32b", 32_762_123_264),  # 64·487,600,384 + 2·777,912,320 + 5,120
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
        other = row.qk_norm or slug == "mistral-small-24b"  # heads together are not as wide as the residual stream
        assert row.heads * row.head_dim in (row.hidden, 0) or other
        assert 0 <= row.top_k <= row.experts


def test_an_unknown_model_is_refused_with_a_suggestion():
    with pytest.raises(UserError, match=r"unknown model 'llama-3-70'; did you mean llama-3-70b\? known: .*gpt-3-175b"):
        find_model("llama-3-70")


def test_nothing_near_means_no_suggestion():
    with pytest.raises(UserError, match=r"unknown model 'zzz'; known: "):
        find_model("zzz")


@pytest.mark.parametrize("name", ["qwen2.5-8b", "llama-3-7b", "llama-3-71b", "Qwen/Qwen3-31B"])
def test_another_size_is_never_suggested(name):
    with pytest.raises(UserError, match=rf"unknown model '{name}'; known: "):
        find_model(name)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("meta-llama/Llama-3.1-70B", "llama-3-70b"),
        ("llama-3.1-70b-instruct", "llama-3-70b"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3-70b"),
        ("meta-llama/Meta-Llama-3-8B", "llama-3-8b"),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "llama-3-8b"),
        ("some-lab/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "llama-3-8b"),
        ("some-lab/Meta-Llama-3.1-405B-Instruct-AWQ-INT4", "llama-3.1-405b"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b"),
        ("meta-llama/Llama-2-70b-hf", "llama-2-70b"),
        ("meta-llama/Llama-3.2-3B-Instruct", "llama-3.2-3b"),
        ("Llama3.1-8B", "llama-3-8b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b-v0.3"),
        ("mistralai/Mistral-Small-24B-Instruct-2501", "mistral-small-24b"),
        ("Qwen/Qwen2-7B-Instruct", "qwen2.5-7b"),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", "qwen2.5-72b"),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", "qwen2.5-32b"),
        ("Qwen/Qwen3-32B", "qwen3-32b"),
        ("nvidia/Qwen3-32B-NVFP4", "qwen3-32b"),
        ("QWEN/qwen3-0.6b-base", "qwen3-0.6b"),
        ("Qwen/Qwen3-4B-Instruct-2507", "qwen3-4b"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "qwen3-235b-a22b"),
        ("deepseek-ai/DeepSeek-V3", "deepseek-v3"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "llama-3-70b"),
    ],
)
def test_an_id_of_hugging_face_finds_the_row_of_its_shapes(name, slug):
    assert find_model(name) is MODELS[slug]


def test_no_two_rows_share_shapes_or_a_plain_name():
    shapes = [replace(row, slug="", source="") for row in MODELS.values()]
    assert len(set(shapes)) == len(shapes)
    names = [models._plain_name(name) for slug in MODELS for name in (slug, *ALIASES.get(slug, ()))]
    assert len(set(names)) == len(names)
    assert set(ALIASES) <= set(MODELS)


def test_known_slugs_keep_their_order():
    kept = ("tiny", "llama-3.2-1b", "llama-3-8b", "llama-3-70b", "llama-3.1-405b", "gpt-3-175b", "seed-32x12288")
    assert [slug for slug in MODELS if slug in kept] == [*kept]
    assert list(MODELS)[-2:] == ["qwen3-235b-a22b", "deepseek-v3"]


ROUTING = "routing of tokens to experts"


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("Qwen/Qwen1.5-MoE-A2.7B", ROUTING),
        ("Qwen/Qwen3-Coder-480B-A35B-Instruct", ROUTING),
        ("mistralai/Mixtral-8x7B-v0.1", ROUTING),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", ROUTING),
        ("openai/gpt-oss-120b", ROUTING),
        ("deepseek-ai/DeepSeek-V3.2", f"{ROUTING}, and latent attention"),
        ("moonshotai/Kimi-K2-Instruct", f"{ROUTING}, and latent attention"),
        ("google/gemma-3-27b-it", "alternating attention windows, and norms after each block"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "the vision part of a multimodal model"),
        ("mistralai/Mistral-7B-v0.1", "attention over a sliding window"),
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", "layers of different widths"),
    ],
)
def test_a_model_of_another_family_is_refused_with_the_missing_feature(name, lacking):
    with pytest.raises(UserError) as caught:
        find_model(name)
    supported = "dense models are supported: Llama, Mistral, Qwen2 and Qwen2.5, Qwen3"
    assert str(caught.value) == f"model '{name}': not implemented: {lacking}; {supported}"


def test_a_distilled_model_of_unknown_shapes_is_unknown():
    with pytest.raises(UserError, match=r"unknown model 'deepseek-ai/DeepSeek-R1-Distill-Qwen-1\.5B'"):
        find_model("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")

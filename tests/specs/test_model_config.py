"""Reading of config.json files: what becomes of right ones, and the one line on each wrong one."""

import json
from dataclasses import replace
from importlib import util
from pathlib import Path

import pytest

from specs import models
from specs.errors import UserError
from specs.model_config import FAMILIES
from specs.models import MODELS, Model, find_model, remember_model
from specs.parallel import Split

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "vocab_size": 64000,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
"""A made-up model; no row has these shapes."""
REMOVED = object()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """Models that a test reads are forgotten after it."""
    monkeypatch.setattr(models, "_FROM_CONFIG", {})


@pytest.fixture
def write(tmp_path):
    """Path of a config.json with changes to `LLAMA`, in a folder of a name."""

    def write(folder="My Model_48L", **changes):
        place = tmp_path / folder
        place.mkdir(parents=True, exist_ok=True)
        config = {key: value for key, value in (LLAMA | changes).items() if value is not REMOVED}
        (place / "config.json").write_text(json.dumps(config))
        return place / "config.json"

    return write


def refusal(path):
    with pytest.raises(UserError) as caught:
        find_model(str(path))
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"{path}: ")
    return said.removeprefix(f"{path}: ")


def test_a_file_becomes_a_model_with_its_shapes(write):
    path = write()
    model = find_model(str(path))
    assert model == Model(
        slug="my-model-48l", layers=48, hidden=4096, intermediate=11008, heads=32, kv_heads=4, head_dim=128,
        vocab=64000, source=str(path),
    )  # fmt: skip
    # a layer: 4096·(32 + 2·4)·128 + 4096² + 3·4096·11008 + 2·4096 = 173,023,232; 48 of them, 2·64000·4096, 4096
    assert model.parameters == 48 * 173_023_232 + 524_288_000 + 4096


def test_a_folder_is_as_good_as_its_file_and_its_slug_holds_from_then_on(write, monkeypatch):
    path = write("mine")
    model = find_model(str(path.parent))
    assert find_model("mine") is model
    assert Split(find_model("mine"), 4).linear("qkv").model == "mine"
    monkeypatch.chdir(path.parent.parent)
    for name in ("mine/", "./mine", "mine/config.json"):
        assert replace(find_model(name), source=model.source) == model


def test_a_folder_beside_is_found_without_a_separator(write, monkeypatch):
    monkeypatch.chdir(write("mine").parent.parent)
    assert find_model("mine").slug == "mine"


def test_a_slug_comes_before_a_folder_and_a_folder_before_an_id(write, monkeypatch):
    write("tiny")
    write("Qwen/Qwen3-8B")
    monkeypatch.chdir(write("qwen3-14b").parent.parent)
    assert find_model("tiny") is MODELS["tiny"]
    assert find_model("qwen3-14b") is MODELS["qwen3-14b"]
    assert find_model("Qwen/Qwen3-8B").layers == 48
    assert find_model("qwen/Qwen3-8B-FP8") is MODELS["qwen3-8b"]


@pytest.mark.parametrize(
    ("changes", "folder", "slug"),
    [
        ({"_name_or_path": "some-lab/Big_Model v2"}, "x", "big-model-v2"),
        ({"_name_or_path": "/opt/checkpoints/Llama-X/"}, "x", "llama-x"),
        ({"_name_or_path": ""}, "Ünnamed!", "nnamed"),
        ({"_name_or_path": 7}, "x" * 100, "x" * 64),
        ({}, "models--lab--Large-7B/snapshots/0123abcd", "large-7b"),
    ],
)
def test_a_slug_comes_from_the_name_in_the_file_or_the_folder(write, changes, folder, slug):
    assert find_model(str(write(folder, **changes))).slug == slug


def test_a_file_of_another_name_gives_its_slug_too(write):
    path = write()
    renamed = path.rename(path.with_name("Lab--Model_config.json"))
    assert find_model(str(renamed)).slug == "lab-model-config"


def test_shapes_of_a_known_row_give_that_row(write):
    path = write("Tuned-Llama", intermediate_size=14336, num_hidden_layers=32, num_key_value_heads=8, vocab_size=128256)
    assert find_model(str(path)) is MODELS["llama-3-8b"]


def test_a_known_name_with_other_shapes_gets_a_slug_of_its_own(write):
    first = find_model(str(write(_name_or_path="meta-llama/Meta-Llama-3-8B-Instruct")))
    assert first.slug.startswith("meta-llama-3-8b-instruct-")
    assert find_model(first.slug) is first
    assert find_model("meta-llama/Meta-Llama-3-8B-Instruct") is MODELS["llama-3-8b"]
    other = find_model(str(write(_name_or_path="meta-llama/Meta-Llama-3-8B-Instruct", vocab_size=64001)))
    assert other.slug != first.slug


def test_two_files_of_one_name_and_other_shapes_are_refused(write):
    find_model(str(write("a/model")))
    with pytest.raises(UserError, match=r"its name 'model' is also that of .*a/model/config.json, .*_name_or_path"):
        find_model(str(write("b/model", vocab_size=64001)))
    assert find_model(str(write("c/model"))).slug == "model"


def test_a_rank_learns_a_model_from_its_fields(write):
    model = find_model(str(write("mine")))
    models._FROM_CONFIG.clear()
    remember_model(model)
    assert find_model("mine") == model


@pytest.mark.parametrize(
    ("family", "qkv_biases", "qk_norm"),
    [("llama", False, False), ("mistral", False, False), ("qwen2", True, False), ("qwen3", False, True)],
)
def test_a_family_has_what_its_code_has(write, family, qkv_biases, qk_norm):
    model = find_model(str(write(model_type=family, head_dim=64, tie_word_embeddings=True)))
    assert (model.qkv_biases, model.qk_norm, model.head_dim, model.tied_embeddings) == (qkv_biases, qk_norm, 64, True)


def test_llama_without_grouped_queries_omits_its_key_value_heads(write):
    assert find_model(str(write(num_key_value_heads=REMOVED))).kv_heads == 32


@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": None, "model_type": "mistral"},
        {"sliding_window": 32768, "max_position_embeddings": 32768, "model_type": "mistral"},
        {"sliding_window": 4096, "use_sliding_window": False, "model_type": "qwen2"},
        {"sliding_window": 4096, "model_type": "llama"},
        {"layer_types": ["full_attention"] * 48, "model_type": "qwen2"},
        {"attention_bias": False, "mlp_bias": False},
        {"num_local_experts": None, "tie_word_embeddings": REMOVED, "hidden_act": REMOVED},
    ],
)
def test_settings_that_change_nothing_are_read_over(write, changes):
    assert find_model(str(write(**changes))).hidden == 4096


SUPPORTED = "; dense models are supported: Llama, Mistral, Qwen2 and Qwen2.5, Qwen3"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gemma3_text"}, f'model_type "gemma3_text" is not one of {", ".join(FAMILIES)}{SUPPORTED}'),
        ({"model_type": ["llama"]}, f'model_type ["llama"] is not one of {", ".join(FAMILIES)}{SUPPORTED}'),
        (
            {"model_type": "mixtral", "num_local_experts": 8},
            f"not implemented: routing of tokens to experts (num_local_experts 8){SUPPORTED}",
        ),
        (
            {"model_type": "deepseek_v3", "n_routed_experts": 256, "kv_lora_rank": 512},
            "not implemented: routing of tokens to experts (n_routed_experts 256), and latent attention "
            f"(kv_lora_rank 512){SUPPORTED}",
        ),
        (
            {"model_type": "llava", "text_config": LLAMA},
            f"nests its language model in text_config; write that object alone to a config.json and give its path"
            f"{SUPPORTED}",
        ),
        (
            {"model_type": "llama4", "text_config": {"num_local_experts": 16}},
            f"not implemented: routing of tokens to experts (num_local_experts 16){SUPPORTED}",
        ),
        (
            {"hidden_size": REMOVED, "vocab_size": None},
            "lacks hidden_size, vocab_size; give the model's whole config.json",
        ),
        ({"model_type": REMOVED}, "lacks model_type; give the model's whole config.json"),
        ({"model_type": "mistral", "num_key_value_heads": REMOVED}, "lacks num_key_value_heads; give"),
        ({"model_type": "qwen3"}, "lacks head_dim; give the model's whole config.json"),
        ({"hidden_size": 0}, "hidden_size 0: not a whole number from 1 to 131072; correct it"),
        ({"hidden_size": -4096}, "hidden_size -4096: not a whole number"),
        ({"hidden_size": 4096.0}, "hidden_size 4096.0: not a whole number"),
        ({"hidden_size": "4096"}, 'hidden_size "4096": not a whole number'),
        ({"hidden_size": True}, "hidden_size true: not a whole number"),
        ({"hidden_size": 131073}, "hidden_size 131073: not a whole number from 1 to 131072"),
        ({"num_hidden_layers": 1001}, "num_hidden_layers 1001: not a whole number from 1 to 1000"),
        ({"vocab_size": 10**60}, f"vocab_size 1{'0' * 39}…: not a whole number from 1 to 4194304"),
        ({"vocab_size": [1]}, "vocab_size [1]: not a whole number"),
        ({"num_attention_heads": 30}, "num_key_value_heads 4 does not divide num_attention_heads 30; correct one"),
        ({"num_attention_heads": 4, "num_key_value_heads": 8}, "num_key_value_heads 8 does not divide"),
        ({"num_attention_heads": 36}, "num_attention_heads 36 does not divide hidden_size 4096; add head_dim"),
        ({"attention_bias": True}, "attention_bias true: these biases are not implemented; give a model without"),
        ({"mlp_bias": True}, "mlp_bias true: these biases are not implemented"),
        ({"hidden_act": "gelu"}, 'hidden_act "gelu": only silu is implemented'),
        ({"tie_word_embeddings": "no"}, 'tie_word_embeddings "no": not true or false; give one of them'),
        (
            {"sliding_window": 4096, "max_position_embeddings": 32768, "model_type": "mistral"},
            "sliding_window 4096: attention over a window is not implemented; give a model without",
        ),
        ({"sliding_window": 4096, "use_sliding_window": True, "model_type": "qwen2"}, "sliding_window 4096: attention"),
        ({"layer_types": ["sliding_attention"]}, "layer_types with sliding_attention: attention over a window"),
    ],
)
def test_what_a_file_says_wrongly_or_of_another_model_is_one_line(write, changes, said):
    assert refusal(write(**changes)).startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON; give the model's config.json"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00{", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b'{"vocab_size": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[1, 2]", "a JSON list instead of an object; give the model's config.json"),
        (b"null", "a JSON NoneType instead of an object"),
        (b" " * (4 * 2**20 + 1), "larger than 4 MiB; give the model's config.json"),
    ],
    ids=["empty", "cut", "binary", "deep", "long number", "list", "null", "large"],
)
def test_what_is_no_configuration_is_one_line(tmp_path, content, said):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert refusal(path).startswith(said)


@pytest.mark.parametrize("name", ["/none/config.json", "./none", "~none/none", "a/b/c", "/" + "x" * 5000, "a\0b/c/d"])
def test_a_path_without_a_file_is_one_line(name):
    with pytest.raises(UserError, match=r"there is no such file; give a config\.json, its folder, or a model's name"):
        find_model(name)


def test_a_folder_without_a_configuration_is_no_model(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        find_model(str(tmp_path))


def _package_configs():
    spec = util.find_spec("aiconfigurator_core")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return sorted(Path(places[0]).glob("model_configs/*_config.json")) if places else []


@pytest.mark.parametrize(
    "path",
    _package_configs() or [pytest.param(None, marks=pytest.mark.skip("aiconfigurator-core is not installed"))],
    ids=lambda path: path and path.name,
)
def test_every_published_configuration_is_read_or_refused_with_one_line(path):
    try:
        model = find_model(str(path))
    except UserError as error:
        assert str(error).count("\n") == 0  # noqa: PT017
        assert not path.name.startswith(("Qwen--Qwen3-8B", "Qwen--Qwen3-32B_c", "meta-llama--Meta-Llama-3"))
    else:
        assert model in MODELS.values()
        assert model.parameters

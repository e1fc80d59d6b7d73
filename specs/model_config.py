"""Reader of a config.json as Hugging Face writes it, for dense models of known families.

A file that describes another kind of model is refused with one line. Nothing is guessed: a key that a family needs is
in the file, or the message names it.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from specs.errors import UserError

CONFIG_NAME = "config.json"
MAX_CONFIG_BYTES = 4 * 2**20
MAX_SLUG_LENGTH = 64
MAX_SHOWN_LENGTH = 40

LIMITS = {
    "num_hidden_layers": 1000,
    "hidden_size": 2**17,
    "intermediate_size": 2**20,
    "num_attention_heads": 1024,
    "num_key_value_heads": 1024,
    "head_dim": 1024,
    "vocab_size": 2**22,
}
"""Largest accepted value of each size, far above any published dense model; the smallest is 1."""


class Family(NamedTuple):
    """Facts of a family that are in its code, not in its config.json.

    Attributes:
        label: name in messages.
        qkv_biases, qk_norm: as in `specs.models.Model`.
        optional: sizes that have a default: kv_heads that of heads, head_dim hidden / heads.
    """

    label: str
    qkv_biases: bool = False
    qk_norm: bool = False
    optional: frozenset[str] = frozenset({"head_dim"})


FAMILIES = {
    "llama": Family("Llama", optional=frozenset({"head_dim", "num_key_value_heads"})),
    "mistral": Family("Mistral"),
    "qwen2": Family("Qwen2 and Qwen2.5", qkv_biases=True),
    "qwen3": Family("Qwen3", qk_norm=True, optional=frozenset()),
}
"""Families by `model_type`."""
SUPPORTED = f"dense models are supported: {', '.join(family.label for family in FAMILIES.values())}"

# Unsupported models, by the keys of a file or by a name.

ROUTING, LATENT = "routing of tokens to experts", "latent attention"
EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
NESTED_KEYS = ("text_config", "llm_config", "language_config", "thinker_config")
UNSUPPORTED_NAMES = {
    r"^deepseek-(?!.*distill)(v[2-9]|r1)|^kimi|^glm-5": f"{ROUTING}, and {LATENT}",
    r"^qwen3(\.[5-9]|-next)": "linear attention",
    r"-vl(-|$)|vision|^pixtral|^llava|^mistral-small-3": "the vision part of a multimodal model",
    r"-a\d+b(-|$)|\d+x\d+b|mixtral|moe|^llama-4|^gpt-oss|^minimax|^glm-4|^qwen3-coder|^step-3|^mimo-v2": ROUTING,
    r"^gemma": "alternating attention windows, and norms after each block",
    r"nemotron-(h|3|nano)|mamba|^jamba": "state-space layers",
    r"nemotron": "layers of different widths",
    r"^mistral-7b(-instruct)?-v0\.1": "attention over a sliding window",
}
"""Missing feature by a pattern of the model's name in lower case; the first match counts."""


def why_unsupported_name(name: str) -> str | None:
    """Return one line on the feature that a model of this name lacks here; None where no pattern matches."""
    short = name.rpartition("/")[2].lower().replace("_", "-")
    lacking = next((what for pattern, what in UNSUPPORTED_NAMES.items() if re.search(pattern, short)), None)
    return f"not implemented: {lacking}; {SUPPORTED}" if lacking else None


def _refuse_other_family(config: Mapping[str, Any]) -> None:
    """Refuse a model with experts, latent attention, a nested language model, or an unknown `model_type`."""
    for key in NESTED_KEYS:
        if isinstance(part := config.get(key), dict):
            _refuse_other_blocks(part)
            raise UserError(
                f"nests its language model in {key}; write that object alone to a {CONFIG_NAME} and give its path; "
                f"{SUPPORTED}"
            )
    _refuse_other_blocks(config)
    kind = config.get("model_type")
    if kind is not None and (not isinstance(kind, str) or kind not in FAMILIES):
        raise UserError(f"model_type {_shown(kind)} is not one of {', '.join(FAMILIES)}; {SUPPORTED}")


def _refuse_other_blocks(config: Mapping[str, Any]) -> None:
    """Refuse experts and latent attention."""
    expert_keys = [key for key in EXPERT_KEYS if config.get(key)]
    lacking = [f"{ROUTING} ({key} {_shown(config[key])})" for key in expert_keys[:1]]
    if config.get("kv_lora_rank"):
        lacking.append(f"{LATENT} (kv_lora_rank {_shown(config['kv_lora_rank'])})")
    if lacking:
        raise UserError(f"not implemented: {', and '.join(lacking)}; {SUPPORTED}")


def _refuse_other_layers(config: Mapping[str, Any]) -> None:
    """Refuse features of a layer that differ from the family's."""
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise UserError(f"{key} {_shown(config[key])}: these biases are not implemented; give a model without")
    if (activation := config.get("hidden_act", "silu")) != "silu":
        raise UserError(f"hidden_act {_shown(activation)}: only silu is implemented; give a model with it")
    tied = config.get("tie_word_embeddings")
    if not isinstance(tied, bool | None):
        raise UserError(f"tie_word_embeddings {_shown(tied)}: not true or false; give one of them")
    if window := _active_window(config):
        raise UserError(f"{window}: attention over a window is not implemented; give a model without")


def _active_window(config: Mapping[str, Any]) -> str | None:
    """Return the setting that limits attention to a window; None where every token is attended to.

    Qwen2 and Qwen3 have a switch beside the window. Llama has no window, whatever its file says.
    """
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and "sliding_attention" in kinds:
        return "layer_types with sliding_attention"
    window, longest = config.get("sliding_window"), config.get("max_position_embeddings")
    kind = config["model_type"]
    if kind == "llama" or window is None or (kind != "mistral" and not config.get("use_sliding_window")):
        return None
    if isinstance(window, int) and isinstance(longest, int) and window >= longest:
        return None
    return f"sliding_window {_shown(window)}"


# Reading of a file.


def find_config(name: str) -> Path | None:
    """Return the file at the path `name`, or the config.json in that folder; None where there is none."""
    try:
        path = Path(name).expanduser()
        path = path / CONFIG_NAME if path.is_dir() else path
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # a name that is too long, an unknown home, a null byte
        return None


def read_config(path: Path) -> dict[str, Any]:
    """Return the fields of `specs.models.Model` that a config.json gives.

    Raises:
        UserError: the file cannot be read, or describes an unsupported model.
    """
    try:
        config = _load(path)
        _refuse_other_family(config)
        sizes = _sizes(config)
        _refuse_other_layers(config)
        family = FAMILIES[config["model_type"]]
        return sizes | {
            "slug": _slug(path, config.get("_name_or_path")),
            "source": str(path),
            "tied_embeddings": bool(config.get("tie_word_embeddings")),
            "qkv_biases": family.qkv_biases,
            "qk_norm": family.qk_norm,
        }
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _load(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    remedy = f"give the model's {CONFIG_NAME}"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror}); give a file that can") from error
    if len(content) > MAX_CONFIG_BYTES:
        raise UserError(f"larger than {MAX_CONFIG_BYTES // 2**20} MiB; {remedy}")
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON; {remedy}") from error
    if not isinstance(config, dict):
        raise UserError(f"a JSON {type(config).__name__} instead of an object; {remedy}")
    return config


def _sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """Return all sizes under the names of `specs.models.Model`.

    Raises:
        UserError: a size is missing, out of range, or disagrees with another.
    """
    family = FAMILIES.get(config.get("model_type") or "llama", FAMILIES["llama"])
    missing = [key for key in ("model_type", *LIMITS) if config.get(key) is None and key not in family.optional]
    if missing:
        raise UserError(f"lacks {', '.join(missing)}; give the model's whole {CONFIG_NAME}")
    given = {key: config[key] for key in LIMITS if config.get(key) is not None}
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LIMITS[key]:
            raise UserError(f"{key} {_shown(value)}: not a whole number from 1 to {LIMITS[key]}; correct it")
    hidden, heads = given["hidden_size"], given["num_attention_heads"]
    kv_heads = given.get("num_key_value_heads", heads)
    if heads % kv_heads:
        raise UserError(f"num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}; correct one")
    if "head_dim" not in given and hidden % heads:
        raise UserError(f"num_attention_heads {heads} does not divide hidden_size {hidden}; add head_dim")
    return {
        "layers": given["num_hidden_layers"],
        "hidden": hidden,
        "intermediate": given["intermediate_size"],
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": given.get("head_dim", hidden // heads),
        "vocab": given["vocab_size"],
    }


def _slug(path: Path, name: object) -> str:
    """Return a name for options, case ids and files: the model's own, else that of its folder.

    A file that is not called config.json has its own name. A folder of the Hugging Face cache is named by a commit, and
    the model's name is two folders above.
    """
    resolved = path.resolve()
    names = [str(name).rstrip("/").rpartition("/")[2] if isinstance(name, str) else ""]
    if resolved.name == CONFIG_NAME:
        cached = [part.rpartition("--")[2] for part in resolved.parts if part.startswith("models--")]
        names += [*reversed(cached), resolved.parent.name]
    names.append(resolved.stem)
    slugs = (re.sub(r"[^a-z0-9.]+", "-", one.lower()).strip("-.")[:MAX_SLUG_LENGTH] for one in names)
    return next((slug for slug in slugs if slug), "model")


def _shown(value: object) -> str:
    """Return a value as JSON on one line, shortened."""
    text = json.dumps(value)
    return text if len(text) <= MAX_SHOWN_LENGTH else f"{text[:MAX_SHOWN_LENGTH]}…"

"""Known models, from their publishers' config.json, and scaled-down models."""

import os
import re
from dataclasses import astuple, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from specs import model_config
from specs.errors import UserError, find


@dataclass(frozen=True, kw_only=True)
class Model:
    """One decoder-only transformer.

    Attributes:
        slug: name in options, case ids and result files.
        layers: transformer layers.
        hidden: width of the residual stream.
        intermediate: width of the MLP; of one expert where there are experts.
        heads, kv_heads, head_dim: grouped-query attention; all 0 where the attention is of another kind.
        vocab: rows of the embedding and of the LM head.
        source: origin of the figures.
        gated: gate and up projections side by side (SwiGLU), or up alone.
        tied_embeddings: the LM head is the embedding.
        biases: linears have biases, and norms too (LayerNorm); without, RMSNorm.
        qkv_biases: queries, keys and values alone have biases.
        qk_norm: queries and keys are normed per head.
        positions: rows of a learned position embedding.
        experts, top_k: routed experts of a layer, and experts that a token visits; 0 for a dense MLP.
    """

    slug: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    source: str
    gated: bool = True
    tied_embeddings: bool = False
    biases: bool = False
    qkv_biases: bool = False
    qk_norm: bool = False
    positions: int = 0
    experts: int = 0
    top_k: int = 0

    def __str__(self) -> str:
        return self.slug

    @property
    def up_layer(self) -> str:
        """Name of the linear that enters the MLP."""
        return "gate_up" if self.gated else "up"

    @property
    def up_width(self) -> int:
        """Output features of `up_layer`; gate and up both count."""
        return (2 if self.gated else 1) * self.intermediate

    @property
    def embedding_parameters(self) -> int:
        """Parameters of one matrix [vocab, hidden].

        It is the embedding, and once more the LM head unless both are tied.
        """
        return self.vocab * self.hidden

    @property
    def norm_parameters(self) -> int:
        """Parameters of one norm over the residual stream.

        A norm has a weight, and in LayerNorm a bias too.
        """
        return (2 if self.biases else 1) * self.hidden

    @property
    def layer_norm_parameters(self) -> int:
        """Parameters of the norms of one layer.

        There is a norm before attention, a norm before the MLP, and with qk_norm two per head.
        """
        return 2 * self.norm_parameters + (2 * self.head_dim if self.qk_norm else 0)

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer.

        They are attention, MLP or experts with their router, norms and biases.

        Raises:
            UserError: the attention is not grouped-query.
        """
        self.require_attention()
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden * (queries + 2 * keys) + queries * self.hidden
        mlp = max(1, self.experts) * (self.up_width + self.intermediate) * self.hidden
        router = self.experts * self.hidden
        biases = queries + 2 * keys if self.biases or self.qkv_biases else 0
        biases += self.up_width + 2 * self.hidden if self.biases else 0
        return attention + mlp + router + biases + self.layer_norm_parameters

    @property
    def parameters(self) -> int:
        """All parameters: layers, embeddings, LM head and final norm.

        Raises:
            UserError: the attention is not grouped-query.
        """
        ends = (1 if self.tied_embeddings else 2) * self.embedding_parameters + self.positions * self.hidden
        return self.layers * self.layer_parameters + ends + self.norm_parameters

    def require_attention(self) -> None:
        """Refuse a model without known attention shapes.

        Raises:
            UserError: the attention is not grouped-query.
        """
        if not self.heads:
            raise UserError(
                f"{self.slug}: its attention is not grouped-query and is out of scope; "
                f"{self.up_layer}, down and lm_head are known, for the rest choose another model"
            )


HUB = "https://huggingface.co/{}/blob/main/config.json"
"""Address of a model's published configuration."""


def _row(
    slug: str, repository: str, layers: int, hidden: int, intermediate: int, heads: tuple[int, int], vocab: int,
    *, tied: bool = False, head_dim: int = 128, qkv_biases: bool = False, qk_norm: bool = False,
) -> Model:  # fmt: skip
    """Return a dense model of a known family; `heads` counts those of queries, then those of keys and values."""
    return Model(
        slug=slug, layers=layers, hidden=hidden, intermediate=intermediate, heads=heads[0], kv_heads=heads[1],
        head_dim=head_dim, vocab=vocab, source=HUB.format(repository), tied_embeddings=tied, qkv_biases=qkv_biases,
        qk_norm=qk_norm,
    )  # fmt: skip


_qwen2 = partial(_row, qkv_biases=True)
"""A model of Qwen2 or Qwen2.5: its biases are in the model's code, not in its configuration."""
_qwen3 = partial(_row, vocab=151936, qk_norm=True)
"""A dense model of Qwen3: its norms of queries and keys are in the model's code, not in its configuration."""

_ROWS = (
    Model(
        slug="tiny",
        layers=8,
        hidden=256,
        intermediate=512,
        heads=16,
        kv_heads=2,
        head_dim=16,
        vocab=4096,
        source="made up for trials and tests",
    ),
    _row("llama-2-7b", "meta-llama/Llama-2-7b-hf", 32, 4096, 11008, (32, 32), 32000),
    _row("llama-2-13b", "meta-llama/Llama-2-13b-hf", 40, 5120, 13824, (40, 40), 32000),
    _row("llama-2-70b", "meta-llama/Llama-2-70b-hf", 80, 8192, 28672, (64, 8), 32000),
    _row("llama-3.2-1b", "meta-llama/Llama-3.2-1B", 16, 2048, 8192, (32, 8), 128256, tied=True, head_dim=64),
    _row("llama-3.2-3b", "meta-llama/Llama-3.2-3B", 28, 3072, 8192, (24, 8), 128256, tied=True),
    _row("llama-3-8b", "meta-llama/Meta-Llama-3-8B", 32, 4096, 14336, (32, 8), 128256),
    _row("llama-3-70b", "meta-llama/Meta-Llama-3-70B", 80, 8192, 28672, (64, 8), 128256),
    _row("llama-3.1-405b", "meta-llama/Llama-3.1-405B", 126, 16384, 53248, (128, 8), 128256),
    _row("mistral-7b-v0.2", "mistralai/Mistral-7B-Instruct-v0.2", 32, 4096, 14336, (32, 8), 32000),
    _row("mistral-7b-v0.3", "mistralai/Mistral-7B-v0.3", 32, 4096, 14336, (32, 8), 32768),
    _row("mistral-small-24b", "mistralai/Mistral-Small-24B-Base-2501", 40, 5120, 32768, (32, 8), 131072),
    _qwen2("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B", 24, 896, 4864, (14, 2), 151936, tied=True, head_dim=64),
    _qwen2("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B", 28, 1536, 8960, (12, 2), 151936, tied=True),
    _qwen2("qwen2.5-3b", "Qwen/Qwen2.5-3B", 36, 2048, 11008, (16, 2), 151936, tied=True),
    _qwen2("qwen2.5-7b", "Qwen/Qwen2.5-7B", 28, 3584, 18944, (28, 4), 152064),
    _qwen2("qwen2.5-14b", "Qwen/Qwen2.5-14B", 48, 5120, 13824, (40, 8), 152064),
    _qwen2("qwen2.5-32b", "Qwen/Qwen2.5-32B", 64, 5120, 27648, (40, 8), 152064),
    _qwen2("qwen2.5-72b", "Qwen/Qwen2.5-72B", 80, 8192, 29568, (64, 8), 152064),
    _qwen3("qwen3-0.6b", "Qwen/Qwen3-0.6B", 28, 1024, 3072, (16, 8), tied=True),
    _qwen3("qwen3-1.7b", "Qwen/Qwen3-1.7B", 28, 2048, 6144, (16, 8), tied=True),
    _qwen3("qwen3-4b", "Qwen/Qwen3-4B", 36, 2560, 9728, (32, 8), tied=True),
    _qwen3("qwen3-8b", "Qwen/Qwen3-8B", 36, 4096, 12288, (32, 8)),
    _qwen3("qwen3-14b", "Qwen/Qwen3-14B", 40, 5120, 17408, (40, 8)),
    _qwen3("qwen3-32b", "Qwen/Qwen3-32B", 64, 5120, 25600, (64, 8)),
    Model(
        slug="gpt-3-175b",
        layers=96,
        hidden=12288,
        intermediate=49152,
        heads=96,
        kv_heads=96,
        head_dim=128,
        vocab=50257,
        gated=False,
        tied_embeddings=True,
        biases=True,
        positions=2048,
        source="https://arxiv.org/abs/2005.14165, table 2.1; intermediate, vocabulary and tying as in GPT-2",
    ),
    Model(  # the source gives only layers and hidden: heads, MLP and vocabulary are assumed from GPT-3
        slug="seed-32x12288",
        layers=32,
        hidden=12288,
        intermediate=49152,
        heads=96,
        kv_heads=96,
        head_dim=128,
        vocab=50257,
        gated=False,
        source="seed/tp-and-pp-comparison.txt, the example with L=32 and d_m=12288",
    ),
    Model(
        slug="qwen3-235b-a22b",
        layers=94,
        hidden=4096,
        intermediate=1536,
        heads=64,
        kv_heads=4,
        head_dim=128,
        vocab=151936,
        qk_norm=True,
        experts=128,
        top_k=8,
        source="https://huggingface.co/Qwen/Qwen3-235B-A22B/blob/main/config.json",
    ),
    Model(  # routed experts only; layers 1 to 3 are dense (18432 wide), and a shared expert has the same shape
        slug="deepseek-v3",
        layers=61,
        hidden=7168,
        intermediate=2048,
        heads=0,  # multi-head latent attention
        kv_heads=0,
        head_dim=0,
        vocab=129280,
        experts=256,
        top_k=8,
        source="https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/config.json",
    ),
)

MODELS: dict[str, Model] = {row.slug: row for row in _ROWS}
"""All models by slug: dense families first, each with its smallest model first."""

ALIASES: dict[str, tuple[str, ...]] = {
    "llama-3-8b": ("llama-3.1-8b", "deepseek-r1-distill-llama-8b"),
    "llama-3-70b": ("llama-3.1-70b", "llama-3.3-70b", "deepseek-r1-distill-llama-70b"),
    "mistral-small-24b": ("mistral-small-24b-2501",),
    "qwen2.5-0.5b": ("qwen2-0.5b", "qwen2.5-coder-0.5b"),
    "qwen2.5-1.5b": ("qwen2-1.5b", "qwen2.5-coder-1.5b"),
    "qwen2.5-3b": ("qwen2.5-coder-3b",),
    "qwen2.5-7b": ("qwen2-7b", "qwen2.5-coder-7b"),
    "qwen2.5-14b": ("qwen2.5-coder-14b", "deepseek-r1-distill-qwen-14b"),
    "qwen2.5-32b": ("qwen2.5-coder-32b", "qwq-32b", "deepseek-r1-distill-qwen-32b"),
    "qwen2.5-72b": ("qwen2-72b",),
    "qwen3-4b": ("qwen3-4b-2507",),
    "qwen3-235b-a22b": ("qwen3-235b-a22b-2507",),
    "deepseek-v3": ("deepseek-v3-0324", "deepseek-v3.1", "deepseek-r1", "deepseek-r1-0528"),
}
"""Names of further models with the shapes of a row."""

# Names of models: slugs, ids of Hugging Face, and files.

_VARIANT_WORD = re.compile(
    r"meta|hf|instruct|it|chat|base|thinking|fp8|fp4|nvfp4|mxfp4|bf16|fp16|int4|int8|[48]bit|bnb|awq|gptq|gguf|"
    r"(quantized\.)?w\d+a\d+|dynamic|static|pertensor|kv"
)
"""Words of a name that do not change shapes: publisher, tuning, number format."""


def _plain_name(name: str) -> str:
    """Return a name without organisation, case, hyphens, and words that do not change shapes."""
    words = name.rpartition("/")[2].lower().replace("_", "-").split("-")
    return "".join(word for word in words if not _VARIANT_WORD.fullmatch(word))


_BY_PLAIN_NAME: dict[str, Model] = {
    _plain_name(name): row for slug, row in MODELS.items() for name in (slug, *ALIASES.get(slug, ()))
}
_FROM_CONFIG: dict[str, Model] = {}
"""Models by slug that this process has read from a file."""


def find_model(name: str) -> Model:
    """Return the model that `name` stands for.

    A name is one of these, in this order: a slug; the path of a config.json or of its folder, where the path has a
    separator or ends in .json; an id of Hugging Face; a folder with a config.json. An id may lack its organisation.
    Its case does not matter, and neither do words for tuning and number format.

    Raises:
        UserError: no such model, or its layers are of an unsupported kind.
    """
    if known := MODELS.get(name) or _FROM_CONFIG.get(name):
        return known
    path = model_config.find_config(name)
    if path and (os.sep in name or "/" in name or name.endswith(".json")):
        return _read_model(path)
    if name.count("/") <= 1 and not name.startswith(("/", ".", "~")):
        if row := _BY_PLAIN_NAME.get(_plain_name(name)):
            return row
        if path:
            return _read_model(path)
        if lacking := model_config.why_unsupported_name(name):
            raise UserError(f"model {name!r}: {lacking}")
    elif not path:
        raise UserError(f"model {name!r}: there is no such file; give a config.json, its folder, or a model's name")
    return find(MODELS, name, "model", distinct=_numbers)


def _numbers(name: str) -> list[str]:
    """Return the numbers in a name: they tell models of a family apart."""
    return re.findall(r"\d+(?:\.\d+)?", name.rpartition("/")[2])


def _read_model(path: Path) -> Model:
    """Return the model of a config.json; the known row where its shapes equal that row's.

    Raises:
        UserError: the file cannot be used, or its slug belongs to a model of other shapes.
    """
    model = Model(**model_config.read_config(path))
    for row in MODELS.values():
        if replace(model, slug=row.slug, source=row.source) == row:
            return row
    if _plain_name(model.slug) in _BY_PLAIN_NAME:  # a fine-tune with other shapes keeps its origin's name
        shapes = repr(astuple(replace(model, slug="", source="")))
        model = replace(model, slug=f"{model.slug}-{sha256(shapes.encode()).hexdigest()[:6]}")
    remember_model(model)
    return _FROM_CONFIG[model.slug]


def remember_model(model: Model) -> None:
    """Let `find_model` return a model from a file by its slug, in this process.

    Raises:
        UserError: the slug belongs to a model of other shapes.
    """
    known = _FROM_CONFIG.setdefault(model.slug, model)
    if replace(known, source=model.source) != model:
        raise UserError(
            f"{model.source}: its name {model.slug!r} is also that of {known.source}, which has other shapes; "
            "name them apart by _name_or_path in one of the files"
        )


# A model scaled down to fewer layers, for machines that cannot hold or step through all layers.

VOCAB_MULTIPLE = 128
"""Divisor of a scaled model's vocabulary, so that tensor parallelism divides it."""


def scaled_model(model: Model, layers: int) -> Model:
    """Return the model's first `layers` layers, with a vocabulary cut in proportion.

    The model itself is returned where it has as many layers. The proportion keeps the LM head's share constant, so
    stages are as uneven as in the whole model. A step takes about that share of a whole step. Hops do not shrink, so
    next to a step they look larger.

    Raises:
        UserError: the model has fewer layers.
    """
    if layers == model.layers:
        return model
    if not 1 <= layers < model.layers:
        raise UserError(f"{model}: --layers {layers} exceeds its {model.layers} layers; choose 1 to {model.layers}")
    vocab = max(1, round(model.vocab * layers / model.layers / VOCAB_MULTIPLE)) * VOCAB_MULTIPLE
    return replace(model, layers=layers, vocab=vocab)

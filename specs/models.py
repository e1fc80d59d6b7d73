"""Measured models, from their publishers' config.json, and scaled-down models."""

from dataclasses import dataclass, replace

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
        biases = (queries + 2 * keys + self.up_width + 2 * self.hidden) if self.biases else 0
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
    Model(
        slug="llama-3.2-1b",
        layers=16,
        hidden=2048,
        intermediate=8192,
        heads=32,
        kv_heads=8,
        head_dim=64,
        vocab=128256,
        tied_embeddings=True,
        source="https://huggingface.co/meta-llama/Llama-3.2-1B/blob/main/config.json",
    ),
    Model(
        slug="llama-3-8b",
        layers=32,
        hidden=4096,
        intermediate=14336,
        heads=32,
        kv_heads=8,
        head_dim=128,
        vocab=128256,
        source="https://huggingface.co/meta-llama/Meta-Llama-3-8B/blob/main/config.json",
    ),
    Model(
        slug="llama-3-70b",
        layers=80,
        hidden=8192,
        intermediate=28672,
        heads=64,
        kv_heads=8,
        head_dim=128,
        vocab=128256,
        source="https://huggingface.co/meta-llama/Meta-Llama-3-70B/blob/main/config.json",
    ),
    Model(
        slug="llama-3.1-405b",
        layers=126,
        hidden=16384,
        intermediate=53248,
        heads=128,
        kv_heads=8,
        head_dim=128,
        vocab=128256,
        source="https://huggingface.co/meta-llama/Llama-3.1-405B/blob/main/config.json",
    ),
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
"""All models by slug, smallest first."""


def find_model(slug: str) -> Model:
    """Return the model called `slug`.

    Raises:
        UserError: no such model.
    """
    return find(MODELS, slug, "model")


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

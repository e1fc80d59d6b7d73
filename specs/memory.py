"""Memory and reads of one rank in bytes: weights, key-value cache, activations.

Stages count from 0. A stage outside the split, or attention that is not grouped-query, is a UserError.
"""

from specs.parallel import Split


def layer_weight_bytes(split: Split, itemsize: int, linear_itemsize: float | None = None) -> int:
    """Return the weights of one layer on one rank.

    Linears are cut. Norms, the router and biases of row-parallel linears are replicated.

    Args:
        split: the split model.
        itemsize: bytes of an element.
        linear_itemsize: bytes of an element of the linears' weights, where they are quantized.
    """
    model = split.model
    qkv, o, up, down = (split.linear(name) for name in ("qkv", "o", model.up_layer, "down"))
    attention = qkv.n * qkv.k + o.n * o.k
    mlp = max(1, model.experts) * (up.n * up.k + down.n * down.k)
    biases = qkv.n if model.biases or model.qkv_biases else 0
    biases += up.n + o.n + down.n if model.biases else 0
    linears = round((attention + mlp) * (linear_itemsize or itemsize))
    return linears + (model.experts * model.hidden + biases + model.layer_norm_parameters) * itemsize


def embedding_bytes(split: Split, itemsize: int, replicated: bool = False) -> int:
    """Return the embedding's size on one rank of the first stage.

    The embedding is cut by vocabulary, or whole; positions are always whole.
    """
    rows = split.model.vocab if replicated else split.vocab_per_rank
    return (rows + split.model.positions) * split.model.hidden * itemsize


def lm_head_bytes(split: Split, itemsize: int) -> int:
    """Return the LM head's size on one rank of the last stage, cut by vocabulary."""
    return split.vocab_per_rank * split.model.hidden * itemsize


def stage_weight_bytes(
    split: Split,
    stage: int,
    itemsize: int,
    replicated_embedding: bool = False,
    linear_itemsize: float | None = None,
) -> int:
    """Return all weights on one rank of a stage: layers, and what the ends add.

    The first stage adds the embedding, the last adds the final norm and the LM head. A tied head costs nothing where
    the same cut of the embedding is on its rank, and is a copy elsewhere. `linear_itemsize` is as in
    `layer_weight_bytes`.
    """
    size = split.layers_of(stage) * layer_weight_bytes(split, itemsize, linear_itemsize)
    first, last = stage == 0, stage == split.pp - 1
    if first:
        size += embedding_bytes(split, itemsize, replicated_embedding)
    if last:
        size += split.model.norm_parameters * itemsize
        if not (first and split.model.tied_embeddings):
            size += lm_head_bytes(split, itemsize)
    return size


def stage_read_bytes(split: Split, stage: int, itemsize: int) -> int:
    """Return the weights that a rank reads in one microbatch's forward pass.

    The embedding is not read, since a look-up touches a few rows. Experts count in full, since a large batch visits
    them all.
    """
    size = split.layers_of(stage) * layer_weight_bytes(split, itemsize)
    if stage == split.pp - 1:
        size += split.model.norm_parameters * itemsize + lm_head_bytes(split, itemsize)
    return size


def kv_bytes_per_token(split: Split, itemsize: int) -> int:
    """Return key and value of one token in all layers, each head once.

    The size is 2 · layers · kv_heads · head_dim · itemsize.
    """
    split.model.require_attention()
    return 2 * split.model.layers * split.model.kv_heads * split.model.head_dim * itemsize


def kv_bytes_per_token_per_rank(split: Split, stage: int, itemsize: int) -> int:
    """Return one rank's share of the cache per token: its stage's layers, its heads.

    Heads are replicated once tp > kv_heads.
    """
    split.model.require_attention()
    layers = split.layers_of(stage)
    return 2 * layers * split.kv_heads_per_rank * split.model.head_dim * itemsize


def kv_tokens_that_fit(split: Split, memory_bytes: float, itemsize: int, replicated_embedding: bool = False) -> int:
    """Return how many tokens of KV cache fit next to the fullest stage's weights.

    No room is left for activations. The result is negative where the weights alone do not fit.
    """
    return min(
        int(
            (memory_bytes - stage_weight_bytes(split, stage, itemsize, replicated_embedding))
            // kv_bytes_per_token_per_rank(split, stage, itemsize)
        )
        for stage in range(split.pp)
    )


def residual_bytes(split: Split, tokens: int, itemsize: int) -> int:
    """Return the residual stream of `tokens` on one rank.

    TP leaves it whole, so only a smaller microbatch shrinks it.
    """
    return tokens * split.model.hidden * itemsize


def mlp_activation_bytes(split: Split, tokens: int, itemsize: int) -> int:
    """Return the output of gate_up (or up) for `tokens` on one rank.

    TP cuts it; with experts there are top_k outputs per token.
    """
    return tokens * max(1, split.model.top_k) * split.linear(split.model.up_layer).n * itemsize


def elementwise_bytes(split: Split, tokens: int, itemsize: int) -> int:
    """Return the bytes that a layer's elementwise kernels move on one rank.

    The kernels are two norms, rotary embedding and SwiGLU. A norm reads x and the residual and writes both; rotary
    reads and writes queries, keys and values; SwiGLU reads gate and up and writes one result. TP does not cut norms.
    Norms of queries and keys, where a model has them, read and write both once more.
    """
    model = split.model
    split.model.require_attention()
    heads = model.heads // split.tp + 2 * split.kv_heads_per_rank
    normed = model.heads // split.tp + split.kv_heads_per_rank if model.qk_norm else 0
    mlp = split.linear(model.up_layer).n + model.intermediate // split.tp
    return tokens * (2 * 4 * model.hidden + 2 * (heads + normed) * model.head_dim + mlp) * itemsize

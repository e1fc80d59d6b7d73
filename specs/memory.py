"""What one rank keeps in memory and what it reads in a step: weights, key-value cache, activations; all in bytes.

Stages count from 0; a stage outside the split, or attention that is not grouped-query, is a UserError.
"""

from specs.parallel import Split


def layer_weight_bytes(split: Split, itemsize: int) -> int:
    """One layer on one rank: linears are cut, norms, the router and biases of row-parallel linears are replicated."""
    model = split.model
    qkv, o, up, down = (split.linear(name) for name in ("qkv", "o", model.up_layer, "down"))
    attention = qkv.n * qkv.k + o.n * o.k
    mlp = max(1, model.experts) * (up.n * up.k + down.n * down.k) + model.experts * model.hidden
    biases = qkv.n + up.n + o.n + down.n if model.biases else 0
    return (attention + mlp + biases + model.layer_norm_parameters) * itemsize


def embedding_bytes(split: Split, itemsize: int, replicated: bool = False) -> int:
    """The embedding on one rank of the first stage: cut by vocabulary, or whole; positions are always whole."""
    rows = split.model.vocab if replicated else split.vocab_per_rank
    return (rows + split.model.positions) * split.model.hidden * itemsize


def lm_head_bytes(split: Split, itemsize: int) -> int:
    """The LM head on one rank of the last stage, cut by vocabulary."""
    return split.vocab_per_rank * split.model.hidden * itemsize


def stage_weight_bytes(split: Split, stage: int, itemsize: int, replicated_embedding: bool = False) -> int:
    """All weights on one rank of a stage, counted from 0: its layers, embedding first, final norm and LM head last.

    A tied head costs nothing where it finds the same cut of the embedding on its own rank, and is a copy elsewhere.
    """
    size = split.layers_of(stage) * layer_weight_bytes(split, itemsize)
    first, last = stage == 0, stage == split.pp - 1
    if first:
        size += embedding_bytes(split, itemsize, replicated_embedding)
    if last:
        size += split.model.norm_parameters * itemsize
        if not (first and split.model.tied_embeddings):
            size += lm_head_bytes(split, itemsize)
    return size


def stage_read_bytes(split: Split, stage: int, itemsize: int) -> int:
    """Weights that one rank of a stage reads in one forward pass of one micro-batch: a look-up reads no embedding.

    Experts count in full, as a large batch visits them all.
    """
    size = split.layers_of(stage) * layer_weight_bytes(split, itemsize)
    if stage == split.pp - 1:
        size += split.model.norm_parameters * itemsize + lm_head_bytes(split, itemsize)
    return size


def kv_bytes_per_token(split: Split, itemsize: int) -> int:
    """Key and value of one token in all layers, each head once: 2 · layers · kv_heads · head_dim · itemsize."""
    split.model.require_attention()
    return 2 * split.model.layers * split.model.kv_heads * split.model.head_dim * itemsize


def kv_bytes_per_token_per_rank(split: Split, stage: int, itemsize: int) -> int:
    """One rank's share of it: the layers of its stage and its heads, which are replicated once tp > kv_heads."""
    split.model.require_attention()
    layers = split.layers_of(stage)
    return 2 * layers * split.kv_heads_per_rank * split.model.head_dim * itemsize


def kv_tokens_that_fit(split: Split, memory_bytes: float, itemsize: int, replicated_embedding: bool = False) -> int:
    """Tokens whose keys and values fit beside the weights of the fullest stage, with no room left for activations.

    Negative where the weights alone do not fit.
    """
    return min(
        int(
            (memory_bytes - stage_weight_bytes(split, stage, itemsize, replicated_embedding))
            // kv_bytes_per_token_per_rank(split, stage, itemsize)
        )
        for stage in range(split.pp)
    )


def residual_bytes(split: Split, tokens: int, itemsize: int) -> int:
    """The residual stream of `tokens` on one rank: whole under TP, so it shrinks with the micro-batch only."""
    return tokens * split.model.hidden * itemsize


def mlp_activation_bytes(split: Split, tokens: int, itemsize: int) -> int:
    """Output of gate_up (or up) for `tokens` on one rank: cut by TP, top_k of them where there are experts."""
    return tokens * max(1, split.model.top_k) * split.linear(split.model.up_layer).n * itemsize


def elementwise_bytes(split: Split, tokens: int, itemsize: int) -> int:
    """What a layer's elementwise kernels move for `tokens` on one rank: two norms, rotary embedding, SwiGLU.

    A norm reads x and the residual and writes both anew, rotary reads and writes queries, keys and values, SwiGLU reads
    gate and up and writes one. Norms are not cut by TP.
    """
    model = split.model
    split.model.require_attention()
    heads = model.heads // split.tp + 2 * split.kv_heads_per_rank
    mlp = split.linear(model.up_layer).n + model.intermediate // split.tp
    return tokens * (2 * 4 * model.hidden + 2 * heads * model.head_dim + mlp) * itemsize

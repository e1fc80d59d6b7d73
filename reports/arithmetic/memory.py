"""What Llama-3-70B keeps on each of eight GPUs: weights, keys and values, activations."""

from reports.arithmetic.readings import BF16, Size, agrees, read, text
from reports.arithmetic.setting import BATCH, LARGE_BATCH, LAST, LLAMA, MIDDLE, PP8, PROMPT, TP8, WAYS
from reports.finding import Finding, Verdict
from specs import memory
from specs.gpus import GPUS
from specs.parallel import Split

WEIGHTS_GB = 19.5
CACHE_MB = 400.0
ACTIVATIONS_TIMES = 8.0
GPU_OF_80_GB = "h100_sxm"


def weights() -> Finding:
    """Bytes of weights on one rank; `value` is TP8 with everything cut."""
    cut, whole = (memory.stage_weight_bytes(TP8, 0, BF16, replicated) for replicated in (False, True))
    stages = [memory.stage_weight_bytes(PP8, stage, BF16) for stage in range(PP8.pp)]
    *right, right_if_whole = (agrees(WEIGHTS_GB * 1e9, size) for size in (cut, *stages, whole))
    verdict: Verdict = "HOLDS" if all(right) else "HOLDS_IF" if any(right) or right_if_whole else "REFUTED"
    return Finding(
        verdict=verdict,
        value=cut,
        unit="bytes",
        condition=f"a TP8 rank that keeps the embedding whole has {text(whole)}, the first and last stage of PP8 "
        f"{text(stages[LAST])}; with all cut TP8 has {text(cut)}, a middle stage {text(stages[MIDDLE])}",
    )


def cache_formula() -> Finding:
    """Bytes that one token's keys and values take over all ranks, against layers · hidden elements."""
    said, found = LLAMA.layers * LLAMA.hidden * BF16, memory.kv_bytes_per_token(TP8, BF16)
    wide = Split(LLAMA, tp=2 * LLAMA.kv_heads)
    copies = wide.tp * memory.kv_bytes_per_token_per_rank(wide, 0, BF16) / found
    return Finding(
        verdict="HOLDS" if agrees(said, found) and agrees(copies, 1) else "REFUTED",
        value=found,
        unit="bytes a token",
        condition=f"key and value of {LLAMA.kv_heads} heads a layer, {LLAMA.head_dim} wide: the note's formula gives "
        f"{said / found:g} times that in bf16. Nor does TP cut it past {LLAMA.kv_heads} ranks: "
        f"TP{wide.tp} keeps it {copies:g} times",
    )


def cache_size() -> Finding:
    """Tokens whose keys and values fill the note's cache on one rank of TP8."""
    token = memory.kv_bytes_per_token_per_rank(TP8, 0, BF16)
    prompts, singles = (LARGE_BATCH * context * token for context in (PROMPT, 1))
    as_prompts, as_singles = (read(Size(CACHE_MB, "MB", size)).verdict == "HOLDS" for size in (prompts, singles))
    verdict: Verdict = "HOLDS" if as_prompts else "HOLDS_IF" if as_singles else "REFUTED"
    return Finding(
        verdict=verdict,
        value=CACHE_MB * 1e6 / token,
        unit="tokens",
        condition=f"one token of context a sequence, {text(singles)} for B={LARGE_BATCH:,}; "
        f"with {PROMPT:,} tokens each it takes {text(prompts)} a GPU",
    )


def activations() -> Finding:
    """Activations of one rank, TP8 over PP8 with as many micro-batches as stages: residual stream and MLP."""
    piece = BATCH // WAYS
    residual = memory.residual_bytes(TP8, BATCH, BF16) / memory.residual_bytes(PP8, piece, BF16)
    mlp = memory.mlp_activation_bytes(TP8, BATCH, BF16) / memory.mlp_activation_bytes(PP8, piece, BF16)
    right = [agrees(ACTIVATIONS_TIMES, ratio) for ratio in (residual, mlp)]
    verdict: Verdict = "HOLDS" if all(right) else "HOLDS_IF" if any(right) else "REFUTED"
    return Finding(
        verdict=verdict,
        value=residual,
        unit="ratio",
        condition=f"the residual stream is meant: {residual:g} to 1, all the batch against one of {WAYS} pieces. "
        f"The output of gate and up, which TP cuts, is {mlp:g} to 1",
    )


def batch_fits() -> Finding:
    """Tokens of context a sequence that fit at batch 10,000 on eight GPUs of 80 GB under TP8."""
    contexts = {
        slug: max(0, memory.kv_tokens_that_fit(TP8, gpu.hbm_bytes, BF16) // LARGE_BATCH) for slug, gpu in GPUS.items()
    }
    value = contexts[GPU_OF_80_GB]
    verdict: Verdict = "HOLDS" if min(contexts.values()) >= PROMPT else "HOLDS_IF" if value else "REFUTED"
    return Finding(
        verdict=verdict,
        value=value,
        unit="tokens",
        condition=f"a context of at most so many tokens at B={LARGE_BATCH:,} under TP8, with no room for activations: "
        + "; ".join(
            f"{fits} on {', '.join(slug for slug in contexts if contexts[slug] == fits)}"
            for fits in sorted(set(contexts.values()))
        ),
        provenance="datasheet",
    )

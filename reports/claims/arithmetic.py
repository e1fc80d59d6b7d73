"""Arithmetic claims of the note, each with the predicate that judges it."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from reports.claims.evidence import Finding
from reports.claims.verdict import Verdict
from specs import memory, traffic
from specs.gpus import GPUS
from specs.models import Model, find_model
from specs.parallel import Split
from specs.units import ITEMSIZE, format_bytes

# Rounding tolerance of printed figures, and the possible meanings of MB and GB.

BF16 = ITEMSIZE["bf16"]
TOLERANCE = 0.03
"""Relative difference that counts as rounding: the note prints 2 or 3 digits."""


class UnitReading(NamedTuple):
    """One possible meaning of MB and GB.

    Attributes:
        verdict: verdict on a claim whose figures agree under this meaning.
        meaning: the meaning in words, the start of a condition.
        unit_bytes: bytes in one MB and in one GB under this meaning.
    """

    verdict: Verdict
    meaning: str
    unit_bytes: Mapping[str, int]


class PrintedSize(NamedTuple):
    """A printed figure, `printed` in `unit`, beside the computed bytes."""

    printed: float
    unit: Literal["MB", "GB"]
    computed: float


AS_PRINTED = UnitReading("HOLDS", "right as printed", {"MB": 10**6, "GB": 10**9})
OTHER_READINGS = (
    UnitReading("HOLDS_IF", "right if MB means MiB and GB means GiB", {"MB": 2**20, "GB": 2**30}),
    UnitReading("HOLDS_IF", "right if MB means 1,000 KiB and GB 1,000 MiB", {"MB": 1000 * 2**10, "GB": 1000 * 2**20}),
    UnitReading("REFUTED", "the note takes bf16 elements for bytes", {"MB": BF16 * 10**6, "GB": BF16 * 10**9}),
)
NO_READING = UnitReading("REFUTED", "no reading of the note's unit gives its figure", {})


def agrees(printed: float, computed: float, tolerance: float = TOLERANCE) -> bool:
    """Return whether `printed` is within the relative `tolerance` of `computed`."""
    return abs(printed - computed) <= tolerance * abs(computed)


def interpret_units(*sizes: PrintedSize) -> UnitReading:
    """Return the meaning of MB and GB under which all sizes agree.

    `AS_PRINTED` comes first, then the closest of `OTHER_READINGS`, else `NO_READING`.
    """

    def off(reading: UnitReading) -> float:
        return max(abs(size.printed * reading.unit_bytes[size.unit] / size.computed - 1) for size in sizes)

    if off(AS_PRINTED) <= TOLERANCE:
        return AS_PRINTED
    return min((reading for reading in OTHER_READINGS if off(reading) <= TOLERANCE), key=off, default=NO_READING)


def decimal_bytes(size_bytes: float) -> str:
    """Return bytes as decimal MB or GB, with four digits."""
    factor, symbol = (1e9, "GB") if size_bytes >= 1e9 else (1e6, "MB")
    return f"{size_bytes / factor:.4g} {symbol}"


# Models, splits and batches of the note, and the ratios of bytes sent under TP and PP.

RANKS = 8
BATCH, LARGE_BATCH = 1024, 10_000
PROMPT = 1024
LLAMA, SEED = find_model("llama-3-70b"), find_model("seed-32x12288")
TP8, PP8 = Split(LLAMA, tp=RANKS), Split(LLAMA, pp=RANKS)
SEED_TP8, SEED_PP8 = Split(SEED, tp=RANKS), Split(SEED, pp=RANKS)
MIDDLE_STAGE, LAST_STAGE = RANKS // 2, RANKS - 1


def times_sent_per_rank(of: Model) -> float:
    """Ratio of bytes sent by one rank in a forward pass, TP8 over PP8.

    The PP8 rank is a stage that has a next stage. The ratio is 4 · layers · 7/8.
    """
    tensor, pipeline = Split(of, tp=RANKS), Split(of, pp=RANKS)
    return traffic.stage_bytes_sent_per_rank(tensor, 1, 1) / traffic.hop_bytes_sent_per_rank(pipeline, 1, 1)


def times_sent_system_wide(of: Model) -> float:
    """Ratio of bytes sent by all ranks, TP8 over PP8: 4 · layers at any rank count."""
    tensor, pipeline = Split(of, tp=RANKS), Split(of, pp=RANKS)
    return traffic.all_reduce_bytes_sent_system_wide(tensor, 1, 1) / traffic.hop_bytes_sent_system_wide(pipeline, 1, 1)


# Formulas of the note for its model of 32 layers, 12,288 wide: 4·L·(P−1)/P·B·n·d (TP), (P−1)·B·n·d (PP).
#
# The TP formula counts bytes sent by one rank, the PP formula all hops. Both omit the bytes of an element.

PREFILL_TOKENS = 32 * PROMPT
TP_PREFILL_GB, PP_PREFILL_GB, PREFILL_TIMES_LESS = 46.0, 2.8, 16.0
DECODE_TOKENS = 512
TP_DECODE_GB, PP_DECODE_GB = 0.7, 0.4
STEPS = 100
TP_STEP_GB, TP_STEPS_GB = 1.4, 140.0
MICRO_BATCH = 128
PP_STEP_MB = 11.0


def tp_prefill() -> Finding:
    """Bytes that one rank sends for 32 prompts of 1,024 tokens."""
    found = _tp_bytes_per_rank(PREFILL_TOKENS)
    return _bytes_finding(
        interpret_units(PrintedSize(TP_PREFILL_GB, "GB", found)), found, f"each rank sends {decimal_bytes(found)}"
    )


def tp_decode() -> Finding:
    """Bytes that one rank sends in a step of 512 sequences."""
    found = _tp_bytes_per_rank(DECODE_TOKENS)
    return _bytes_finding(
        interpret_units(PrintedSize(TP_DECODE_GB, "GB", found)), found, f"each rank sends {decimal_bytes(found)}"
    )


def pp_prefill() -> Finding:
    """Bytes over all hops for 32 prompts of 1,024 tokens, and the ratio of TP to PP."""
    found = _pp_bytes_over_hops(PREFILL_TOKENS)
    reading = interpret_units(PrintedSize(PP_PREFILL_GB, "GB", found))
    per_rank, everywhere = times_sent_per_rank(SEED), times_sent_system_wide(SEED)
    right = agrees(PREFILL_TIMES_LESS, per_rank) or agrees(PREFILL_TIMES_LESS, everywhere)
    uneven = agrees(PREFILL_TIMES_LESS, _tp_bytes_per_rank(PREFILL_TOKENS) / found)
    return Finding(
        verdict=reading.verdict if right else "REFUTED",
        value=found,
        unit="bytes",
        condition=f"{reading.meaning}: {decimal_bytes(found)} over all hops. TP sends {per_rank:.0f} times as much "
        "per rank, "
        f"{everywhere:.0f} over all ranks"
        + (f"; {PREFILL_TIMES_LESS:g} is one TP rank against all hops" if uneven else ""),
    )


def pp_decode() -> Finding:
    """Bytes over all hops in a step of 512 sequences."""
    found = _pp_bytes_over_hops(DECODE_TOKENS)
    times = PP_DECODE_GB * 1e9 / found
    detail = (
        f"{decimal_bytes(found)} over all hops; the note has {times:.1f} times the bytes, {times * BF16:.1f} times "
        "the elements"
    )
    return _bytes_finding(interpret_units(PrintedSize(PP_DECODE_GB, "GB", found)), found, detail)


def tp_hundred_steps() -> Finding:
    """Bytes that one rank sends in a hundred steps of 1,024 sequences."""
    step = _tp_bytes_per_rank(BATCH)
    found = STEPS * step
    detail = (
        f"each rank sends {decimal_bytes(step)} a step, {decimal_bytes(found)} in {STEPS}, over the network and not "
        "from its memory"
    )
    return _bytes_finding(
        interpret_units(PrintedSize(TP_STEP_GB, "GB", step), PrintedSize(TP_STEPS_GB, "GB", found)), found, detail
    )


def pp_micro_batch_step() -> Finding:
    """Bytes over all hops for one microbatch of 128 sequences."""
    found, pieces = _pp_bytes_over_hops(MICRO_BATCH), BATCH // MICRO_BATCH
    detail = (
        f"{decimal_bytes(found)} over all hops for one micro-batch, {decimal_bytes(pieces * found)} for the {pieces} "
        f"of B={BATCH:,}"
    )
    return _bytes_finding(interpret_units(PrintedSize(PP_STEP_MB, "MB", found)), found, detail)


def _tp_bytes_per_rank(tokens: int) -> int:
    return traffic.stage_bytes_sent_per_rank(SEED_TP8, tokens, BF16)


def _pp_bytes_over_hops(tokens: int) -> int:
    return traffic.hop_bytes_sent_system_wide(SEED_PP8, tokens, BF16)


def _bytes_finding(reading: UnitReading, computed: int, detail: str) -> Finding:
    return Finding(verdict=reading.verdict, value=computed, unit="bytes", condition=f"{reading.meaning}: {detail}")


# Memory of Llama-3-70B on each of eight GPUs: weights, KV cache, activations.

WEIGHTS_GB = 19.5
CACHE_MB = 400.0
ACTIVATIONS_TIMES = 8.0
GPU_OF_80_GB = "h100_sxm"


def weights() -> Finding:
    """Bytes of weights on one rank; `value` is TP8 with everything sharded."""
    cut, whole = (memory.stage_weight_bytes(TP8, 0, BF16, replicated) for replicated in (False, True))
    stages = [memory.stage_weight_bytes(PP8, stage, BF16) for stage in range(PP8.pp)]
    *right, right_if_whole = (agrees(WEIGHTS_GB * 1e9, size) for size in (cut, *stages, whole))
    verdict: Verdict = "HOLDS" if all(right) else "HOLDS_IF" if any(right) or right_if_whole else "REFUTED"
    return Finding(
        verdict=verdict,
        value=cut,
        unit="bytes",
        condition=f"a TP8 rank that keeps the embedding whole has {decimal_bytes(whole)}, the first and last stage of "
        "PP8 "
        f"{decimal_bytes(stages[LAST_STAGE])}; with all cut TP8 has {decimal_bytes(cut)}, a middle stage "
        f"{decimal_bytes(stages[MIDDLE_STAGE])}",
    )


def cache_formula() -> Finding:
    """Bytes of one token's keys and values over all ranks.

    The note claims layers · hidden elements.
    """
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
    """Tokens whose keys and values fill the note's cache on one TP8 rank."""
    token = memory.kv_bytes_per_token_per_rank(TP8, 0, BF16)
    prompts, singles = (LARGE_BATCH * context * token for context in (PROMPT, 1))
    as_prompts, as_singles = (
        interpret_units(PrintedSize(CACHE_MB, "MB", size)).verdict == "HOLDS" for size in (prompts, singles)
    )
    verdict: Verdict = "HOLDS" if as_prompts else "HOLDS_IF" if as_singles else "REFUTED"
    return Finding(
        verdict=verdict,
        value=CACHE_MB * 1e6 / token,
        unit="tokens",
        condition=f"one token of context a sequence, {decimal_bytes(singles)} for B={LARGE_BATCH:,}; "
        f"with {PROMPT:,} tokens each it takes {decimal_bytes(prompts)} a GPU",
    )


def activations() -> Finding:
    """Ratio of activations on one rank, TP8 over PP8: residual stream and MLP.

    PP8 has as many microbatches as stages.
    """
    piece = BATCH // RANKS
    residual = memory.residual_bytes(TP8, BATCH, BF16) / memory.residual_bytes(PP8, piece, BF16)
    mlp = memory.mlp_activation_bytes(TP8, BATCH, BF16) / memory.mlp_activation_bytes(PP8, piece, BF16)
    right = [agrees(ACTIVATIONS_TIMES, ratio) for ratio in (residual, mlp)]
    verdict: Verdict = "HOLDS" if all(right) else "HOLDS_IF" if any(right) else "REFUTED"
    return Finding(
        verdict=verdict,
        value=residual,
        unit="ratio",
        condition=f"the residual stream is meant: {residual:g} to 1, all the batch against one of {RANKS} pieces. "
        f"The output of gate and up, which TP cuts, is {mlp:g} to 1",
    )


def batch_fits() -> Finding:
    """Context, in tokens per sequence, that fits at batch 10,000 under TP8.

    The system is eight GPUs of 80 GB.
    """
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


# Cost of microbatches in a pipeline of Llama-3-70B: no network bytes, but repeated reads of the weights.

TIMES_KEPT, TIMES_READ = 1.0, 1.0
MICRO_BATCHES = RANKS


def weight_transfer() -> Finding:
    """Bytes that microbatches add to what a stage sends, at batch 1,024."""
    whole, piece = (traffic.hop_bytes_sent_per_rank(PP8, tokens, BF16) for tokens in (BATCH, BATCH // MICRO_BATCHES))
    added = MICRO_BATCHES * piece - whole
    again = (MICRO_BATCHES - 1) * memory.stage_read_bytes(PP8, MIDDLE_STAGE, BF16)
    return Finding(
        verdict="HOLDS" if added > 0 else "REFUTED",
        value=added,
        unit="bytes",
        condition=f"{MICRO_BATCHES} micro-batches send {added} bytes more than one batch, as a hop carries activations "
        f"alone. It is the stage's own memory that gives the weights again, {decimal_bytes(again)} in a step",
    )


def equal_memory() -> Finding:
    """Ratio of weight bytes read in a step of 8 microbatches, PP8 over TP8.

    The PP8 rank is a middle stage.
    """
    kept = [memory.stage_weight_bytes(PP8, stage, BF16) for stage in range(PP8.pp)]
    kept_by_tp = memory.stage_weight_bytes(TP8, 0, BF16)
    step, middle, last = (
        memory.stage_read_bytes(*rank, BF16) for rank in ((TP8, 0), (PP8, MIDDLE_STAGE), (PP8, LAST_STAGE))
    )
    times = MICRO_BATCHES * middle / step
    right = agrees(TIMES_READ, times) and all(agrees(TIMES_KEPT, size / kept_by_tp) for size in kept)
    return Finding(
        verdict="HOLDS" if right else "REFUTED",
        value=times,
        unit="ratio",
        condition=f"a middle stage reads {decimal_bytes(middle)} of weights for each of {MICRO_BATCHES} micro-batches, "
        f"{decimal_bytes(MICRO_BATCHES * middle)} (the last {decimal_bytes(MICRO_BATCHES * last)}) where TP8 reads "
        f"{decimal_bytes(step)}; "
        f"only an uncut batch gives {middle / step:.2f}. Keys and values are read once by either",
    )


# Network bytes of a Llama-3-70B decode step over eight ranks, under TP and under PP.
#
# `value` is in plain units, counted as the claim counts. `condition` says when the note's own figure is right.

ALL_REDUCES = 2
ALL_REDUCE_BYTES_A_TOKEN, LAYER_BYTES_A_TOKEN = 28_672, 57_344
STEP_MB_A_TOKEN, STEP_GB = 4.48, 4.48
HOP_BYTES_A_TOKEN, STAGE_MB = 16_384, 32.0
TIMES = 128.0
LARGE_TP_GB, LARGE_PP_MB, LARGE_TIMES = 44.8, 320.0, 140.0


def all_reduce_count() -> Finding:
    """Number of all-reduces in one forward pass."""
    found = traffic.all_reduces_per_forward(TP8)
    with_embedding = traffic.all_reduces_per_forward(TP8, vocabulary_parallel_embedding=True)
    return Finding(
        verdict="HOLDS" if found == ALL_REDUCES else "REFUTED",
        value=found,
        unit="all-reduces",
        condition=f"{found} a forward pass: {found / LLAMA.layers:g} in each of {LLAMA.layers} layers "
        f"({with_embedding} with a vocabulary-parallel embedding)",
    )


def tp_bytes_layer() -> Finding:
    """Bytes per token that one rank sends for one layer.

    The note prints all digits, so no rounding is allowed.
    """
    one, layer = traffic.all_reduce_bytes_sent_per_rank(TP8, 1, BF16), traffic.layer_bytes_sent_per_rank(TP8, 1, BF16)
    right = (one, layer) == (ALL_REDUCE_BYTES_A_TOKEN, LAYER_BYTES_A_TOKEN)
    return Finding(
        verdict="HOLDS" if right else "REFUTED",
        value=layer,
        unit="bytes a token",
        condition=f"sent by each rank of a ring, {one:,} an all-reduce; each receives as much",
    )


def tp_bytes_step() -> Finding:
    """Bytes that one rank sends in a step of 1,024 sequences."""
    token, step = (traffic.stage_bytes_sent_per_rank(TP8, tokens, BF16) for tokens in (1, BATCH))
    reading = interpret_units(PrintedSize(STEP_MB_A_TOKEN, "MB", token), PrintedSize(STEP_GB, "GB", step))
    logits = traffic.logits_gather_bytes_sent_per_rank(TP8, 1, BF16)
    return Finding(
        verdict=reading.verdict,
        value=step,
        unit="bytes",
        condition=f"{reading.meaning}: a rank sends {decimal_bytes(token)} ({format_bytes(token)}) a token, "
        f"{decimal_bytes(step)} a step. "
        f"Gathering bf16 logits adds {logits:,} bytes a token",
    )


def pp_bytes_stage() -> Finding:
    """Bytes that one middle stage sends and receives in a step of 1,024 sequences."""
    hop = traffic.hop_bytes_sent_per_rank(PP8, 1, BF16)
    with_residual = traffic.hop_bytes_sent_per_rank(PP8, 1, BF16, with_residual=True)
    both_ways = 2 * traffic.hop_bytes_sent_per_rank(PP8, BATCH, BF16)
    reading = interpret_units(PrintedSize(STAGE_MB, "MB", both_ways))
    return Finding(
        verdict=reading.verdict if hop == HOP_BYTES_A_TOKEN else "REFUTED",
        value=both_ways,
        unit="bytes",
        condition=f"{reading.meaning}: {decimal_bytes(both_ways)}, sent and received together. "
        f"It is {with_residual / hop:g} times that where an engine ships the residual beside the hidden state",
    )


def tp_pp_ratio_128() -> Finding:
    """Ratio of bytes sent by all ranks, TP8 over PP8.

    `value` is for Llama-3-70B; the condition adds the model of the note's formulas.
    """
    here, there = times_sent_system_wide(LLAMA), times_sent_system_wide(SEED)
    verdict: Verdict = "HOLDS" if agrees(TIMES, here) else "HOLDS_IF" if agrees(TIMES, there) else "REFUTED"
    return Finding(
        verdict=verdict,
        value=here,
        unit="ratio",
        condition=f"over all ranks and for {SEED.layers} layers {there:.0f}, for the {LLAMA.layers} of Llama-3-70B "
        f"{here:.0f}: {here / LLAMA.layers:g} times the layers. "
        f"Per rank at eight ways {times_sent_per_rank(SEED):.0f} and {times_sent_per_rank(LLAMA):.0f}",
    )


def tp_pp_ratio_140() -> Finding:
    """Ratio of bytes that one rank sends, TP8 over PP8."""
    sent = traffic.stage_bytes_sent_per_rank(TP8, LARGE_BATCH, BF16)
    hop = traffic.hop_bytes_sent_per_rank(PP8, LARGE_BATCH, BF16)
    alike, everywhere = sent / hop, times_sent_system_wide(LLAMA)
    sizes = interpret_units(PrintedSize(LARGE_TP_GB, "GB", sent), PrintedSize(LARGE_PP_MB, "MB", 2 * hop))
    right = agrees(LARGE_TIMES, alike) or agrees(LARGE_TIMES, everywhere)
    uneven = agrees(LARGE_TIMES, sent / (2 * hop))
    return Finding(
        verdict=sizes.verdict if right else "REFUTED",
        value=alike,
        unit="ratio",
        condition=f"{alike:.0f} in bytes sent by one rank ({decimal_bytes(sent)} over {decimal_bytes(hop)}), "
        f"{everywhere:.0f} by all"
        + (
            f"; the note sets what TP sends against what PP sends and receives, {decimal_bytes(2 * hop)}"
            if uneven
            else ""
        ),
    )


class ArithmeticClaim(NamedTuple):
    """One arithmetic claim: slug, statement, source, verdict and predicate.

    `source` is a place in the note. `expected` is the recorded verdict; `predicate` recomputes it.
    """

    id: str
    statement: str
    source: str
    expected: Verdict
    predicate: Callable[[], Finding]


ARITHMETIC_CLAIMS = (
    ArithmeticClaim(
        "allreduce-count",
        "Under tensor parallelism one inference needs two all-reduces.",
        "note, perspective",
        "REFUTED",
        all_reduce_count,
    ),
    ArithmeticClaim(
        "tp-bytes-layer",
        "At TP8 each of the two all-reduces in a layer of Llama-3-70B takes 28,672 bytes a token, a layer 57,344.",
        "note, network, TP",
        "HOLDS",
        tp_bytes_layer,
    ),
    ArithmeticClaim(
        "tp-bytes-step",
        "Llama-3-70B at TP8 makes each GPU send 4.48 MB a token, 4.48 GB in a decode step of 1,024 sequences.",
        "note, network, TP",
        "HOLDS_IF",
        tp_bytes_step,
    ),
    ArithmeticClaim(
        "pp-bytes-stage",
        "A middle stage of Llama-3-70B at PP8 receives 16,384 bytes a token and sends as many: 32 MB at batch 1,024.",
        "note, network, PP",
        "HOLDS_IF",
        pp_bytes_stage,
    ),
    ArithmeticClaim(
        "tp-pp-ratio-128",
        "Tensor parallelism puts 128 times the bytes of pipeline parallelism on the network.",
        "note, network",
        "HOLDS_IF",
        tp_pp_ratio_128,
    ),
    ArithmeticClaim(
        "tp-pp-ratio-140",
        "Llama-3-70B at batch 10,000 sends 140 times more at TP8 than at PP8: 44.8 GB a step where PP8 has 320 MB.",
        "note, summary table",
        "REFUTED",
        tp_pp_ratio_140,
    ),
    ArithmeticClaim(
        "generic-tp-prefill",
        "Prefill of 32 prompts of 1,024 tokens through 32 layers of width 12,288 moves about 46 GB at TP8.",
        "note, network, TP formula",
        "REFUTED",
        tp_prefill,
    ),
    ArithmeticClaim(
        "generic-tp-decode",
        "A decode step of 512 sequences through 32 layers of width 12,288 moves about 0.7 GB at TP8.",
        "note, network, TP formula",
        "REFUTED",
        tp_decode,
    ),
    ArithmeticClaim(
        "generic-pp-prefill",
        "The same prefill (32 x 1,024 tokens, 32 layers of width 12,288) moves about 2.8 GB at PP8, 16 times less.",
        "note, network, PP formula",
        "REFUTED",
        pp_prefill,
    ),
    ArithmeticClaim(
        "generic-pp-decode",
        "A decode step of 512 sequences through 32 layers of width 12,288 moves about 0.4 GB at PP8.",
        "note, network, PP formula",
        "REFUTED",
        pp_decode,
    ),
    ArithmeticClaim(
        "pp-weight-transfer",
        "In a pipeline, micro-batches send weights over the network on top of activations.",
        "note, network, PP formula",
        "REFUTED",
        weight_transfer,
    ),
    ArithmeticClaim(
        "tp-100-steps",
        "Decode at batch 1,024 (32 layers of width 12,288, TP8) takes 1.4 GB of memory traffic, 140 GB in 100 steps.",
        "note, memory bandwidth, TP",
        "REFUTED",
        tp_hundred_steps,
    ),
    ArithmeticClaim(
        "pp-microbatch-step",
        "At PP8 with micro-batches of 128 (32 layers of width 12,288) a decode step takes 11 MB.",
        "note, memory bandwidth, PP",
        "REFUTED",
        pp_micro_batch_step,
    ),
    ArithmeticClaim(
        "weights-19.5",
        "Llama-3-70B keeps 19.5 GB of weights on each of eight GPUs, whether TP8 or PP8.",
        "note, decoding and summary table",
        "HOLDS_IF",
        weights,
    ),
    ArithmeticClaim(
        "kv-formula",
        "Keys and values take layers x batch x context x hidden in total, an even share of it on each GPU.",
        "note, memory",
        "REFUTED",
        cache_formula,
    ),
    ArithmeticClaim(
        "kv-400MB",
        "Keys and values of Llama-3-70B at batch 10,000 take 400 MB on each of eight GPUs.",
        "note, summary table",
        "HOLDS_IF",
        cache_size,
    ),
    ArithmeticClaim(
        "activations",
        "A TP8 rank holds activations of the whole batch, a PP8 stage an eighth of that.",
        "note, memory",
        "HOLDS_IF",
        activations,
    ),
    ArithmeticClaim(
        "memory-equal",
        "TP8 and PP8 keep the same bytes on each GPU and read the same bytes in a step: 1x.",
        "note, summary table",
        "REFUTED",
        equal_memory,
    ),
    ArithmeticClaim(
        "batch-10k-fits",
        "Llama-3-70B decodes a batch of 10,000 sequences on eight GPUs.",
        "note, table of winners",
        "HOLDS_IF",
        batch_fits,
    ),
)
"""All arithmetic claims, in the order of the ledger."""

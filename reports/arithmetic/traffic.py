"""What Llama-3-70B puts on the network in a decode step: eight ranks of tensor, or of pipeline parallelism.

`value` is the figure in plain units, counted as the claim counts; `condition` says when the note's own is right.
"""

from reports.arithmetic.readings import BF16, Size, agrees, read, text
from reports.arithmetic.setting import (
    BATCH,
    LARGE_BATCH,
    LLAMA,
    PP8,
    SEED,
    TP8,
    times_sent_per_rank,
    times_sent_system_wide,
)
from reports.finding import Finding, Verdict
from specs import traffic
from specs.units import binary_bytes

ALL_REDUCES = 2
ALL_REDUCE_BYTES_A_TOKEN, LAYER_BYTES_A_TOKEN = 28_672, 57_344
STEP_MB_A_TOKEN, STEP_GB = 4.48, 4.48
HOP_BYTES_A_TOKEN, STAGE_MB = 16_384, 32.0
TIMES = 128.0
LARGE_TP_GB, LARGE_PP_MB, LARGE_TIMES = 44.8, 320.0, 140.0


def all_reduce_count() -> Finding:
    """All-reduces of one forward pass."""
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
    """Bytes a token that one rank sends for one layer; printed in full, so no rounding is granted."""
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
    reading = read(Size(STEP_MB_A_TOKEN, "MB", token), Size(STEP_GB, "GB", step))
    logits = traffic.logits_gather_bytes_sent_per_rank(TP8, 1, BF16)
    return Finding(
        verdict=reading.verdict,
        value=step,
        unit="bytes",
        condition=f"{reading.words}: a rank sends {text(token)} ({binary_bytes(token)}) a token, {text(step)} a step. "
        f"Gathering bf16 logits adds {logits:,} bytes a token",
    )


def pp_bytes_stage() -> Finding:
    """Bytes that one middle stage sends and receives in a step of 1,024 sequences."""
    hop = traffic.hop_bytes_sent_per_rank(PP8, 1, BF16)
    with_residual = traffic.hop_bytes_sent_per_rank(PP8, 1, BF16, with_residual=True)
    both_ways = 2 * traffic.hop_bytes_sent_per_rank(PP8, BATCH, BF16)
    reading = read(Size(STAGE_MB, "MB", both_ways))
    return Finding(
        verdict=reading.verdict if hop == HOP_BYTES_A_TOKEN else "REFUTED",
        value=both_ways,
        unit="bytes",
        condition=f"{reading.words}: {text(both_ways)}, sent and received together. "
        f"It is {with_residual / hop:g} times that where an engine ships the residual beside the hidden state",
    )


def tp_pp_ratio_128() -> Finding:
    """Bytes of all ranks, TP8 over PP8: `value` for Llama-3-70B, beside the model of the note's formulas."""
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
    """Bytes that one rank sends, TP8 over PP8."""
    sent = traffic.stage_bytes_sent_per_rank(TP8, LARGE_BATCH, BF16)
    hop = traffic.hop_bytes_sent_per_rank(PP8, LARGE_BATCH, BF16)
    alike, everywhere = sent / hop, times_sent_system_wide(LLAMA)
    sizes = read(Size(LARGE_TP_GB, "GB", sent), Size(LARGE_PP_MB, "MB", 2 * hop))
    right = agrees(LARGE_TIMES, alike) or agrees(LARGE_TIMES, everywhere)
    uneven = agrees(LARGE_TIMES, sent / (2 * hop))
    return Finding(
        verdict=sizes.verdict if right else "REFUTED",
        value=alike,
        unit="ratio",
        condition=f"{alike:.0f} in bytes sent by one rank ({text(sent)} over {text(hop)}), {everywhere:.0f} by all"
        + (f"; the note sets what TP sends against what PP sends and receives, {text(2 * hop)}" if uneven else ""),
    )

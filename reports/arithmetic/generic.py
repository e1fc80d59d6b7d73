"""The note's formulas on its own model of 32 layers, 12,288 wide: 4·L·(P−1)/P·B·n·d under TP, (P−1)·B·n·d under PP.

The first counts what one rank sends, the second all hops together; both leave out the bytes of an element.
"""

from reports.arithmetic.readings import BF16, Reading, Size, agrees, read, text
from reports.arithmetic.setting import (
    BATCH,
    PROMPT,
    SEED,
    SEED_PP8,
    SEED_TP8,
    times_sent_per_rank,
    times_sent_system_wide,
)
from reports.finding import Finding
from specs import traffic

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
    found = _by_rank(PREFILL_TOKENS)
    return _finding(read(Size(TP_PREFILL_GB, "GB", found)), found, f"each rank sends {text(found)}")


def tp_decode() -> Finding:
    """Bytes that one rank sends in a step of 512 sequences."""
    found = _by_rank(DECODE_TOKENS)
    return _finding(read(Size(TP_DECODE_GB, "GB", found)), found, f"each rank sends {text(found)}")


def pp_prefill() -> Finding:
    """Bytes over all hops for 32 prompts of 1,024 tokens, and how much less than TP that is."""
    found = _by_hops(PREFILL_TOKENS)
    reading = read(Size(PP_PREFILL_GB, "GB", found))
    per_rank, everywhere = times_sent_per_rank(SEED), times_sent_system_wide(SEED)
    right = agrees(PREFILL_TIMES_LESS, per_rank) or agrees(PREFILL_TIMES_LESS, everywhere)
    uneven = agrees(PREFILL_TIMES_LESS, _by_rank(PREFILL_TOKENS) / found)
    return Finding(
        verdict=reading.verdict if right else "REFUTED",
        value=found,
        unit="bytes",
        condition=f"{reading.words}: {text(found)} over all hops. TP sends {per_rank:.0f} times as much per rank, "
        f"{everywhere:.0f} over all ranks"
        + (f"; {PREFILL_TIMES_LESS:g} is one TP rank against all hops" if uneven else ""),
    )


def pp_decode() -> Finding:
    """Bytes over all hops in a step of 512 sequences."""
    found = _by_hops(DECODE_TOKENS)
    times = PP_DECODE_GB * 1e9 / found
    detail = (
        f"{text(found)} over all hops; the note has {times:.1f} times the bytes, {times * BF16:.1f} times the elements"
    )
    return _finding(read(Size(PP_DECODE_GB, "GB", found)), found, detail)


def tp_hundred_steps() -> Finding:
    """Bytes that one rank sends in a hundred steps of 1,024 sequences."""
    step = _by_rank(BATCH)
    found = STEPS * step
    detail = f"each rank sends {text(step)} a step, {text(found)} in {STEPS}, over the network and not from its memory"
    return _finding(read(Size(TP_STEP_GB, "GB", step), Size(TP_STEPS_GB, "GB", found)), found, detail)


def pp_micro_batch_step() -> Finding:
    """Bytes over all hops for one micro-batch of 128 sequences."""
    found, pieces = _by_hops(MICRO_BATCH), BATCH // MICRO_BATCH
    detail = f"{text(found)} over all hops for one micro-batch, {text(pieces * found)} for the {pieces} of B={BATCH:,}"
    return _finding(read(Size(PP_STEP_MB, "MB", found)), found, detail)


def _by_rank(tokens: int) -> int:
    return traffic.stage_bytes_sent_per_rank(SEED_TP8, tokens, BF16)


def _by_hops(tokens: int) -> int:
    return traffic.hop_bytes_sent_system_wide(SEED_PP8, tokens, BF16)


def _finding(reading: Reading, found: int, detail: str) -> Finding:
    return Finding(verdict=reading.verdict, value=found, unit="bytes", condition=f"{reading.words}: {detail}")

"""What micro-batches cost a pipeline of Llama-3-70B: nothing on the network, weights read again from memory."""

from reports.arithmetic.readings import BF16, agrees, text
from reports.arithmetic.setting import BATCH, LAST, MIDDLE, PP8, TP8, WAYS
from reports.finding import Finding
from specs import memory, traffic

TIMES_KEPT, TIMES_READ = 1.0, 1.0
MICRO_BATCHES = WAYS


def weight_transfer() -> Finding:
    """Bytes that cutting a batch of 1,024 into micro-batches adds to what a stage sends."""
    whole, piece = (traffic.hop_bytes_sent_per_rank(PP8, tokens, BF16) for tokens in (BATCH, BATCH // MICRO_BATCHES))
    added = MICRO_BATCHES * piece - whole
    again = (MICRO_BATCHES - 1) * memory.stage_read_bytes(PP8, MIDDLE, BF16)
    return Finding(
        verdict="HOLDS" if added > 0 else "REFUTED",
        value=added,
        unit="bytes",
        condition=f"{MICRO_BATCHES} micro-batches send {added} bytes more than one batch, as a hop carries activations "
        f"alone. It is the stage's own memory that gives the weights again, {text(again)} in a step",
    )


def equal_memory() -> Finding:
    """Bytes of weights read in a step of 8 micro-batches, a middle stage of PP8 over a rank of TP8."""
    kept = [memory.stage_weight_bytes(PP8, stage, BF16) for stage in range(PP8.pp)]
    kept_by_tp = memory.stage_weight_bytes(TP8, 0, BF16)
    step, middle, last = (memory.stage_read_bytes(*rank, BF16) for rank in ((TP8, 0), (PP8, MIDDLE), (PP8, LAST)))
    times = MICRO_BATCHES * middle / step
    right = agrees(TIMES_READ, times) and all(agrees(TIMES_KEPT, size / kept_by_tp) for size in kept)
    return Finding(
        verdict="HOLDS" if right else "REFUTED",
        value=times,
        unit="ratio",
        condition=f"a middle stage reads {text(middle)} of weights for each of {MICRO_BATCHES} micro-batches, "
        f"{text(MICRO_BATCHES * middle)} (the last {text(MICRO_BATCHES * last)}) where TP8 reads {text(step)}; "
        f"only an uncut batch gives {middle / step:.2f}. Keys and values are read once by either",
    )

"""The note's models, splits and batches, and how much more TP sends than PP, counted alike on both sides."""

from specs import traffic
from specs.models import Model, model
from specs.parallel import Split

WAYS = 8
BATCH, LARGE_BATCH = 1024, 10_000
PROMPT = 1024
LLAMA, SEED = model("llama-3-70b"), model("seed-32x12288")
TP8, PP8 = Split(LLAMA, tp=WAYS), Split(LLAMA, pp=WAYS)
SEED_TP8, SEED_PP8 = Split(SEED, tp=WAYS), Split(SEED, pp=WAYS)
MIDDLE, LAST = WAYS // 2, WAYS - 1


def times_sent_per_rank(of: Model) -> float:
    """Bytes sent by one rank in a forward pass, TP8 over a PP8 stage that has a next one: 4 · layers · 7/8."""
    tensor, pipeline = Split(of, tp=WAYS), Split(of, pp=WAYS)
    return traffic.stage_bytes_sent_per_rank(tensor, 1, 1) / traffic.hop_bytes_sent_per_rank(pipeline, 1, 1)


def times_sent_system_wide(of: Model) -> float:
    """Bytes sent by all ranks in a forward pass, TP8 over PP8: 4 · layers, for any number of ranks."""
    tensor, pipeline = Split(of, tp=WAYS), Split(of, pp=WAYS)
    return traffic.all_reduce_bytes_sent_system_wide(tensor, 1, 1) / traffic.hop_bytes_sent_system_wide(pipeline, 1, 1)

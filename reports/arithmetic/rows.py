"""The note's arithmetic claims in our words, each with the predicate that judges it."""

from collections.abc import Callable
from typing import NamedTuple

from reports.arithmetic import generic, memory, micro_batches, traffic
from reports.finding import Finding, Verdict


class Row(NamedTuple):
    """One claim: a slug, what is claimed, where the note says so, the verdict it came to, and what finds it again."""

    id: str
    statement: str
    source: str
    expected: Verdict
    predicate: Callable[[], Finding]


ARITHMETIC = (
    Row(
        "allreduce-count",
        "Under tensor parallelism one inference needs two all-reduces.",
        "note, perspective",
        "REFUTED",
        traffic.all_reduce_count,
    ),
    Row(
        "tp-bytes-layer",
        "At TP8 each of the two all-reduces in a layer of Llama-3-70B takes 28,672 bytes a token, a layer 57,344.",
        "note, network, TP",
        "HOLDS",
        traffic.tp_bytes_layer,
    ),
    Row(
        "tp-bytes-step",
        "Llama-3-70B at TP8 makes each GPU send 4.48 MB a token, 4.48 GB in a decode step of 1,024 sequences.",
        "note, network, TP",
        "HOLDS_IF",
        traffic.tp_bytes_step,
    ),
    Row(
        "pp-bytes-stage",
        "A middle stage of Llama-3-70B at PP8 receives 16,384 bytes a token and sends as many: 32 MB at batch 1,024.",
        "note, network, PP",
        "HOLDS_IF",
        traffic.pp_bytes_stage,
    ),
    Row(
        "tp-pp-ratio-128",
        "Tensor parallelism puts 128 times the bytes of pipeline parallelism on the network.",
        "note, network",
        "HOLDS_IF",
        traffic.tp_pp_ratio_128,
    ),
    Row(
        "tp-pp-ratio-140",
        "Llama-3-70B at batch 10,000 sends 140 times more at TP8 than at PP8: 44.8 GB a step where PP8 has 320 MB.",
        "note, summary table",
        "REFUTED",
        traffic.tp_pp_ratio_140,
    ),
    Row(
        "generic-tp-prefill",
        "Prefill of 32 prompts of 1,024 tokens through 32 layers of width 12,288 moves about 46 GB at TP8.",
        "note, network, TP formula",
        "REFUTED",
        generic.tp_prefill,
    ),
    Row(
        "generic-tp-decode",
        "A decode step of 512 sequences through 32 layers of width 12,288 moves about 0.7 GB at TP8.",
        "note, network, TP formula",
        "REFUTED",
        generic.tp_decode,
    ),
    Row(
        "generic-pp-prefill",
        "The same prefill (32 x 1,024 tokens, 32 layers of width 12,288) moves about 2.8 GB at PP8, 16 times less.",
        "note, network, PP formula",
        "REFUTED",
        generic.pp_prefill,
    ),
    Row(
        "generic-pp-decode",
        "A decode step of 512 sequences through 32 layers of width 12,288 moves about 0.4 GB at PP8.",
        "note, network, PP formula",
        "REFUTED",
        generic.pp_decode,
    ),
    Row(
        "pp-weight-transfer",
        "In a pipeline, micro-batches send weights over the network on top of activations.",
        "note, network, PP formula",
        "REFUTED",
        micro_batches.weight_transfer,
    ),
    Row(
        "tp-100-steps",
        "Decode at batch 1,024 (32 layers of width 12,288, TP8) takes 1.4 GB of memory traffic, 140 GB in 100 steps.",
        "note, memory bandwidth, TP",
        "REFUTED",
        generic.tp_hundred_steps,
    ),
    Row(
        "pp-microbatch-step",
        "At PP8 with micro-batches of 128 (32 layers of width 12,288) a decode step takes 11 MB.",
        "note, memory bandwidth, PP",
        "REFUTED",
        generic.pp_micro_batch_step,
    ),
    Row(
        "weights-19.5",
        "Llama-3-70B keeps 19.5 GB of weights on each of eight GPUs, whether TP8 or PP8.",
        "note, decoding and summary table",
        "HOLDS_IF",
        memory.weights,
    ),
    Row(
        "kv-formula",
        "Keys and values take layers x batch x context x hidden in total, an even share of it on each GPU.",
        "note, memory",
        "REFUTED",
        memory.cache_formula,
    ),
    Row(
        "kv-400MB",
        "Keys and values of Llama-3-70B at batch 10,000 take 400 MB on each of eight GPUs.",
        "note, summary table",
        "HOLDS_IF",
        memory.cache_size,
    ),
    Row(
        "activations",
        "A TP8 rank holds activations of the whole batch, a PP8 stage an eighth of that.",
        "note, memory",
        "HOLDS_IF",
        memory.activations,
    ),
    Row(
        "memory-equal",
        "TP8 and PP8 keep the same bytes on each GPU and read the same bytes in a step: 1x.",
        "note, summary table",
        "REFUTED",
        micro_batches.equal_memory,
    ),
    Row(
        "batch-10k-fits",
        "Llama-3-70B decodes a batch of 10,000 sequences on eight GPUs.",
        "note, table of winners",
        "HOLDS_IF",
        memory.batch_fits,
    ),
)
"""Every arithmetic claim of the ledger, in its order."""

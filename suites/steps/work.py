"""What the busiest rank does in a step."""

from kernels.decoder_layer import layer
from specs import memory, traffic
from specs.layer import layer_shape
from specs.parallel import Deployment, Split
from specs.roofline import Work
from specs.units import ITEMSIZE
from suites.steps.part import StepPart


def busiest(deployment: Deployment, part: StepPart, dtype: str) -> Work:
    """Of flops, of bytes of memory and of bytes sent the most that any rank has.

    Weights are read once for each micro-batch. A cache is read once in decode and written once in prefill; activations
    need not leave the caches. Token ids, and what sampling exchanges, are too few bytes to count.

    Raises:
        UserError: the model cannot be cut so, or its layers are not made.
    """
    split, itemsize = deployment.split(part.scaled), ITEMSIZE[dtype]
    sequences, tokens = part.batch // deployment.replicas, part.tokens // deployment.replicas
    stages = range(deployment.pp)
    return Work(
        flops=max(_flops(split, stage, part, sequences, dtype) for stage in stages),
        hbm_bytes=max(
            deployment.micro_batches * memory.stage_read_bytes(split, stage, itemsize)
            + sequences * part.context * memory.kv_bytes_per_token_per_rank(split, stage, itemsize)
            for stage in stages
        ),
        wire_bytes_sent_per_rank=max(
            traffic.stage_bytes_sent_per_rank(split, tokens, itemsize, stage)
            + (traffic.hop_bytes_sent_per_rank(split, tokens, itemsize) if stage < deployment.pp - 1 else 0)
            for stage in stages
        ),
    )


def _flops(split: Split, stage: int, part: StepPart, sequences: int, dtype: str) -> int:
    """The layers of a stage, a prompt at a time, and at the last one the LM head for a token of each sequence."""
    batch = sequences if part.decode else 1
    shape = {"tokens": sequences if part.decode else part.context, "batch": batch, "context": part.context}
    once = layer("torch", layer_shape(split), **shape).work(dtype=dtype, **shape).flops
    head = 2 * sequences * split.vocab_per_rank * split.model.hidden if stage == split.pp - 1 else 0
    return split.layers_of(stage) * once * (sequences // batch) + head

"""Whether a deployment fits into memory: weights, caches of keys and values, activations, workspace."""

from math import ceil

from reports.plan import assumed
from reports.plan.asked import Asked
from reports.plan.step import chunk_of
from reports.plan.system import System
from specs import memory
from specs.parallel import Deployment

LOGIT_BYTES = 4


def need_bytes(deployment: Deployment, asked: Asked, system: System, batch: int) -> int:
    """Of the fullest rank; where all ranks share one memory, of all together. The embedding is replicated under TP."""
    split, itemsize = deployment.split(asked.cut), system.itemsize
    sequences = batch // deployment.replicas
    rows = max(deployment.micro_batch_sizes(batch)) * asked.rows_a_sequence
    rows += ceil(chunk_of(asked.prefill_chunk, deployment).tokens)
    stages = []
    for stage in range(deployment.pp):
        held = memory.stage_weight_bytes(split, stage, itemsize, replicated_embedding=True)
        held += sequences * asked.context * memory.kv_bytes_per_token_per_rank(split, stage, itemsize)
        held += 2 * memory.residual_bytes(split, rows, itemsize) + memory.mlp_activation_bytes(split, rows, itemsize)
        if stage == deployment.pp - 1:
            held += rows * split.vocab_per_rank * LOGIT_BYTES
        stages.append(held)
    if system.shared_memory:
        return deployment.tp * deployment.replicas * sum(stages)
    return max(stages) + round(assumed.WORKSPACE_BYTES.value)


def why_not(deployment: Deployment, asked: Asked, system: System, batch: int) -> str:
    """One line on what does not fit; empty where it does, or where nobody knows the memory."""
    limit = system.memory_bytes
    if limit is None or (need := need_bytes(deployment, asked, system, batch)) <= limit:
        return ""
    whose = "all ranks together need" if system.shared_memory else "the fullest rank needs"
    return (
        f"{batch} sequences of context {asked.context}: {whose} {need / 1e9:,.1f} GB and {system.name} has "
        f"{limit / 1e9:,.1f} GB; at most {most_sequences(deployment, asked, system)} fit"
    )


def most_sequences(deployment: Deployment, asked: Asked, system: System) -> int:
    """The largest batch that fits, a multiple of the replicas; 0 where not even one sequence a replica does."""
    limit = system.memory_bytes
    low, high = 0, 2**20
    if limit is None:
        return high * deployment.replicas
    while low < high:
        middle = (low + high + 1) // 2
        if need_bytes(deployment, asked, system, middle * deployment.replicas) <= limit:
            low = middle
        else:
            high = middle - 1
    return low * deployment.replicas

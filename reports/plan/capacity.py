"""Memory of a deployment: weights, KV caches, activations, workspace, and what fits."""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from reports.plan import estimate
from reports.plan.profile import HardwareProfile
from reports.plan.query import PlanQuery
from reports.plan.step import chunk_per_micro_batch
from specs import memory
from specs.parallel import Deployment, Split

STORED_LOGIT_BYTES = 4


class StageBytes(NamedTuple):
    """Bytes of a rank of a stage.

    Attributes:
        weights: weights.
        token: KV cache of each token of a sequence.
        row: activations of each row of a microbatch.
    """

    weights: int
    token: int
    row: int


def required_bytes(deployment: Deployment, query: PlanQuery, profile: HardwareProfile, batch: int) -> int:
    """Bytes of the fullest rank, or of all ranks where they share one memory.

    The embedding is replicated under TP.
    """
    kv_itemsize = profile.kv_itemsize(query.model, deployment.tp, query.context)
    split, itemsizes = deployment.split(query.truncated_model), (profile.residual_itemsize, profile.linear_itemsize)
    sequences = batch // deployment.replicas
    rows = max(deployment.micro_batch_sizes(batch)) * query.rows_per_sequence
    rows += ceil(chunk_per_micro_batch(query.prefill_chunk, deployment).tokens)
    stages = [
        one.weights + sequences * query.context * one.token + rows * one.row
        for one in _stage_bytes(split, *itemsizes, kv_itemsize)
    ]
    if profile.has_shared_memory:
        return deployment.tp * deployment.replicas * sum(stages)
    return max(stages) + round(estimate.WORKSPACE_BYTES.value)


@lru_cache(256)
def _stage_bytes(split: Split, itemsize: int, linear_itemsize: float, kv_itemsize: int) -> Sequence[StageBytes]:
    activations = 2 * memory.residual_bytes(split, 1, itemsize) + memory.mlp_activation_bytes(split, 1, itemsize)
    logits = split.vocab_per_rank * STORED_LOGIT_BYTES
    return [
        StageBytes(
            weights=memory.stage_weight_bytes(split, stage, itemsize, True, linear_itemsize),
            token=memory.kv_bytes_per_token_per_rank(split, stage, kv_itemsize),
            row=activations + (logits if stage == split.pp - 1 else 0),
        )
        for stage in range(split.pp)
    ]


def why_not_fit(deployment: Deployment, query: PlanQuery, profile: HardwareProfile, batch: int) -> str:
    """Reason why a batch does not fit; empty where it fits or memory is unknown."""
    limit = profile.memory_bytes
    if limit is None or (need := required_bytes(deployment, query, profile, batch)) <= limit:
        return ""
    whose = "all ranks together need" if profile.has_shared_memory else "the fullest rank needs"
    return (
        f"{batch} sequences of context {query.context}: {whose} {need / 1e9:,.1f} GB and {profile.name} has "
        f"{limit / 1e9:,.1f} GB; at most {max_sequences(deployment, query, profile)} fit"
    )


def max_sequences(deployment: Deployment, query: PlanQuery, profile: HardwareProfile) -> int:
    """Largest batch that fits, a multiple of the replicas.

    The result is 0 where not even one sequence per replica fits.
    """
    limit = profile.memory_bytes
    low, high = 0, 2**20
    if limit is None:
        return high * deployment.replicas
    while low < high:
        middle = (low + high + 1) // 2
        if required_bytes(deployment, query, profile, middle * deployment.replicas) <= limit:
            low = middle
        else:
            high = middle - 1
    return low * deployment.replicas

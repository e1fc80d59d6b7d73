"""What a whole model takes of a rank's memory, and how many of its layers fit."""

from collections.abc import Iterator
from dataclasses import replace

from comm.backend import World
from kernels.timing.device import Device, gib
from specs import memory
from specs.parallel import Deployment, Split
from specs.units import ITEMSIZE
from suites.steps.part import StepPart

SHARE = 0.8
"""Of the memory that is free: the rest is for the reference and the libraries."""


def need_bytes(deployment: Deployment, part: StepPart, dtype: str) -> int:
    """Weights, caches and activations on the fullest rank.

    Embedding and LM head are drawn apart, tied or not, and every rank of the first stage has the whole embedding.

    Raises:
        UserError: the model cannot be cut so.
    """
    split = deployment.split(replace(part.scaled, tied_embeddings=False))
    cached, itemsize = part.batch // deployment.replicas * part.context, ITEMSIZE[dtype]
    return max(
        memory.stage_weight_bytes(split, stage, itemsize, replicated_embedding=True)
        + cached * memory.kv_bytes_per_token_per_rank(split, stage, itemsize)
        + _activation_bytes(deployment, split, part, itemsize)
        for stage in range(deployment.pp)
    )


def _activation_bytes(deployment: Deployment, split: Split, part: StepPart, itemsize: int) -> int:
    """What the parts of a layer hand on, for the largest micro-batch, and its logits."""
    sequences = deployment.micro_batch_sizes(part.batch)[0]
    tokens = sequences * part.tokens // part.batch
    layer = 8 * memory.residual_bytes(split, tokens, itemsize) + 2 * memory.mlp_activation_bytes(
        split, tokens, itemsize
    )
    return layer + sequences * split.vocab_per_rank * itemsize


def free_bytes(device: Device, world: World) -> float:
    """What is free for one rank: of a GPU its own, of a CPU's memory its part."""
    return device.free_bytes() / (world.local_ranks if world.kind == "cpu" else 1)


def why_too_large(deployment: Deployment, part: StepPart, dtype: str, room: int) -> str | None:
    """One line on what is needed and how many layers fit; None where all do."""
    need, free = need_bytes(deployment, part, dtype), f"{gib(room)} are free"
    if need <= room:
        return None
    for layers, fewer in _fewer(deployment, part, dtype):
        if fewer <= room:
            fit = f"{layers} of {part.whole.layers} layers fit; --layers {layers}"
            return f"{part.model} in {deployment} needs {gib(need)} on a rank, {free}: {fit}"
    return (
        f"{part.model} in {deployment} needs {gib(need)} on a rank, {free}: not even a layer a stage fits; choose a "
        "smaller --model, --batch or --context, or more --ranks"
    )


def layers_that_fit(deployment: Deployment, part: StepPart, dtype: str, room: int) -> int:
    """As many of the model's layers as fit; at least one a stage, which is then refused with what it needs."""
    if need_bytes(deployment, part, dtype) <= room:
        return part.layers
    return next((layers for layers, one in _fewer(deployment, part, dtype) if one <= room), deployment.pp)


def _fewer(deployment: Deployment, part: StepPart, dtype: str) -> Iterator[tuple[int, int]]:
    """Fewer layers, one after another, and what they need."""
    for layers in range(part.layers - 1, deployment.pp - 1, -1):
        yield layers, need_bytes(deployment, part._replace(layers=layers), dtype)

"""What a whole model takes of a rank's memory, and how many of its layers fit."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from comm.backend import World
from kernels.decoder_layer import layer_kernel
from kernels.timing.device import Device, format_gib
from specs import memory, traffic
from specs.layer import layer_shape
from specs.measurement import is_decode
from specs.models import MODELS, Model, scaled_model
from specs.parallel import Deployment, Split
from specs.roofline import Work
from specs.units import ITEMSIZE

# What is run of which model: so many of its layers, on a batch of sequences that each add a token, or of prompts.


class StepWorkload(NamedTuple):
    """One step's work, over all replicas; strings and integers only, for JSON.

    Attributes:
        model: by its slug.
        layers: that are kept of it.
        tokens: rows of the whole batch's forward pass.
        batch: sequences: as many as tokens in decode, else each is a prompt of tokens / batch.
        context: tokens in each sequence's cache, the new one included; of a prompt its tokens.
    """

    model: str
    layers: int
    tokens: int
    batch: int
    context: int

    def __str__(self) -> str:
        phase = f"{self.batch}tok-ctx{self.context}" if self.decode else f"prompt{self.context}x{self.batch}"
        return f"{self.model}-{self.layers}layers-{phase}"

    @property
    def decode(self) -> bool:
        """Whether each sequence adds one token."""
        return is_decode(self.tokens, self.batch)

    @property
    def full_model(self) -> Model:
        """The model with all its layers."""
        return MODELS[self.model]

    @property
    def scaled_model(self) -> Model:
        """The model that is run.

        Raises:
            UserError: it has fewer layers.
        """
        return scaled_model(self.full_model, self.layers)


MEMORY_SHARE = 0.8
"""Of the memory that is free: the rest is for the reference and the libraries."""


def need_bytes(deployment: Deployment, part: StepWorkload, dtype: str) -> int:
    """Weights, caches and activations on the fullest rank.

    Embedding and LM head are drawn apart, tied or not, and every rank of the first stage has the whole embedding.

    Raises:
        UserError: the model cannot be cut so.
    """
    split = deployment.split(replace(part.scaled_model, tied_embeddings=False))
    cached, itemsize = part.batch // deployment.replicas * part.context, ITEMSIZE[dtype]
    return max(
        memory.stage_weight_bytes(split, stage, itemsize, replicated_embedding=True)
        + cached * memory.kv_bytes_per_token_per_rank(split, stage, itemsize)
        + _activation_bytes(deployment, split, part, itemsize)
        for stage in range(deployment.pp)
    )


def _activation_bytes(deployment: Deployment, split: Split, part: StepWorkload, itemsize: int) -> int:
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


def why_too_large(deployment: Deployment, part: StepWorkload, dtype: str, limit_bytes: int) -> str | None:
    """One line on what is needed and how many layers fit; None where all do."""
    need, free = need_bytes(deployment, part, dtype), f"{format_gib(limit_bytes)} are free"
    if need <= limit_bytes:
        return None
    for layers, fewer in _fewer_layers(deployment, part, dtype):
        if fewer <= limit_bytes:
            fit = f"{layers} of {part.full_model.layers} layers fit; --layers {layers}"
            return f"{part.model} in {deployment} needs {format_gib(need)} on a rank, {free}: {fit}"
    return (
        f"{part.model} in {deployment} needs {format_gib(need)} on a rank, {free}: not even a layer a stage fits; "
        "choose a "
        "smaller --model, --batch or --context, or more --ranks"
    )


def layers_that_fit(deployment: Deployment, part: StepWorkload, dtype: str, limit_bytes: int) -> int:
    """As many of the model's layers as fit; at least one a stage, which is then refused with what it needs."""
    if need_bytes(deployment, part, dtype) <= limit_bytes:
        return part.layers
    return next((layers for layers, one in _fewer_layers(deployment, part, dtype) if one <= limit_bytes), deployment.pp)


def _fewer_layers(deployment: Deployment, part: StepWorkload, dtype: str) -> Iterator[tuple[int, int]]:
    """Fewer layers, one after another, and what they need."""
    for layers in range(part.layers - 1, deployment.pp - 1, -1):
        yield layers, need_bytes(deployment, part._replace(layers=layers), dtype)


# What the busiest rank does in a step.


def busiest_rank_work(deployment: Deployment, part: StepWorkload, dtype: str) -> Work:
    """Of flops, of bytes of memory and of bytes sent the most that any rank has.

    Weights are read once for each micro-batch. A cache is read once in decode and written once in prefill; activations
    need not leave the caches. Token ids, and what sampling exchanges, are too few bytes to count.

    Raises:
        UserError: the model cannot be cut so, or its layers are not made.
    """
    split, itemsize = deployment.split(part.scaled_model), ITEMSIZE[dtype]
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


def _flops(split: Split, stage: int, part: StepWorkload, sequences: int, dtype: str) -> int:
    """The layers of a stage, a prompt at a time, and at the last one the LM head for a token of each sequence."""
    batch = sequences if part.decode else 1
    shape = {"tokens": sequences if part.decode else part.context, "batch": batch, "context": part.context}
    once = layer_kernel("torch", layer_shape(split), **shape).work(dtype=dtype, **shape).flops
    head = 2 * sequences * split.vocab_per_rank * split.model.hidden if stage == split.pp - 1 else 0
    return split.layers_of(stage) * once * (sequences // batch) + head

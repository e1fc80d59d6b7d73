"""Workload of a whole model's step: memory of a rank, layers that fit, and work."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from comm.backend import World
from kernels.decoder_layer import layer_kernel
from kernels.timing.device import Device, format_gib
from specs import memory, traffic
from specs.layer import layer_shape
from specs.measurement import is_decode
from specs.models import MODELS, Model, find_model, scaled_model
from specs.parallel import Deployment, Split
from specs.roofline import Work
from specs.units import ITEMSIZE

# Workload: some layers of a model, on a batch of decode sequences or of prompts


class StepWorkload(NamedTuple):
    """Work of one step, over all replicas; strings and integers only, for JSON.

    Attributes:
        model: slug of the model.
        layers: layers kept of the model.
        tokens: rows of the whole batch's forward pass.
        batch: sequences: as many as tokens in decode; else each is a prompt of tokens / batch.
        context: tokens in each sequence's cache, including the new one; for a prompt, its tokens.
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
        """True if each sequence adds one token."""
        return is_decode(self.tokens, self.batch)

    @property
    def full_model(self) -> Model:
        """Model with all its layers."""
        return find_model(self.model)

    def to_json(self) -> dict[str, Any]:
        """Fields for ranks, with all shapes of a model that their processes cannot know by its slug."""
        shapes = {} if self.model in MODELS else {"shapes": asdict(self.full_model)}
        return self._asdict() | shapes

    @property
    def scaled_model(self) -> Model:
        """Model with the kept layers.

        Raises:
            UserError: the model has fewer layers.
        """
        return scaled_model(self.full_model, self.layers)


MEMORY_SHARE = 0.8
"""Usable share of free memory; the rest is for the reference and the libraries."""


def need_bytes(deployment: Deployment, part: StepWorkload, dtype: str) -> int:
    """Bytes of weights, caches and activations on the fullest rank.

    Embedding and LM head are drawn separately, tied or not. Every rank of the first stage holds the whole embedding.

    Raises:
        UserError: the model cannot be split so.
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
    """Bytes between the parts of a layer for the largest microbatch, and its logits."""
    sequences = deployment.micro_batch_sizes(part.batch)[0]
    tokens = sequences * part.tokens // part.batch
    layer = 8 * memory.residual_bytes(split, tokens, itemsize) + 2 * memory.mlp_activation_bytes(
        split, tokens, itemsize
    )
    return layer + sequences * split.vocab_per_rank * itemsize


def free_bytes(device: Device, world: World) -> float:
    """Free bytes for one rank: of its own GPU, or its part of the CPU's memory."""
    return device.free_bytes() / (world.local_ranks if world.kind == "cpu" else 1)


def why_too_large(deployment: Deployment, part: StepWorkload, dtype: str, limit_bytes: int) -> str | None:
    """Return one line on the bytes needed and the layers that fit, or None."""
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
    """Layers that fit; at least one per stage, which is then refused with its need."""
    if need_bytes(deployment, part, dtype) <= limit_bytes:
        return part.layers
    return next((layers for layers, one in _fewer_layers(deployment, part, dtype) if one <= limit_bytes), deployment.pp)


def _fewer_layers(deployment: Deployment, part: StepWorkload, dtype: str) -> Iterator[tuple[int, int]]:
    """Ever fewer layers, and the bytes that they need."""
    for layers in range(part.layers - 1, deployment.pp - 1, -1):
        yield layers, need_bytes(deployment, part._replace(layers=layers), dtype)


# Work of the busiest rank in a step


def busiest_rank_work(deployment: Deployment, part: StepWorkload, dtype: str) -> Work:
    """Largest flops, bytes of memory and bytes sent of any rank.

    Weights are read once per microbatch. A cache is read once in decode and written once in prefill; activations need
    not leave the caches. Token ids, and the messages of sampling, are too small to count.

    Raises:
        UserError: the model cannot be split so, or its layers are not implemented.
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
    """Flops of a stage's layers, and of the LM head on the last stage.

    The layers run one prompt at a time; the LM head runs on one token per sequence.
    """
    batch = sequences if part.decode else 1
    shape = {"tokens": sequences if part.decode else part.context, "batch": batch, "context": part.context}
    once = layer_kernel("torch", layer_shape(split), **shape).work(dtype=dtype, **shape).flops
    head = 2 * sequences * split.vocab_per_rank * split.model.hidden if stage == split.pp - 1 else 0
    return split.layers_of(stage) * once * (sequences // batch) + head

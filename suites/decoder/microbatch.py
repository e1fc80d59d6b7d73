"""Microbatch on one stage: the calls of its forward pass, bound to tensors once.

The residual stream enters and leaves as one tensor: a stage sends the sum of a layer's `out` and `total`. Each call is
named by the ledger item that its time belongs to.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch

from comm.backend import Communicator
from kernels.decoder_layer import ELEMENTWISE_KERNELS, PartKernels, intermediate_shapes, part_kernels, steps
from kernels.kernel import TORCH_DTYPES
from kernels.registry import select_linear
from suites.decoder import model
from suites.decoder.model import ModelShard, Stage, Tensors

Segment = tuple[str, Callable[[], object]]
ITEM_BY_PART = {"attention": "attention", **dict.fromkeys(("norm", "rotary", "swiglu"), "norms")}
"""Ledger item by part name; all other parts are linears."""
REDUCED_TENSORS = {"o": "projected", "down": "out"}
"""Tensors of which a rank holds a partial sum after a row-parallel linear."""
ROPE_THETA = 500_000.0
"""Base of the rotary angles, as in Llama 3."""


class MicrobatchSpec(NamedTuple):
    """Rows of a microbatch: `length` rows of each sequence from `first` on.

    Length 1 is decode. `first` counts within a replica.
    """

    first: int
    sequences: int
    length: int
    context: int

    @property
    def tokens(self) -> int:
        """Rows of the residual stream."""
        return self.sequences * self.length

    @property
    def decode(self) -> bool:
        """True if each sequence adds one token to its cache."""
        return self.length == 1


class Microbatch:
    """Microbatch on this rank.

    Args:
        stage: stage of this rank.
        rows: rows of the microbatch.
        group: ranks that share the stage's layers; None if this rank holds whole layers.

    Attributes:
        ids: input tokens, on the first stage.
        hidden_in, hidden_out: residual stream[tokens, hidden] from the previous stage and to the next.
        logits, sampled_ids: logits of this rank's part of the vocabulary for each sequence, and sampled tokens, on the
            last stage.
        step_outputs: logits and sampled tokens of each step of a verification.
        layer_tensors: tensors that the calls of each layer are bound to.
        embedding_segments, layers, output_segments: calls of a forward pass: the look-up, each layer, and the head or
            the sum to send.
    """

    def __init__(self, stage: Stage, rows: MicrobatchSpec, group: Communicator | None) -> None:
        self.stage, self.rows, self._group = stage, rows, group
        shard = stage.shard
        self.ids = self._tokens()
        self.sampled_ids = self.ids if rows.decode and stage.is_first else torch.empty_like(self.ids[: rows.sequences])
        self.returned_ids = torch.empty_like(self.sampled_ids)
        self.hidden_in, self.hidden_out = self._allocate(rows.tokens, hidden := shard.split.model.hidden), None
        self.logits: torch.Tensor | None = None
        self.step_outputs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._is_verifying = False
        self.embedding_segments: list[Segment] = []
        self.output_segments: list[Segment] = []
        if stage.embedding is not None:
            look_up = partial(torch.index_select, stage.embedding, 0, self.ids, out=self.hidden_in)
            self.embedding_segments.append(("norms", look_up))
        self.layer_tensors: list[Tensors] = []
        flow = self._bind_layers()
        if stage.is_last:
            self.logits = self._allocate(rows.sequences, shard.vocab_slice.stop - shard.vocab_slice.start)
            self._bind_output(flow, self.logits)
        else:
            self.hidden_out = self._allocate(rows.tokens, hidden)
            self.output_segments.append(("norms", partial(torch.add, flow["out"], flow["total"], out=self.hidden_out)))
        self.segments = [*self.embedding_segments, *chain.from_iterable(self.layers), *self.output_segments]

    @property
    def shard(self) -> ModelShard:
        """Shard of every layer."""
        return self.stage.shard

    @property
    def dtype(self) -> str:
        """Dtype of weights and activations."""
        return self.shard.dtype

    @property
    def implementation(self) -> str:
        """Implementation of the kernels."""
        return self.stage.implementation

    @property
    def vocab_slice(self) -> slice:
        """Part of the vocabulary that this rank computes logits of."""
        return self.shard.vocab_slice

    def begin_verification(self) -> None:
        """Start a verification from the first tokens; poisoned buffers show as NaN."""
        self._is_verifying, self.step_outputs = True, []
        for tensor in (self.hidden_in, self.hidden_out, self.logits):
            if tensor is not None:
                tensor.fill_(float("nan"))
        self.ids.copy_(self._tokens())

    def end_verification(self) -> None:
        """Continue with sampled tokens; `step_outputs` stays until the next verification."""
        self._is_verifying = False

    def end_step(self) -> None:
        """In a verification, keep the outputs, poison buffers, and use known tokens."""
        if not self._is_verifying:
            return
        self.hidden_in.fill_(float("nan"))
        if self.logits is not None:
            self.step_outputs.append((self.logits.clone(), self.sampled_ids.clone()))
            self.logits.fill_(float("nan"))
            if self.rows.decode:
                self.sampled_ids.copy_(self._tokens(len(self.step_outputs)))

    def _tokens(self, turn: int = 0) -> torch.Tensor:
        rows = self.rows
        every = model.synthetic_tokens(rows.first + rows.sequences, rows.length, self.shard.split.model.vocab, turn)
        return every[rows.first :].flatten().to(self.shard.device)

    def _allocate(self, *shape: int) -> torch.Tensor:
        shard = self.shard
        return torch.full(shape, float("nan"), dtype=TORCH_DTYPES[shard.dtype], device=shard.device)

    def _bind_layers(self) -> Tensors:
        """Bind every layer; return the tensors that the last layer writes."""
        stage, rows, shard = self.stage, self.rows, self.shard
        batch, context = (rows.tokens, rows.context) if rows.decode else (1, rows.length)
        parts = part_kernels(stage.implementation, shard.layer_shape, tokens=rows.tokens, batch=batch, context=context)
        names = {
            **intermediate_shapes(parts, shard.layer_shape, rows.tokens),
            "out": self.hidden_in.shape,
            "total": self.hidden_in.shape,
        }
        flow = {name: self._allocate(*shape) for name, shape in names.items()} | self._rotary_angles()
        if rows.decode:
            flow["lengths"] = torch.full((batch,), context, dtype=torch.int32, device=shard.device)
        given = {"x": self.hidden_in, "residual": torch.zeros_like(self.hidden_in)}
        for weights, cache in zip(stage.layers, self._caches(), strict=True):
            self.layer_tensors.append({**flow, **given, **weights, **cache})
            given = {"x": flow["out"], "residual": flow["total"]}
        self.layers = [list(self._layer_segments(parts, tensors)) for tensors in self.layer_tensors]
        return flow

    def _layer_segments(self, parts: PartKernels, tensors: Tensors) -> Iterator[Segment]:
        prompts = 1 if self.rows.decode else self.rows.sequences
        for name, call in steps(parts, prompts, **tensors):
            yield ITEM_BY_PART.get(name, "linears"), call
            if self._group is not None and name in REDUCED_TENSORS:
                message = tensors[REDUCED_TENSORS[name]]
                yield "all-reduce", partial(self._group.all_reduce, message, message)

    def _caches(self) -> list[Tensors]:
        """Each layer's cache of these sequences; a prompt's cache is written, not read."""
        rows, shard = self.rows, self.shard
        if rows.decode:
            end = rows.first + rows.sequences
            caches = self.stage.caches(end, rows.context)
            return [{name: one[rows.first : end] for name, one in cache.items()} for cache in caches]
        shape = rows.tokens, shard.split.kv_heads_per_rank, shard.split.model.head_dim
        return [{name: self._allocate(*shape) for name in ("key", "value")} for _ in self.stage.layers]

    def _rotary_angles(self) -> Tensors:
        """Cos and sin[tokens, head_dim / 2] of the tokens' positions."""
        rows, dim = self.rows, self.shard.split.model.head_dim
        places = torch.arange(rows.length) if not rows.decode else torch.tensor([rows.context - 1])
        angles = places.repeat(rows.sequences)[:, None] * ROPE_THETA ** (-torch.arange(0, dim, 2).double() / dim)
        device = self.shard.device
        return {name: of(angles).float().to(device) for name, of in (("cos", torch.cos), ("sin", torch.sin))}

    def _bind_output(self, flow: Tensors, logits: torch.Tensor) -> None:
        """Bind the norm, the LM head on each sequence's last row, and the sampling."""
        stage, rows = self.stage, self.rows
        norm = ELEMENTWISE_KERNELS[stage.implementation]["norm"].run
        given = {"x": flow["out"], "residual": flow["total"], "weight": stage.gain}
        self.output_segments.append(("norms", partial(norm, **given, out=flow["normed"], total=flow["middle"])))
        normed = flow["normed"]
        if not rows.decode:
            ends = torch.arange(rows.length - 1, rows.tokens, rows.length, device=normed.device)
            normed = self._allocate(rows.sequences, normed.shape[1])
            self.output_segments.append(("norms", partial(torch.index_select, flow["normed"], 0, ends, out=normed)))
        head = select_linear(stage.implementation, rows.sequences).run
        self.output_segments.append(("linears", partial(head, x=normed, weight=stage.head, out=logits)))
        self._bind_sampling(logits)

    def _bind_sampling(self, logits: torch.Tensor) -> None:
        """Bind greedy sampling.

        Under tensor parallelism ranks exchange two numbers per sequence: best logit and id.
        """
        if self._group is None:
            largest = torch.empty_like(logits[:, 0])  # argmax alone is several times slower on a CPU
            self.output_segments.append(("linears", partial(torch.max, logits, 1, out=(largest, self.sampled_ids))))
            return
        width = self.shard.split.tp
        best = torch.empty(2, self.rows.sequences, device=logits.device)  # fp32 represents every id below 2^24
        every = torch.empty(width * 2 * self.rows.sequences, device=logits.device)
        self.output_segments += [
            ("linears", partial(_local_argmax, logits, self.shard.vocab_slice.start, best)),
            ("all-reduce", partial(self._group.all_gather, best.view(-1), every)),
            ("linears", partial(_global_argmax, every.view(width, 2, -1), self.sampled_ids)),
        ]


def _local_argmax(logits: torch.Tensor, first: int, out: torch.Tensor) -> None:
    largest, place = logits.max(dim=1)
    out[0], out[1] = largest, place + first


def _global_argmax(every: torch.Tensor, sampled: torch.Tensor) -> None:
    winner = every[:, 0].argmax(dim=0, keepdim=True)
    sampled.copy_(every[:, 1].gather(0, winner)[0])

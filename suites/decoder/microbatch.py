"""A micro-batch on one stage: the calls of its forward pass in their order, bound to their tensors once for all steps.

The residual stream enters as one tensor and leaves as one: of what a layer hands on, out and total, the sum is what a
stage sends. Every call is named by the item of the step's ledger that its time belongs to.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch

from comm.backend import Communicator
from kernels.decoder_layer import ELEMENTWISE, Parts, layer_parts, room, steps
from kernels.kernel import DTYPES
from kernels.registry import linear
from suites.decoder import model
from suites.decoder.model import Shard, Stage, Tensors

Segment = tuple[str, Callable[[], object]]
ITEM = {"attention": "attention", **dict.fromkeys(("norm", "rotary", "swiglu"), "norms")}
"""Of a part's name; all others are linears."""
REDUCED = {"o": "projected", "down": "out"}
"""What a rank has a part of the sum of behind a row-parallel linear."""
THETA = 500_000.0
"""Base of the angles, as in Llama 3."""


class Rows(NamedTuple):
    """Whose rows a micro-batch holds: sequences `first` … of its replica, `length` rows each; of 1 it is decode."""

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
        """Whether each sequence adds one token to what its cache holds."""
        return self.length == 1


class Slot:
    """One micro-batch on this rank.

    Args:
        stage: of this rank.
        rows: the micro-batch.
        group: the ranks that share its layers; None where it has them whole.

    Attributes:
        ids: tokens that enter, where this is the first stage.
        entering, leaving: the residual stream[tokens, hidden] from the stage before and to the next.
        logits, sampled: where this is the last stage, logits of this rank's part of the vocabulary for each sequence,
            and the tokens that come out.
        kept: of each step of a proof its logits and the tokens that it sampled.
        given: of each layer the tensors that its calls are bound to.
        opening, layers, ending: a forward pass: the look-up, each layer, and the head, or what the next stage is sent.
    """

    def __init__(self, stage: Stage, rows: Rows, group: Communicator | None) -> None:
        self.stage, self.rows, self._group = stage, rows, group
        shard = stage.shard
        self.ids = self._tokens()
        self.sampled = self.ids if rows.decode and stage.first else torch.empty_like(self.ids[: rows.sequences])
        self.returned = torch.empty_like(self.sampled)
        self.entering, self.leaving = self._room(rows.tokens, hidden := shard.split.model.hidden), None
        self.logits: torch.Tensor | None = None
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._proves = False
        self.opening: list[Segment] = []
        self.ending: list[Segment] = []
        if stage.embedding is not None:
            look_up = partial(torch.index_select, stage.embedding, 0, self.ids, out=self.entering)
            self.opening.append(("norms", look_up))
        self.given: list[Tensors] = []
        flow = self._layers()
        if stage.last:
            self.logits = self._room(rows.sequences, shard.vocabulary.stop - shard.vocabulary.start)
            self._ending(flow, self.logits)
        else:
            self.leaving = self._room(rows.tokens, hidden)
            self.ending.append(("norms", partial(torch.add, flow["out"], flow["total"], out=self.leaving)))
        self.segments = [*self.opening, *chain.from_iterable(self.layers), *self.ending]

    @property
    def shard(self) -> Shard:
        """Of every layer."""
        return self.stage.shard

    @property
    def dtype(self) -> str:
        """Of what it computes with."""
        return self.shard.dtype

    @property
    def implementation(self) -> str:
        """Of the kernels."""
        return self.stage.implementation

    @property
    def vocabulary(self) -> slice:
        """What part of it this rank has logits of."""
        return self.shard.vocabulary

    def begin_proof(self) -> None:
        """Begin anew with the first tokens; what is not written from now on shows."""
        self._proves, self.kept = True, []
        for tensor in (self.entering, self.leaving, self.logits):
            if tensor is not None:
                tensor.fill_(float("nan"))
        self.ids.copy_(self._tokens())

    def end_proof(self) -> None:
        """Go on with the tokens that are sampled; what was kept stays until the next proof."""
        self._proves = False

    def end_step(self) -> None:
        """In a proof keep what came out, poison what was used, and go on with tokens that are known."""
        if not self._proves:
            return
        self.entering.fill_(float("nan"))
        if self.logits is not None:
            self.kept.append((self.logits.clone(), self.sampled.clone()))
            self.logits.fill_(float("nan"))
            if self.rows.decode:
                self.sampled.copy_(self._tokens(len(self.kept)))

    def _tokens(self, turn: int = 0) -> torch.Tensor:
        rows = self.rows
        every = model.tokens(rows.first + rows.sequences, rows.length, self.shard.split.model.vocab, turn)
        return every[rows.first :].flatten().to(self.shard.device)

    def _room(self, *shape: int) -> torch.Tensor:
        shard = self.shard
        return torch.full(shape, float("nan"), dtype=DTYPES[shard.dtype], device=shard.device)

    def _layers(self) -> Tensors:
        """Bind every layer; gives what the last one hands on."""
        stage, rows, shard = self.stage, self.rows, self.shard
        batch, context = (rows.tokens, rows.context) if rows.decode else (1, rows.length)
        parts = layer_parts(stage.implementation, shard.widths, tokens=rows.tokens, batch=batch, context=context)
        names = {**room(parts, shard.widths, rows.tokens), "out": self.entering.shape, "total": self.entering.shape}
        flow = {name: self._room(*shape) for name, shape in names.items()} | self._angles()
        if rows.decode:
            flow["lengths"] = torch.full((batch,), context, dtype=torch.int32, device=shard.device)
        given = {"x": self.entering, "residual": torch.zeros_like(self.entering)}
        for weights, cache in zip(stage.layers, self._caches(), strict=True):
            self.given.append({**flow, **given, **weights, **cache})
            given = {"x": flow["out"], "residual": flow["total"]}
        self.layers = [list(self._layer(parts, tensors)) for tensors in self.given]
        return flow

    def _layer(self, parts: Parts, tensors: Tensors) -> Iterator[Segment]:
        prompts = 1 if self.rows.decode else self.rows.sequences
        for name, call in steps(parts, prompts, **tensors):
            yield ITEM.get(name, "linears"), call
            if self._group is not None and name in REDUCED:
                message = tensors[REDUCED[name]]
                yield "all-reduce", partial(self._group.all_reduce, message, message)

    def _caches(self) -> list[Tensors]:
        """Of each layer the part for these sequences; a prompt's is written, not read."""
        rows, shard = self.rows, self.shard
        if rows.decode:
            end = rows.first + rows.sequences
            caches = self.stage.caches(end, rows.context)
            return [{name: one[rows.first : end] for name, one in cache.items()} for cache in caches]
        shape = rows.tokens, shard.split.kv_heads_per_rank, shard.split.model.head_dim
        return [{name: self._room(*shape) for name in ("key", "value")} for _ in self.stage.layers]

    def _angles(self) -> Tensors:
        """Of where the tokens stand, cos and sin[tokens, head_dim / 2]."""
        rows, dim = self.rows, self.shard.split.model.head_dim
        places = torch.arange(rows.length) if not rows.decode else torch.tensor([rows.context - 1])
        angles = places.repeat(rows.sequences)[:, None] * THETA ** (-torch.arange(0, dim, 2).double() / dim)
        device = self.shard.device
        return {name: of(angles).float().to(device) for name, of in (("cos", torch.cos), ("sin", torch.sin))}

    def _ending(self, flow: Tensors, logits: torch.Tensor) -> None:
        """Norm, LM head over the last row of each sequence, and the largest logit."""
        stage, rows = self.stage, self.rows
        norm = ELEMENTWISE[stage.implementation]["norm"].run
        given = {"x": flow["out"], "residual": flow["total"], "weight": stage.gain}
        self.ending.append(("norms", partial(norm, **given, out=flow["normed"], total=flow["middle"])))
        normed = flow["normed"]
        if not rows.decode:
            ends = torch.arange(rows.length - 1, rows.tokens, rows.length, device=normed.device)
            normed = self._room(rows.sequences, normed.shape[1])
            self.ending.append(("norms", partial(torch.index_select, flow["normed"], 0, ends, out=normed)))
        head = linear(stage.implementation, rows.sequences).run
        self.ending.append(("linears", partial(head, x=normed, weight=stage.head, out=logits)))
        self._sampling(logits)

    def _sampling(self, logits: torch.Tensor) -> None:
        """Greedy. Under tensor parallelism the best of each rank's best: two numbers a sequence are sent."""
        if self._group is None:
            largest = torch.empty_like(logits[:, 0])  # argmax alone is several times slower on a CPU
            self.ending.append(("linears", partial(torch.max, logits, 1, out=(largest, self.sampled))))
            return
        width = self.shard.split.tp
        best = torch.empty(2, self.rows.sequences, device=logits.device)  # fp32 has every id below 2^24
        every = torch.empty(width * 2 * self.rows.sequences, device=logits.device)
        self.ending += [
            ("linears", partial(_best, logits, self.shard.vocabulary.start, best)),
            ("all-reduce", partial(self._group.all_gather, best.view(-1), every)),
            ("linears", partial(_choose, every.view(width, 2, -1), self.sampled)),
        ]


def _best(logits: torch.Tensor, first: int, out: torch.Tensor) -> None:
    largest, place = logits.max(dim=1)
    out[0], out[1] = largest, place + first


def _choose(every: torch.Tensor, sampled: torch.Tensor) -> None:
    winner = every[:, 0].argmax(dim=0, keepdim=True)
    sampled.copy_(every[:, 1].gather(0, winner)[0])

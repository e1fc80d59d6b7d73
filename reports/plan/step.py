"""Estimated step of a whole model under a deployment: time, breakdown, memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reports import pipeline_model
from reports.pipeline_model import StageTable
from reports.plan import estimate
from reports.plan.cost import CommCosts, ComputeCosts
from reports.plan.estimate import (
    ABSENT_COST,
    COST_FIELDS,
    MODELLED,
    UNKNOWN_COST,
    Cost,
    CostField,
    Floats,
    MissingMeasurementError,
    Origin,
    Seconds,
    Sizes,
    choose_costs,
    exact_cost,
    stack_costs,
    sum_costs,
)
from reports.plan.profile import HardwareProfile
from reports.plan.query import Interconnect, PlanQuery
from reports.plan.serving_constants import NO_CONSTANTS, constants_by_group, find_constants
from specs import memory
from specs.errors import UserError
from specs.layer import LAYER_LINEARS
from specs.parallel import Deployment, RankPosition, Split

# Part costs: layers and the LM head on a rank, for one implementation.
#
# The best source is a rank's share of a layer, measured beside the other ranks. Next is a layer measured as a whole,
# then the sum of its linears, attention and elementwise kernels.

CostByPart = Mapping[str, Cost]
"""Costs of a layer, or of the LM head, by part."""
ALL_REDUCE, LATE_RANKS = "all-reduce", "late ranks"
PROMPT_ATTENTION = "attention of prompts"
SAMPLED_LOGIT_BYTES = 8
"""Bytes of a rank's best logit in fp32 and its index, gathered for each row."""


class PromptChunk(NamedTuple):
    """Prompt tokens in a microbatch: `tokens` of a prompt of `prompt` tokens."""

    tokens: float = 0.0
    prompt: float = 0.0


@dataclass(frozen=True)
class Variant:
    """Implementation, whether elementwise kernels count, and whether the step is one of a serving engine.

    An engine may have fused elementwise kernels into their neighbours. Its step also holds the host's time and the wait
    for late ranks, which no kernel's time holds.
    """

    implementation: str
    elementwise: bool = True
    in_engine: bool = False


class PartCosts:
    """Part costs of one variant.

    All methods take one size or an array of sizes. A cost is NaN at sizes that were not measured, and an error is
    raised where that holds for all sizes.

    Args:
        profile: hardware and its measurements.
        query: model, context, and tokens of each sequence in a step.
        variant: implementation, and whether elementwise kernels count.
        other: parts of the same profile, query and implementation, whose costs serve here too.
    """

    def __init__(
        self, profile: HardwareProfile, query: PlanQuery, variant: Variant, other: "PartCosts | None" = None
    ) -> None:
        self.query, self.variant = query, variant
        self.profile = profile
        self._compute_costs: ComputeCosts = (
            other._compute_costs if other else ComputeCosts(profile, query, variant.implementation)
        )
        self.comm_costs: CommCosts = other.comm_costs if other else CommCosts(profile, query, variant.implementation)
        self.residual_itemsize = profile.residual_itemsize
        who = variant.implementation, profile.name, profile.dtype, query.model
        self.fitted = find_constants(*who) if variant.in_engine else None
        self._constants = self.fitted.constants if self.fitted else NO_CONSTANTS
        self._splits: dict[int, Split] = {}

    @cached_property
    def in_engine(self) -> "PartCosts | None":
        """The same parts in the engine that they are of; None where no served run of it was fitted.

        None also for steps that take prompts along: their constants are those of a served load.
        """
        if self.query.prefill_chunk:
            return None
        if self.variant.implementation not in {engine for engine, *_ in constants_by_group()}:
            return None
        return self.as_variant(replace(self.variant, in_engine=True))

    def as_variant(self, variant: Variant) -> "PartCosts":
        """The same parts in another variant of the implementation."""
        return PartCosts(self.profile, self.query, variant, self)

    def host(self, sequences: Sizes) -> Cost:
        """Cost of a microbatch on the host of a serving engine, which its step waits for."""
        return exact_cost(self._constants.host_seconds(sequences), MODELLED)

    def layer_parts(self, tp: int, sequences: Sizes, chunk: PromptChunk, busy: int) -> CostByPart:
        """Costs of one layer on a rank in decode, by part.

        Args:
            tp: ranks that share the layer.
            sequences: sequences of the microbatch.
            chunk: prompt tokens of the microbatch.
            busy: ranks that compute at the same time.

        Raises:
            MissingMeasurementError: no file holds a needed part.
        """
        split, rows = self._split(tp), sequences * self.query.rows_per_sequence + chunk.tokens
        alone = self.query.rows_per_sequence == 1 and not chunk.tokens
        waited = self._holds_wait(tp, rows * split.model.hidden * self.residual_itemsize)
        whole = self._compute_costs.layer(split, sequences, busy, waited) if alone else UNKNOWN_COST
        if not whole.unknown.any():
            found = {"layer": whole}
        elif whole.unknown.all():
            found = self._composed_layer(split, sequences, chunk)
        else:
            found = self._partly_composed_layer(whole, split, sequences, chunk)
        return self._with_all_reduces(found, split, rows)

    def _composed_layer(self, split: Split, sequences: Sizes, chunk: PromptChunk) -> dict[str, Cost]:
        """Costs of a layer whose parts were measured one by one."""
        rows = sequences * self.query.rows_per_sequence + chunk.tokens
        found = {
            "linears": self._compute_costs.linears(split, rows).scaled(self._constants.linear_factor),
            "attention": self._compute_costs.attention(split, sequences),
        }
        if chunk.tokens:
            whole = self._compute_costs.prompt_attention(split, chunk.prompt)
            found[PROMPT_ATTENTION] = whole.scaled(chunk.tokens / chunk.prompt)
        self._add_elementwise(found, split, rows)
        return found

    def _partly_composed_layer(
        self, whole: Cost, split: Split, sequences: Sizes, chunk: PromptChunk
    ) -> dict[str, Cost]:
        """Costs of a layer that was measured as a whole at some sizes only."""
        try:
            parts = self._composed_layer(split, sequences, chunk)
        except MissingMeasurementError:
            return {"layer": whole}
        absent = {name: choose_costs(whole.unknown, one, ABSENT_COST) for name, one in parts.items()}
        return {"layer": choose_costs(whole.unknown, ABSENT_COST, whole), **absent}

    def prompt_parts(self, tp: int, tokens: Sizes, prompt: Sizes | None = None) -> CostByPart:
        """Costs of one layer on a rank in a step of prefill alone, by part.

        Args:
            tp: ranks that share the layer.
            tokens: prompt tokens of the step.
            prompt: tokens of each prompt; else the step holds one whole prompt.

        Raises:
            MissingMeasurementError: no file holds a needed part.
        """
        split, prompt = self._split(tp), tokens if prompt is None else prompt
        found = {
            "linears": self._compute_costs.linears(split, tokens),
            "attention": self._compute_costs.prompt_attention(split, prompt).scaled(tokens / prompt),
        }
        self._add_elementwise(found, split, tokens)
        return self._with_all_reduces(found, split, tokens)

    def head_parts(self, tp: int, sequences: Sizes, busy: int) -> CostByPart:
        """Costs of the LM head on a rank of the last stage, by part.

        The gather of each rank's best logit is included.

        Raises:
            MissingMeasurementError: no file holds a needed part.
        """
        split, rows = self._split(tp), sequences * self.query.rows_per_sequence
        message = SAMPLED_LOGIT_BYTES * rows * tp
        waited = bool(np.all(self._holds_wait(tp, message)))
        found = {"lm_head": self._compute_costs.head(split, rows, busy, mean_rank=waited)}
        if tp > 1:
            found[ALL_REDUCE] = self.comm_costs.all_reduce(tp, message)
        return found

    def _holds_wait(self, tp: int, message_bytes: Sizes) -> Any:
        """True at sizes where the all-reduce holds the wait for the latest rank, so that shares must not."""
        return ~self.comm_costs.in_step(tp, message_bytes).unknown if tp > 1 else np.False_

    def halved_linears(self, tp: int) -> list[str]:
        """Linears of a layer that are served by two calls of half the width."""
        found = {name: self._compute_costs.linear_curve(self._split(tp), name) for name in LAYER_LINEARS}
        return [name for name, (curve, calls) in found.items() if curve and calls > 1]

    def _split(self, tp: int) -> Split:
        """Split with one stage of all layers."""
        if tp not in self._splits:
            try:
                self._splits[tp] = Split(self.query.truncated_model, tp)
            except UserError as error:
                raise MissingMeasurementError(str(error)) from error
        return self._splits[tp]

    def _add_elementwise(self, found: dict[str, Cost], split: Split, rows: Sizes) -> None:
        """Add norms, rotary embedding and SwiGLU: bytes at memory bandwidth, fixed costs.

        Their range comes from another variant, which omits these kernels.
        """
        rate = self.profile.read_bytes_per_second
        if not self.variant.elementwise:
            return
        if not rate:
            raise MissingMeasurementError(f"no memory bandwidth of {self.profile.name}: run suites/bench_ceilings.py")
        moved = memory.elementwise_bytes(split, 1, self.residual_itemsize) * rows / rate
        kernels = estimate.KERNELS_PER_LAYER + (estimate.QK_NORM_KERNELS if split.model.qk_norm else 0)
        found["elementwise"] = exact_cost(moved + kernels * estimate.KERNEL_SECONDS.value, "assumed")

    def _with_all_reduces(self, found: dict[str, Cost], split: Split, rows: Sizes) -> CostByPart:
        """Add the two all-reduces that follow o and down."""
        if split.tp > 1:
            message = np.rint(rows * split.model.hidden * self.residual_itemsize)
            found[ALL_REDUCE] = self.comm_costs.all_reduce(split.tp, message).scaled(2)
            if self.variant.in_engine:
                late = exact_cost(self._constants.late_seconds(split.tp), MODELLED)
                found[LATE_RANKS] = choose_costs(self._holds_wait(split.tp, message), ABSENT_COST, late)
        return found


TOKEN_ID_BYTES = 8
"""Bytes of a sampled token on its way back to the first stage."""
Batches = NDArray[np.int64]


class MicroBatches(NamedTuple):
    """Microbatches of one size in a step, at each batch of an array.

    Attributes:
        sizes: sequences of each microbatch.
        counts: number of microbatches of this size.
        layer, head: costs of a layer and of the LM head, by part.
        stages: compute of each stage for a microbatch, all-reduces included; a row for each stage.
        hops: messages from each stage to the next and from the last stage back, a row for each; none with one stage.
    """

    sizes: Batches
    counts: Batches
    layer: CostByPart
    head: CostByPart
    stages: Cost
    hops: Cost


@dataclass(frozen=True)
class StepEstimates:
    """Estimated times of a step at several batches.

    Every array has an element for each batch; it is NaN where a part was not measured.

    Attributes:
        seconds: time of a step; in the closed loop of decode also the latency of each token.
        low, high: bounds from the uncertainty of the parts.
        kinds: microbatches, the larger ones first; one element where all microbatches of a batch are equal.
        layers: layers of the model.
    """

    seconds: Floats
    low: Floats
    high: Floats
    kinds: Sequence[MicroBatches]
    layers: int

    @property
    def known(self) -> NDArray[np.bool_]:
        """True at batches for which all parts were measured."""
        return ~np.isnan(self.seconds)

    def at(self, place: int) -> "StepEstimate":
        """Estimate at one batch, by its place in the arrays."""
        return StepEstimate(float(self.seconds[place]), float(self.low[place]), float(self.high[place]), self, place)

    @cached_property
    def shares(self) -> "StepShares":
        """Shares of a step in its parts."""
        return _step_shares(self)


@dataclass(frozen=True)
class StepEstimate:
    """Estimated time of a step at one batch.

    Attributes:
        seconds, low, high: as in `StepEstimates`.
        among: estimates that it is one of.
        place: place in them.
    """

    seconds: float
    low: float
    high: float
    among: StepEstimates
    place: int

    def tables(self, pick: CostField, hop_pick: CostField) -> tuple[StageTable, StageTable]:
        """Seconds[stage][microbatch] of stages and of hops, as the event model takes them."""
        return _stage_tables(self.among.kinds, self.place, pick, hop_pick)


def estimate_step(parts: PartCosts, deployment: Deployment, split: Split, batch: int) -> StepEstimate:
    """Estimate the step at one batch.

    Raises:
        MissingMeasurementError: a part was not measured.
    """
    return estimate_steps(parts, deployment, split, [batch]).at(0)


def estimate_steps(parts: PartCosts, deployment: Deployment, split: Split, batches: Sequence[int]) -> StepEstimates:
    """Estimate the step at each batch; each microbatch reads the weights anew.

    Raises:
        MissingMeasurementError: a part was not measured for any of the batches.
    """
    kinds = [
        _micro_batches(parts, deployment, split, sizes, counts)
        for sizes, counts in _micro_batch_sizes(deployment, np.asarray(batches))
    ]
    seconds, low, high = (_loop_seconds(kinds, pick) for pick in COST_FIELDS)
    half = _half_width(kinds)
    return StepEstimates(seconds, np.maximum(0.0, low - half), high + half, kinds, split.model.layers)


def _micro_batch_sizes(deployment: Deployment, batches: Batches) -> Iterator[tuple[Batches, Batches]]:
    """Yield sizes and counts of the larger microbatches, then of the smaller ones if there are any.

    The microbatches are those of `Deployment.micro_batch_sizes`.
    """
    count = deployment.micro_batches
    base, extra = np.divmod(batches // deployment.replicas, count)
    uneven = extra > 0
    yield base + uneven, np.where(uneven, extra, count)
    if np.any(uneven):
        yield base, np.where(uneven, count - extra, 0)


def _micro_batches(
    parts: PartCosts, deployment: Deployment, split: Split, sizes: Batches, counts: Batches
) -> MicroBatches:
    chunk = chunk_per_micro_batch(parts.query.prefill_chunk, deployment)
    layer = parts.layer_parts(deployment.tp, sizes, chunk, deployment.busy_ranks)
    head = parts.head_parts(deployment.tp, sizes, deployment.busy_ranks)
    stages = _stage_costs(split.stage_layers(), sum_costs(layer.values()), sum_costs(head.values()))
    if parts.variant.in_engine:  # once a microbatch, on the first stage
        first = np.arange(deployment.pp)[:, np.newaxis] == 0
        stages = sum_costs([stages, parts.host(sizes).scaled(first)])
    hops = _hop_costs(parts, deployment, sizes, chunk) if deployment.pp > 1 else []
    return MicroBatches(sizes, counts, layer, head, stages, stack_costs(hops, sizes))


def chunk_per_micro_batch(tokens: int, deployment: Deployment) -> PromptChunk:
    """Prompt tokens of a microbatch: an equal part of its replica's equal part."""
    prompt = tokens / deployment.replicas
    return PromptChunk(prompt / deployment.micro_batches, prompt)


def _stage_costs(layers: Sequence[int], layer: Cost, head: Cost) -> Cost:
    """Cost of each stage, a row for each; the last one has the head."""
    counts = np.array([(count, place == len(layers) - 1) for place, count in enumerate(layers)])
    return sum_costs([layer.scaled(counts[:, :1]), head.scaled(counts[:, 1:])])


def _hop_costs(parts: PartCosts, deployment: Deployment, sizes: Batches, chunk: PromptChunk) -> list[Cost]:
    rows = sizes * parts.query.rows_per_sequence
    message = np.rint((rows + chunk.tokens) * parts.query.truncated_model.hidden * parts.residual_itemsize)
    stages, hop = range(deployment.pp), parts.comm_costs.hop
    across = [_crosses_nodes(parts.query.interconnect, deployment, one, (one + 1) % deployment.pp) for one in stages]
    on = {far: hop(message, across=far) for far in set(across[:-1])}
    return [*(on[far] for far in across[:-1]), hop(TOKEN_ID_BYTES * rows, across=across[-1])]


def _crosses_nodes(interconnect: Interconnect, deployment: Deployment, stage: int, to: int) -> bool:
    """Return whether a message between two stages leaves its host in any replica."""
    if interconnect.nodes == 1:
        return False
    seats = [(RankPosition(copy, stage, 0), RankPosition(copy, to, 0)) for copy in range(deployment.replicas)]
    return any(interconnect.host_of(deployment.rank(a)) != interconnect.host_of(deployment.rank(b)) for a, b in seats)


def _loop_seconds(kinds: Sequence[MicroBatches], pick: CostField) -> Floats:
    """Seconds of a step in the closed loop.

    The step takes the longer of the slowest stage's work and a microbatch's round trip. Where microbatches differ, the
    event model gives it.
    """
    stages, hops = pick(kinds[0].stages), pick(kinds[0].hops)
    seconds: Floats = np.maximum(kinds[0].counts * stages.max(axis=0), stages.sum(axis=0) + hops.sum(axis=0))
    for smaller in kinds[1:]:
        for place in np.flatnonzero((smaller.counts > 0) & ~np.isnan(seconds)):
            seconds[place] = pipeline_model.decode_step_seconds(*_stage_tables(kinds, int(place), pick, pick))
    return seconds


def _stage_tables(
    kinds: Sequence[MicroBatches], place: int, pick: CostField, hop_pick: CostField
) -> tuple[StageTable, StageTable]:
    columns = [(kind, kind.counts[place]) for kind in kinds]
    busy = np.column_stack([pick(kind.stages)[:, [place] * count] for kind, count in columns])
    hop = np.column_stack([hop_pick(kind.hops)[:, [place] * count] for kind, count in columns])
    return busy.tolist(), hop.tolist()


def _half_width(kinds: Sequence[MicroBatches]) -> Floats:
    """Half-width of the step's interval in seconds.

    Costs of stages come from the same few measurements, so their errors are alike and add up.
    """
    stages, hops, count = kinds[0].stages, kinds[0].hops, sum(one.counts for one in kinds)
    slowest = stages.seconds.argmax(axis=0)
    half = count * stages.half_width[slowest, np.arange(slowest.size)]
    round_trip = stages.seconds.sum(axis=0) + hops.seconds.sum(axis=0)
    found: Floats = np.where(
        count * stages.seconds.max(axis=0) >= round_trip,
        half,
        stages.half_width.sum(axis=0) + hops.half_width.sum(axis=0),
    )
    return found


# Breakdown of a step: all-reduces, hops, the bubble, and the provenance of each part.


@dataclass(frozen=True)
class StepBreakdown:
    """Shares of a step, each the mean over stages, and provenance by part.

    Attributes:
        all_reduce_share: share in all-reduces.
        hop_share: share waiting for messages in flight, where the loop depends on them.
        bubble_share: share waiting for other stages.
        provenance: weakest provenance of each part.
        cases: case names of each part.
    """

    all_reduce_share: float
    hop_share: float
    bubble_share: float
    provenance: Mapping[str, str]
    cases: Mapping[str, Sequence[str]]

    @property
    def communication_share(self) -> float:
        """Share of all-reduces and hops together."""
        return self.all_reduce_share + self.hop_share


class StepShares(NamedTuple):
    """Shares of a step at each batch, as in `StepBreakdown`."""

    all_reduce: Floats
    hop: Floats
    bubble: Floats


def break_down(step: StepEstimate) -> StepBreakdown:
    """Break an estimated step down into shares and provenance."""
    used: dict[str, list[Origin]] = {}
    for kind in step.among.kinds:
        hop = [("hop", kind.hops)] if kind.hops.seconds.size else []
        for name, cost in (*kind.layer.items(), *kind.head.items(), *hop) if kind.counts[step.place] else ():
            if origin := cost.origin_at(step.place):
                used.setdefault(name, []).append(origin)
    found = {name: Origin.merge(origins) for name, origins in used.items()}
    all_reduce, waiting, bubble = (float(one[step.place]) for one in step.among.shares)
    return StepBreakdown(
        all_reduce_share=all_reduce,
        hop_share=waiting,
        bubble_share=bubble,
        provenance={name: one.provenance for name, one in found.items()},
        cases={name: sorted(one.cases) for name, one in found.items()},
    )


def _step_shares(steps: StepEstimates) -> StepShares:
    """Shares of each step, the mean over its stages."""
    stages = len(steps.kinds[0].stages.seconds)
    reducing, working = 0.0, 0.0
    for kind in steps.kinds:
        reducing += kind.counts * all_reduce_seconds(kind, steps.layers, COST_FIELDS[0]) / stages
        working += kind.counts * kind.stages.seconds.sum(axis=0) / stages
    idle = np.maximum(0.0, 1 - working / steps.seconds)
    hop = np.minimum(idle, _exposed_hop_seconds(steps.kinds) / steps.seconds)
    return StepShares(reducing / steps.seconds, hop, idle - hop)


def all_reduce_seconds(kind: MicroBatches, layers: int, pick: CostField) -> Seconds:
    """Seconds of a microbatch in all-reduces, over all layers and the LM head."""
    layer, head = (pick(parts.get(ALL_REDUCE, ABSENT_COST)) for parts in (kind.layer, kind.head))
    return layers * layer + head


def _exposed_hop_seconds(kinds: Sequence[MicroBatches]) -> Seconds:
    """Seconds that the loop waits for messages; 0 where a stage sets the pace."""
    stages, count = kinds[0].stages.seconds, sum(one.counts for one in kinds)
    way = kinds[0].hops.seconds.sum(axis=0)
    return np.minimum(way, np.maximum(0.0, stages.sum(axis=0) + way - count * stages.max(axis=0)))

"""Estimated step of a whole model under a deployment: time, breakdown, memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import ceil
from statistics import fmean
from typing import NamedTuple

from reports import pipeline_model
from reports.plan import estimate
from reports.plan.cost import CommCosts, ComputeCosts
from reports.plan.estimate import (
    COST_FIELDS,
    MODELLED,
    Cost,
    CostField,
    MissingMeasurementError,
    exact_cost,
    sum_costs,
)
from reports.plan.profile import HardwareProfile
from reports.plan.query import Interconnect, PlanQuery
from reports.plan.serving_constants import NO_CONSTANTS, constants_by_group, find_constants
from specs import memory
from specs.errors import UserError
from specs.layer import LAYER_LINEARS
from specs.measurement import weakest_provenance
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

    Args:
        profile: hardware and its measurements.
        query: model, context, and tokens of each sequence in a step.
        variant: implementation, and whether elementwise kernels count.
    """

    def __init__(self, profile: HardwareProfile, query: PlanQuery, variant: Variant) -> None:
        self.query, self.variant = query, variant
        self.profile = profile
        self._compute_costs = ComputeCosts(profile, query, variant.implementation)
        self.comm_costs = CommCosts(profile, query, variant.implementation)
        self.residual_itemsize = profile.residual_itemsize
        who = variant.implementation, profile.name, profile.dtype, query.model
        self.fitted = find_constants(*who) if variant.in_engine else None
        self._constants = self.fitted.constants if self.fitted else NO_CONSTANTS
        self._splits: dict[int, Split] = {}
        self._layers: dict[tuple[int, int, PromptChunk, int], Cost] = {}
        self._heads: dict[tuple[int, int, int], Cost] = {}

    def layer(self, tp: int, sequences: int, chunk: PromptChunk, busy: int) -> Cost:
        """Cost of one layer: the sum of `layer_parts`."""
        key = tp, sequences, chunk, busy
        if key not in self._layers:
            self._layers[key] = sum_costs(self.layer_parts(*key).values())
        return self._layers[key]

    def head(self, tp: int, sequences: int, busy: int) -> Cost:
        """Cost of the LM head: the sum of `head_parts`."""
        key = tp, sequences, busy
        if key not in self._heads:
            self._heads[key] = sum_costs(self.head_parts(*key).values())
        return self._heads[key]

    @cached_property
    def in_engine(self) -> "PartCosts | None":
        """The same parts in the engine that they are of; None where no served run of it was fitted."""
        if self.variant.implementation not in {engine for engine, *_ in constants_by_group()}:
            return None
        return PartCosts(self.profile, self.query, replace(self.variant, in_engine=True))

    def host(self, sequences: int) -> Cost:
        """Cost of a microbatch on the host of a serving engine, which its step waits for."""
        return exact_cost(self._constants.host_seconds(sequences), MODELLED)

    def layer_parts(self, tp: int, sequences: int, chunk: PromptChunk, busy: int) -> CostByPart:
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
        found: dict[str, Cost] = {}
        if rows == sequences and (whole := self._compute_costs.layer(split, sequences, busy)):
            found["layer"] = whole
        else:
            found["linears"] = self._compute_costs.linears(split, rows).scaled(self._constants.linear_factor)
            found["attention"] = self._compute_costs.attention(split, sequences)
            if chunk.tokens:
                whole = self._compute_costs.prompt_attention(split, chunk.prompt)
                found[PROMPT_ATTENTION] = whole.scaled(chunk.tokens / chunk.prompt)
            self._add_elementwise(found, split, rows)
        return self._with_all_reduces(found, split, rows)

    def prompt_parts(self, tp: int, tokens: float, prompt: float | None = None) -> CostByPart:
        """Costs of one layer on a rank in a step of prefill alone, by part.

        Args:
            tp: ranks that share the layer.
            tokens: prompt tokens of the step.
            prompt: tokens of each prompt; else the step holds one whole prompt.

        Raises:
            MissingMeasurementError: no file holds a needed part.
        """
        split, prompt = self._split(tp), prompt or tokens
        found = {
            "linears": self._compute_costs.linears(split, tokens),
            "attention": self._compute_costs.prompt_attention(split, prompt).scaled(tokens / prompt),
        }
        self._add_elementwise(found, split, tokens)
        return self._with_all_reduces(found, split, tokens)

    def head_parts(self, tp: int, sequences: int, busy: int) -> CostByPart:
        """Costs of the LM head on a rank of the last stage, by part.

        The gather of each rank's best logit is included.

        Raises:
            MissingMeasurementError: no file holds a needed part.
        """
        split, rows = self._split(tp), sequences * self.query.rows_per_sequence
        found = {"lm_head": self._compute_costs.head(split, rows, busy)}
        if tp > 1:
            found[ALL_REDUCE] = self.comm_costs.all_reduce(tp, SAMPLED_LOGIT_BYTES * rows * tp)
        return found

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

    def _add_elementwise(self, found: dict[str, Cost], split: Split, rows: float) -> None:
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

    def _with_all_reduces(self, found: dict[str, Cost], split: Split, rows: float) -> CostByPart:
        """Add the two all-reduces that follow o and down."""
        if split.tp > 1:
            message = round(rows * split.model.hidden * self.residual_itemsize)
            found[ALL_REDUCE] = self.comm_costs.all_reduce(split.tp, message).scaled(2)
            if self.variant.in_engine:
                found[LATE_RANKS] = exact_cost(self._constants.late_seconds(split.tp), MODELLED)
        return found


TOKEN_ID_BYTES = 8
"""Bytes of a sampled token on its way back to the first stage."""
StageCosts = Mapping[int, Sequence[Cost]]
"""Cost of each stage, by the number of sequences in a microbatch."""


@dataclass(frozen=True)
class StepEstimate:
    """Estimated time of a step.

    Attributes:
        seconds: time of a step; in the closed loop of decode also the latency of each token.
        low, high: bounds from the uncertainty of the parts.
        sizes: sequences of each microbatch.
        stages: compute of each stage for a microbatch, all-reduces included.
        hops: messages from each stage to the next and from the last stage back; empty with one stage.
    """

    seconds: float
    low: float
    high: float
    sizes: Sequence[int]
    stages: StageCosts
    hops: StageCosts


def estimate_step(parts: PartCosts, deployment: Deployment, split: Split, batch: int) -> StepEstimate:
    """Estimate the step at this batch; each microbatch reads the weights anew.

    Raises:
        MissingMeasurementError: a part was not measured.
    """
    sizes = deployment.micro_batch_sizes(batch)
    chunk = chunk_per_micro_batch(parts.query.prefill_chunk, deployment)
    layers, busy = split.stage_layers(), deployment.busy_ranks
    stages = {size: _stage_costs(parts, layers, deployment.tp, size, chunk, busy) for size in set(sizes)}
    if deployment.pp == 1:
        whole = stages[sizes[0]][0]
        return StepEstimate(whole.seconds, *whole.bounds, sizes, stages, {})
    hops = {size: _hop_costs(parts, deployment, size, chunk) for size in stages}
    seconds, low, high = (_loop_seconds(sizes, stages, hops, pick) for pick in COST_FIELDS)
    half = _half_width(sizes, stages, hops)
    return StepEstimate(seconds, max(0.0, low - half), high + half, sizes, stages, hops)


def chunk_per_micro_batch(tokens: int, deployment: Deployment) -> PromptChunk:
    """Prompt tokens of a microbatch: an equal part of its replica's equal part."""
    prompt = tokens / deployment.replicas
    return PromptChunk(prompt / deployment.micro_batches, prompt)


def _stage_costs(
    parts: PartCosts, layers: Sequence[int], tp: int, size: int, chunk: PromptChunk, busy: int
) -> list[Cost]:
    layer = parts.layer(tp, size, chunk, busy)
    by_count = {count: layer.scaled(count) for count in set(layers)}
    found = [by_count[count] for count in layers]
    found[-1] = sum_costs([found[-1], parts.head(tp, size, busy)])
    if parts.variant.in_engine:  # once a microbatch
        found[0] = sum_costs([found[0], parts.host(size)])
    return found


def _hop_costs(parts: PartCosts, deployment: Deployment, size: int, chunk: PromptChunk) -> list[Cost]:
    rows = size * parts.query.rows_per_sequence
    message = round((rows + chunk.tokens) * parts.query.truncated_model.hidden * parts.residual_itemsize)
    stages, across = range(deployment.pp - 1), partial(_crosses_nodes, parts.query.interconnect, deployment)
    on = [parts.comm_costs.hop(message, across=across(stage, stage + 1)) for stage in stages]
    return [*on, parts.comm_costs.hop(TOKEN_ID_BYTES * rows, across=across(deployment.pp - 1, 0))]


def _crosses_nodes(interconnect: Interconnect, deployment: Deployment, stage: int, to: int) -> bool:
    """Return whether a message between two stages leaves its host in any replica."""
    if interconnect.nodes == 1:
        return False
    seats = [(RankPosition(copy, stage, 0), RankPosition(copy, to, 0)) for copy in range(deployment.replicas)]
    return any(interconnect.host_of(deployment.rank(a)) != interconnect.host_of(deployment.rank(b)) for a, b in seats)


def _loop_seconds(sizes: Sequence[int], stages: StageCosts, hops: StageCosts, pick: CostField) -> float:
    """Seconds of a step in the closed loop.

    The step takes the longer of the slowest stage's work and a microbatch's round trip.
    """
    if len(stages) == 1:
        alike, between = stages[sizes[0]], hops[sizes[0]]
        return max(len(sizes) * max(map(pick, alike)), sum(map(pick, alike)) + sum(map(pick, between)))
    return pipeline_model.decode_step_seconds(stage_table(sizes, stages, pick), stage_table(sizes, hops, pick))


def stage_table(sizes: Sequence[int], columns: StageCosts, pick: CostField) -> pipeline_model.StageTable:
    """Seconds[stage][microbatch], as the event model takes them."""
    return [[pick(columns[size][stage]) for size in sizes] for stage in range(len(columns[sizes[0]]))]


def _half_width(sizes: Sequence[int], stages: StageCosts, hops: StageCosts) -> float:
    """Half-width of the step's interval in seconds.

    Costs of stages come from the same few measurements, so their errors are alike and add up.
    """
    alike, between = stages[max(sizes)], hops[max(sizes)]
    slowest = max(alike, key=lambda one: one.seconds)
    if len(sizes) * slowest.seconds >= sum(one.seconds for one in (*alike, *between)):
        return len(sizes) * slowest.half_width
    return sum(one.half_width for one in (*alike, *between))


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


def break_down(parts: PartCosts, deployment: Deployment, split: Split, step: StepEstimate) -> StepBreakdown:
    """Break an estimated step down into shares and provenance."""
    chunk = chunk_per_micro_batch(parts.query.prefill_chunk, deployment)
    layers, busy = split.stage_layers(), deployment.busy_ranks
    reducing = [0.0] * deployment.pp
    used: dict[str, list[Cost]] = {}
    for size in set(step.sizes):
        count = step.sizes.count(size)
        layer = parts.layer_parts(deployment.tp, size, chunk, busy)
        head = parts.head_parts(deployment.tp, size, busy)
        for name, cost in (*layer.items(), *head.items()):
            used.setdefault(name, []).append(cost)
        for stage, held in enumerate(layers):
            reducing[stage] += count * held * _all_reduce_seconds(layer)
        reducing[-1] += count * _all_reduce_seconds(head)
        used.setdefault("hop", []).extend(step.hops.get(size, ()))
    working = [sum(step.stages[size][stage].seconds for size in step.sizes) for stage in range(deployment.pp)]
    idle = max(0.0, 1 - fmean(working) / step.seconds)
    hop = min(idle, _exposed_hop_seconds(step) / step.seconds)
    used = {name: costs for name, costs in used.items() if costs}
    return StepBreakdown(
        all_reduce_share=fmean(reducing) / step.seconds,
        hop_share=hop,
        bubble_share=idle - hop,
        provenance={name: weakest_provenance(one.provenance for one in costs) for name, costs in used.items()},
        cases={name: sorted({case for one in costs for case in one.cases}) for name, costs in used.items()},
    )


def _all_reduce_seconds(found: Mapping[str, Cost]) -> float:
    return found[ALL_REDUCE].seconds if ALL_REDUCE in found else 0.0


def _exposed_hop_seconds(step: StepEstimate) -> float:
    """Seconds that the loop waits for messages; 0 where a stage sets the pace."""
    if not step.hops:
        return 0.0
    size = max(step.sizes)
    slowest = max(one.seconds for one in step.stages[size])
    way = sum(one.seconds for one in step.hops[size])
    round_trip = sum(one.seconds for one in step.stages[size]) + way
    return min(way, max(0.0, round_trip - len(step.sizes) * slowest))


# Memory of a deployment: weights, KV caches, activations, workspace.

STORED_LOGIT_BYTES = 4


def required_bytes(deployment: Deployment, query: PlanQuery, profile: HardwareProfile, batch: int) -> int:
    """Bytes of the fullest rank, or of all ranks where they share one memory.

    The embedding is replicated under TP.
    """
    split, itemsize = deployment.split(query.truncated_model), profile.residual_itemsize
    kv_itemsize = profile.kv_itemsize(query.model, deployment.tp, query.context)
    sequences = batch // deployment.replicas
    rows = max(deployment.micro_batch_sizes(batch)) * query.rows_per_sequence
    rows += ceil(chunk_per_micro_batch(query.prefill_chunk, deployment).tokens)
    stages = []
    for stage in range(deployment.pp):
        held = memory.stage_weight_bytes(split, stage, itemsize, True, profile.linear_itemsize)
        held += sequences * query.context * memory.kv_bytes_per_token_per_rank(split, stage, kv_itemsize)
        held += 2 * memory.residual_bytes(split, rows, itemsize) + memory.mlp_activation_bytes(split, rows, itemsize)
        if stage == deployment.pp - 1:
            held += rows * split.vocab_per_rank * STORED_LOGIT_BYTES
        stages.append(held)
    if profile.has_shared_memory:
        return deployment.tp * deployment.replicas * sum(stages)
    return max(stages) + round(estimate.WORKSPACE_BYTES.value)


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

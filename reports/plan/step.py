"""One step of a whole model under a deployment, put together from its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from statistics import fmean
from typing import NamedTuple

from reports import pipeline_model
from reports.plan import estimate
from reports.plan.cost import CommCosts, ComputeCosts
from reports.plan.estimate import COST_FIELDS, Cost, CostField, MissingMeasurementError, exact_cost, sum_costs
from reports.plan.profile import HardwareProfile
from reports.plan.query import Interconnect, PlanQuery
from reports.provenance import weakest_provenance
from specs import memory
from specs.errors import UserError
from specs.parallel import Deployment, RankPosition, Split

# What a rank computes in a step: layers and the LM head, of one implementation, from whatever was measured of them.
#
# Best is a rank's own share of a layer as it runs beside the others, then a layer that was timed as a whole, then the
# sum of its linears, its attention and its elementwise kernels.

CostByPart = Mapping[str, Cost]
"""Costs of a layer, or of an end, by what they are."""
ALL_REDUCE = "all-reduce"
SAMPLED_LOGIT_BYTES = 8
"""A rank's best logit and its place, in fp32, that sampling gathers of each row."""


class PromptChunk(NamedTuple):
    """What a micro-batch takes along of a prompt: so many tokens of one that has `prompt` in all."""

    tokens: float = 0.0
    prompt: float = 0.0


NO_CHUNK = PromptChunk()


@dataclass(frozen=True)
class Variant:
    """Whose parts, and whether elementwise kernels count: an engine may have fused them into their neighbours."""

    implementation: str
    elementwise: bool = True


class PartCosts:
    """Of one variant.

    Args:
        system: what was measured.
        query: model, context, what each sequence has in a step.
        variant: whose.
    """

    def __init__(self, profile: HardwareProfile, query: PlanQuery, variant: Variant) -> None:
        self.query, self.variant = query, variant
        self._profile = profile
        self._compute_costs = ComputeCosts(profile, query, variant.implementation)
        self.comm_costs = CommCosts(profile, query, variant.implementation)
        self.itemsize = profile.itemsize
        self._splits: dict[int, Split] = {}
        self._layers: dict[tuple[int, int, PromptChunk, int], Cost] = {}
        self._heads: dict[tuple[int, int, int], Cost] = {}

    def layer(self, tp: int, sequences: int, chunk: PromptChunk, busy: int) -> Cost:
        """What `layer_parts` add up to."""
        key = tp, sequences, chunk, busy
        if key not in self._layers:
            self._layers[key] = sum_costs(self.layer_parts(*key).values())
        return self._layers[key]

    def head(self, tp: int, sequences: int, busy: int) -> Cost:
        """What `head_parts` add up to."""
        key = tp, sequences, busy
        if key not in self._heads:
            self._heads[key] = sum_costs(self.head_parts(*key).values())
        return self._heads[key]

    def layer_parts(self, tp: int, sequences: int, chunk: PromptChunk, busy: int) -> CostByPart:
        """One layer on a rank, in decode.

        Args:
            tp: ranks that share it.
            sequences: of the micro-batch.
            chunk: what it takes along of a prompt.
            busy: ranks that compute at the same time.

        Raises:
            MissingError: no file has what it needs.
        """
        split, rows = self._split(tp), sequences * self.query.rows_per_sequence + chunk.tokens
        found: dict[str, Cost] = {}
        if rows == sequences and (whole := self._compute_costs.layer(split, sequences, busy)):
            found["layer"] = whole
        else:
            found["linears"] = self._compute_costs.linears(split, rows)
            found["attention"] = self._compute_costs.attention(split, sequences)
            if chunk.tokens:
                whole = self._compute_costs.prompt_attention(split, chunk.prompt)
                found["attention of prompts"] = whole.scaled(chunk.tokens / chunk.prompt)
            self._add_elementwise(found, split, rows)
        return self._with_all_reduces(found, split, rows)

    def prompt_parts(self, tp: int, tokens: int) -> CostByPart:
        """One layer on a rank, in prefill of a prompt.

        Raises:
            MissingError: no file has what it needs.
        """
        split = self._split(tp)
        found = {
            "linears": self._compute_costs.linears(split, tokens),
            "attention": self._compute_costs.prompt_attention(split, tokens),
        }
        self._add_elementwise(found, split, tokens)
        return self._with_all_reduces(found, split, tokens)

    def head_parts(self, tp: int, sequences: int, busy: int) -> CostByPart:
        """The LM head on a rank of the last stage, and the gather of what each rank found best.

        Raises:
            MissingError: no file has what it needs.
        """
        split, rows = self._split(tp), sequences * self.query.rows_per_sequence
        found = {"lm_head": self._compute_costs.head(split, rows, busy)}
        if tp > 1:
            found[ALL_REDUCE] = self.comm_costs.all_reduce(tp, SAMPLED_LOGIT_BYTES * rows * tp)
        return found

    def _split(self, tp: int) -> Split:
        """One stage of all layers."""
        if tp not in self._splits:
            try:
                self._splits[tp] = Split(self.query.truncated_model, tp)
            except UserError as error:
                raise MissingMeasurementError(str(error)) from error
        return self._splits[tp]

    def _add_elementwise(self, found: dict[str, Cost], split: Split, rows: float) -> None:
        """Norms, rotary embedding, SwiGLU: their bytes at the memory's rate, and a fixed price each.

        Their range is another variant's: without them.
        """
        rate = self._profile.read_bytes_per_second
        if not self.variant.elementwise:
            return
        if not rate:
            raise MissingMeasurementError(f"no memory bandwidth of {self._profile.name}: run suites/bench_ceilings.py")
        moved = memory.elementwise_bytes(split, 1, self._profile.itemsize) * rows / rate
        found["elementwise"] = exact_cost(moved + estimate.KERNELS_PER_LAYER * estimate.KERNEL_SECONDS.value, "assumed")

    def _with_all_reduces(self, found: dict[str, Cost], split: Split, rows: float) -> CostByPart:
        """And the two that follow o and down."""
        if split.tp > 1:
            message = round(rows * split.model.hidden * self._profile.itemsize)
            found[ALL_REDUCE] = self.comm_costs.all_reduce(split.tp, message).scaled(2)
        return found


TOKEN_ID_BYTES = 8
"""A sampled token on its way back to the first stage."""
StageCosts = Mapping[int, Sequence[Cost]]
"""By sequences of a micro-batch what each stage takes for it."""


@dataclass(frozen=True)
class StepEstimate:
    """What a step takes.

    Attributes:
        seconds: of a step, which in the closed loop of decode is also what a sequence waits for each token.
        low, high: what it may be by the doubts of its parts.
        sizes: sequences of each micro-batch.
        stages: what each stage computes for one, its all-reduces included.
        hops: from each stage to the next and from the last one back; none where there is one stage.
    """

    seconds: float
    low: float
    high: float
    sizes: Sequence[int]
    stages: StageCosts
    hops: StageCosts


def estimate_step(parts: PartCosts, deployment: Deployment, split: Split, batch: int) -> StepEstimate:
    """The step at this batch; each micro-batch reads the weights anew.

    Raises:
        MissingError: a part was not measured.
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
    """Of what a step takes along each replica has its part, and of that each micro-batch."""
    prompt = tokens / deployment.replicas
    return PromptChunk(prompt / deployment.micro_batches, prompt)


def _stage_costs(
    parts: PartCosts, layers: Sequence[int], tp: int, size: int, chunk: PromptChunk, busy: int
) -> list[Cost]:
    layer = parts.layer(tp, size, chunk, busy)
    by_count = {count: layer.scaled(count) for count in set(layers)}
    found = [by_count[count] for count in layers]
    found[-1] = sum_costs([found[-1], parts.head(tp, size, busy)])
    return found


def _hop_costs(parts: PartCosts, deployment: Deployment, size: int, chunk: PromptChunk) -> list[Cost]:
    rows = size * parts.query.rows_per_sequence
    message = round((rows + chunk.tokens) * parts.query.truncated_model.hidden * parts.itemsize)
    stages, across = range(deployment.pp - 1), partial(_crosses_nodes, parts.query.interconnect, deployment)
    on = [parts.comm_costs.hop(message, across=across(stage, stage + 1)) for stage in stages]
    return [*on, parts.comm_costs.hop(TOKEN_ID_BYTES * rows, across=across(deployment.pp - 1, 0))]


def _crosses_nodes(interconnect: Interconnect, deployment: Deployment, stage: int, to: int) -> bool:
    """Whether a message from stage to stage leaves its host, in any replica."""
    if interconnect.nodes == 1:
        return False
    seats = [(RankPosition(copy, stage, 0), RankPosition(copy, to, 0)) for copy in range(deployment.replicas)]
    return any(interconnect.host_of(deployment.rank(a)) != interconnect.host_of(deployment.rank(b)) for a, b in seats)


def _loop_seconds(sizes: Sequence[int], stages: StageCosts, hops: StageCosts, pick: CostField) -> float:
    """Of the closed loop: the slowest stage's work, or a micro-batch's way round, whichever is longer."""
    if len(stages) == 1:
        alike, between = stages[sizes[0]], hops[sizes[0]]
        return max(len(sizes) * max(map(pick, alike)), sum(map(pick, alike)) + sum(map(pick, between)))
    return pipeline_model.decode_step_seconds(stage_table(sizes, stages, pick), stage_table(sizes, hops, pick))


def stage_table(sizes: Sequence[int], columns: StageCosts, pick: CostField) -> pipeline_model.StageTable:
    """Seconds[stage][slot], as the event model has them."""
    return [[pick(columns[size][stage]) for size in sizes] for stage in range(len(columns[sizes[0]]))]


def _half_width(sizes: Sequence[int], stages: StageCosts, hops: StageCosts) -> float:
    """Half-width of the step: stages are counted from the same few measurements, so their errors are alike."""
    alike, between = stages[max(sizes)], hops[max(sizes)]
    slowest = max(alike, key=lambda one: one.seconds)
    if len(sizes) * slowest.seconds >= sum(one.seconds for one in (*alike, *between)):
        return len(sizes) * slowest.half_width
    return sum(one.half_width for one in (*alike, *between))


# Where a step goes: all-reduces, hops, the bubble; and what each of its parts rests on.


@dataclass(frozen=True)
class StepBreakdown:
    """Shares of a step, each the mean over stages; and by part where its time comes from.

    Attributes:
        all_reduce_share: in all-reduces.
        hop_share: waiting for messages on their way, where the loop hangs on them.
        bubble_share: waiting for other stages.
        provenance: by part the weakest of what it rests on.
        cases: by part the names of the cases.
    """

    all_reduce_share: float
    hop_share: float
    bubble_share: float
    provenance: Mapping[str, str]
    cases: Mapping[str, Sequence[str]]

    @property
    def communication_share(self) -> float:
        """All-reduces and hops together."""
        return self.all_reduce_share + self.hop_share


def break_down(parts: PartCosts, deployment: Deployment, split: Split, step: StepEstimate) -> StepBreakdown:
    """Of a composed step."""
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
    """Seconds that messages are on their way while the loop waits for them: none where a stage sets the pace."""
    if not step.hops:
        return 0.0
    size = max(step.sizes)
    slowest = max(one.seconds for one in step.stages[size])
    way = sum(one.seconds for one in step.hops[size])
    round_trip = sum(one.seconds for one in step.stages[size]) + way
    return min(way, max(0.0, round_trip - len(step.sizes) * slowest))


# Whether a deployment fits into memory: weights, caches of keys and values, activations, workspace.

STORED_LOGIT_BYTES = 4


def required_bytes(deployment: Deployment, query: PlanQuery, profile: HardwareProfile, batch: int) -> int:
    """Of the fullest rank; where all ranks share one memory, of all together. The embedding is replicated under TP."""
    split, itemsize = deployment.split(query.truncated_model), profile.itemsize
    sequences = batch // deployment.replicas
    rows = max(deployment.micro_batch_sizes(batch)) * query.rows_per_sequence
    rows += ceil(chunk_per_micro_batch(query.prefill_chunk, deployment).tokens)
    stages = []
    for stage in range(deployment.pp):
        held = memory.stage_weight_bytes(split, stage, itemsize, replicated_embedding=True)
        held += sequences * query.context * memory.kv_bytes_per_token_per_rank(split, stage, itemsize)
        held += 2 * memory.residual_bytes(split, rows, itemsize) + memory.mlp_activation_bytes(split, rows, itemsize)
        if stage == deployment.pp - 1:
            held += rows * split.vocab_per_rank * STORED_LOGIT_BYTES
        stages.append(held)
    if profile.has_shared_memory:
        return deployment.tp * deployment.replicas * sum(stages)
    return max(stages) + round(estimate.WORKSPACE_BYTES.value)


def why_not_fit(deployment: Deployment, query: PlanQuery, profile: HardwareProfile, batch: int) -> str:
    """One line on what does not fit; empty where it does, or where nobody knows the memory."""
    limit = profile.memory_bytes
    if limit is None or (need := required_bytes(deployment, query, profile, batch)) <= limit:
        return ""
    whose = "all ranks together need" if profile.has_shared_memory else "the fullest rank needs"
    return (
        f"{batch} sequences of context {query.context}: {whose} {need / 1e9:,.1f} GB and {profile.name} has "
        f"{limit / 1e9:,.1f} GB; at most {max_sequences(deployment, query, profile)} fit"
    )


def max_sequences(deployment: Deployment, query: PlanQuery, profile: HardwareProfile) -> int:
    """The largest batch that fits, a multiple of the replicas; 0 where not even one sequence a replica does."""
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

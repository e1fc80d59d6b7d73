"""Probe of whole models: deployments, axes, cases and timed steps.

Every rank runs the same steps. The traces of all ranks are combined here, and a step's time is the slowest replica's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from math import ceil
from statistics import fmean
from typing import Any

import pytest

from comm.backends import BACKENDS as ALL_BACKENDS
from comm.backends.torch_distributed import NCCL
from kernels.decoder_layer import layer_kernel
from kernels.timing.device import Device, SamplingLimits, current_device
from kernels.timing.host import MAX_ROUNDS, contention, cpu_seconds
from specs import memory, statistics
from specs.errors import UserError
from specs.layer import layer_shape, why_unsupported_layer
from specs.measurement import LEDGER_ITEMS, STEP_OP, Case, Measurement
from specs.models import find_model
from specs.parallel import SCHEDULES, Deployment
from specs.roofline import Work
from specs.units import ITEMSIZE
from suites.axes import DEFAULT_MODELS, PROMPT_TOKEN_COUNTS, requested_implementations
from suites.case import CaseState, StepRunConfig
from suites.decoder import workload
from suites.decoder.reference import logits_rtol
from suites.decoder.trace import parse_trace
from suites.decoder.workload import MEMORY_SHARE, StepWorkload, busiest_rank_work, layers_that_fit
from suites.options import Options, read_options
from suites.probes.collective import plan_run_ranks
from suites.probes.ledger import StepBreakdown, break_down_steps
from suites.workers.launcher import RankPlan, find_transport
from suites.workers.pool import MultiRankBench, WorkerPool

# Deployments to compare: those that the options name, or all that tell TP from PP on these ranks


def has_deployment_options(options: Options) -> bool:
    """Return whether the options name deployments.

    A batch that named deployments cannot take is no reason to leave them out.
    """
    named = (options.tp, options.pp, options.replicas, options.schedule, options.micro_batches)
    return any(one is not None for one in named)


def deployments(options: Options, ranks: int, kind: str) -> list[Deployment]:
    """Deployments to compare, each once.

    Args:
        options: command-line options.
        ranks: number of ranks of the run.
        kind: cpu or cuda.
    """
    found = (
        _requested_deployments(options, ranks) if has_deployment_options(options) else default_deployments(ranks, kind)
    )
    cuts = options.partition or ("even",)
    dealt = [replace(one, partition=cut) if one.pp > 1 else one for one in found for cut in cuts]
    return list(dict.fromkeys(dealt))


def default_deployments(ranks: int, kind: str) -> list[Deployment]:
    """Deployments of TP, PP, both combined, and replicas of each, each once."""
    factor = next((one for one in range(2, ranks + 1) if ranks % one == 0), 1)
    rest = ranks // factor
    found = [Deployment(tp=ranks), *_pipeline_deployments(ranks)]
    if kind == "cuda":
        found += [one for one in _pipeline_deployments(ranks, micro_batches=2 * ranks) if one.schedule == "async"]
    if rest > 1:
        found += _pipeline_deployments(factor, tp=rest)
        found += [one for one in _pipeline_deployments(rest, tp=factor) if one.schedule == "async"]
        found += [Deployment(tp=rest, replicas=factor)]
        found += [one for one in _pipeline_deployments(rest, replicas=factor) if one.schedule == "async"]
    found += [Deployment(replicas=ranks)]
    return list(dict.fromkeys(found))


def _pipeline_deployments(
    pp: int, tp: int = 1, replicas: int = 1, micro_batches: int | None = None
) -> list[Deployment]:
    """Pipelines with schedules sync and async; by default a microbatch per stage."""
    if pp == 1:
        return []
    return [
        Deployment(tp, pp, replicas, "sync"),
        Deployment(tp, pp, replicas, "async", micro_batches or pp),
    ]


def _requested_deployments(options: Options, ranks: int) -> Iterator[Deployment]:
    """Product of the options; impossible combinations report why they cannot run."""
    for tp, pp, replicas in _requested_degrees(options, ranks):
        fitting = SCHEDULES[1:] if pp > 1 else SCHEDULES[:1]
        chosen = [one for one in options.schedule or fitting if one in fitting]
        if not chosen and (options.tp or options.pp):
            chosen = list(options.schedule or fitting)
        for schedule in chosen:
            several = options.micro_batches or (pp,)
            for micro_batches in several if schedule == "async" else _whole_batch_counts(options):
                yield Deployment(tp, pp, replicas, schedule, micro_batches)


def _requested_degrees(options: Options, ranks: int) -> list[tuple[int, int, int]]:
    """Requested (tp, pp, replicas).

    If the options name neither tp nor pp, each replica runs all its ranks under TP, and as stages.
    """
    found = []
    if options.tp or options.pp:
        for tp, pp in product(options.tp or (1,), options.pp or (1,)):
            left, over = divmod(ranks, tp * pp)
            found += [(tp, pp, replicas) for replicas in options.replicas or (1 if over else left,)]
        return found
    for replicas in options.replicas or (1,):
        each, over = divmod(ranks, replicas)
        found += [(1, 1, replicas)] if over else [(each, 1, replicas), (1, each, replicas)]
    return list(dict.fromkeys(found))


def _whole_batch_counts(options: Options) -> tuple[int, ...]:
    """Microbatches of a schedule without them: 1.

    Several remain, to report why not, if the options name them and schedules but not async.
    """
    several = options.micro_batches and options.schedule and "async" not in options.schedule
    return options.micro_batches if options.micro_batches and several else (1,)


# Axes of whole models: every deployment at every batch, or at every prompt length

BATCHES = {"cpu": (1, 16, 64, 256), "cuda": (1, 16, 64, 256, 1024)}
"""Decode batches by device kind.

A step of 1024 sequences takes about 1 s on a CPU, and a run has about 24.
"""
CONTEXTS = {"cpu": (128,), "cuda": (2048,)}
PROMPTS = {"cpu": (32, 64), "cuda": (512, 4096)}
PROMPT_BATCH = {"cpu": 4, "cuda": 8}
DTYPES = ("bf16",)
DEFAULT_IMPLEMENTATIONS = ("torch",)
IMPLEMENTATIONS = {"cpu": DEFAULT_IMPLEMENTATIONS, "cuda": ("torch", "triton")}
"""Implementations that options may name; the question is the split, not these."""
BACKEND_BY_KIND = {"cpu": "gloo", "cuda": NCCL.name}
MIN_LAYERS = 2
"""Fewest layers on a CPU: one for each of two stages."""

StepCase = tuple[Deployment, StepWorkload, StepRunConfig]
StepShape = tuple[int, int, int]
"""Tokens, batch, context."""


def add_steps(metafunc: pytest.Metafunc, *, decode: bool) -> None:
    """Parametrise `deployment`, `part` and `how`, with rivals adjacent.

    The deployments of one batch follow one another.

    Args:
        metafunc: pytest's view of the bench function.
        decode: whether each sequence adds one token to its context; else it is a prompt.
    """
    options, device = read_options(metafunc.config), current_device()
    cases = list(step_cases(options, device, plan_run_ranks(metafunc, device.kind).count, decode=decode))
    ids = [f"{part}-{deployment}-{how.dtype}-{how.implementation}" for deployment, part, how in cases]
    metafunc.parametrize(("deployment", "part", "how"), cases, ids=ids)


def step_cases(options: Options, device: Device, ranks: int, *, decode: bool) -> Iterator[StepCase]:
    """Cases of whole models, in decode or in prefill."""
    implementations = (
        DEFAULT_IMPLEMENTATIONS
        if options.impl is None
        else requested_implementations(options, IMPLEMENTATIONS, device.kind)
    )
    chosen = _decode_shapes(options, device.kind) if decode else _prefill_shapes(options, device.kind)
    points = chosen if ranks > 1 else chosen[:1]  # one rank has nothing to compare, and says so once
    for name, dtype in product(options.model or DEFAULT_MODELS[device.kind], options.dtype or DTYPES):
        layers = options.layers or default_layers(options, device, name, dtype, ranks)
        for point, deployment in product(points, deployments(options, ranks, device.kind)):
            part = StepWorkload(name, layers, *point)
            if has_deployment_options(options) or not deployment.why_not(ranks, part.batch):
                for implementation in implementations:
                    yield deployment, part, StepRunConfig(dtype, implementation, BACKEND_BY_KIND[device.kind])


def _decode_shapes(options: Options, kind: str) -> list[StepShape]:
    batches, contexts = options.batch or options.tokens or BATCHES[kind], options.context or CONTEXTS[kind]
    return [(batch, batch, context) for context, batch in product(contexts, batches)]


def _prefill_shapes(options: Options, kind: str) -> list[StepShape]:
    lengths = (
        PROMPTS[kind] if options.tokens is None else [count for count in options.tokens if count in PROMPT_TOKEN_COUNTS]
    )
    chosen = options.prompts or [(PROMPT_BATCH[kind], length) for length in lengths]
    return [(batch * length, batch, length) for batch, length in chosen]


def default_layers(options: Options, device: Device, name: str, dtype: str, ranks: int) -> int:
    """Layers of a model to keep: as many as fit a GPU at every batch under TP.

    The limit is the GPU's total memory, not its free memory: every rank must find the same number.
    """
    one = find_model(name)
    if device.kind == "cpu":
        return min(one.layers, max(MIN_LAYERS, ranks))
    if why_unsupported_layer(one):
        return one.layers  # refused for that reason
    points = [*_decode_shapes(options, device.kind), *_prefill_shapes(options, device.kind)]
    try:
        room, tp = int(MEMORY_SHARE * device.total_bytes()), Deployment(tp=ranks)
        return min(layers_that_fit(tp, StepWorkload(name, one.layers, *point), dtype, room) for point in points)
    except UserError:
        return one.layers  # TP cannot split it, and the case says why


COLD_CACHE_MULTIPLE = 4
"""Last-level caches that a step must stream to leave its weights cold.

A step reads each weight once.
"""

Ledger = list[dict[str, float]]
"""Share of each of `specs.measurement.LEDGER_ITEMS`, for each stage."""


@dataclass(kw_only=True)
class StepCaseState(CaseState):
    """Case of a whole model under a deployment.

    `visits`: ledgers of each pass. A pass has two where rivals are visited on the way out and back.
    """

    deployment: Deployment
    part: StepWorkload
    transport: str | None = None
    visits: list[list[Ledger]] = field(default_factory=list)
    timeline: dict[str, Any] | None = None

    @property
    def title(self) -> str:
        """Short description for reasons."""
        return f"{self.part} under {self.deployment} by {self.case.implementation}"

    def to_json(self) -> dict[str, Any]:
        """Task that ranks run, for JSON."""
        return {
            "deployment": asdict(self.deployment),
            **self.part.to_json(),
            "dtype": self.case.dtype,
            "implementation": self.case.implementation,
            "backend": self.case.backend,
        }

    def record_ledger(self, ledger: Ledger, timeline: dict[str, Any]) -> None:
        """Record a visit's ledger and timeline; the newest has warm caches and links."""
        if len(self.visits) == len(self.seconds):
            self.visits.append([])
        self.visits[-1].append(ledger)
        self.timeline = timeline

    def measurement(self) -> Measurement:
        """Measurement so far, with one ledger per pass."""
        ledgers = [_mean_ledger(visits) for visits in self.visits[: len(self.seconds)]]
        return replace(super().measurement(), ledgers=ledgers or None, timeline=self.timeline, transport=self.transport)

    def restore(self, before: Measurement) -> None:
        """Restore the samples of an interrupted run."""
        super().restore(before)
        self.visits = [[[dict(stage) for stage in ledger]] for ledger in before.ledgers or ()]
        self.timeline = dict(before.timeline) if before.timeline else None
        self.transport = before.transport


def _mean_ledger(visits: list[Ledger]) -> Ledger:
    return [
        {item: fmean(stage[item] for stage in stages) for item in LEDGER_ITEMS} for stages in zip(*visits, strict=True)
    ]


def plan_step_case(
    name: str,
    device: Device,
    ranks: RankPlan,
    deployment: Deployment,
    question: str,
    how: StepRunConfig,
    part: StepWorkload,
) -> StepCaseState:
    """Plan the case of a whole model under a deployment."""
    not_run = why_not(device, ranks, deployment, how, part)
    impossible = deployment.why_not(ranks.count, part.batch) or why_not_split(deployment, part)
    vocab = None if impossible else part.scaled_model.vocab
    work = Work() if impossible else busiest_rank_work(deployment, part, how.dtype)
    case = Case(
        name=name,
        question=question,
        op=STEP_OP,
        implementation=how.implementation,
        kernel=f"{how.implementation}_step",
        dtype=how.dtype,
        flops=work.flops,
        hbm_bytes=work.hbm_bytes,
        wire_bytes_sent_per_rank=work.wire_bytes_sent_per_rank,
        model=part.model,
        tp=deployment.tp,
        pp=deployment.pp,
        tokens=part.tokens,
        cache="unknown" if impossible else _cache_state(device, ranks, deployment, part, how.dtype),
        ranks=ranks.count,
        context=part.context,
        batch=part.batch,
        replicas=deployment.replicas,
        schedule=deployment.schedule,
        micro_batches=deployment.micro_batches,
        partition=deployment.partition,
        layers=part.layers,
        vocab=vocab,
        backend=how.backend,
    )
    need = 0 if impossible else workload.need_bytes(deployment, part, how.dtype)
    return StepCaseState(case=case, deployment=deployment, part=part, need_bytes=need, not_run=not_run)


def why_not(
    device: Device, ranks: RankPlan, deployment: Deployment, how: StepRunConfig, part: StepWorkload
) -> str | None:
    """Return one line on why the case cannot run here, or None."""
    if reason := ranks.why_not():
        return reason
    if reason := deployment.why_not(ranks.count, part.batch) or why_not_split(deployment, part):
        return reason
    if reason := _why_same_as_even(deployment, part):
        return reason
    if reason := why_no_kernels(device, deployment, how, part):
        return reason
    backend = ALL_BACKENDS[how.backend]
    if ranks.kind not in backend.device_kinds:
        return f"{backend} runs on {' and '.join(sorted(backend.device_kinds))}, and these ranks are on {ranks.kind}"
    if reason := backend.why_not(ranks.world):
        return reason
    return workload.why_too_large(
        deployment, part, how.dtype, int(workload.MEMORY_SHARE * workload.free_bytes(device, ranks.world))
    )


def why_not_split(deployment: Deployment, part: StepWorkload) -> str | None:
    """Return why the model cannot be split so on any machine, or None."""
    if reason := why_unsupported_layer(part.full_model):
        return f"{reason}; choose a dense Llama: llama-3.2-1b, llama-3-8b, llama-3-70b"
    if deployment.pp > part.layers and part.layers < part.full_model.layers:
        return (
            f"{part.model} cut down to {part.layers} of its {part.full_model.layers} layers has none for each of "
            f"{deployment.pp} stages; choose --layers of at least {deployment.pp}, or a lower --pp"
        )
    try:
        deployment.split(part.scaled_model)
    except UserError as error:
        return str(error)
    return None


def _why_same_as_even(deployment: Deployment, part: StepWorkload) -> str | None:
    """Return why a partition needs no case of its own, or None.

    With few layers all partitions deal the same counts.
    """
    alike = replace(deployment, partition="even")
    dealt, even = (one.split(part.scaled_model).stage_layers() for one in (deployment, alike))
    if deployment == alike or dealt != even:
        return None
    counts = ", ".join(map(str, dealt))
    return (
        f"partition {deployment.partition} deals {counts} layers to the stages of {part.model} with {part.layers}, "
        "as even does; choose more --layers, or --partition even"
    )


def why_no_kernels(device: Device, deployment: Deployment, how: StepRunConfig, part: StepWorkload) -> str | None:
    """Return why an implementation has no layer for a microbatch here, or None."""
    sequences = deployment.micro_batch_sizes(part.batch)[0]
    shape = (
        {"tokens": sequences, "batch": sequences, "context": part.context}
        if part.decode
        else {"tokens": part.context, "batch": 1, "context": part.context}
    )
    try:
        one = layer_kernel(how.implementation, layer_shape(deployment.split(part.scaled_model)), **shape)
    except UserError as error:
        return str(error)
    return one.why_not(device.arch, how.dtype)


def _cache_state(device: Device, ranks: RankPlan, deployment: Deployment, part: StepWorkload, dtype: str) -> str:
    """Cache label: cold if the bytes between two uses of a weight fill the caches.

    On a CPU all ranks share the caches.
    """
    split = deployment.split(part.scaled_model)
    read = [memory.stage_read_bytes(split, stage, ITEMSIZE[dtype]) for stage in range(deployment.pp)]
    streamed = min(read) * (ranks.world.local_ranks if ranks.kind == "cpu" else 1)
    return "cold" if streamed >= COLD_CACHE_MULTIPLE * device.llc_bytes else "unknown"


# Timing of whole models
#
# The parent sets the steps in a sample and the number of samples for all ranks, as for collectives.

PATIENCE = {"cpu": SamplingLimits(5e-3, 0.1, 0.05, 50.0), "cuda": SamplingLimits(1e-3, 0.1, 0.005, 240.0)}
"""Limits by device kind; commands and the ranks' traces cost extra."""
MAX_STEPS = 50
"""Steps of a visit."""
MAX_SEGMENTS = 20_000
"""Trace segments of a rank per visit, about 60 bytes each.

Reading them must not take longer than the steps.
"""
SEGMENTS_PER_LAYER = 14
MEMORY_REMEDY = "try fewer --layers, a smaller --batch or --context"


class StepBench(MultiRankBench):
    """Visits to whole models: workers, and the cases verified so far.

    Args:
        workers: all ranks.
        ranks: number and device kind of the ranks.
        entries: all cases.
    """

    def __init__(self, workers: WorkerPool, ranks: RankPlan, entries: Sequence[StepCaseState]) -> None:
        super().__init__(workers, ranks, entries, PATIENCE[ranks.kind], MEMORY_REMEDY)

    def visit(self, entry: StepCaseState, share: float) -> tuple[float, ...]:
        """Samples of one visit; none if a result is wrong."""
        self.ensure_started()
        entry.transport = find_transport(self._ranks, self._workers.hosts, None)
        self._workers.run_command(
            "build", {**entry.to_json(), "label": self._label(entry)}, f"setting up {entry.title}"
        )
        if not self._is_verified(entry) and not self._verify(entry):
            return ()
        before = cpu_seconds(self._workers.processes)
        calls, rounds, walked = self._time_samples(entry, share)
        if self._kind == "cpu":
            entry.record_load(contention(before, cpu_seconds(self._workers.processes)))
        entry.calls, self._in_a_row = calls, 0
        entry.record_ledger(walked.ledger, walked.timeline)
        return tuple(fmean(walked.seconds[calls * one : calls * (one + 1)]) for one in range(rounds))

    def _verify(self, entry: StepCaseState) -> bool:
        """Return whether steps on poisoned buffers give the reference's logits."""
        replies = self._workers.run_command("prove", {}, f"checking {entry.title}")
        return self._record_check(entry, replies, logits_rtol(entry.case.dtype, entry.part.layers))

    def _time_samples(self, entry: StepCaseState, share: float) -> tuple[int, int, StepBreakdown]:
        """Steps per sample, number of samples, and their breakdown.

        A first visit times one step. If a visit has time for no more, that step is the sample.
        """
        first = None if entry.seconds else self._run_steps(entry, 1)
        once = first.seconds[0] if first else statistics.pooled_median(entry.seconds)
        most = max(
            1, min(MAX_STEPS, MAX_SEGMENTS // _segments_per_step(entry) - _warm_up_steps(entry) - _drain_steps(entry))
        )
        calls = min(most, ceil(self.limits.span_seconds / once))
        rounds = max(1, min(MAX_ROUNDS, most // calls, int(share * self.limits.visit_seconds / (calls * once))))
        if first and calls * rounds == 1:
            return 1, 1, first
        return calls, rounds, self._run_steps(entry, calls * rounds)

    def _run_steps(self, entry: StepCaseState, steps: int) -> StepBreakdown:
        """Run the steps, after warm-up steps and before drain steps."""
        warm, cool = _warm_up_steps(entry), _drain_steps(entry)
        replies = self._workers.run_command("walk", {"steps": warm + steps + cool}, f"timing {entry.title}")
        entry.clock = str(replies[0]["clock"])
        traces = [parse_trace(rank, reply["trace"]) for rank, reply in enumerate(replies)]
        return break_down_steps(entry.deployment, traces, warm=warm, steps=steps, cool=cool, decode=entry.part.decode)


def _warm_up_steps(entry: StepCaseState) -> int:
    """Steps before the counted steps: a pipeline's first step only fills it.

    It waits for no token to return.
    """
    return int(entry.part.decode and entry.deployment.pp > 1)


def _drain_steps(entry: StepCaseState) -> int:
    """Steps after the counted steps: else the first stage would idle at the end.

    The last microbatches are then still leaving.
    """
    return int(entry.part.decode and entry.deployment.micro_batches > 1)


def _segments_per_step(entry: StepCaseState) -> int:
    """Approximate segments that a rank traces in a step."""
    return entry.deployment.micro_batches * (SEGMENTS_PER_LAYER * -(-entry.part.layers // entry.deployment.pp) + 8)

"""Probe of collectives: plan, check and time a case on all ranks.

A sample is the slowest rank's time. The parent sets the calls in a sample and the number of samples for all ranks.
Ranks that calibrated themselves would make different counts of calls and wait for each other forever.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import ceil, log2
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest

from comm.backend import Backend
from comm.backends import BACKENDS, torch_distributed
from comm.collective import Collective
from comm.collectives import COLLECTIVES
from kernels.timing.device import SamplingLimits
from kernels.timing.host import MAX_ROUNDS, contention, cpu_seconds
from specs import statistics, traffic
from specs.errors import UserError
from specs.measurement import Case, Measurement
from specs.models import find_model
from specs.parallel import Split
from specs.units import ITEMSIZE, format_bytes
from suites.axes import DEFAULT_MODELS as AXES_MODELS
from suites.case import CaseState, CollectiveRunConfig
from suites.options import Options, read_options
from suites.workers.launcher import RankPlan, find_transport, plan_ranks
from suites.workers.pool import MultiRankBench, WorkerPool
from suites.workers.process import CaseRefusedError, CollectiveTask, RankLostError

# A collective at one message size

HIDDEN, HIDDEN_AND_RESIDUAL = "hidden", "hidden+residual"
"""Contents of a model's message: hidden state, with or without the residual."""


class ModelMessage(NamedTuple):
    """Message of a model; `content` is hidden, or hidden+residual.

    An engine may send the residual separately.
    """

    model: str
    tp: int
    pp: int
    tokens: int
    content: str

    def __str__(self) -> str:
        return f"{self.model}-{self.tokens}tok-{self.content}"

    @property
    def elements(self) -> int:
        """Elements of the message: tokens x hidden, doubled with the residual."""
        return self.tokens * find_model(self.model).hidden * (2 if self.content == HIDDEN_AND_RESIDUAL else 1)


@dataclass(kw_only=True)
class CollectiveCaseState(CaseState):
    """Case of a collective at one message size.

    `skews`: seconds between the fastest and the slowest rank, per sample. `pair`: communicating ranks, if not all.
    """

    task: CollectiveTask
    pair: tuple[int, int] | None = None
    call_seconds: float | None = None
    skews: list[float] = field(default_factory=list)
    algorithm: str | None = None
    transport: str | None = None

    @property
    def title(self) -> str:
        """Short description for reasons."""
        return f"{self.case.op} {self.case.implementation} {format_bytes(self.case.message_bytes or 0)}"

    @property
    def rtol(self) -> float:
        """Largest accepted error of a result."""
        return COLLECTIVES[self.case.op].rtol[self.case.dtype]

    def to_json(self) -> dict[str, Any]:
        """Task that ranks run, for JSON."""
        return self.task.to_json()

    def measurement(self) -> Measurement:
        """Measurement so far, with skew, and the library's algorithm and transport."""
        skew = median(self.skews) if self.skews else None
        return replace(super().measurement(), skew_seconds=skew, algorithm=self.algorithm, transport=self.transport)

    def restore(self, before: Measurement) -> None:
        """Restore the samples of an interrupted run."""
        super().restore(before)
        self.skews = [] if before.skew_seconds is None else [before.skew_seconds]
        self.algorithm, self.transport = before.algorithm, before.transport
        self.copies = before.copies


def plan_collective_case(
    name: str,
    ranks: RankPlan,
    collective: Collective,
    question: str,
    how: CollectiveRunConfig,
    part: ModelMessage | None,
    *,
    message_bytes: int,
    source: int = 0,
    target: int = 1,
) -> CollectiveCaseState:
    """Plan the case of a collective at one message size."""
    backend = BACKENDS[how.implementation]
    row = find_model(part.model).hidden if part else 1
    elements = message_bytes // ITEMSIZE[how.dtype]
    pair = (source, target) if collective.pair else None
    case = Case(
        name=name,
        question=question,
        op=collective.op,
        implementation=how.implementation,
        kernel=f"{how.implementation}_{collective.op}",
        dtype=how.dtype,
        flops=0,
        hbm_bytes=0,
        wire_bytes_sent_per_rank=traffic.bytes_sent_per_rank(collective.op, ranks.count, message_bytes),
        model=part.model if part else None,
        layer=part.content if part else None,
        tp=part.tp if part else None,
        pp=part.pp if part else None,
        tokens=part.tokens if part else None,
        cache="hot",
        launch=how.launch,
        ranks=ranks.count,
        message_bytes=message_bytes,
        gap_seconds=how.gap_seconds,
        pair=f"{source}-{target}" if pair else None,
    )
    task = CollectiveTask(
        collective.op, backend.name, how.dtype, elements, row, how.launch, how.gap_seconds, source, target
    )
    here = ranks.count if ranks.kind == "cpu" else 1
    entry = CollectiveCaseState(case=case, task=task, pair=pair, need_bytes=3 * message_bytes * here)
    entry.algorithm = backend.algorithm
    entry.not_run = _why_not_split(part) or why_not(ranks, collective, backend, how, message_bytes)
    return entry


def _why_not_split(part: ModelMessage | None) -> str | None:
    """Return why the model cannot be split over these ranks, or None."""
    try:
        if part:
            Split(find_model(part.model), part.tp, part.pp)
    except UserError as error:
        return str(error)
    return None


def why_not(
    ranks: RankPlan, collective: Collective, backend: Backend, how: CollectiveRunConfig, message_bytes: int
) -> str | None:
    """Return one line on why the case cannot run here, or None."""
    if reason := ranks.why_not():
        return reason
    if ranks.kind not in backend.device_kinds:
        return f"{backend} runs on {' and '.join(sorted(backend.device_kinds))}, and these ranks are on {ranks.kind}"
    if reason := backend.why_not(ranks.world):
        return reason
    if collective.method not in backend.methods:
        return f"{backend} has no {collective}"
    if how.dtype not in collective.rtol or how.dtype not in backend.dtypes:
        return f"{backend} adds up {', '.join(backend.dtypes)}, not {how.dtype}"
    if how.launch == "graph" and not (backend.graph and ranks.kind == "cuda"):
        return f"launch graph: {backend} cannot be captured in a CUDA graph; use --launch eager"
    if backend.max_bytes is not None and message_bytes > backend.max_bytes:
        return f"{backend} is made for messages up to {format_bytes(backend.max_bytes)}"
    whole = ITEMSIZE[how.dtype] * (ranks.count if collective.is_sharded else 1)
    if message_bytes % whole:
        parts = f", a part for each of {ranks.count} ranks" if collective.is_sharded else ""
        return f"{message_bytes} bytes are no whole {how.dtype} elements{parts}; give a multiple of {whole}"
    return None


# Axes: op, backend, message, launch, idle gap

GAP_SECONDS = 1e-3
"""Idle gap between two steps, as on a host that samples and schedules."""
GAP_BYTES = 16 * 2**10
"""Hidden state of one token of a 70B model in bf16: latency matters most here."""
DTYPES = ("bf16",)
LAUNCHES = {"cpu": ("eager",), "cuda": ("graph", "eager")}
"""Launches by device kind.

A GPU runs both, unlike for kernels: the launch decides the cost of a message.
"""
GAP_OPS = ("all_reduce", "send_recv", "ping_pong")
"""Ops that a step waits for first."""
ABSENCE_LISTED_OPS = ("all_reduce", "peer_copy")
"""Ops at which unavailable backends are listed with a reason: once is enough."""


TOKENS = {"cpu": (1, 16, 128), "cuda": (1, 16, 64, 256, 2048)}
"""Tokens of decode batches, and of a prefill chunk, by device kind."""


def geometric_sizes(low: int, high: int, factor: int) -> tuple[int, ...]:
    """Message sizes from low to high bytes, each `factor` times the previous size."""
    found = [low]
    while found[-1] * factor <= high:
        found.append(found[-1] * factor)
    return tuple(found)


MESSAGE_SIZES = {"cpu": geometric_sizes(2**10, 2**28, 4), "cuda": geometric_sizes(2**10, 2**28, 2)}
"""Message sizes in bytes, 1 KiB to 256 MiB, by device kind."""
SPARSE_MESSAGE_SIZES = {"cpu": geometric_sizes(2**10, 2**22, 16), "cuda": geometric_sizes(2**10, 2**28, 4)}
"""Coarser message sizes in bytes, for ops of secondary interest."""


def plan_run_ranks(metafunc: pytest.Metafunc, kind: str) -> RankPlan:
    """Ranks of the run."""
    return plan_ranks(read_options(metafunc.config).ranks, kind)


def add_collectives(
    metafunc: pytest.Metafunc, ladders: Mapping[str, Mapping[str, Sequence[int]]], ranks: RankPlan
) -> None:
    """Parametrise `op`, `message` and `how` together: combinations differ by op.

    Args:
        metafunc: pytest's view of the bench function.
        ladders: default message sizes by op and device kind, if the options name none.
        ranks: ranks of the run.
    """
    options = read_options(metafunc.config)
    cases = [
        (op, message, how)
        for op, ladder in ladders.items()
        for rung, dtype, launch, gap in _axes(options, op, ladder[ranks.kind], ranks)
        for message in [rung if options.message else _round_to_elements(op, rung, dtype, ranks)]
        for how in _run_configs(options, op, ranks, message, dtype, launch, gap)
    ]
    ids = [f"{op}-{ranks.count}ranks-{format_bytes(message).replace(' ', '')}-{how}" for op, message, how in cases]
    metafunc.parametrize(("op", "message", "how"), cases, ids=ids)


def _round_to_elements(op: str, rung: int, dtype: str, ranks: RankPlan) -> int:
    """Message size rounded down to whole elements for each rank, as nccl-tests does."""
    return rung - rung % (ranks.count * ITEMSIZE[dtype]) if COLLECTIVES[op].is_sharded else rung


def _axes(options: Options, op: str, ladder: Sequence[int], ranks: RankPlan) -> list[tuple[int, str, str, float]]:
    messages, launches = options.message or ladder, options.launch or LAUNCHES[ranks.kind]
    found = list(product(messages, options.dtype or DTYPES, launches, options.gap or (0.0,)))
    if options.gap is None and op in GAP_OPS:
        found += product(
            [one for one in messages if one == GAP_BYTES], options.dtype or DTYPES, launches, (GAP_SECONDS,)
        )
    return found


def _run_configs(
    options: Options, op: str, ranks: RankPlan, message: int, dtype: str, launch: str, gap: float
) -> list[CollectiveRunConfig]:
    """Configurations of each requested backend, or of all backends with the op.

    A backend that cannot run here is listed once, to report the reason.
    """
    found = []
    for backend in backends_for(op, options):
        absent = options.impl is None and is_unavailable(backend, ranks)
        told_once = op in ABSENCE_LISTED_OPS and (message, launch, gap) == (GAP_BYTES, "eager", 0.0)
        beyond_graph = options.launch is None and launch == "graph" and not backend.graph
        if (not absent or told_once) and not beyond_graph:
            found.append(CollectiveRunConfig(dtype, launch, gap, backend.name))
    return found


def is_unavailable(backend: Backend, ranks: RankPlan) -> bool:
    """Return whether these ranks cannot use a backend at all."""
    return (
        ranks.why_not() is not None
        or ranks.kind not in backend.device_kinds
        or backend.why_not(ranks.world) is not None
    )


def add_rank_pairs(metafunc: pytest.Metafunc, ranks: RankPlan) -> None:
    """Parametrise `pair` with every ordered pair of ranks."""
    pairs = [(a, b) for a in range(ranks.count) for b in range(ranks.count) if a != b] or [(0, 1)]
    metafunc.parametrize("pair", pairs, ids=[f"{a}to{b}" for a, b in pairs])


def add_model_messages(metafunc: pytest.Metafunc, ops: Sequence[str], ranks: RankPlan, *, under_tp: bool) -> None:
    """Parametrise `op`, `shipment` and `how` with messages of models on all ranks.

    Args:
        metafunc: pytest's view of the bench function.
        ops: collectives that send the messages.
        ranks: ranks of the run.
        under_tp: split within layers, else into stages.
    """
    options = read_options(metafunc.config)
    contents = (HIDDEN,) if under_tp else (HIDDEN, HIDDEN_AND_RESIDUAL)
    launches = options.launch or LAUNCHES[ranks.kind]
    tp, pp = (ranks.count, 1) if under_tp else (1, ranks.count)
    shipments = [
        ModelMessage(name, tp, pp, tokens, content)
        for name in options.model or AXES_MODELS[ranks.kind]
        for content in contents
        for tokens in options.tokens or TOKENS[ranks.kind]
    ]
    cases = [
        (op, shipment, CollectiveRunConfig(dtype, launch, gap, backend.name))
        for op in ops
        for shipment in shipments
        for dtype, launch, gap in product(options.dtype or DTYPES, launches, options.gap or (0.0,))
        for backend in backends_for(op, options)
        if options.impl is not None or not (is_unavailable(backend, ranks) or (launch == "graph" and not backend.graph))
    ]
    ids = [f"{op}-{ranks.count}ranks-{shipment}-{how}" for op, shipment, how in cases]
    metafunc.parametrize(("op", "shipment", "how"), cases, ids=ids)


def backends_for(op: str, options: Options) -> list[Backend]:
    """Requested backends that offer an op."""
    method = COLLECTIVES[op].method
    asked = BACKENDS if options.impl is None else [name for name in options.impl if name in BACKENDS]
    return [BACKENDS[name] for name in asked if method in BACKENDS[name].methods]


PATIENCE = {"cpu": SamplingLimits(5e-3, 30e-3, 0.05, 35.0), "cuda": SamplingLimits(1e-3, 30e-3, 0.01, 480.0)}
"""Limits by device kind; commands, filled buffers and barriers cost extra."""
PROBE_CALLS = 64
SHORT_BYTES = 2**20
OPAQUE_BACKENDS = ("mpi",)
"""Libraries that choose between memory and network without reporting it."""
MAX_CALLS = 5000
"""Calls in a sample: enough for calls of 1 us to fill the span."""
GROWTH_BITS = {"fp32": 110, "bf16": 110, "fp16": 6}
"""Doublings from 2^7 before a format overflows, with a margin."""


class CollectiveBench(MultiRankBench):
    """Visits to collectives: workers, and the cases verified so far.

    Args:
        workers: all ranks.
        ranks: number and device kind of the ranks.
        free_bytes: free memory of a device; cases that do not fit fail at once.
        entries: all cases.
    """

    def __init__(
        self, workers: WorkerPool, ranks: RankPlan, free_bytes: int, entries: Sequence[CollectiveCaseState]
    ) -> None:
        super().__init__(workers, ranks, entries, PATIENCE[ranks.kind], "try a smaller --message or fewer --ranks")
        self._entries, self._drawn = entries, 0
        for entry in entries:
            if entry.is_measurable and entry.need_bytes > 0.8 * free_bytes:
                entry.failed = (
                    f"out of memory: needs about {entry.need_bytes / 2**30:.2f} GiB on all ranks of this host, "
                    f"{free_bytes / 2**30:.2f} GiB are free; {self._remedy}"
                )

    def visit(self, entry: CollectiveCaseState, share: float) -> tuple[float, ...]:
        """Samples of one visit; none if a result is wrong."""
        self.ensure_started()
        first = not self._is_verified(entry)
        self._set_up_case(entry, entry.calls if entry.seconds else _probe_calls(entry))
        if first and not self._check(entry):
            return ()
        self._measure_call_seconds(entry)
        calls, rounds = self._sample_size(entry, share)
        before = cpu_seconds(self._workers.processes)
        found = self._sample(entry, calls, rounds + 1)[1:]  # the first round warms up
        if self._kind == "cpu":
            entry.record_load(contention(before, cpu_seconds(self._workers.processes)))
        found = [one for one in found if one[0] > 0]  # a delay of the host can make T(n) longer than T(2n)
        if not found:
            raise RuntimeError(f"{2 * calls} calls took no longer than {calls} in any sample")
        entry.calls, self._in_a_row = calls, 0
        entry.skews += [calls * (slowest - fastest) for slowest, fastest in found]
        return tuple(slowest for slowest, _ in found)

    def ensure_started(self) -> None:
        """Start the ranks unless they run, and find their transport once they have met.

        Raises:
            RankLostError: a rank does not arrive.
        """
        if self._workers.is_running:
            return
        super().ensure_started()
        for entry in self._entries:
            if entry.case.implementation not in OPAQUE_BACKENDS:
                entry.transport = find_transport(self._ranks, self._workers.hosts, entry.pair)

    def _set_up_case(self, entry: CollectiveCaseState, calls: int) -> None:
        """Set the case up for a number of calls per sample.

        Calls of an all-reduce in place multiply their buffer, so more calls need more copies.
        """
        self._drawn = calls
        spans = 1 if self._kind == "cpu" else 4  # n and 2n calls, and the first replay of each graph
        growth = spans * calls * log2(max(2, entry.case.ranks))
        entry.copies = max(1, ceil(growth / GROWTH_BITS[entry.case.dtype])) if entry.case.op == "all_reduce" else 1
        told = {"task": entry.to_json(), "copies": entry.copies, "label": self._label(entry)}
        replies = self._workers.run_command("draw", told, f"setting up {entry.title}")
        if replies[entry.task.source].get("path") == "host":  # the driver stages the copy in host memory
            entry.transport = "host"

    def _check(self, entry: CollectiveCaseState) -> bool:
        """Return whether every rank's result is right."""
        replies = self._workers.run_command("check", {"turn": self._numbers[id(entry)] + 1}, f"checking {entry.title}")
        return self._record_check(entry, replies, entry.rtol)

    def _measure_call_seconds(self, entry: CollectiveCaseState) -> None:
        """Estimate the seconds per call: from earlier samples, or from a few calls.

        On a CPU a first single call sets the number of these calls. On a GPU T(2) - T(1) is noise if the difference
        between two events is as long as the call. There the estimate is the median of longer spans.
        """
        if entry.seconds:
            entry.call_seconds = statistics.pooled_median(entry.seconds)
            return
        calls, rounds = _probe_calls(entry), 3
        if self._kind == "cpu" or entry.case.gap_seconds:
            entry.call_seconds = min(slowest for slowest, _ in self._sample(entry, 1, 2))
            calls, rounds = min(calls, ceil(self.limits.span_seconds / max(entry.call_seconds, 1e-9))), 1
        if not entry.case.gap_seconds and calls > 1:
            entry.call_seconds = median(slowest for slowest, _ in self._sample(entry, calls, rounds))

    def _sample_size(self, entry: CollectiveCaseState, share: float) -> tuple[int, int]:
        """Calls per sample, and number of samples."""
        once = max(entry.call_seconds or 0.0, 1e-6)
        spans = 1 if self._kind == "cpu" else 3
        if entry.case.gap_seconds:
            calls, each = 1, once + entry.case.gap_seconds
        else:
            calls = min(MAX_CALLS, ceil(self.limits.span_seconds / once))
            each = spans * calls * once
            if calls > self._drawn:
                self._set_up_case(entry, calls)
        return calls, min(MAX_ROUNDS, max(1, int(share * self.limits.visit_seconds / each)))

    def _sample(self, entry: CollectiveCaseState, calls: int, rounds: int) -> list[tuple[float, float]]:
        """Seconds per call of the slowest and of the fastest rank, for each round."""
        replies = self._workers.run_command("sample", {"calls": calls, "rounds": rounds}, f"timing {entry.title}")
        entry.clock = str(replies[0]["clock"])
        talking = [reply for rank, reply in enumerate(replies) if entry.pair is None or rank in entry.pair]
        rounds_of = zip(*(reply["seconds"] for reply in talking), strict=True)
        return [(max(one), min(one)) for one in rounds_of]


def _probe_calls(entry: CollectiveCaseState) -> int:
    """Calls of a first estimate: many for a short message, two for a long one."""
    return PROBE_CALLS if (entry.case.message_bytes or 0) <= SHORT_BYTES else 2


# NCCL's algorithm for each message, found before any timing
#
# NCCL logs a line per call, which would add host time to timed calls, and it reads the logging switch once. So rank 0
# of a separate set of ranks logs, each case runs there once, and these ranks end.

NCCL_BACKENDS = ("nccl", "rccl", "cupy-nccl")


def record_nccl_algorithms(workers: WorkerPool, entries: Sequence[CollectiveCaseState]) -> None:
    """Record NCCL's algorithm for every case that its log names; others stay unknown.

    A case that fails here fails again, with its reason, when it is measured.
    """
    asked = {}
    for entry in entries:
        if entry.is_measurable and entry.case.implementation in NCCL_BACKENDS and entry.algorithm is None:
            asked[entry.case.implementation, entry.case.op, entry.case.message_bytes, entry.case.dtype] = entry
    if not asked:
        return
    with tempfile.TemporaryDirectory(prefix="shardbench-nccl-") as folder:
        for implementation in dict.fromkeys(key[0] for key in asked):
            log = Path(folder) / f"{implementation}.log"
            _run_with_nccl_log(workers, log, [entry for key, entry in asked.items() if key[0] == implementation])
            told = torch_distributed.parse_choices(log.read_text(errors="replace")) if log.exists() else {}
            for entry in entries:
                if entry.case.implementation == implementation:
                    op = entry.case.op.removesuffix("_rmsnorm")
                    entry.algorithm = told.get((op, entry.case.message_bytes or 0))


def _run_with_nccl_log(workers: WorkerPool, log: Path, entries: Sequence[CollectiveCaseState]) -> None:
    """Run each case once, with NCCL's log of rank 0."""
    telling = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "TUNING", "NCCL_DEBUG_FILE": str(log)}
    try:
        workers.start(telling)
        for number, entry in enumerate(entries):
            label = {"name": entry.case.name, "question": "survey", "number": number}
            told = {"task": {**entry.to_json(), "launch": "eager"}, "copies": 1, "label": label}
            try:
                workers.run_command("draw", told, f"setting up {entry.title}")
            except CaseRefusedError:
                continue
            workers.run_command("check", {"turn": 0}, f"asking NCCL about {entry.title}")
    except RankLostError:
        return
    finally:
        workers.end()

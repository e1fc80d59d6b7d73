"""Measures collectives: every rank is told the same, and the slowest of them makes the sample.

How many calls a sample spans and how many samples there are is decided here, from the slowest rank's time, and told to
all: ranks that calibrate themselves make different counts of calls, and wait for each other for ever.
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
from specs.models import MODELS
from specs.parallel import Split
from specs.units import ITEMSIZE, format_bytes
from suites.axes import DEFAULT_MODELS as AXES_MODELS
from suites.case import CaseState, CollectiveRunConfig
from suites.options import Options, read_options
from suites.workers.launcher import RankPlan, find_transport, plan_ranks
from suites.workers.pool import MultiRankBench, WorkerPool
from suites.workers.process import CaseRefusedError, CollectiveTask, RankLostError

# A case of one collective on all ranks.

HIDDEN, HIDDEN_AND_RESIDUAL = "hidden", "hidden+residual"
"""What is shipped."""


class ModelMessage(NamedTuple):
    """What a model sends: `content` is hidden, or hidden+residual where an engine ships the residual apart."""

    model: str
    tp: int
    pp: int
    tokens: int
    content: str

    def __str__(self) -> str:
        return f"{self.model}-{self.tokens}tok-{self.content}"

    @property
    def elements(self) -> int:
        """Of the message: tokens x hidden, twice with the residual."""
        return self.tokens * MODELS[self.model].hidden * (2 if self.content == HIDDEN_AND_RESIDUAL else 1)


@dataclass(kw_only=True)
class CollectiveCaseState(CaseState):
    """A collective at a message. `skews` are those of the samples; `pair` are the ranks that talk, if not all do."""

    task: CollectiveTask
    pair: tuple[int, int] | None = None
    call_seconds: float | None = None
    skews: list[float] = field(default_factory=list)
    algorithm: str | None = None
    transport: str | None = None

    @property
    def title(self) -> str:
        """Short, for reasons."""
        return f"{self.case.op} {self.case.implementation} {format_bytes(self.case.message_bytes or 0)}"

    def to_json(self) -> dict[str, Any]:
        """What ranks are asked to run, for JSON."""
        return self.task.to_json()

    def measurement(self) -> Measurement:
        """What has been measured so far, with skew and what the library told."""
        skew = median(self.skews) if self.skews else None
        return replace(super().measurement(), skew_seconds=skew, algorithm=self.algorithm, transport=self.transport)

    def restore(self, before: Measurement) -> None:
        """Go on from what an interrupted run has measured."""
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
    """The case of a collective at a message."""
    backend = BACKENDS[how.implementation]
    row = MODELS[part.model].hidden if part else 1
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
    """Why the model cannot be cut over so many ranks."""
    try:
        if part:
            Split(MODELS[part.model], part.tp, part.pp)
    except UserError as error:
        return str(error)
    return None


def why_not(
    ranks: RankPlan, collective: Collective, backend: Backend, how: CollectiveRunConfig, message_bytes: int
) -> str | None:
    """One line on why this cannot run here; None if it can."""
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


# The axes of collectives: which ones, over what, at which messages, in a graph or eager, after which idle gap.

GAP_SECONDS = 1e-3
"""An idle gap as a host that samples and schedules leaves between two steps."""
GAP_BYTES = 16 * 2**10
"""One token's hidden state of a 70B model in bf16: the message whose latency decides."""
DTYPES = ("bf16",)
LAUNCHES = {"cpu": ("eager",), "cuda": ("graph", "eager")}
"""Other than of kernels, both on a GPU: the method decides what a message costs."""
GAP_OPS = ("all_reduce", "send_recv", "ping_pong")
"""What a step waits for first."""
ABSENCE_LISTED_OPS = ("all_reduce", "peer_copy")
"""Where a backend that cannot start here is listed with the reason: once is enough."""


TOKENS = {"cpu": (1, 16, 128), "cuda": (1, 16, 64, 256, 2048)}
"""Decode batches, and a prefill's chunk."""


def geometric_sizes(low: int, high: int, factor: int) -> tuple[int, ...]:
    """Messages from low to high bytes, each `factor` times the one before."""
    found = [low]
    while found[-1] * factor <= high:
        found.append(found[-1] * factor)
    return tuple(found)


MESSAGE_SIZES = {"cpu": geometric_sizes(2**10, 2**28, 4), "cuda": geometric_sizes(2**10, 2**28, 2)}
"""1 KiB to 256 MiB."""
SPARSE_MESSAGE_SIZES = {"cpu": geometric_sizes(2**10, 2**22, 16), "cuda": geometric_sizes(2**10, 2**28, 4)}
"""For what is asked less often."""


def plan_run_ranks(metafunc: pytest.Metafunc, kind: str) -> RankPlan:
    """The ranks that the run will have."""
    return plan_ranks(read_options(metafunc.config).ranks, kind)


def add_collectives(
    metafunc: pytest.Metafunc, ladders: Mapping[str, Mapping[str, Sequence[int]]], ranks: RankPlan
) -> None:
    """Parametrise `op`, `message` and `how` together, because what can run differs by each.

    Args:
        metafunc: pytest's view of the bench function.
        ladders: by op and kind of device the messages, where the options name none.
        ranks: the ranks of the run.
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
    """A rung of the ladder that the ranks divide: the next lower one, as nccl-tests does."""
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
    """One for each backend that was asked for, or that offers the op here; the others once each, to tell why not."""
    found = []
    for backend in backends_for(op, options):
        absent = options.impl is None and _is_unavailable(backend, ranks)
        told_once = op in ABSENCE_LISTED_OPS and (message, launch, gap) == (GAP_BYTES, "eager", 0.0)
        beyond_graph = options.launch is None and launch == "graph" and not backend.graph
        if (not absent or told_once) and not beyond_graph:
            found.append(CollectiveRunConfig(dtype, launch, gap, backend.name))
    return found


def _is_unavailable(backend: Backend, ranks: RankPlan) -> bool:
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
    """Parametrise `op`, `shipment` and `how`: what the models send when they are cut over all ranks.

    Args:
        metafunc: pytest's view of the bench function.
        ops: what it is sent by.
        ranks: the ranks of the run.
        under_tp: cut within layers, else into stages.
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
        if options.impl is not None
        or not (_is_unavailable(backend, ranks) or (launch == "graph" and not backend.graph))
    ]
    ids = [f"{op}-{ranks.count}ranks-{shipment}-{how}" for op, shipment, how in cases]
    metafunc.parametrize(("op", "shipment", "how"), cases, ids=ids)


def backends_for(op: str, options: Options) -> list[Backend]:
    """Backends that offer an op, of those that were asked for."""
    method = COLLECTIVES[op].method
    asked = BACKENDS if options.impl is None else [name for name in options.impl if name in BACKENDS]
    return [BACKENDS[name] for name in asked if method in BACKENDS[name].methods]


PATIENCE = {"cpu": SamplingLimits(5e-3, 30e-3, 0.05, 35.0), "cuda": SamplingLimits(1e-3, 30e-3, 0.01, 480.0)}
"""A visit has a fixed price besides: ranks are told, buffers filled, barriers passed."""
PROBE_CALLS = 64
SHORT_BYTES = 2**20
OPAQUE_BACKENDS = ("mpi",)
"""Libraries that choose within a host between memory and network, and do not tell."""
MAX_CALLS = 5000
"""In a sample: what an empty call of a microsecond fills the span with."""
GROWTH_BITS = {"fp32": 110, "bf16": 110, "fp16": 6}
"""Doublings from 2^7 before a format overflows, with some to spare."""


class CollectiveBench(MultiRankBench):
    """What visits to collectives share: the ranks, and which cases were checked.

    Args:
        crew: all ranks.
        ranks: how many, and of what kind.
        free_bytes: memory of a device; cases that do not fit fail at once.
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
        """Samples of one visit; none where a result is wrong."""
        self.ensure_started()
        first = not self._is_verified(entry)
        self._set_up_case(entry, entry.calls if entry.seconds else _probe_calls(entry))
        if first and not self._check(entry):
            return ()
        self._measure_call_seconds(entry)
        calls, rounds = self._sample_size(entry, share)
        before = cpu_seconds(self._workers.processes)
        found = self._sample(entry, calls, rounds + 1)[1:]  # the first warms up
        if self._kind == "cpu":
            entry.record_load(contention(before, cpu_seconds(self._workers.processes)))
        found = [one for one in found if one[0] > 0]  # a hiccup of a host can make T(n) longer than T(2n)
        if not found:
            raise RuntimeError(f"{2 * calls} calls took no longer than {calls} in any sample")
        entry.calls, self._in_a_row = calls, 0
        entry.skews += [calls * (slowest - fastest) for slowest, fastest in found]
        return tuple(slowest for slowest, _ in found)

    def ensure_started(self) -> None:
        """Start the ranks unless they run, and learn what they talk over when they have met.

        Raises:
            RankLostError: one does not arrive.
        """
        if self._workers.is_running:
            return
        super().ensure_started()
        for entry in self._entries:
            if entry.case.implementation not in OPAQUE_BACKENDS:
                entry.transport = find_transport(self._ranks, self._workers.hosts, entry.pair)

    def _set_up_case(self, entry: CollectiveCaseState, calls: int) -> None:
        """Set the case up for so many calls a sample: an all-reduce in place doubles each buffer only so often."""
        self._drawn = calls
        spans = 1 if self._kind == "cpu" else 4  # n and 2n calls, and the first replay of a graph of each
        growth = spans * calls * log2(max(2, entry.case.ranks))
        entry.copies = max(1, ceil(growth / GROWTH_BITS[entry.case.dtype])) if entry.case.op == "all_reduce" else 1
        told = {"task": entry.to_json(), "copies": entry.copies, "label": self._label(entry)}
        replies = self._workers.run_command("draw", told, f"setting up {entry.title}")
        if replies[entry.task.source].get("path") == "host":  # staged there by the driver
            entry.transport = "host"

    def _check(self, entry: CollectiveCaseState) -> bool:
        """Whether every rank's result is right."""
        replies = self._workers.run_command("check", {"turn": self._numbers[id(entry)] + 1}, f"checking {entry.title}")
        return self._record_check(entry, replies, COLLECTIVES[entry.case.op].rtol[entry.case.dtype])

    def _measure_call_seconds(self, entry: CollectiveCaseState) -> None:
        """How long a call takes: from the samples so far, in the first visit from a few more calls.

        On a CPU a first single call says how many those may be. On a GPU it would not: T(2) − T(1) of a call that takes
        as long as two events differ can be anything, so there it is the median of longer ones.
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
        """Calls that a sample spans, and samples."""
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
        """Of each round the slowest rank's seconds a call, and the fastest's."""
        replies = self._workers.run_command("sample", {"calls": calls, "rounds": rounds}, f"timing {entry.title}")
        entry.clock = str(replies[0]["clock"])
        talking = [reply for rank, reply in enumerate(replies) if entry.pair is None or rank in entry.pair]
        rounds_of = zip(*(reply["seconds"] for reply in talking), strict=True)
        return [(max(one), min(one)) for one in rounds_of]


def _probe_calls(entry: CollectiveCaseState) -> int:
    """Many of what is short; a long message's time is known after two."""
    return PROBE_CALLS if (entry.case.message_bytes or 0) <= SHORT_BYTES else 2


# Which algorithm NCCL takes for each message: asked once before anything is timed, in ranks of their own.
#
# NCCL tells in its log, a line a call, which would cost the timed calls their host time; and it reads the switch for it
# once. So rank 0 of a first set of ranks logs, each case runs there once, and these ranks end.

NCCL_BACKENDS = ("nccl", "rccl", "cupy-nccl")


def record_nccl_algorithms(workers: WorkerPool, entries: Sequence[CollectiveCaseState]) -> None:
    """Note the algorithm on every case that NCCL carries and tells of; the others stay unknown.

    A case that fails here is left to fail, with its reason, where it is measured.
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
    """Each case once, with rank 0's NCCL logging."""
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

"""The one record of a measured case, and its form inside a pytest-benchmark result file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

from specs import statistics
from specs.errors import UserError
from specs.roofline import Work

# A case: what is measured, known before anything runs.


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kernel or collective at one shape, on one rank.

    Attributes:
        name: pytest node id; `pytest-benchmark compare` matches on it.
        question: decode, prefill, sweep, ceilings, … : the table it belongs to.
        op: linear, moe, attention, read, copy, launch, all_reduce, …
        implementation: torch, triton, cuda, nccl, gloo, … ; of published points the framework: vllm, trtllm, sglang.
        kernel: name of the kernel within the implementation.
        dtype: fp32, bf16, fp16, fp8, fp8-block.
        flops, hbm_bytes, wire_bytes_sent_per_rank: the work of one call, see `specs.roofline.Work`.
        model, layer, tp, pp: what it was cut from; None for ceilings.
        tokens, n, k: rows of x, rows of W and the length they share, y[tokens, n] = x[tokens, k] · W[n, k]ᵀ.
        cache: cold, hot, rotated-6 or unknown: whether the caches could hold the weights from one call to the next.
        launch: graph, eager or unknown.
        ranks: how many ranks ran it; message_bytes: size of the message, where there is one, as specs/traffic.py means
            it.
        gap_seconds: idle time before each call; 0 where calls follow one another.
        pair: ranks that send and receive, `0-1`, where a call is between two of several.
        context: tokens that each query attends to, where there is attention.
        batch: sequences that the tokens belong to, where there is attention: as many as tokens in decode.
        per_layer: how often a layer makes this call, where it is a part of one.
        replicas, schedule, micro_batches, partition: with tp and pp how a whole model was run, see
            `specs.parallel.Deployment`; tokens are rows of a forward pass of the whole batch, a prompt's for each
            sequence in prefill.
        layers, vocab: of that model, fewer than it has where it was cut down.
        backend: what carried its messages.
        distribution: how tokens were dealt to experts: balanced, power_law_1.2, …
    """

    name: str
    question: str
    op: str
    implementation: str
    kernel: str
    dtype: str
    flops: int
    hbm_bytes: int
    wire_bytes_sent_per_rank: int = 0
    model: str | None = None
    layer: str | None = None
    tp: int | None = None
    pp: int | None = None
    tokens: int | None = None
    n: int | None = None
    k: int | None = None
    cache: str = "cold"
    launch: str = "eager"
    ranks: int = 1
    message_bytes: int | None = None
    gap_seconds: float = 0.0
    pair: str | None = None
    context: int | None = None
    batch: int | None = None
    per_layer: int | None = None
    replicas: int | None = None
    schedule: str | None = None
    micro_batches: int | None = None
    partition: str | None = None
    layers: int | None = None
    vocab: int | None = None
    backend: str | None = None
    distribution: str | None = None

    @property
    def work(self) -> Work:
        """The work of one call."""
        return Work(self.flops, self.hbm_bytes, self.wire_bytes_sent_per_rank)


# A step of a whole model: every sequence of the batch gets one token, or every prompt is read once.
#
# Its time is that of the slowest replica. In decode it is also what a sequence waits for each of its tokens: the loop
# is closed, a micro-batch goes on only when its last token has come back.

STEP_OP = "step"
STEP_QUESTION = "tp_vs_pp"
COMPUTE_ITEMS = ("linears", "attention", "norms")
"""Of a layer, and of both ends: the embedding's look-up counts as norms, the LM head and sampling as linears."""
LEDGER_ITEMS = (*COMPUTE_ITEMS, "all-reduce", "hop", "idle", "skew", "host")
"""Where a rank's time goes.

all-reduce: from the moment that the last rank of the group has come, sampling's all-gather included.
hop: sending, and what a message is waited for after it was sent.
idle: what it is waited for before: the bubble, and the time after a rank has finished while others go on.
skew: waiting in an all-reduce for the last rank to come.
host: what is left between all these.
"""
BUSY_ITEMS = (*COMPUTE_ITEMS, "all-reduce", "hop", "host")
"""All but waiting for others."""
BLOCK_KINDS = ("compute", "all-reduce", "hop", "idle")
"""Kinds of blocks of a timeline; skew is idle there, and the host's time belongs to the block before."""


class TimelineBlock(NamedTuple):
    """What one rank did for a while, in seconds from the window's start, for which micro-batch of which step.

    A timeline is {"seconds": length of the window, "blocks": [[rank, kind, start, end, step, slot], …]}, and a rank's
    blocks fill the window one after another. `microbatch` is the micro-batch, -1 of a block that belongs to none.
    """

    rank: int
    kind: str
    start: float
    end: float
    step: int
    microbatch: int


def timeline_blocks(timeline: Mapping[str, Any]) -> list[TimelineBlock]:
    """A timeline's blocks, as they stand in a file."""
    return [TimelineBlock(*one) for one in timeline["blocks"]]


def is_decode(tokens: int | None, batch: int | None) -> bool:
    """Whether each sequence adds one token; else each is a prompt of tokens / batch."""
    return tokens == batch


def mean_ledger(ledgers: Any) -> dict[str, float]:
    """Shares of a step over all passes and stages: they add up to 1."""
    rows = [stage for one in ledgers for stage in one]
    return {item: fmean(row.get(item, 0.0) for row in rows) for item in LEDGER_ITEMS}


def ledger_by_stage(ledgers: Any) -> list[dict[str, float]]:
    """The same of each stage, over all passes."""
    return [
        {item: fmean(row.get(item, 0.0) for row in rows) for item in LEDGER_ITEMS}
        for rows in zip(*ledgers, strict=True)
    ]


def share_by_pass(ledgers: Any, *items: str) -> list[float]:
    """Of each pass the share of these items together, the mean over stages."""
    return [fmean(sum(row.get(item, 0.0) for item in items) for row in one) for one in ledgers]


def step_figures(measurement: "Measurement") -> Mapping[str, Any]:
    """What a result file says of a step beside its samples; nothing of any other case."""
    case = measurement.case
    if case.op != STEP_OP or not case.batch:
        return {}
    seconds = measurement.median
    decode = is_decode(case.tokens, case.batch)
    found: dict[str, Any] = {
        "step_seconds": seconds,
        "seconds_per_token": seconds if decode else seconds / ((case.tokens or 0) // case.batch),
        "tokens_per_second": (case.tokens or 0) / seconds,
    }
    if measurement.ledgers:
        found["ledger"] = mean_ledger(measurement.ledgers)
    return found


SCHEMA = 1
"""`shardbench_schema` of the files written now; readers accept it and older ones."""
MAX_SECONDS = 1e6
"""A call that takes longer, eleven days, is no measurement."""
CASE_FIELDS = tuple(f.name for f in fields(Case))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Every sample of one case in seconds a call, pass by pass, and how far to trust it.

    Attributes:
        case: what ran.
        seconds: one tuple of samples for each pass.
        clock: how a sample was taken: perf_counter or cuda_event; published where a source gives its own figure.
        relative_error: ‖out − reference‖ / ‖reference‖ against float64; None where a source gives none.
        copies: distinct copies of the streamed inputs that calls rotate through.
        calls: calls that one sample spans.
        stopped_by: precision, passes, budget, interrupted, or `error: …` with what ended it.
        throttled: whether the clocks were held back under load; None where nothing tells.
        telemetry: clocks in MHz, power in W and the like during load, by name; of a GPU the SM clock before and after
            the samples of the last visit, and how many visits it moved in.
        configuration: what the kernel chose for this case, and on what grounds; None for one that has no choice.
        skew_seconds: by how much the slowest rank was behind the fastest at the end of a sample, the median over
            samples, each of which is the slowest's time; None for one rank.
        algorithm: ring, tree, nvls, … and the protocol, where the library tells; None where nothing does.
        transport: the one kind of link that all ranks talk over: nvlink, pcie, loopback, …; None for several and for
            unknown.
        ledgers: of a step of a whole model, where its time went: for each pass and in it for each stage the share of
            each of `specs.measurement.LEDGER_ITEMS`, which add up to 1.
        timeline: of one sample of it, what each rank did: see `specs.measurement.TimelineBlock`.
        provenance: measured, published, interpolated, assumed or modelled.
        framework, version, kernel_source: what a published point was measured in, as its source names it.
        maybe_hot: whether a cache may have held weights that should have come from memory; None where nothing tells.
        interpolated_over: what was interpolated over, and between which neighbours: `n 16384–51200`.
        interpolation_error: relative error of that method where a neighbour is left out and predicted.
        doubts: what a linter found odd about the point.
    """

    case: Case
    seconds: tuple[tuple[float, ...], ...]
    clock: str
    relative_error: float | None = None
    copies: int = 1
    calls: int = 1
    stopped_by: str = "passes"
    throttled: bool | None = None
    telemetry: Mapping[str, float] | None = None
    configuration: str | None = None
    skew_seconds: float | None = None
    algorithm: str | None = None
    transport: str | None = None
    ledgers: Sequence[Sequence[Mapping[str, float]]] | None = None
    timeline: Mapping[str, Any] | None = None
    provenance: str = "measured"
    framework: str | None = None
    version: str | None = None
    kernel_source: str | None = None
    maybe_hot: bool | None = None
    interpolated_over: str | None = None
    interpolation_error: float | None = None
    doubts: Sequence[str] = ()

    @cached_property
    def samples(self) -> tuple[float, ...]:
        """All samples in seconds, in the order they were taken."""
        return tuple(sample for one in self.seconds for sample in one)

    @cached_property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.pooled_median(self.seconds)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval on the median in seconds, clustered by pass; None for a single pass."""
        return statistics.median_interval(self.seconds)

    @property
    def bytes_per_second(self) -> float:
        """Achieved device-memory bandwidth by the bytes that had to move."""
        return self.case.hbm_bytes / self.median

    @property
    def flops_per_second(self) -> float:
        """Achieved arithmetic rate."""
        return self.case.flops / self.median

    def extra_info(self) -> dict[str, Any]:
        """All but the samples, for pytest-benchmark's `extra_info`: JSON types only, never NaN."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("case", "seconds")}
        for name in ("configuration", "skew_seconds", "algorithm", "transport", "ledgers", "timeline"):
            if own[name] is None:
                del own[name]
        derived = {
            "passes": len(self.seconds),
            "pass_rounds": [len(one) for one in self.seconds],
            "interval_seconds": list(self.interval) if self.interval else None,
            "noise": statistics.noise(self.seconds) if len(self.samples) > 1 else None,
        }
        return {**asdict(self.case), **own, "doubts": list(self.doubts), **derived, **step_figures(self)}

    @classmethod
    def from_benchmark(cls, entry: Mapping[str, Any]) -> "Measurement":
        """Read one member of `benchmarks` in a result file.

        Raises:
            UserError: it is not a shardbench entry, or its samples do not add up to its passes.
        """
        info, name = entry.get("extra_info") or {}, entry.get("fullname", "?")
        try:
            case = Case(**{name: info[name] for name in CASE_FIELDS if name in info})
            data = [float(sample) for sample in entry["stats"]["data"]]
            rounds = [int(size) for size in info.get("pass_rounds") or [len(data)]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{name}: not a shardbench case ({error}); was this file made by `pytest suites/`?"
            ) from error
        if sum(rounds) != len(data) or min(rounds) < 1:
            raise UserError(f"{name}: {len(data)} samples do not fill passes of {rounds}; the file was edited or cut")
        if not all(0 < sample < MAX_SECONDS for sample in data):
            raise UserError(f"{name}: a sample is not a positive number of seconds; the file was edited or cut")
        edges = [0]
        for size in rounds:
            edges.append(edges[-1] + size)
        own = {f: info[f] for f in cls.__dataclass_fields__ if f in info}
        own.setdefault("clock", "unknown")
        own["doubts"] = tuple(map(str, info.get("doubts") or ()))
        return cls(case=case, seconds=tuple(tuple(data[a:b]) for a, b in pairwise(edges)), **own)

"""The record of a measured case, its form in result files, and ledgers of steps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property, lru_cache
from itertools import islice
from operator import attrgetter, itemgetter
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

from specs import statistics
from specs.errors import UserError
from specs.roofline import Work

# A case: one planned measurement, known before anything runs.


@dataclass(frozen=True, kw_only=True)
class Case:
    """One planned measurement: a kernel, a collective or a whole step, at one shape.

    Attributes:
        name: pytest node id; `pytest-benchmark compare` matches on it.
        question: table that the case belongs to: decode, prefill, sweep, ceilings, …
        op: linear, moe, attention, read, copy, launch, all_reduce, …
        implementation: torch, triton, cuda, nccl, gloo, … ; of published points the framework: vllm, trtllm, sglang.
        kernel: name of the kernel within the implementation.
        dtype: fp32, bf16, fp16, fp8, fp8-block, nvfp4; of attention the format of the queries.
        flops, hbm_bytes, wire_bytes_sent_per_rank: work of one call, see `specs.roofline.Work`.
        model, layer, tp, pp: model, its part and its split; None for ceilings.
        tokens, n, k: rows of x, rows of W and the length they share, y[tokens, n] = x[tokens, k] · W[n, k]ᵀ.
        cache: state of the caches: cold, hot, rotated-6 or unknown; in a hot case they can hold the weights between
            calls.
        launch: graph, eager or unknown.
        ranks: number of ranks that run the case.
        message_bytes: size of the message, where there is a message, as specs/traffic.py defines it.
        gap_seconds: idle time before each call; 0 where calls follow one another.
        pair: ranks that send and receive, `0-1`, where a call is between two of several.
        context: tokens that each query attends to, where there is attention.
        batch: sequences that the tokens belong to, where there is attention: equal to tokens in decode.
        per_layer: calls of this part in a layer.
        replicas, schedule, micro_batches, partition: with tp and pp the deployment of a whole model, see
            `specs.parallel.Deployment`; tokens are rows of a forward pass of the whole batch, in prefill a prompt's for
            each sequence.
        layers, vocab: sizes of that model; smaller than the full model's where it is scaled down.
        backend: library that carries its messages.
        distribution: distribution of tokens over experts: balanced, power_law_1.2, …
        kv_dtype: format of keys and values in the cache; None where it is `dtype`.
        late_seconds: delay, on purpose, of one rank behind its linear, in an all-reduce that follows a linear; 0
            without delay. None for every other case.
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
    kv_dtype: str | None = None
    late_seconds: float | None = None

    @property
    def work(self) -> Work:
        """The work of one call."""
        return Work(self.flops, self.hbm_bytes, self.wire_bytes_sent_per_rank)

    @property
    def is_back_to_back(self) -> bool:
        """True where calls follow one another, without idle time or a linear before each."""
        return not self.gap_seconds and self.late_seconds is None


CASE_FIELDS = tuple(f.name for f in fields(Case))


def key_without(*left_out: str) -> Callable[[Case], tuple[object, ...]]:
    """Return a function that gives all fields of a case but these, to group cases by."""
    return attrgetter(*(name for name in CASE_FIELDS if name not in left_out))


# A step of a whole model: every sequence of the batch gets one token, or every prompt is read once.
#
# The step time is that of the slowest replica. In decode it is also the latency of a token: the loop is closed, so a
# microbatch continues only when its last token has come back.

STEP_OP = "step"
STEP_QUESTION = "tp_vs_pp"
COMPUTE_ITEMS = ("linears", "attention", "norms")
"""Compute items of a layer and of both ends of the model.

The embedding's look-up counts as norms; the LM head and sampling count as linears.
"""
LEDGER_ITEMS = (*COMPUTE_ITEMS, "all-reduce", "hop", "idle", "skew", "host")
"""Items of a ledger: a rank's time in a step, by cause.

- all-reduce: transfer time once all ranks of the group have arrived, including sampling's all-gather.
- hop: sending, and waiting for a message after it was sent.
- idle: waiting before a message is sent: the bubble, and the time after a rank has finished while other ranks run.
- skew: waiting in an all-reduce for the last rank to arrive.
- host: remaining time between these.
"""
BUSY_ITEMS = (*COMPUTE_ITEMS, "all-reduce", "hop", "host")
"""All items but waiting for other ranks."""
BLOCK_KINDS = ("compute", "all-reduce", "hop", "idle")
"""Kinds of blocks of a timeline.

A timeline shows skew as idle, and counts host time to the block before.
"""


class TimelineBlock(NamedTuple):
    """One activity of one rank, in seconds from the window's start.

    A timeline is {"seconds": length of the window, "blocks": [[rank, kind, start, end, step, microbatch], …]}. A rank's
    blocks fill the window one after another. `microbatch` is -1 for a block that belongs to none.
    """

    rank: int
    kind: str
    start: float
    end: float
    step: int
    microbatch: int


def timeline_blocks(timeline: Mapping[str, Any]) -> list[TimelineBlock]:
    """Return a timeline's blocks from their form in a file."""
    return [TimelineBlock(*one) for one in timeline["blocks"]]


def is_decode(tokens: int | None, batch: int | None) -> bool:
    """Return whether each sequence adds one token, and is no prompt of several."""
    return tokens == batch


def mean_ledger(ledgers: Any) -> dict[str, float]:
    """Return shares of a step by item, mean over all passes and stages; the sum is 1."""
    rows = [stage for one in ledgers for stage in one]
    return {item: fmean(row.get(item, 0.0) for row in rows) for item in LEDGER_ITEMS}


def ledger_by_stage(ledgers: Any) -> list[dict[str, float]]:
    """Return shares of a step by item for each stage, mean over all passes."""
    return [
        {item: fmean(row.get(item, 0.0) for row in rows) for item in LEDGER_ITEMS}
        for rows in zip(*ledgers, strict=True)
    ]


def share_by_pass(ledgers: Any, *items: str) -> list[float]:
    """Return for each pass the summed share of these items, mean over stages."""
    return [fmean(sum(row.get(item, 0.0) for item in items) for row in one) for one in ledgers]


def step_figures(measurement: "Measurement") -> Mapping[str, Any]:
    """Return a result file's derived figures of a step; empty for any other case."""
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


WAITED_SHARE = "waited_share"
"""Telemetry key: wait of the other ranks for a rank delayed on purpose, over its delay."""
SCHEMA = 1
"""`shardbench_schema` of files written now; readers accept it and older schemas."""
MAX_SECONDS = 1e6
"""Limit for the time of a call: a longer call, eleven days, is no measurement."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """All samples of one case in seconds per call, and their reliability.

    Attributes:
        case: the case that ran.
        seconds: one tuple of samples for each pass.
        clock: source of a sample: perf_counter or cuda_event; published where a source gives its own figure.
        relative_error: ‖out − reference‖ / ‖reference‖ against float64; None where a source gives none.
        copies: distinct copies of the streamed inputs that calls rotate through.
        calls: calls that one sample spans.
        stopped_by: precision, passes, budget, interrupted, or `error: …` with the cause.
        throttled: True where the clocks were held back under load; None where unknown.
        telemetry: clocks in MHz, power in W and similar figures under load, by name; for a GPU the SM clock before and
            after the samples of the last visit, and the number of visits in which it moved.
        configuration: the kernel's choice for this case, and its basis; None for a kernel without a choice.
        skew_seconds: lag of the slowest rank behind the fastest at the end of a sample, the median over samples, each
            of which is the slowest's time; None for one rank. Of an all-reduce that follows a linear it is the part of
            a sample before the latest rank has come.
        algorithm: ring, tree, nvls, … and the protocol, as the library reports; None where unknown.
        transport: the one kind of link that all ranks use: nvlink, pcie, loopback, …; None for several and for unknown.
        ledgers: for a step of a whole model: for each pass and in it for each stage the share of each of
            `LEDGER_ITEMS`; shares add up to 1.
        timeline: activity of each rank in one sample of a step: see `TimelineBlock`.
        provenance: measured, published, interpolated, assumed or modelled.
        framework, version, kernel_source: software of a published point, as its source names it.
        maybe_hot: True where a cache may have held weights that should have come from memory; None where unknown.
        interpolated_over: the interpolated axis and the two neighbours: `n 16384–51200`.
        interpolation_error: relative error of that method where a neighbour is left out and predicted.
        doubts: oddities of the point that a linter found.
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
        """All samples in seconds, in the order of measurement."""
        return tuple(sample for one in self.seconds for sample in one)

    @cached_property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.pooled_median(self.seconds)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval on the median in seconds; None for a single pass.

        Samples are clustered by pass.
        """
        return statistics.median_interval(self.seconds)

    @property
    def bytes_per_second(self) -> float:
        """Achieved device-memory bandwidth in bytes/s, from the least bytes of a call."""
        return self.case.hbm_bytes / self.median

    @property
    def flops_per_second(self) -> float:
        """Achieved arithmetic rate in flops/s."""
        return self.case.flops / self.median

    def extra_info(self) -> dict[str, Any]:
        """Return all but the samples, for pytest-benchmark's `extra_info`.

        The values are JSON types only, never NaN.
        """
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
        case = asdict(self.case)
        for name in ("kv_dtype", "late_seconds"):
            if case[name] is None:
                del case[name]
        return {**case, **own, "doubts": list(self.doubts), **derived, **step_figures(self)}

    @classmethod
    def from_benchmark(cls, entry: Mapping[str, Any]) -> "Measurement":
        """Read one member of `benchmarks` in a result file.

        Raises:
            UserError: it is not a shardbench entry, or its samples do not add up to its passes.
        """
        info, name = entry.get("extra_info") or {}, entry.get("fullname", "?")
        try:
            own_fields, case_fields = _fields_among(tuple(info))
            case = _construct(Case, case_fields.of(info))
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
        samples = iter(data)
        own = {"clock": "unknown", **own_fields.of(info)}
        own["doubts"] = tuple(map(str, own.get("doubts") or ()))
        own["case"], own["seconds"] = case, tuple([tuple(islice(samples, size)) for size in rounds])
        return _construct(cls, own)


class _Fields:
    """Fields of a record that a file gives, and a fast way to take all of them from an entry."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._values = itemgetter(*self.names, self.names[-1]) if self.names else None  # of one name it gives no tuple

    def of(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the fields, by name."""
        return dict(zip(self.names, self._values(info), strict=False)) if self._values else {}


@lru_cache(maxsize=256)
def _fields_among(keys: tuple[str, ...]) -> tuple[_Fields, _Fields]:
    """Return the fields of a measurement and of its case among an entry's keys; entries of a file share few sets."""
    there = {*keys}
    own, case = (tuple(f.name for f in fields(kind) if f.name in there) for kind in (Measurement, Case))
    return _Fields(own), _Fields(case)


Record = TypeVar("Record", Case, Measurement)


def _construct(kind: type[Record], values: dict[str, Any]) -> Record:
    """Return the same as `kind(**values)`, four times as fast.

    The constructor of a frozen dataclass sets each of its fields by a call.

    Raises:
        TypeError: a field without a default has no value.
    """
    if not values.keys() >= REQUIRED[kind.__name__]:
        return kind(**values)
    found = object.__new__(kind)
    object.__setattr__(found, "__dict__", DEFAULTS[kind.__name__] | values)
    return found


DEFAULTS = {
    kind.__name__: {f.name: f.default for f in fields(kind) if f.default is not MISSING} for kind in (Case, Measurement)
}
"""Usual values of the fields of a record, by the name of its class."""
REQUIRED = {kind.__name__: {f.name for f in fields(kind) if f.default is MISSING} for kind in (Case, Measurement)}
"""Fields without a usual value."""


PROVENANCE_ORDER = ("measured", "published", "interpolated", "datasheet", "modelled", "assumed")
"""Provenances, the strongest first."""


def weakest_provenance(provenances: Iterable[str]) -> str:
    """Weakest provenance, which a figure that depends on all of them has."""
    return max(
        provenances, key=lambda one: PROVENANCE_ORDER.index(one) if one in PROVENANCE_ORDER else len(PROVENANCE_ORDER)
    )

"""One linear at one count of tokens, by every implementation that a file has of it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from statistics import geometric_mean
from typing import Any, Literal

from reports import formatting, show
from reports.provenance import gpu_name
from reports.results import ResultFile
from reports.roofline import CaseMetrics
from specs import statistics
from specs.layer import (
    CUBLASLT_CANDIDATES,
    DECODE_TOKENS,
    DEFAULT_MODEL,
    LAYER_LINEARS,
    LINEAR_IMPLEMENTATIONS,
    TP_DEGREES,
)
from specs.measurement import Case, Measurement
from specs.models import find_model
from specs.parallel import Split

LIBRARIES = ("torch", "cublaslt")
OURS = ("triton", "cuda")
OURS_DEPENDENT = formatting.DEPENDENT_LAUNCH
"""With programmatic dependent launch a kernel starts under the tail of the one before: another question, kept apart."""
QUESTIONS = ("decode", "prefill", "sweep")
MEASURE_HINT = "`pytest suites/ -k decode --dtype bf16 --benchmark-json=out.json`"

PUBLISHED_HINT = "published times of frameworks: `python -m reports html` shows them"


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as the better library the best of some of our kernels is, by medians."""

    ours: CaseMetrics
    library: CaseMetrics

    @property
    def ratio(self) -> float:
        """The library's time over ours: above 1 where we are faster."""
        return self.library.measurement.median / self.ours.measurement.median

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval on the ratio, clustered by pass; None for a single pass."""
        return statistics.ratio_interval(self.ours.measurement.seconds, self.library.measurement.seconds)


@dataclass(frozen=True)
class KernelPoint:
    """A shard at one count of tokens, with the metrics of each implementation from the same passes."""

    by_implementation: Mapping[str, CaseMetrics]

    @property
    def case(self) -> Case:
        """Any of the cases, for what they share: layer, tp, n, k, tokens, bytes."""
        return next(iter(self.by_implementation.values())).measurement.case

    @property
    def name(self) -> str:
        """`o tp8 M 16`."""
        return f"{self.case.layer} tp{self.case.tp} M {self.case.tokens}"

    @property
    def floor_seconds(self) -> float | None:
        """Least time by the ceilings of the same run; None where it measured none."""
        return next(iter(self.by_implementation.values())).floor_seconds

    @property
    def read_bytes_per_second(self) -> float | None:
        """The read ceiling of the same run."""
        return next(iter(self.by_implementation.values())).measured.read_bytes_per_second

    def best(self, implementations: Iterable[str]) -> CaseMetrics | None:
        """The fastest of these by its median; None where the file has none of them."""
        found = [self.by_implementation[name] for name in implementations if name in self.by_implementation]
        return min(found, key=lambda figures: figures.measurement.median, default=None)

    def speedup(self, ours: Iterable[str] = OURS) -> Speedup | None:
        """The best of `ours` against the better library; None where either side is missing."""
        own, library = self.best(ours), self.best(LIBRARIES)
        return Speedup(own, library) if own and library else None


@dataclass(frozen=True)
class LinearSelection:
    """What a file holds of one model's linears in decode and prefill.

    Attributes:
        file: where it stands.
        model: whose linears; None where there are none.
        launch: graph on a GPU, eager on a CPU.
        points: by layer in the order of the file, then by tp and tokens.
        notes: what was left out, and what is missing.
    """

    file: ResultFile
    model: str | None
    launch: str
    points: Sequence[KernelPoint]
    notes: Sequence[str]


def select_linears(file: ResultFile, model: str | None = None) -> LinearSelection:
    """The bf16 linears of a model, cold and in a graph (on a CPU: eager); of a sweep where there is nothing else.

    Args:
        file: what was measured.
        model: whose linears; without it `MODEL` where the file has that, else the file's first.
    """
    launch = "graph" if file.machine.get("gpu") else "eager"
    linears = [figures for figures in show.case_metrics(file) if _is_linear(figures.measurement.case)]
    fitting = [figures for figures in linears if not _unfit_reason(figures.measurement.case, launch)]
    models = list(dict.fromkeys(figures.measurement.case.model for figures in fitting))
    chosen = model or (DEFAULT_MODEL if DEFAULT_MODEL in models or not models else models[0])
    own = [figures for figures in fitting if figures.measurement.case.model == chosen]
    asked = [figures for figures in own if figures.measurement.case.question != "sweep"]
    points = _points(asked or own)
    left_out = _left_out_text(linears, launch)
    if not points:
        kind = f"a linear of {chosen} in bf16, cold, {launch}, by {_join_names(LINEAR_IMPLEMENTATIONS)}"
        held = f" ({left_out})" if left_out else ""
        note = f"none of {len(file.measurements)} cases is {kind}{held}; {_advice(file, models)}"
        return LinearSelection(file, None, launch, (), [note])
    notes = [f"left out: {left_out}"] if left_out else []
    return LinearSelection(file, chosen, launch, points, [*notes, *_missing(points)])


def _is_linear(case: Case) -> bool:
    if case.op != "linear" or case.dtype != "bf16" or case.question not in QUESTIONS:
        return False
    return bool(case.layer and case.tp and case.n and case.k and case.tokens)


def _tokens(case: Case) -> int:
    return case.tokens or 0


def _unfit_reason(case: Case, launch: str) -> str | None:
    """Why a linear is not of this table, in a word or two."""
    if case.implementation not in LINEAR_IMPLEMENTATIONS:
        return f"by {case.implementation}"
    if case.cache != "cold":
        return case.cache
    return case.launch if case.launch != launch else None


def _points(figures: Iterable[CaseMetrics]) -> list[KernelPoint]:
    """Stages of any pp have the same shapes: the pp with the most implementations stands for all."""
    found: dict[tuple[str | None, int | None, int], dict[int | None, dict[str, CaseMetrics]]] = {}
    for one in figures:
        case = one.measurement.case
        by_pp = found.setdefault((case.layer, case.tp, _tokens(case)), {})
        by_pp.setdefault(case.pp, {}).setdefault(case.implementation, one)
    points = [KernelPoint(max(by_pp.values(), key=len)) for by_pp in found.values()]
    layers = list(dict.fromkeys(point.case.layer for point in points))
    return sorted(points, key=lambda point: (layers.index(point.case.layer), point.case.tp, point.case.tokens))


def _left_out_text(linears: Iterable[CaseMetrics], launch: str) -> str:
    """How many linears are of another kind: `240 by vllm, 12 eager`."""
    reasons = Counter(reason for figures in linears if (reason := _unfit_reason(figures.measurement.case, launch)))
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def _advice(file: ResultFile, models: Sequence[str | None]) -> str:
    if models:
        return f"this file has {_join_names(models)}: ask for it with --model"
    return PUBLISHED_HINT if file.published else f"{MEASURE_HINT} measures them"


def _join_names(names: Iterable[str | None]) -> str:
    return ", ".join(map(str, names))


def _missing(points: Sequence[KernelPoint]) -> list[str]:
    """Implementations without any point, and points whose ratio is over one library alone."""
    absent = [name for name in LINEAR_IMPLEMENTATIONS if not any(name in point.by_implementation for point in points)]
    compared = [point for point in points if point.speedup() or point.speedup(OURS_DEPENDENT)]
    alone = {name: sum(name not in point.by_implementation for point in compared) for name in LIBRARIES}
    return [
        *([f"not in this file: {_join_names(absent)}"] if absent else []),
        *(f"no {name} at {count} of {len(compared)} points compared" for name, count in alone.items() if count),
    ]


# How many of cuBLASLt's proposals a ratio stands on: the fastest of few may not be its best.

CUBLASLT, FEW_CANDIDATES_MARK = "cublaslt", "†"
CANDIDATES_PATTERN = re.compile(r"\((\d+) asked\)|^algo \d+ of (\d+)")
"""In the configuration of a case; older files name those proposed alone."""


def candidate_count(point: KernelPoint) -> int | None:
    """Proposals that were asked for at this size; None without cuBLASLt, and where its case does not say."""
    figures = point.by_implementation.get(CUBLASLT)
    return _parse_candidates(figures.measurement) if figures else None


def _parse_candidates(one: Measurement) -> int | None:
    found = [int(text) for groups in CANDIDATES_PATTERN.findall(one.configuration or "") for text in groups if text]
    return max(found, default=None)


def candidates_mark(point: KernelPoint) -> str:
    """Behind a ratio that stands on fewer than are asked for now."""
    count = candidate_count(point)
    return FEW_CANDIDATES_MARK if count is not None and count < CUBLASLT_CANDIDATES else ""


def candidates_text(points: Sequence[KernelPoint]) -> str:
    """Over how many candidates at a size; empty where nothing says so."""
    counts = sorted(count for point in points if (count := candidate_count(point)) is not None)
    if not counts:
        return ""
    span = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
    return f"the fastest of what its heuristics propose when asked for {span} candidates a size"


def candidates_notes(points: Sequence[KernelPoint]) -> tuple[str, ...]:
    """The legend of the mark where a ratio has it."""
    if not any(map(candidates_mark, points)):
        return ()
    return (
        f"{FEW_CANDIDATES_MARK} against the fastest of fewer than {CUBLASLT_CANDIDATES} cublaslt candidates: measure "
        "again",
    )


# What the decode kernels are meant to reach: 16 shapes of Llama-3-70B on H200, at five counts of tokens.

TARGET_GPU = "h200_sxm"
MIN_SPEEDUP = 0.97
MIN_MEAN_SPEEDUP = 1.08
MIN_NARROW_SPEEDUP = 1.15
LAUNCH_SECONDS = 2.2e-6
READ_SHARE = 0.96
LINE_PERCENT = 90
"""Percent of the points that have to take no longer than the line."""

PointKey = tuple[str | None, int | None, int | None]
PointSpeedups = Sequence[tuple[KernelPoint, Speedup]]
TARGET_POINTS: frozenset[PointKey] = frozenset(product(LAYER_LINEARS, TP_DEGREES, DECODE_TOKENS))
NARROW_POINTS: frozenset[PointKey] = frozenset(product(("qkv", "o"), (4, 8), DECODE_TOKENS))
"""Where the library leaves the most."""


@dataclass(frozen=True)
class TargetResult:
    """One target and how it stands.

    Attributes:
        target: what is asked for.
        met: None where the points that are missing could still decide it.
        figure: what was reached, in its `unit`: a ratio, or a share of the points.
        points: how many of them there are; `expected_points`: how many it was set for.
        remark: the point that decides, or what is missing.
    """

    target: str
    met: bool | None
    figure: float | None
    points: int
    expected_points: int
    remark: str = ""
    unit: Literal["ratio", "share"] = "ratio"

    @property
    def verdict(self) -> str:
        """In words."""
        return "not measured" if self.met is None else "met" if self.met else "not met"

    def record(self, *, dependent_launch: bool) -> dict[str, Any]:
        """For a machine."""
        return {
            "target": self.target,
            "dependent_launch": dependent_launch,
            "met": self.met,
            "figure": self.figure,
            "unit": self.unit,
            "points": self.points,
            "of_points": self.expected_points,
            "remark": self.remark,
        }


def judge_targets(points: Sequence[KernelPoint], ours: Sequence[str]) -> list[TargetResult]:
    """Every target, held against the best of `ours`."""
    ratios = [
        (point, speedup) for point in points if point_key(point) in TARGET_POINTS and (speedup := point.speedup(ours))
    ]
    small = [(point, speedup) for point, speedup in ratios if point_key(point) in NARROW_POINTS]
    narrow = "qkv, o at tp 4, 8"
    return [
        judge_every(f"every point ≥ {MIN_SPEEDUP}x", MIN_SPEEDUP, ratios, len(TARGET_POINTS)),
        judge_mean(f"geometric mean ≥ {MIN_MEAN_SPEEDUP}x", MIN_MEAN_SPEEDUP, ratios, len(TARGET_POINTS)),
        judge_every(f"{narrow}: every point ≥ {MIN_NARROW_SPEEDUP}x", MIN_NARROW_SPEEDUP, small, len(NARROW_POINTS)),
        judge_mean(f"{narrow}: geometric mean ≥ {MIN_NARROW_SPEEDUP}x", MIN_NARROW_SPEEDUP, small, len(NARROW_POINTS)),
        _judge_line(points, ours),
    ]


def other_setting_remark(selection: LinearSelection) -> str:
    """A remark where machine or model are not those that the targets were set for; else empty."""
    gpu = gpu_name(selection.file)
    return (
        ""
        if (gpu, selection.model) == (TARGET_GPU, DEFAULT_MODEL)
        else f"set for {TARGET_GPU} and {DEFAULT_MODEL}; this is {gpu}"
    )


def point_key(point: KernelPoint) -> PointKey:
    """What a target names a point by: layer, tp, tokens."""
    return point.case.layer, point.case.tp, point.case.tokens


def judge_every(target: str, bound: float, ratios: PointSpeedups, of: int) -> TargetResult:
    """A single point below decides against it; for it, all have to be there."""
    worst, speedup = min(ratios, key=lambda one: one[1].ratio, default=(None, None))
    if worst is None or speedup is None:
        return TargetResult(target, None, None, 0, of)
    lack = _missing_remark(ratios, of)
    met = False if speedup.ratio < bound else None if lack else True
    return TargetResult(target, met, speedup.ratio, len(ratios), of, _join_remarks(f"least at {worst.name}", lack))


def judge_mean(target: str, bound: float, ratios: PointSpeedups, of: int) -> TargetResult:
    """All have to be there; with one library missing the ratios can only be too large."""
    if not ratios:
        return TargetResult(target, None, None, 0, of)
    figure, lack = geometric_mean(speedup.ratio for _, speedup in ratios), _missing_remark(ratios, of)
    met = None if len(ratios) < of else False if figure < bound else None if lack else True
    return TargetResult(target, met, figure, len(ratios), of, lack)


def _judge_line(points: Sequence[KernelPoint], ours: Sequence[str]) -> TargetResult:
    """Times against a line: a launch, then the bytes at nearly the read ceiling of the run.

    With so many points over it that those missing cannot make up for them, it is decided.
    """
    target = f"t ≤ {LAUNCH_SECONDS * 1e6:g} us + bytes / ({READ_SHARE} read) at {LINE_PERCENT}%"
    of, read = len(TARGET_POINTS), next((point.read_bytes_per_second for point in points), None)
    own = [best.measurement for point in points if point_key(point) in TARGET_POINTS and (best := point.best(ours))]
    if not own:
        return TargetResult(target, None, None, 0, of)
    if not read:
        return TargetResult(target, None, None, 0, of, "no read ceiling in this file: run suites/bench_ceilings.py too")
    limits = [LAUNCH_SECONDS + one.case.hbm_bytes / (READ_SHARE * read) for one in own]
    within = sum(one.median <= limit for one, limit in zip(own, limits, strict=True))
    met = True if len(own) == of else None
    if 100 * (len(own) - within) > (100 - LINE_PERCENT) * of:
        met = False
    remark = _join_remarks(f"{within} of {len(own)} points", _count_missing(of - len(own)))
    return TargetResult(target, met, within / len(own), len(own), of, remark, "share")


def _missing_remark(ratios: PointSpeedups, of: int) -> str:
    """What keeps a target from being met, however good the figures are."""
    lacking = {name: sum(name not in point.by_implementation for point, _ in ratios) for name in LIBRARIES}
    alone = [f"no {name} at {count}" for name, count in lacking.items() if count]
    return _join_remarks(_count_missing(of - len(ratios)), *alone)


def _count_missing(count: int) -> str:
    return f"{count} missing" if count else ""


def _join_remarks(*remarks: str) -> str:
    return "; ".join(filter(None, remarks))


# What the GEMM is meant to reach: the same 16 shapes of Llama-3-70B on H200, at 128 tokens and more.

BATCH_TOKENS, PROMPT_TOKENS = (128, 256), (512, 2048, 8192)
"""Tokens where the time is still that of reading the weights, and where it is that of the multiply-adds."""
NARROW_N = 5120
"""Rows of W up to which tiles alone are too few for the SMs."""
BATCH_MEAN, NARROW_MEAN = 1.04, 1.10
PROMPT_LEAST, PROMPT_MEAN = 0.90, 0.95

SHAPES = [(layer, tp) for layer, tp in product(LAYER_LINEARS, TP_DEGREES)]
NARROW_SHAPES = [
    (layer, tp) for layer, tp in SHAPES if Split(find_model(DEFAULT_MODEL), tp).linear(layer).n <= NARROW_N
]


def judge_many_tokens(points: Sequence[KernelPoint], ours: Sequence[str]) -> list[TargetResult]:
    """Every target, held against the best of `ours`."""
    batches, narrow, prompts = (
        _keys(SHAPES, BATCH_TOKENS),
        _keys(NARROW_SHAPES, BATCH_TOKENS),
        _keys(SHAPES, PROMPT_TOKENS),
    )
    ratios = [(point, speedup) for point in points if (speedup := point.speedup(ours))]
    of_batches = [pair for pair in ratios if point_key(pair[0]) in batches]
    of_narrow = [pair for pair in ratios if point_key(pair[0]) in narrow]
    of_prompts = [pair for pair in ratios if point_key(pair[0]) in prompts]
    batch, prompt = "M " + ", ".join(map(str, BATCH_TOKENS)), "M " + ", ".join(map(str, PROMPT_TOKENS))
    return [
        judge_mean(f"{batch}: geometric mean ≥ {BATCH_MEAN}x", BATCH_MEAN, of_batches, len(batches)),
        judge_mean(
            f"{batch}, n ≤ {NARROW_N}: geometric mean ≥ {NARROW_MEAN:.2f}x", NARROW_MEAN, of_narrow, len(narrow)
        ),
        judge_every(f"{prompt}: every point ≥ {PROMPT_LEAST:.2f}x", PROMPT_LEAST, of_prompts, len(prompts)),
        judge_mean(f"{prompt}: geometric mean ≥ {PROMPT_MEAN}x", PROMPT_MEAN, of_prompts, len(prompts)),
    ]


def _keys(shapes: Sequence[tuple[str, int]], tokens: Sequence[int]) -> frozenset[PointKey]:
    return frozenset((layer, tp, count) for (layer, tp), count in product(shapes, tokens))

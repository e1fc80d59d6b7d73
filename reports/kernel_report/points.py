"""Linears by implementation in a result file, their speedups, and the targets."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from statistics import geometric_mean
from typing import Any, Literal

from reports import formatting, show
from reports.machine import gpu_name
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
"""Our implementations with programmatic dependent launch, kept apart.

Their kernels start under the tail of the previous kernel, which is another question.
"""
QUESTIONS = ("decode", "prefill", "sweep")
MEASURE_HINT = "`pytest suites/ -k decode --dtype bf16 --benchmark-json=out.json`"

PUBLISHED_HINT = "published times of frameworks: `python -m reports html` shows them"


@dataclass(frozen=True)
class Speedup:
    """Speedup of the best of our kernels over the better library, by medians."""

    ours: CaseMetrics
    library: CaseMetrics

    @property
    def ratio(self) -> float:
        """Library time over our time: above 1 where our kernel is faster."""
        return self.library.measurement.median / self.ours.measurement.median

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval on the ratio, clustered by pass; None for a single pass."""
        return statistics.ratio_interval(self.ours.measurement.seconds, self.library.measurement.seconds)


@dataclass(frozen=True)
class KernelPoint:
    """A shard at one token count, with metrics by implementation.

    All metrics come from the same passes.
    """

    by_implementation: Mapping[str, CaseMetrics]

    @property
    def case(self) -> Case:
        """Any of the cases, for the shared fields: layer, tp, n, k, tokens, bytes."""
        return next(iter(self.by_implementation.values())).measurement.case

    @property
    def name(self) -> str:
        """Name of the point, such as `o tp8 M 16`."""
        return f"{self.case.layer} tp{self.case.tp} M {self.case.tokens}"

    @property
    def floor_seconds(self) -> float | None:
        """Minimum time by the ceilings of the same run; None without ceilings."""
        return next(iter(self.by_implementation.values())).floor_seconds

    @property
    def read_bytes_per_second(self) -> float | None:
        """Read ceiling of the same run, in bytes/s."""
        return next(iter(self.by_implementation.values())).measured.read_bytes_per_second

    def best(self, implementations: Iterable[str]) -> CaseMetrics | None:
        """Return the fastest of these by median; None where the file has none."""
        found = [self.by_implementation[name] for name in implementations if name in self.by_implementation]
        return min(found, key=lambda figures: figures.measurement.median, default=None)

    def speedup(self, ours: Iterable[str] = OURS) -> Speedup | None:
        """Return the best of `ours` against the better library.

        None where either side is missing.
        """
        own, library = self.best(ours), self.best(LIBRARIES)
        return Speedup(own, library) if own and library else None


@dataclass(frozen=True)
class LinearSelection:
    """Linears of one model in a file, in decode and prefill.

    Attributes:
        file: the result file.
        model: slug of the model; None where there are no linears.
        launch: graph on a GPU, eager on a CPU.
        points: by layer in the order of the file, then by tp and tokens.
        notes: remarks on what was left out, and on what is missing.
    """

    file: ResultFile
    model: str | None
    launch: str
    points: Sequence[KernelPoint]
    notes: Sequence[str]


def select_linears(file: ResultFile, model: str | None = None) -> LinearSelection:
    """Select the bf16 linears of a model, cold and in a graph (on a CPU: eager).

    Sweeps count only where there is nothing else.

    Args:
        file: the result file.
        model: slug of the model; by default `DEFAULT_MODEL` where the file has it, else the file's first.
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
    """Return why a linear is not in this table, in a word or two; else None."""
    if case.implementation not in LINEAR_IMPLEMENTATIONS:
        return f"by {case.implementation}"
    if case.cache != "cold":
        return case.cache
    return case.launch if case.launch != launch else None


def _points(figures: Iterable[CaseMetrics]) -> list[KernelPoint]:
    """Group figures into points.

    Stages of any pp have the same shapes, so the pp with the most implementations represents all.
    """
    found: dict[tuple[str | None, int | None, int], dict[int | None, dict[str, CaseMetrics]]] = {}
    for one in figures:
        case = one.measurement.case
        by_pp = found.setdefault((case.layer, case.tp, _tokens(case)), {})
        by_pp.setdefault(case.pp, {}).setdefault(case.implementation, one)
    points = [KernelPoint(max(by_pp.values(), key=len)) for by_pp in found.values()]
    layers = list(dict.fromkeys(point.case.layer for point in points))
    return sorted(points, key=lambda point: (layers.index(point.case.layer), point.case.tp, point.case.tokens))


def _left_out_text(linears: Iterable[CaseMetrics], launch: str) -> str:
    """Return the numbers of other linears by kind: `240 by vllm, 12 eager`."""
    reasons = Counter(reason for figures in linears if (reason := _unfit_reason(figures.measurement.case, launch)))
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def _advice(file: ResultFile, models: Sequence[str | None]) -> str:
    if models:
        return f"this file has {_join_names(models)}: ask for it with --model"
    return PUBLISHED_HINT if file.published else f"{MEASURE_HINT} measures them"


def _join_names(names: Iterable[str | None]) -> str:
    return ", ".join(map(str, names))


def _missing(points: Sequence[KernelPoint]) -> list[str]:
    """Return implementations without a point, and counts of points with one library."""
    absent = [name for name in LINEAR_IMPLEMENTATIONS if not any(name in point.by_implementation for point in points)]
    compared = [point for point in points if point.speedup() or point.speedup(OURS_DEPENDENT)]
    alone = {name: sum(name not in point.by_implementation for point in compared) for name in LIBRARIES}
    return [
        *([f"not in this file: {_join_names(absent)}"] if absent else []),
        *(f"no {name} at {count} of {len(compared)} points compared" for name, count in alone.items() if count),
    ]


# Number of cuBLASLt candidates behind a ratio: the fastest of few may not be its best.

CUBLASLT, FEW_CANDIDATES_MARK = "cublaslt", "†"
CANDIDATES_PATTERN = re.compile(r"\((\d+) asked\)|^algo \d+ of (\d+)")
"""Candidate counts in a case's configuration.

Older files name only the number that was proposed.
"""


def candidate_count(point: KernelPoint) -> int | None:
    """Return the number of candidates that were asked for at this size.

    None without cuBLASLt, and where its case does not say.
    """
    figures = point.by_implementation.get(CUBLASLT)
    return _parse_candidates(figures.measurement) if figures else None


def _parse_candidates(one: Measurement) -> int | None:
    found = [int(text) for groups in CANDIDATES_PATTERN.findall(one.configuration or "") for text in groups if text]
    return max(found, default=None)


def candidates_mark(point: KernelPoint) -> str:
    """Return a mark for a ratio against fewer candidates than are asked for now."""
    count = candidate_count(point)
    return FEW_CANDIDATES_MARK if count is not None and count < CUBLASLT_CANDIDATES else ""


def candidates_text(points: Sequence[KernelPoint]) -> str:
    """Return the range of candidates at a size; empty where unknown."""
    counts = sorted(count for point in points if (count := candidate_count(point)) is not None)
    if not counts:
        return ""
    span = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
    return f"the fastest of what its heuristics propose when asked for {span} candidates a size"


def candidates_notes(points: Sequence[KernelPoint]) -> tuple[str, ...]:
    """Return the legend of the mark where a ratio has it."""
    if not any(map(candidates_mark, points)):
        return ()
    return (
        f"{FEW_CANDIDATES_MARK} against the fastest of fewer than {CUBLASLT_CANDIDATES} cublaslt candidates: measure "
        "again",
    )


# Targets of the decode kernels: 16 shapes of Llama-3-70B on H200, at five token counts.

TARGET_GPU = "h200_sxm"
MIN_SPEEDUP = 0.97
MIN_MEAN_SPEEDUP = 1.08
MIN_NARROW_SPEEDUP = 1.15
LAUNCH_SECONDS = 2.2e-6
READ_SHARE = 0.96
LINE_PERCENT = 90
"""Percent of the points that must take no longer than the line."""

PointKey = tuple[str | None, int | None, int | None]
PointSpeedups = Sequence[tuple[KernelPoint, Speedup]]
TARGET_POINTS: frozenset[PointKey] = frozenset(product(LAYER_LINEARS, TP_DEGREES, DECODE_TOKENS))
NARROW_POINTS: frozenset[PointKey] = frozenset(product(("qkv", "o"), (4, 8), DECODE_TOKENS))
"""Points where the library leaves the most room."""


@dataclass(frozen=True)
class TargetResult:
    """Result on one target.

    Attributes:
        target: the target in words.
        met: None where the missing points could still decide it.
        figure: the value reached, in its `unit`: a ratio, or a share of the points.
        points: number of points; `expected_points`: number that the target was set for.
        remark: the deciding point, or what is missing.
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
        """Verdict in words."""
        return "not measured" if self.met is None else "met" if self.met else "not met"

    def record(self, *, dependent_launch: bool) -> dict[str, Any]:
        """Return the JSON record."""
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
    """Judge every decode target by the best of `ours`."""
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
    """Return a remark where GPU or model are not the targets'; else empty."""
    gpu = gpu_name(selection.file)
    return (
        ""
        if (gpu, selection.model) == (TARGET_GPU, DEFAULT_MODEL)
        else f"set for {TARGET_GPU} and {DEFAULT_MODEL}; this is {gpu}"
    )


def point_key(point: KernelPoint) -> PointKey:
    """Return the key of a point in a target: layer, tp, tokens."""
    return point.case.layer, point.case.tp, point.case.tokens


def judge_every(target: str, bound: float, ratios: PointSpeedups, of: int) -> TargetResult:
    """Judge a target on every point.

    A single point below the bound refutes it; meeting it needs all points.
    """
    worst, speedup = min(ratios, key=lambda one: one[1].ratio, default=(None, None))
    if worst is None or speedup is None:
        return TargetResult(target, None, None, 0, of)
    lack = _missing_remark(ratios, of)
    met = False if speedup.ratio < bound else None if lack else True
    return TargetResult(target, met, speedup.ratio, len(ratios), of, _join_remarks(f"least at {worst.name}", lack))


def judge_mean(target: str, bound: float, ratios: PointSpeedups, of: int) -> TargetResult:
    """Judge a target on the geometric mean.

    All points must exist. With one library missing the ratios can only be too large.
    """
    if not ratios:
        return TargetResult(target, None, None, 0, of)
    figure, lack = geometric_mean(speedup.ratio for _, speedup in ratios), _missing_remark(ratios, of)
    met = None if len(ratios) < of else False if figure < bound else None if lack else True
    return TargetResult(target, met, figure, len(ratios), of, lack)


def _judge_line(points: Sequence[KernelPoint], ours: Sequence[str]) -> TargetResult:
    """Judge times against a line: a launch, plus bytes at nearly the read ceiling.

    The target is decided early where more points exceed the line than the missing points can offset.
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
    """Return what keeps a target from being met, however good the figures are."""
    lacking = {name: sum(name not in point.by_implementation for point, _ in ratios) for name in LIBRARIES}
    alone = [f"no {name} at {count}" for name, count in lacking.items() if count]
    return _join_remarks(_count_missing(of - len(ratios)), *alone)


def _count_missing(count: int) -> str:
    return f"{count} missing" if count else ""


def _join_remarks(*remarks: str) -> str:
    return "; ".join(filter(None, remarks))


# Targets of the GEMM: the same 16 shapes of Llama-3-70B on H200, at 128 tokens and more.

BATCH_TOKENS, PROMPT_TOKENS = (128, 256), (512, 2048, 8192)
"""Tokens where reading the weights sets the time, and where multiply-adds do."""
NARROW_N = 5120
"""Rows of W up to which tiles alone are too few for the SMs."""
BATCH_MEAN, NARROW_MEAN = 1.04, 1.10
PROMPT_LEAST, PROMPT_MEAN = 0.90, 0.95

SHAPES = [(layer, tp) for layer, tp in product(LAYER_LINEARS, TP_DEGREES)]
NARROW_SHAPES = [
    (layer, tp) for layer, tp in SHAPES if Split(find_model(DEFAULT_MODEL), tp).linear(layer).n <= NARROW_N
]


def judge_many_tokens(points: Sequence[KernelPoint], ours: Sequence[str]) -> list[TargetResult]:
    """Judge every GEMM target by the best of `ours`."""
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

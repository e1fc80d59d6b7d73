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
from reports.roofline import Figures
from specs import statistics
from specs.layer import CUBLASLT_CANDIDATES, LAYERS, LINEAR_IMPLEMENTATIONS, MODEL, TOKENS, TP
from specs.measurement import Case, Measurement
from specs.models import model
from specs.parallel import Split

LIBRARIES = ("torch", "cublaslt")
OURS = ("triton", "cuda")
DEPENDENT = formatting.DEPENDENT_LAUNCH
"""With programmatic dependent launch a kernel starts under the tail of the one before: another question, kept apart."""
QUESTIONS = ("decode", "prefill", "sweep")
MEASURE = "`pytest suites/ -k decode --dtype bf16 --benchmark-json=out.json`"

PUBLISHED = "published times of frameworks: `python -m reports html` shows them"


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as the better library the best of some of our kernels is, by medians."""

    ours: Figures
    library: Figures

    @property
    def ratio(self) -> float:
        """The library's time over ours: above 1 where we are faster."""
        return self.library.measurement.median / self.ours.measurement.median

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval on the ratio, clustered by pass; None for a single pass."""
        return statistics.ratio_interval(self.ours.measurement.seconds, self.library.measurement.seconds)


@dataclass(frozen=True)
class Point:
    """A shard at one count of tokens; `by` has the figures of each implementation, all from the same passes."""

    by: Mapping[str, Figures]

    @property
    def case(self) -> Case:
        """Any of the cases, for what they share: layer, tp, n, k, tokens, bytes."""
        return next(iter(self.by.values())).measurement.case

    @property
    def name(self) -> str:
        """`o tp8 M 16`."""
        return f"{self.case.layer} tp{self.case.tp} M {self.case.tokens}"

    @property
    def floor_seconds(self) -> float | None:
        """Least time by the ceilings of the same run; None where it measured none."""
        return next(iter(self.by.values())).floor_seconds

    @property
    def read_bytes_per_second(self) -> float | None:
        """The read ceiling of the same run."""
        return next(iter(self.by.values())).measured.read_bytes_per_second

    def best(self, implementations: Iterable[str]) -> Figures | None:
        """The fastest of these by its median; None where the file has none of them."""
        found = [self.by[name] for name in implementations if name in self.by]
        return min(found, key=lambda figures: figures.measurement.median, default=None)

    def speedup(self, ours: Iterable[str] = OURS) -> Speedup | None:
        """The best of `ours` against the better library; None where either side is missing."""
        own, library = self.best(ours), self.best(LIBRARIES)
        return Speedup(own, library) if own and library else None


@dataclass(frozen=True)
class Selection:
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
    points: Sequence[Point]
    notes: Sequence[str]


def select(file: ResultFile, model: str | None = None) -> Selection:
    """The bf16 linears of a model, cold and in a graph (on a CPU: eager); of a sweep where there is nothing else.

    Args:
        file: what was measured.
        model: whose linears; without it `MODEL` where the file has that, else the file's first.
    """
    launch = "graph" if file.machine.get("gpu") else "eager"
    linears = [figures for figures in show.read(file) if _is_linear(figures.measurement.case)]
    fitting = [figures for figures in linears if not _unfit(figures.measurement.case, launch)]
    models = list(dict.fromkeys(figures.measurement.case.model for figures in fitting))
    chosen = model or (MODEL if MODEL in models or not models else models[0])
    own = [figures for figures in fitting if figures.measurement.case.model == chosen]
    asked = [figures for figures in own if figures.measurement.case.question != "sweep"]
    points = _points(asked or own)
    left_out = _left_out(linears, launch)
    if not points:
        kind = f"a linear of {chosen} in bf16, cold, {launch}, by {_listed(LINEAR_IMPLEMENTATIONS)}"
        held = f" ({left_out})" if left_out else ""
        note = f"none of {len(file.measurements)} cases is {kind}{held}; {_advice(file, models)}"
        return Selection(file, None, launch, (), [note])
    notes = [f"left out: {left_out}"] if left_out else []
    return Selection(file, chosen, launch, points, [*notes, *_missing(points)])


def _is_linear(case: Case) -> bool:
    if case.op != "linear" or case.dtype != "bf16" or case.question not in QUESTIONS:
        return False
    return bool(case.layer and case.tp and case.n and case.k and case.tokens)


def _tokens(case: Case) -> int:
    return case.tokens or 0


def _unfit(case: Case, launch: str) -> str | None:
    """Why a linear is not of this table, in a word or two."""
    if case.implementation not in LINEAR_IMPLEMENTATIONS:
        return f"by {case.implementation}"
    if case.cache != "cold":
        return case.cache
    return case.launch if case.launch != launch else None


def _points(figures: Iterable[Figures]) -> list[Point]:
    """Stages of any pp have the same shapes: the pp with the most implementations stands for all."""
    found: dict[tuple[str | None, int | None, int], dict[int | None, dict[str, Figures]]] = {}
    for one in figures:
        case = one.measurement.case
        by_pp = found.setdefault((case.layer, case.tp, _tokens(case)), {})
        by_pp.setdefault(case.pp, {}).setdefault(case.implementation, one)
    points = [Point(max(by_pp.values(), key=len)) for by_pp in found.values()]
    layers = list(dict.fromkeys(point.case.layer for point in points))
    return sorted(points, key=lambda point: (layers.index(point.case.layer), point.case.tp, point.case.tokens))


def _left_out(linears: Iterable[Figures], launch: str) -> str:
    """How many linears are of another kind: `240 by vllm, 12 eager`."""
    reasons = Counter(reason for figures in linears if (reason := _unfit(figures.measurement.case, launch)))
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def _advice(file: ResultFile, models: Sequence[str | None]) -> str:
    if models:
        return f"this file has {_listed(models)}: ask for it with --model"
    return PUBLISHED if file.published else f"{MEASURE} measures them"


def _listed(names: Iterable[str | None]) -> str:
    return ", ".join(map(str, names))


def _missing(points: Sequence[Point]) -> list[str]:
    """Implementations without any point, and points whose ratio is over one library alone."""
    absent = [name for name in LINEAR_IMPLEMENTATIONS if not any(name in point.by for point in points)]
    compared = [point for point in points if point.speedup() or point.speedup(DEPENDENT)]
    alone = {name: sum(name not in point.by for point in compared) for name in LIBRARIES}
    return [
        *([f"not in this file: {_listed(absent)}"] if absent else []),
        *(f"no {name} at {count} of {len(compared)} points compared" for name, count in alone.items() if count),
    ]


# How many of cuBLASLt's proposals a ratio stands on: the fastest of few may not be its best.

NAME, MARK = "cublaslt", "†"
ASKED = re.compile(r"\((\d+) asked\)|^algo \d+ of (\d+)")
"""In the configuration of a case; older files name those proposed alone."""


def asked(point: Point) -> int | None:
    """Proposals that were asked for at this size; None without cuBLASLt, and where its case does not say."""
    figures = point.by.get(NAME)
    return _asked(figures.measurement) if figures else None


def _asked(one: Measurement) -> int | None:
    found = [int(text) for groups in ASKED.findall(one.configuration or "") for text in groups if text]
    return max(found, default=None)


def mark(point: Point) -> str:
    """Behind a ratio that stands on fewer than are asked for now."""
    count = asked(point)
    return MARK if count is not None and count < CUBLASLT_CANDIDATES else ""


def told(points: Sequence[Point]) -> str:
    """Over how many candidates at a size; empty where nothing says so."""
    counts = sorted(count for point in points if (count := asked(point)) is not None)
    if not counts:
        return ""
    span = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
    return f"the fastest of what its heuristics propose when asked for {span} candidates a size"


def notes(points: Sequence[Point]) -> tuple[str, ...]:
    """The legend of the mark where a ratio has it."""
    if not any(map(mark, points)):
        return ()
    return (f"{MARK} against the fastest of fewer than {CUBLASLT_CANDIDATES} cublaslt candidates: measure again",)


# What the decode kernels are meant to reach: 16 shapes of Llama-3-70B on H200, at five counts of tokens.

GPU = "h200_sxm"
LEAST = 0.97
MEAN = 1.08
NARROW_LIMIT = 1.15
LAUNCH_SECONDS = 2.2e-6
READ_SHARE = 0.96
ON_THE_LINE = 90
"""Percent of the points that have to take no longer than the line."""

Key = tuple[str | None, int | None, int | None]
Ratios = Sequence[tuple[Point, Speedup]]
ALL: frozenset[Key] = frozenset(product(LAYERS, TP, TOKENS))
SMALL: frozenset[Key] = frozenset(product(("qkv", "o"), (4, 8), TOKENS))
"""Where the library leaves the most."""


@dataclass(frozen=True)
class Target:
    """One target and how it stands.

    Attributes:
        target: what is asked for.
        met: None where the points that are missing could still decide it.
        figure: what was reached, in its `unit`: a ratio, or a share of the points.
        points: how many of them there are; `of`: how many it was set for.
        remark: the point that decides, or what is missing.
    """

    target: str
    met: bool | None
    figure: float | None
    points: int
    of: int
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
            "of_points": self.of,
            "remark": self.remark,
        }


def judge_targets(points: Sequence[Point], ours: Sequence[str]) -> list[Target]:
    """Every target, held against the best of `ours`."""
    ratios = [(point, speedup) for point in points if key(point) in ALL and (speedup := point.speedup(ours))]
    small = [(point, speedup) for point, speedup in ratios if key(point) in SMALL]
    narrow = "qkv, o at tp 4, 8"
    return [
        every(f"every point ≥ {LEAST}x", LEAST, ratios, len(ALL)),
        mean(f"geometric mean ≥ {MEAN}x", MEAN, ratios, len(ALL)),
        every(f"{narrow}: every point ≥ {NARROW_LIMIT}x", NARROW_LIMIT, small, len(SMALL)),
        mean(f"{narrow}: geometric mean ≥ {NARROW_LIMIT}x", NARROW_LIMIT, small, len(SMALL)),
        _on_the_line(points, ours),
    ]


def set_for_another(selection: Selection) -> str:
    """A remark where machine or model are not those that the targets were set for; else empty."""
    gpu = gpu_name(selection.file)
    return "" if (gpu, selection.model) == (GPU, MODEL) else f"set for {GPU} and {MODEL}; this is {gpu}"


def key(point: Point) -> Key:
    """What a target names a point by: layer, tp, tokens."""
    return point.case.layer, point.case.tp, point.case.tokens


def every(target: str, bound: float, ratios: Ratios, of: int) -> Target:
    """A single point below decides against it; for it, all have to be there."""
    worst, speedup = min(ratios, key=lambda one: one[1].ratio, default=(None, None))
    if worst is None or speedup is None:
        return Target(target, None, None, 0, of)
    lack = _lack(ratios, of)
    met = False if speedup.ratio < bound else None if lack else True
    return Target(target, met, speedup.ratio, len(ratios), of, _remarks(f"least at {worst.name}", lack))


def mean(target: str, bound: float, ratios: Ratios, of: int) -> Target:
    """All have to be there; with one library missing the ratios can only be too large."""
    if not ratios:
        return Target(target, None, None, 0, of)
    figure, lack = geometric_mean(speedup.ratio for _, speedup in ratios), _lack(ratios, of)
    met = None if len(ratios) < of else False if figure < bound else None if lack else True
    return Target(target, met, figure, len(ratios), of, lack)


def _on_the_line(points: Sequence[Point], ours: Sequence[str]) -> Target:
    """Times against a line: a launch, then the bytes at nearly the read ceiling of the run.

    With so many points over it that those missing cannot make up for them, it is decided.
    """
    target = f"t ≤ {LAUNCH_SECONDS * 1e6:g} us + bytes / ({READ_SHARE} read) at {ON_THE_LINE}%"
    of, read = len(ALL), next((point.read_bytes_per_second for point in points), None)
    own = [best.measurement for point in points if key(point) in ALL and (best := point.best(ours))]
    if not own:
        return Target(target, None, None, 0, of)
    if not read:
        return Target(target, None, None, 0, of, "no read ceiling in this file: run suites/bench_ceilings.py too")
    limits = [LAUNCH_SECONDS + one.case.hbm_bytes / (READ_SHARE * read) for one in own]
    within = sum(one.median <= limit for one, limit in zip(own, limits, strict=True))
    met = True if len(own) == of else None
    if 100 * (len(own) - within) > (100 - ON_THE_LINE) * of:
        met = False
    remark = _remarks(f"{within} of {len(own)} points", _absent(of - len(own)))
    return Target(target, met, within / len(own), len(own), of, remark, "share")


def _lack(ratios: Ratios, of: int) -> str:
    """What keeps a target from being met, however good the figures are."""
    lacking = {name: sum(name not in point.by for point, _ in ratios) for name in LIBRARIES}
    alone = [f"no {name} at {count}" for name, count in lacking.items() if count]
    return _remarks(_absent(of - len(ratios)), *alone)


def _absent(count: int) -> str:
    return f"{count} missing" if count else ""


def _remarks(*remarks: str) -> str:
    return "; ".join(filter(None, remarks))


# What the GEMM is meant to reach: the same 16 shapes of Llama-3-70B on H200, at 128 tokens and more.

BATCHES, PROMPTS = (128, 256), (512, 2048, 8192)
"""Tokens where the time is still that of reading the weights, and where it is that of the multiply-adds."""
NARROW_N = 5120
"""Rows of W up to which tiles alone are too few for the SMs."""
BATCH_MEAN, NARROW_MEAN = 1.04, 1.10
PROMPT_LEAST, PROMPT_MEAN = 0.90, 0.95

SHAPES = [(layer, tp) for layer, tp in product(LAYERS, TP)]
NARROW_SHAPES = [(layer, tp) for layer, tp in SHAPES if Split(model(MODEL), tp).linear(layer).n <= NARROW_N]


def judge_many_tokens(points: Sequence[Point], ours: Sequence[str]) -> list[Target]:
    """Every target, held against the best of `ours`."""
    batches, narrow, prompts = _keys(SHAPES, BATCHES), _keys(NARROW_SHAPES, BATCHES), _keys(SHAPES, PROMPTS)
    ratios = [(point, speedup) for point in points if (speedup := point.speedup(ours))]
    of_batches = [pair for pair in ratios if key(pair[0]) in batches]
    of_narrow = [pair for pair in ratios if key(pair[0]) in narrow]
    of_prompts = [pair for pair in ratios if key(pair[0]) in prompts]
    batch, prompt = "M " + ", ".join(map(str, BATCHES)), "M " + ", ".join(map(str, PROMPTS))
    return [
        mean(f"{batch}: geometric mean ≥ {BATCH_MEAN}x", BATCH_MEAN, of_batches, len(batches)),
        mean(f"{batch}, n ≤ {NARROW_N}: geometric mean ≥ {NARROW_MEAN:.2f}x", NARROW_MEAN, of_narrow, len(narrow)),
        every(f"{prompt}: every point ≥ {PROMPT_LEAST:.2f}x", PROMPT_LEAST, of_prompts, len(prompts)),
        mean(f"{prompt}: geometric mean ≥ {PROMPT_MEAN}x", PROMPT_MEAN, of_prompts, len(prompts)),
    ]


def _keys(shapes: Sequence[tuple[str, int]], tokens: Sequence[int]) -> frozenset[Key]:
    return frozenset((layer, tp, count) for (layer, tp), count in product(shapes, tokens))

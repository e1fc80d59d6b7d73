"""One linear at one count of tokens, by every implementation that a file has of it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from reports import dependent, show
from reports.figures import Figures
from reports.files import ResultFile
from specs import statistics
from specs.layer import LINEAR_IMPLEMENTATIONS, MODEL
from specs.measurement import Case

LIBRARIES = ("torch", "cublaslt")
OURS = ("triton", "cuda")
DEPENDENT = dependent.IMPLEMENTATIONS
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

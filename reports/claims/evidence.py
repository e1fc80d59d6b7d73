"""Findings on claims, and the evidence that they are judged by.

Evidence is times over tokens and steps of whole models from result files, measured or published.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Literal

from reports import machine
from reports.claims.verdict import DECIDED_VERDICTS, Interval, Verdict
from reports.machine import gpu_name
from reports.results import ResultFile
from reports.tp_vs_pp import compare as tp_vs_pp_compare
from reports.tp_vs_pp.compare import Experiment
from specs.gpus import Gpu
from specs.measurement import Case, Measurement, weakest_provenance
from specs.models import MODELS
from specs.roofline import Ceilings

# Finding on a claim: a verdict, the figure behind it, and the cases used.

Architecture = Literal["dense", "whole", "moe"]
"""Kind of layer: dense linears, whole dense layers with attention, or experts."""
OVERALL = "overall"
"""Scope of the single row on a whole GPU and architecture."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One verdict on one claim.

    Attributes:
        verdict: HOLDS, REFUTED, HOLDS_IF, UNDERPOWERED or NOT_MEASURED; never HOLDS for lack of data.
        value: the deciding figure, in `unit`; None where there is none.
        low, high: interval on it: from passes where measured, over frameworks where published.
        unit: unit of value, low and high: bytes, tokens, ratio, share, …
        condition: what HOLDS_IF depends on, what is missing, or what qualifies the figure.
        gpu: GPU slug, or the machine's name where specs/gpus.py has no row; None for arithmetic.
        dtype: format of the cases; for arithmetic the format in which bytes are counted.
        architecture: dense, whole or moe; None where nothing was found.
        cases: names of the cases used.
        provenance: the weakest of those used: arithmetic, datasheet, measured, published, interpolated, modelled or
            assumed; of a plan modelled at best.
        scope: `OVERALL`, or the subject of a row below it, such as `gate_up tp8`.
        model: slug of the model that the cases are cut from.
        interpolation_error: leave-one-out error: of a linear the largest of its points, overall that of the median
            linear. Not part of the interval. Cautious: leaving a neighbour out doubles the gap.
        file: path of the result file with the cases.
        label: the GPU, with its file where several files are of the same GPU.
    """

    verdict: Verdict
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    condition: str = ""
    gpu: str | None = None
    dtype: str | None = None
    architecture: Architecture | None = None
    cases: Sequence[str] = ()
    provenance: str = "arithmetic"
    scope: str = OVERALL
    model: str | None = None
    interpolation_error: float | None = None
    file: str | None = None
    label: str = ""

    @property
    def interval(self) -> Interval:
        """Interval on the value; None where there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class ClaimFinding:
    """A finding with the claim that it judges."""

    id: str
    statement: str
    finding: Finding


def overall_findings(judged: Iterable[ClaimFinding], slug: str) -> list[Finding]:
    """Return the overall findings on one claim."""
    return [one.finding for one in judged if one.id == slug and one.finding.scope == OVERALL]


QUESTION_ARCHITECTURES: Mapping[str, Architecture] = {"sweep": "dense", "moe": "moe"}
"""Kind of layer, by the table that holds its times over tokens."""
DECODE_QUESTIONS = ("decode", "sweep", "layer")
"""Tables with decode linears; of several with the same linear, the first counts."""
SeriesKey = tuple[str, str, int, int | None, str | None, str, str]
"""Model, layer, tp, context, distribution, implementation, kernel of a series."""


@dataclass(frozen=True)
class TokenSeries:
    """Times over tokens of a linear, experts or a layer, by one implementation.

    `points` are by tokens.
    """

    model: str
    layer: str
    tp: int
    context: int | None
    distribution: str | None
    implementation: str
    kernel: str
    points: Mapping[int, Measurement]

    @property
    def part(self) -> str:
        """Measured part of a model: `gate_up tp8`, `experts tp1 balanced`.

        All implementations share the name.
        """
        return part_name(self.layer, self.tp, self.context, self.distribution)

    @cached_property
    def seconds(self) -> dict[int, float]:
        """Medians by tokens, in seconds."""
        return {tokens: one.median for tokens, one in sorted(self.points.items())}

    @cached_property
    def maybe_hot(self) -> bool:
        """True where a cache may have held the weights.

        The series then supports no verdict on cold weights.
        """
        return any(one.maybe_hot for one in self.points.values())

    @cached_property
    def shape_published(self) -> bool:
        """True where this shape was measured, even if at other token counts."""
        overs = (one.interpolated_over for one in self.points.values())
        return not any(over and not over.startswith("tokens") for over in overs)

    def at(self, *tokens: int) -> list[Measurement] | None:
        """Return the points at these tokens, in their order; None unless all exist."""
        return [self.points[count] for count in tokens] if all(count in self.points for count in tokens) else None


@dataclass(frozen=True)
class Evidence:
    """All series of one file, format and kind of layer, and its whole-model steps.

    Attributes:
        file: the result file, for estimates from more than times over tokens.
        gpu: slug of the GPU where it is known, else the file's name for the machine.
        published: whether others measured it.
        datasheet: the GPU's datasheet row.
        measured: ceilings of the same file.
        read_measurement: the read that gives the bandwidth of `measured`.
        single_token: linears or whole layers at one token, decode tables included.
        steps: experiments on whole dense models, with attention.
        label: the GPU, with its file where several files are of the same GPU.
    """

    file: ResultFile
    gpu: str
    dtype: str
    architecture: Architecture
    published: bool
    datasheet: Gpu | None
    measured: Ceilings
    read_measurement: Measurement | None
    series: Sequence[TokenSeries]
    single_token: Sequence[Measurement]
    steps: Sequence[Experiment] = ()
    label: str = ""

    @property
    def path(self) -> Path:
        """Path of the result file."""
        return self.file.path

    @property
    def name(self) -> str:
        """Name that distinguishes the GPU in a report."""
        return self.label or self.gpu

    @property
    def ceilings(self) -> Ceilings | None:
        """Ceilings of the run itself; for published points the datasheet's."""
        if self.measured.read_bytes_per_second and self.measured.flops_per_second:
            return self.measured
        return Ceilings.datasheet(self.datasheet) if self.datasheet else None

    def blank_finding(self, unit: str) -> Finding:
        """Return a NOT_MEASURED finding on this evidence, to be filled in."""
        return Finding(
            verdict="NOT_MEASURED",
            unit=unit,
            gpu=self.gpu,
            dtype=self.dtype,
            architecture=self.architecture,
            provenance="published" if self.published else "measured",
            file=str(self.path),
            label=self.name,
        )

    @cached_property
    def parts(self) -> Mapping[tuple[str, str], list[TokenSeries]]:
        """Series by model and part, one for each implementation."""
        found: dict[tuple[str, str], list[TokenSeries]] = {}
        for one in self.series:
            found.setdefault((one.model, one.part), []).append(one)
        return found


def part_name(layer: str, tp: int, context: int | None = None, distribution: str | None = None) -> str:
    """Return the name of a part of a model.

    Examples: `gate_up tp8`, `layer tp8 ctx2048`, `experts tp1 balanced`.
    """
    return " ".join(filter(None, (layer, f"tp{tp}", f"ctx{context}" if context else "", distribution)))


def with_token_series(evidences: Iterable[Evidence]) -> list[Evidence]:
    """Return the evidence that has times over tokens.

    A file may have linears at one token only.
    """
    return [one for one in evidences if one.series]


def collect_evidence(files: Iterable[ResultFile]) -> list[Evidence]:
    """Collect the evidence file by file; times from warm caches are left out."""
    found = [evidence for file in files for evidence in _file_evidence(file)]
    places: dict[tuple[str, str, str], list[Evidence]] = {}
    for one in found:
        places.setdefault((one.gpu, one.dtype, one.architecture), []).append(one)
    shared = {one.path for alike in places.values() if len(alike) > 1 for one in alike}
    return [replace(one, label=f"{one.gpu} ({one.path.stem})") if one.path in shared else one for one in found]


def _file_evidence(file: ResultFile) -> Iterator[Evidence]:
    kinds: dict[tuple[str, Architecture], dict[SeriesKey, dict[str, dict[int, Measurement]]]] = {}
    single_token: dict[tuple[str, Architecture], list[Measurement]] = {}
    for one in file.measurements:
        case = one.case
        if case.cache == "hot" or case.tokens is None or not case.layer:
            continue
        if kind := _case_architecture(case):
            kernel = case.kernel if case.op == "moe" else ""  # a linear's kernel may change with the tokens
            context = case.context if kind == "whole" else None
            key = (case.model or "", case.layer, case.tp or 1, context, case.distribution, case.implementation, kernel)
            group = kinds.setdefault((case.dtype, kind), {})
            group.setdefault(key, {}).setdefault(case.launch, {}).setdefault(case.tokens, one)
        if case.tokens == 1 and (kind == "whole" or (case.op == "linear" and case.question in DECODE_QUESTIONS)):
            single_token.setdefault((case.dtype, "whole" if kind == "whole" else "dense"), []).append(one)
    steps: dict[tuple[str, Architecture], list[Experiment]] = {}
    for ran in tp_vs_pp_compare.collect_experiments(file):
        steps.setdefault((ran.setting.dtype, "whole"), []).append(ran)
    for dtype, architecture in dict.fromkeys([*single_token, *kinds, *steps]):
        yield Evidence(
            file=file,
            gpu=gpu_name(file),
            dtype=dtype,
            architecture=architecture,
            published=file.published,
            datasheet=machine.known_gpu(file),
            measured=machine.measured_ceilings(file),
            read_measurement=machine.fastest_read(file),
            series=[
                TokenSeries(*key, _device_times(by_launch))
                for key, by_launch in kinds.get((dtype, architecture), {}).items()
            ],
            single_token=single_token.get((dtype, architecture), []),
            steps=steps.get((dtype, architecture), []),
        )


def _case_architecture(case: Case) -> Architecture | None:
    """Return the kind of layer that a case gives times over tokens of, or None.

    Of whole layers only decode counts, with one token per sequence.
    """
    if case.question == "layer":
        return "whole" if case.op == "layer" and case.batch == case.tokens else None
    return QUESTION_ARCHITECTURES.get(case.question)


def _device_times(by_launch: Mapping[str, dict[int, Measurement]]) -> dict[int, Measurement]:
    """Return the points from inside a graph where there are any.

    The host's launch gaps are a separate question and not mixed in.
    """
    return by_launch.get("graph") or next(iter(by_launch.values()))


# From findings on single linears to the finding on a GPU.

MAYBE_HOT = "the weights may have come from the L2: too few copies were rotated through"
ODD_TIMES = "the times are odd: slower than with more tokens"


def coverage_text(evidence: Evidence, rows: Sequence[Finding], used: Sequence[Finding]) -> str:
    """Return the numbers of linears used and left out, with the reasons."""
    left = [row for row in rows if (row.model, row.scope) in evidence.parts and row not in used]
    hot = sum(1 for row in left if row.condition == MAYBE_HOT)
    undecided = sum(1 for row in left if row.verdict not in DECIDED_VERDICTS) - hot
    reasons = {"maybe hot": hot, "undecided": undecided, "of interpolated shape": len(left) - hot - undecided}
    out = ", ".join(f"{count} {why}" for why, count in reasons.items() if count)
    what = {"dense": "linears", "whole": "layers", "moe": "cases"}[evidence.architecture]
    between = all(not one.shape_published for row in used for one in evidence.parts[row.model or "", row.scope])
    over = f"over {len(used)} {what if len(used) > 1 else what[:-1]}" + " of interpolated shape" * between
    return over + (f"; left out {out}" if out else "")


def decided_rows(evidence: Evidence, rows: Sequence[Finding]) -> list[Finding]:
    """Return the judged linears, of measured shapes where there are any."""
    parts = evidence.parts
    singles = [row for row in rows if (row.model, row.scope) in parts and row.verdict in DECIDED_VERDICTS]
    measured = {key for key, alike in parts.items() if all(one.shape_published for one in alike)}
    return [row for row in singles if (row.model, row.scope) in measured] or singles


def merge_findings(evidence: Evidence, rows: Sequence[Finding], unit: str) -> Finding:
    """Merge rows into their median figure and whole range, with the verdict open.

    Undecided rows give no range.
    """
    values = [row.value for row in rows if row.value is not None]
    errors = [row.interpolation_error for row in rows if row.interpolation_error is not None]
    lows, highs = [row.low for row in rows if row.low is not None], [row.high for row in rows if row.high is not None]
    return replace(
        evidence.blank_finding(unit),
        value=median(values) if values else None,
        low=min(lows, default=None),
        high=max(highs, default=None),
        cases=tuple(dict.fromkeys(name for row in rows for name in row.cases)),
        provenance=weakest_provenance(row.provenance for row in rows),
        interpolation_error=median(errors) if errors else None,
    )


# Sums of series into whole layers and whole models, for each implementation with all parts.

LINEAR_ALTERNATIVES = (("qkv",), ("o",), ("gate_up", "up"), ("down",))
"""Linears of a dense layer: one of each group."""


@dataclass(frozen=True)
class SeriesSum:
    """Series that one implementation sums up, and how often each is run."""

    series: Sequence[TokenSeries]
    counts: Sequence[int] = (1,)

    def maybe_hot(self, *tokens: int) -> bool:
        """Return whether a cache may have held any weights at these tokens."""
        return any(one.points[count].maybe_hot for one in self.series for count in tokens if count in one.points)

    def is_doubtful(self, *tokens: int) -> bool:
        """Return whether a linter marked any point at these tokens.

        Example: more time than a larger number of tokens takes.
        """
        return any(one.points[count].doubts for one in self.series for count in tokens if count in one.points)

    def pass_sums(self, measurements: Sequence[Measurement]) -> list[tuple[float]]:
        """Return per pass the sum of the means, given one measurement per series.

        Parts of a whole add up in means.
        """
        passes = min(len(one.seconds) for one in measurements)
        parts = list(zip(measurements, self.counts, strict=True))
        return [(sum(count * fmean(one.seconds[turn]) for one, count in parts),) for turn in range(passes)]


def sums_by_scope(evidence: Evidence) -> Iterator[tuple[str, str, list[SeriesSum]]]:
    """Yield model, scope and the sums of each implementation.

    Whole models come first, then whole layers, then each linear alone.
    """
    splits: dict[tuple[str, int], dict[str, dict[str, TokenSeries]]] = defaultdict(lambda: defaultdict(dict))
    for one in evidence.series:
        splits[one.model, one.tp][one.implementation][one.layer] = one
    for (slug, tp), implementations in splits.items():
        for scope, build in (("model", _model_sum), ("layer", _layer_sum)):
            stacks = [stack for linears in implementations.values() if (stack := build(slug, linears))]
            if stacks:
                yield slug, f"{scope} tp{tp}", stacks
    for (slug, part), alike in evidence.parts.items():
        yield slug, part, [SeriesSum([one]) for one in alike]


def _layer_sum(_: str, linears: Mapping[str, TokenSeries]) -> SeriesSum | None:
    """Sum the linears of a layer; None if a linear is missing."""
    found = [next((linears[name] for name in group if name in linears), None) for group in LINEAR_ALTERNATIVES]
    series = [one for one in found if one]
    return SeriesSum(series, [1] * len(series)) if all(found) else None


def _model_sum(slug: str, linears: Mapping[str, TokenSeries]) -> SeriesSum | None:
    """Sum all layers and the LM head.

    None if a linear is missing, or if the model's number of layers is unknown.
    """
    layer = _layer_sum(slug, linears)
    if not layer or "lm_head" not in linears or slug not in MODELS:
        return None
    return SeriesSum([*layer.series, linears["lm_head"]], [*(MODELS[slug].layers for _ in layer.series), 1])

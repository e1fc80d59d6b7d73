"""Times over tokens and of steps in result files, measured or published, ordered for claims to be judged by them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from reports import ceilings, machine
from reports.experiment import collect as experiments
from reports.experiment.collect import Experiment
from reports.files import ResultFile
from reports.finding import Architecture, Finding
from specs.gpus import Gpu
from specs.measurement import Case, Measurement
from specs.roofline import Ceilings

QUESTIONS: Mapping[str, Architecture] = {"sweep": "dense", "moe": "moe"}
"""Tables that hold times over tokens of one linear or of experts, and the kind of layer that they are of."""
DECODE = ("decode", "sweep", "layer")
"""Tables that hold linears of decode; where several have the same one, the first counts."""
STRENGTH = ("measured", "published", "interpolated", "datasheet", "modelled", "assumed")
"""Provenances, the strongest first."""
Key = tuple[str, str, int, int | None, str | None, str, str]
"""What tells series apart: model, layer, tp, context, distribution, implementation, kernel."""


@dataclass(frozen=True)
class Series:
    """One linear, the experts of a layer, or all of it, over tokens, by one implementation; `points` are by tokens."""

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
        """What of a model is measured, whoever's implementation it is: `gate_up tp8`, `experts tp1 balanced`."""
        return part(self.layer, self.tp, self.context, self.distribution)

    @cached_property
    def seconds(self) -> dict[int, float]:
        """Medians by tokens, in seconds."""
        return {tokens: one.median for tokens, one in sorted(self.points.items())}

    @cached_property
    def maybe_hot(self) -> bool:
        """Whether a cache may have held the weights: such a series supports no verdict on cold ones."""
        return any(one.maybe_hot for one in self.points.values())

    @cached_property
    def shape_published(self) -> bool:
        """Whether this very shape was measured, if not at these very tokens."""
        overs = (one.interpolated_over for one in self.points.values())
        return not any(over and not over.startswith("tokens") for over in overs)

    def at(self, *tokens: int) -> list[Measurement] | None:
        """The points at these tokens, in their order; None unless all are there."""
        return [self.points[count] for count in tokens] if all(count in self.points for count in tokens) else None


@dataclass(frozen=True)
class Evidence:
    """All series of one file, number format and kind of layer, and what ran of whole models.

    Attributes:
        file: all that was read, for what is put together from more than times over tokens.
        gpu: slug of the GPU where it is known, else what the file says of the machine.
        published: whether others measured it.
        known: the GPU's datasheet row.
        measured: ceilings of the same file.
        reading: the read that `measured` has its bandwidth from.
        singles: linears, or whole layers, that one token goes through: those of decode tables too.
        steps: experiments on whole models: dense ones, with attention.
        label: the GPU, with its file where several files are of one.
    """

    file: ResultFile
    gpu: str
    dtype: str
    architecture: Architecture
    published: bool
    known: Gpu | None
    measured: Ceilings
    reading: Measurement | None
    series: Sequence[Series]
    singles: Sequence[Measurement]
    steps: Sequence[Experiment] = ()
    label: str = ""

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.file.path

    @property
    def name(self) -> str:
        """What tells it from the other GPUs of a report."""
        return self.label or self.gpu

    @property
    def limits(self) -> Ceilings | None:
        """The ceilings of the run itself; for published points the datasheet's."""
        if self.measured.read_bytes_per_second and self.measured.flops_per_second:
            return self.measured
        return Ceilings.datasheet(self.known) if self.known else None

    def blank(self, unit: str) -> Finding:
        """A finding on all of it, to be filled in."""
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
    def parts(self) -> Mapping[tuple[str, str], list[Series]]:
        """The series of each model and part: one for each implementation."""
        found: dict[tuple[str, str], list[Series]] = {}
        for one in self.series:
            found.setdefault((one.model, one.part), []).append(one)
        return found


def part(layer: str, tp: int, context: int | None = None, distribution: str | None = None) -> str:
    """What tells parts of a model apart: `gate_up tp8`, `layer tp8 ctx2048`, `experts tp1 balanced`."""
    return " ".join(filter(None, (layer, f"tp{tp}", f"ctx{context}" if context else "", distribution)))


def over_tokens(evidences: Iterable[Evidence]) -> list[Evidence]:
    """Those that hold times over tokens: a file may have linears at one token alone."""
    return [one for one in evidences if one.series]


def collect(files: Iterable[ResultFile]) -> list[Evidence]:
    """What the files hold, file by file; what was measured from warm caches is left out."""
    found = [evidence for file in files for evidence in _of(file)]
    places: dict[tuple[str, str, str], list[Evidence]] = {}
    for one in found:
        places.setdefault((one.gpu, one.dtype, one.architecture), []).append(one)
    shared = {one.path for alike in places.values() if len(alike) > 1 for one in alike}
    return [replace(one, label=f"{one.gpu} ({one.path.stem})") if one.path in shared else one for one in found]


def weakest(provenances: Iterable[str]) -> str:
    """The provenance of a figure that rests on all of these."""
    return max(provenances, key=lambda one: STRENGTH.index(one) if one in STRENGTH else len(STRENGTH))


def gpu_name(file: ResultFile) -> str:
    """The slug of a file's GPU, or what the file says of its machine."""
    known = ceilings.known_gpu(file)
    return known.slug if known else machine.name(file.machine)


def name_among(file: ResultFile, files: Iterable[ResultFile]) -> str:
    """That of a file's machine, with the file where several are of one."""
    alike = [one for one in files if machine.name(one.machine) == machine.name(file.machine)]
    return f"{gpu_name(file)} ({file.path.stem})" if len(alike) > 1 else gpu_name(file)


def _of(file: ResultFile) -> Iterator[Evidence]:
    kinds: dict[tuple[str, Architecture], dict[Key, dict[str, dict[int, Measurement]]]] = {}
    singles: dict[tuple[str, Architecture], list[Measurement]] = {}
    for one in file.measurements:
        case = one.case
        if case.cache == "hot" or case.tokens is None or not case.layer:
            continue
        if kind := _kind(case):
            kernel = case.kernel if case.op == "moe" else ""  # a linear's implementation may change it with the tokens
            context = case.context if kind == "whole" else None
            key = (case.model or "", case.layer, case.tp or 1, context, case.distribution, case.implementation, kernel)
            group = kinds.setdefault((case.dtype, kind), {})
            group.setdefault(key, {}).setdefault(case.launch, {}).setdefault(case.tokens, one)
        if case.tokens == 1 and (kind == "whole" or (case.op == "linear" and case.question in DECODE)):
            singles.setdefault((case.dtype, "whole" if kind == "whole" else "dense"), []).append(one)
    steps: dict[tuple[str, Architecture], list[Experiment]] = {}
    for ran in experiments.collect(file):
        steps.setdefault((ran.setting.dtype, "whole"), []).append(ran)
    for dtype, architecture in dict.fromkeys([*singles, *kinds, *steps]):
        yield Evidence(
            file=file,
            gpu=gpu_name(file),
            dtype=dtype,
            architecture=architecture,
            published=file.published,
            known=ceilings.known_gpu(file),
            measured=ceilings.measured(file),
            reading=ceilings.read(file),
            series=[
                Series(*key, _device_times(by_launch))
                for key, by_launch in kinds.get((dtype, architecture), {}).items()
            ],
            singles=singles.get((dtype, architecture), []),
            steps=steps.get((dtype, architecture), []),
        )


def _kind(case: Case) -> Architecture | None:
    """What a case has times over tokens of: of whole layers those of decode, each sequence with one token."""
    if case.question == "layer":
        return "whole" if case.op == "layer" and case.batch == case.tokens else None
    return QUESTIONS.get(case.question)


def _device_times(by_launch: Mapping[str, dict[int, Measurement]]) -> dict[int, Measurement]:
    """The points from inside a graph where there are any: the host's launch gaps are another question, not mixed in."""
    return by_launch.get("graph") or next(iter(by_launch.values()))

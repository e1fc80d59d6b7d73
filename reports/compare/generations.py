"""GPU generations compared: cases of the oldest GPU, and one linear over tokens."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from reports import formatting, machine
from reports.compare import report as compare_report
from reports.compare.comparison import Comparison, compare_files
from reports.compare.explain import ExplainedCase
from reports.compare.verdict import CaseComparison
from reports.machine import distinct_gpu_name
from reports.output import Block, Column, Table
from reports.results import ResultFile
from specs import roofline
from specs.errors import UserError
from specs.gpus import Gpu
from specs.measurement import Measurement
from specs.roofline import Ceilings

TOKEN_COUNTS = (1, 16, 125, 256, 1000, 4096)
"""Decode at small and large batch, the claim's two counts, and a prefill."""
LinearKey = tuple[str, str, int, str]
"""Model, layer, tp and dtype."""


@dataclass(frozen=True)
class GenerationEntry:
    """One GPU at one token count.

    Attributes:
        seconds: median of the implementations' medians; floor: minimum by the datasheet.
        speedup: the oldest GPU's time over this GPU's, median of the implementations that both have.
        expected_speedup: the speedup of the resource that binds the linear.
    """

    gpu: Gpu
    name: str
    tokens: int
    seconds: float
    floor: float
    speedup: float
    expected_speedup: float

    @property
    def share(self) -> float:
        """Datasheet floor over the time."""
        return self.floor / self.seconds


@dataclass(frozen=True)
class Generations:
    """All GPUs against the oldest, and the linear that most of them share.

    GPUs are in order from the oldest to the newest.

    Attributes:
        names: names of the oldest GPU and of the others.
        found: comparisons of the others with the oldest, in the same order.
        model, part, dtype: the linear; entries: its times.
    """

    names: Sequence[str]
    found: Sequence[Comparison]
    model: str
    part: str
    dtype: str
    entries: Sequence[GenerationEntry]


def compare_generations(files: Sequence[ResultFile]) -> Generations | None:
    """Compare the measured files of known GPUs, or the published files.

    The larger set counts. None where fewer than two GPUs share a linear.
    """
    known = [file for file in files if machine.known_gpu(file)]
    measured, published = ([file for file in known if file.published == kind] for kind in (False, True))
    ordered = sorted(measured if len(measured) > len(published) else published, key=_age_key)
    found = [one for newer in ordered[1:] if (one := _try_compare(ordered[0], newer))]
    linears = [_linears(one) for one in found]
    linear = _shared_linear(linears)
    if linear is None:
        return None
    model, layer, tp, dtype = linear
    names = {id(file): distinct_gpu_name(file, ordered) for file in ordered}
    named = [names[id(ordered[0])], *(names[id(one.b)] for one in found)]
    return Generations(
        named, found, model, f"{layer} tp{tp}", dtype, _entries(found, [one.get(linear) for one in linears], names)
    )


def generation_blocks(found: Generations) -> list[Block]:
    """Return the comparison by question, its explanations, and the linear."""
    return [*question_blocks(found), linear_table(found)]


def question_blocks(found: Generations) -> list[Block]:
    """Return the cases of each question against the oldest GPU, and explanations."""
    drawn = compare_report.question_table(found.found, found.names, "GPU")
    return [drawn, compare_report.explanation_facts(found.found, found.names)]


def linear_table(found: Generations) -> Table:
    """Return the linear's table: per token count a group with a row per GPU."""
    columns = ("tokens", "GPU", "time us", "of sheet floor", "times as fast as the oldest", "could be explained")
    groups = []
    for tokens in dict.fromkeys(one.tokens for one in found.entries):
        rows = [one for one in found.entries if one.tokens == tokens]
        groups.append(
            tuple(
                (
                    f"{tokens}",
                    one.name,
                    f"{one.seconds * 1e6:,.1f}",
                    formatting.percent(one.share),
                    f"{one.speedup:.2f}",
                    f"{one.expected_speedup:.2f}",
                )
                for one in rows
            )
        )
    return Table(
        title="generations",
        caption=f"{found.model} {found.part} {found.dtype}; the oldest is {found.entries[0].name}",
        columns=tuple(Column(name, number=name != "GPU") for name in columns),
        groups=tuple(groups),
        notes=("published times of 125 and 1000 tokens are interpolated between tabulated ones",),
    )


def generation_number(gpu: Gpu) -> int:
    """Return the number of the architecture, which rises with the years."""
    return int("".join(letter for letter in gpu.arch if letter.isdigit()) or 0)


def _age_key(file: ResultFile) -> tuple[int, float, str]:
    gpu = machine.known_gpu(file)
    return (generation_number(gpu), gpu.hbm_bytes_per_second, gpu.slug) if gpu else (0, 0.0, "")


def _try_compare(oldest: ResultFile, newer: ResultFile) -> Comparison | None:
    try:
        return compare_files(oldest, newer)
    except UserError:  # no case in common
        return None


def _linears(versus: Comparison) -> dict[LinearKey, list[ExplainedCase]]:
    """Return the times over tokens of each cold linear with a measured shape."""
    found: dict[LinearKey, list[ExplainedCase]] = {}
    for one in versus.cases:
        case = one.pair.a.case
        if case.question == "sweep" and case.op == "linear" and case.cache != "hot" and case.model and case.layer:
            found.setdefault((case.model, case.layer, case.tp or 1, case.dtype), []).append(one)
    return {linear: pairs for linear, pairs in found.items() if not any(_is_doubtful(pair) for pair, _ in pairs)}


def _is_doubtful(pair: CaseComparison) -> bool:
    """Return whether a cache may have held the weights, or the shape is unmeasured.

    Either GPU counts.
    """
    overs = (pair.a.interpolated_over, pair.b.interpolated_over)
    return bool(pair.a.maybe_hot or pair.b.maybe_hot) or any(o and not o.startswith("tokens") for o in overs)


def _shared_linear(found: Iterable[Mapping[LinearKey, Sequence[ExplainedCase]]]) -> LinearKey | None:
    """Return the linear that most GPUs have.

    bf16 comes first, then the most bytes: they show the memory best.
    """
    sizes: dict[LinearKey, list[int]] = {}
    for linears in found:
        for linear, pairs in linears.items():
            sizes.setdefault(linear, []).append(max(pair.a.case.hbm_bytes for pair, _ in pairs))
    return max(sizes, key=lambda one: (len(sizes[one]), one[3] == "bf16", max(sizes[one])), default=None)


def _entries(
    found: Sequence[Comparison], times: Sequence[Sequence[ExplainedCase] | None], names: Mapping[int, str]
) -> list[GenerationEntry]:
    """Return, per token count, the entry of the oldest GPU and those of the others."""
    sharing = [(versus, pairs) for versus, pairs in zip(found, times, strict=True) if pairs]
    entries: list[GenerationEntry | None] = []
    for tokens in TOKEN_COUNTS:
        oldest = True
        for versus, pairs in sharing:
            here = [(pair, why) for pair, why in pairs if pair.a.case.tokens == tokens]
            if not here:
                continue
            if oldest:
                entries.append(_entry(names, versus.a, [pair.a for pair, _ in here], 1.0, 1.0))
                oldest = False
            speedup = median(1 / pair.ratio for pair, _ in here)
            promised = median([1 / why.expected for _, why in here if why.expected] or [1.0])
            entries.append(_entry(names, versus.b, [pair.b for pair, _ in here], speedup, promised))
    return [one for one in entries if one]


def _entry(
    names: Mapping[int, str], file: ResultFile, measured: Sequence[Measurement], speedup: float, promised: float
) -> GenerationEntry | None:
    gpu, case = machine.known_gpu(file), measured[0].case
    floor = roofline.floor_seconds(case.work, case.dtype, Ceilings.datasheet(gpu)) if gpu else None
    if gpu is None or not floor:
        return None
    seconds = median(one.median for one in measured)
    return GenerationEntry(gpu, names[id(file)], case.tokens or 0, seconds, floor, speedup, promised)

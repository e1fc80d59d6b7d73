"""GPU generations side by side: one linear's time on each, beside what their datasheets would explain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from reports import units
from reports.evidence import Evidence, Series
from reports.page import Column, Table
from specs import roofline
from specs.gpus import Gpu
from specs.measurement import Measurement
from specs.roofline import Ceilings

TOKENS = (1, 16, 125, 256, 1000, 4096)
"""Decode at small and large batch, the claim's two, and a prefill."""


@dataclass(frozen=True)
class Entry:
    """One GPU at one count of tokens.

    Attributes:
        seconds: the middle of the implementations' medians; floor: the least by the datasheet.
        speedup: the oldest GPU's time over this one's.
        promised: the oldest's floor over this one's: what the datasheets would explain.
    """

    gpu: Gpu
    name: str
    tokens: int
    seconds: float
    floor: float
    speedup: float
    promised: float

    @property
    def share(self) -> float:
        """The datasheet's floor over the time."""
        return self.floor / self.seconds


@dataclass(frozen=True)
class Generations:
    """One linear in one format over all GPUs that have it, from the oldest to the newest."""

    model: str
    part: str
    dtype: str
    entries: Sequence[Entry]


def side_by_side(evidences: Sequence[Evidence]) -> Generations | None:
    """The linear that the most GPUs have from cold memory; None unless two have one in common."""
    dense = [one for one in evidences if one.architecture == "dense" and one.known]
    best: dict[tuple[str, str, str], dict[str, tuple[Gpu, list[Series]]]] = {}
    for evidence in dense:
        for (slug, part), alike in evidence.parts.items():
            cold = [one for one in alike if not one.maybe_hot and one.shape_published]
            if cold and evidence.known:
                best.setdefault((slug, part, evidence.dtype), {})[evidence.name] = (evidence.known, cold)
    key = max(best, key=lambda one: (len(best[one]), one[2] == "bf16", _weight(best[one])), default=None)
    if key is None or len(best[key]) < 2:
        return None
    return Generations(*key, _entries(best[key]))


def table(found: Generations) -> Table:
    """For each count of tokens a group of rows, a GPU each."""
    columns = ("tokens", "GPU", "time us", "of sheet floor", "times as fast as the oldest", "datasheets explain")
    groups = []
    for tokens in dict.fromkeys(one.tokens for one in found.entries):
        rows = [one for one in found.entries if one.tokens == tokens]
        groups.append(
            tuple(
                (
                    f"{tokens}",
                    one.name,
                    f"{one.seconds * 1e6:,.1f}",
                    units.percent(one.share),
                    f"{one.speedup:.2f}",
                    f"{one.promised:.2f}",
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


def generation(gpu: Gpu) -> int:
    """A number that rises with the years: that of the architecture."""
    return int("".join(letter for letter in gpu.arch if letter.isdigit()) or 0)


def _weight(group: dict[str, tuple[Gpu, list[Series]]]) -> int:
    """Bytes of the linear: of several in common the largest shows the memory best."""
    return max(one.case.hbm_bytes for _, series in group.values() for one in series[0].points.values())


def _entries(group: Mapping[str, tuple[Gpu, Sequence[Series]]]) -> list[Entry]:
    ordered = sorted(group, key=lambda name: (generation(group[name][0]), group[name][0].hbm_bytes_per_second, name))
    found = []
    for tokens in TOKENS:
        oldest: tuple[float, float] | None = None
        for name in ordered:
            gpu, series = group[name]
            points = [one.points[tokens] for one in series if tokens in one.points]
            floor = _floor(points[0], gpu) if points else None
            if not points or not floor:
                continue
            seconds = median(one.median for one in points)
            oldest = oldest or (seconds, floor)
            found.append(Entry(gpu, name, tokens, seconds, floor, oldest[0] / seconds, oldest[1] / floor))
    return found


def _floor(one: Measurement, gpu: Gpu) -> float | None:
    return roofline.floor_seconds(one.case.work, one.case.dtype, Ceilings.datasheet(gpu))

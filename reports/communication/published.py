"""Published all-reduces beside each other: NCCL and the custom kernels of serving engines, in a graph and eager."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports import ceilings, generations
from reports.communication.reference import HALVES
from reports.evidence import gpu_name
from reports.files import ResultFile
from reports.page import Column, Table
from reports.units import NONE, microseconds
from specs.gpus import Gpu
from specs.measurement import Measurement
from specs.units import binary_bytes

SIZES = tuple(size * 2**10 for size in (16, 128, 1024, 16 * 1024))
"""A token of hidden 8192 in 16 bits, and what prefill sends."""
RANKS = 8
Way = tuple[str, str]
WAYS: Mapping[Way, str] = {
    ("nccl", "eager"): "NCCL eager",
    ("nccl", "graph"): "NCCL graph",
    ("custom", "eager"): "custom eager",
    ("custom", "graph"): "custom graph",
}
"""Whose kernel and how it is launched: what decides the time of a small message."""


@dataclass(frozen=True)
class Published:
    """All-reduces of one GPU over so many ranks in a 16-bit format, by way and by bytes: the fastest kernel's."""

    name: str
    gpu: Gpu | None
    ranks: int
    ways: Mapping[Way, Mapping[int, Measurement]]

    def at(self, way: Way, message_bytes: int) -> Measurement | None:
        """The point there, if there is one: nothing is interpolated."""
        return self.ways.get(way, {}).get(message_bytes)

    def sentence(self, message_bytes: int) -> str:
        """What a message of this size takes by every way that there is; empty where there is none."""
        who, how = {"nccl": "NCCL", "custom": "the fastest custom kernel"}, {"graph": "in a graph", "eager": "eager"}
        found = [(way, one) for way in WAYS if (one := self.at(way, message_bytes))]
        times = [f"{microseconds(one.median)} us with {who[family]} {how[launch]}" for (family, launch), one in found]
        if not times:
            return ""
        listed = ", ".join(times[:-1]) + (" and " if times[:-1] else "") + times[-1]
        return (
            f"At {binary_bytes(message_bytes)} on {self.ranks} × {self.name} an all-reduce takes {listed} (published)."
        )


def collect(files: Sequence[ResultFile]) -> list[Published]:
    """One for each file that has any, the oldest GPU first."""
    found = [one for file in files if (one := _of(file, _name(file, files)))]
    return sorted(found, key=lambda one: (generations.generation(one.gpu) if one.gpu else 0, one.name))


def table(found: Sequence[Published]) -> list[Table]:
    """For each size a group of rows, a GPU each; no table where nothing was published."""
    ways = [way for way in WAYS if any(way in one.ways for one in found)]
    groups = []
    for size in SIZES:
        rows = [one for one in found if any(one.at(way, size) for way in ways)]
        if rows:
            groups.append(tuple(_row(one, size, ways) for one in rows))
    if not groups:
        return []
    columns = (
        Column("message"),
        Column("GPU", number=False),
        Column("ranks"),
        *(Column(f"{WAYS[way]}\nus") for way in ways),
        Column("custom eager\nover graph"),
        Column("fastest custom kernel", number=False, prose=True),
    )
    drawn = Table(
        title="published all-reduces",
        columns=columns,
        groups=tuple(groups),
        caption=f"{_formats(found)}; of several kernels the fastest at each size",
    )
    return [drawn.without_empty(NONE)]


def _row(one: Published, size: int, ways: Sequence[Way]) -> tuple[str, ...]:
    points = [one.at(way, size) for way in ways]
    eager, graph = one.at(("custom", "eager"), size), one.at(("custom", "graph"), size)
    gained = f"{eager.median / graph.median:.1f}" if eager and graph else NONE
    custom = [(way, one.at(("custom", way), size)) for way in ("eager", "graph")]
    kernels = ", ".join(f"{way}: {point.framework} {point.version}" for way, point in custom if point)
    times = (microseconds(point.median) if point else NONE for point in points)
    return (binary_bytes(size), one.name, f"{one.ranks}", *times, gained, kernels or NONE)


def _formats(found: Sequence[Published]) -> str:
    """NCCL in fp16, custom in bf16: what the tables hold."""
    formats: dict[str, set[str]] = {}
    for one in found:
        for (family, _), by_size in one.ways.items():
            formats.setdefault(family, set()).update(point.case.dtype for point in by_size.values())
    names = {"nccl": "NCCL"}
    return ", ".join(f"{names.get(family, family)} in {' and '.join(sorted(of))}" for family, of in formats.items())


def _of(file: ResultFile, name: str) -> Published | None:
    taken = [
        one
        for one in file.measurements
        if one.provenance == "published"
        and one.case.op == "all_reduce"
        and one.case.dtype in HALVES
        and (one.case.implementation, one.case.launch) in WAYS
    ]
    if not taken:
        return None
    counts = {one.case.ranks for one in taken}
    ranks = RANKS if RANKS in counts else max(counts)
    ways: dict[Way, dict[int, Measurement]] = {}
    for one in taken:
        size = one.case.message_bytes
        if one.case.ranks == ranks and size:
            by_size = ways.setdefault((one.case.implementation, one.case.launch), {})
            if size not in by_size or one.median < by_size[size].median:
                by_size[size] = one
    return Published(name, ceilings.known_gpu(file), ranks, {way: dict(sorted(by.items())) for way, by in ways.items()})


def _name(file: ResultFile, files: Sequence[ResultFile]) -> str:
    """The GPU, with its file where several files are of one."""
    name = gpu_name(file)
    alike = [one for one in files if one.published and gpu_name(one) == name]
    return f"{name} ({file.path.stem})" if len(alike) > 1 else name

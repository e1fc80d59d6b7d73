"""The report's chapter on communication: what was measured, with fits, and what others published."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports import units
from reports.communication import fit, point, published, reference, series, tables
from reports.communication.fit import Fit
from reports.communication.point import Point
from reports.communication.published import SIZES, Published
from reports.communication.series import Series
from reports.evidence import name_among
from reports.figures import Figures
from reports.files import ResultFile
from reports.page import Block, Facts, Table
from specs.roofline import Ceilings
from specs.units import binary_bytes

TITLE = "Communication"
OPS = ("all_reduce", "send_recv")
"""What TP and PP wait for."""


@dataclass(frozen=True)
class Measured:
    """One file's all-reduces and hops: their series, each with the line through it where one could be fitted."""

    name: str
    file: ResultFile
    series: Sequence[tuple[Series, Fit | None]]

    @property
    def points(self) -> list[Point]:
        """All of them."""
        return [one for each, _ in self.series for one in each.points]

    @property
    def fits(self) -> list[Fit]:
        """The lines."""
        return [found for _, found in self.series if found]

    def tables(self, *, every: bool = False) -> list[Table]:
        """At a few sizes, or at every, and the fits."""
        points = self.points if every else point.chosen(self.points, SIZES)
        return [*tables.draw_up(points), *tables.fits(self.fits)]

    def sentences(self) -> list[str]:
        """The fastest way of each operation for a short message, and its fit."""
        return [text for op in OPS if (text := self._sentence(op))]

    def _sentence(self, op: str) -> str:
        small = [one for one in self.points if one.case.op == op and one.case.message_bytes == SIZES[0]]
        back_to_back = [one for one in small if not one.case.gap_seconds]
        if not back_to_back:
            return ""
        best = min(back_to_back, key=lambda one: one.measurement.median)
        case, busbw = best.case, best.busbw or 0.0
        line = next((found for each, found in self.series if found and best in each.points), None)
        fitted = f"; fitted over all sizes: {_fitted(line)}" if line else ""
        return (
            f"At {binary_bytes(SIZES[0])} over {case.ranks} ranks of {self.name} {case.op} takes "
            f"{units.microseconds(best.measurement.median)} us with {case.implementation} {case.launch}, "
            f"a busbw of {units.digits(busbw / 1e9)} GB/s{fitted} (measured)."
        )


def _fitted(line: Fit) -> str:
    parts = [f"{units.microseconds(line.line.alpha)} us"] if line.line.alpha else []
    parts += [f"{units.digits(line.bandwidth / 1e9)} GB/s"] if line.bandwidth else []
    return " and ".join(parts)


@dataclass(frozen=True)
class Chapter:
    """What all files say of operations between ranks."""

    measured: Sequence[Measured]
    published: Sequence[Published]

    def __bool__(self) -> bool:
        return bool(self.measured or self.published)

    def sentences(self) -> list[str]:
        """The answer in words: published first, as it is of GPUs."""
        said = [one.sentence(SIZES[0]) for one in self.published]
        return [*filter(None, said), *(text for one in self.measured for text in one.sentences())]

    def blocks(self) -> list[Block]:
        """Shortly, for the terminal."""
        if not self:
            return []
        blocks: list[Block] = [Facts(title=TITLE, rows=tuple(("", text) for text in self.sentences()), level=1)]
        blocks += published.table(self.published)
        for one in self.measured:
            blocks += [Facts(title=f"measured by {one.name}", rows=(("file", str(one.file.path)),)), *one.tables()]
        return blocks

    def data(self) -> dict[str, Any]:
        """For a machine: SI units."""
        return {
            "sentences": self.sentences(),
            "fits": [{"file": str(one.file.path), **line.record()} for one in self.measured for line in one.fits],
            "published": [
                {
                    "gpu": one.name,
                    "ranks": one.ranks,
                    "implementation": implementation,
                    "launch": launch,
                    "message_bytes": size,
                    "seconds": found.median,
                    "framework": found.framework,
                    "version": found.version,
                    "kernel": found.case.kernel,
                    "dtype": found.case.dtype,
                }
                for one in self.published
                for (implementation, launch), by_size in one.ways.items()
                for size, found in by_size.items()
            ],
        }


def write(files: Sequence[ResultFile]) -> Chapter:
    """Gather what the files hold."""
    references = reference.gather(files)
    measured = []
    for file in files:
        taken = [one for one in file.measurements if _belongs(one.case.question, one.case.op, one.provenance)]
        figures = [Figures(one, Ceilings(None, {}), None) for one in taken if point.between_ranks(one.case)]
        if found := series.collect(point.points(file, figures, references)):
            found.sort(key=lambda one: OPS.index(one.case.op))
            measured.append(Measured(name_among(file, files), file, [(one, fit.fit(one)) for one in found]))
    return Chapter(measured, published.collect(files))


def _belongs(question: str, op: str, provenance: str) -> bool:
    return question == "communication" and op in OPS and provenance == "measured"

"""One measured operation between ranks: its bandwidths, its share of the link, and what is normal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reports import ceilings
from reports.communication.reference import Reference, References, over_fabric
from reports.figures import Figures
from reports.files import ResultFile
from specs import traffic as specs_traffic
from specs.gpus import Gpu
from specs.measurement import Case, Measurement


@dataclass(frozen=True)
class Point:
    """A measurement, the GPU that it ran on where that is known, and a published time to hold it against."""

    figures: Figures
    gpu: Gpu | None
    reference: Reference | None

    @property
    def measurement(self) -> Measurement:
        """The record."""
        return self.figures.measurement

    @property
    def case(self) -> Case:
        """What ran."""
        return self.measurement.case

    @property
    def algbw(self) -> float | None:
        """Bytes a second, as nccl-tests means them; None where the time holds more than a transfer."""
        if self.case.message_bytes is None:
            return None
        return specs_traffic.algbw(self.case.op, self.case.message_bytes, self.measurement.median)

    @property
    def busbw(self) -> float | None:
        """The same, to be held against one direction of a link."""
        if self.case.message_bytes is None:
            return None
        return specs_traffic.busbw(self.case.op, self.case.ranks, self.case.message_bytes, self.measurement.median)

    @property
    def hop_seconds(self) -> float | None:
        """One way of a ping-pong; None for anything else."""
        traffic = specs_traffic.TRAFFIC.get(self.case.op)
        return self.measurement.median / traffic.in_turn if traffic and traffic.in_turn > 1 else None

    @property
    def link_share(self) -> float | None:
        """Busbw over one direction of the GPU's fabric; None unless that, and nothing else, carried the message."""
        transport, busbw = self.measurement.transport, self.busbw
        if not self.gpu or not busbw or transport is None or not over_fabric(self.gpu, transport):
            return None
        return busbw / self.gpu.link_bytes_per_second

    @property
    def ratio(self) -> float | None:
        """How many times the published time it takes."""
        return self.measurement.median / self.reference.seconds if self.reference else None

    def record(self) -> dict[str, Any]:
        """What `Figures.record` lacks, for a machine."""
        return {
            "algbw_bytes_per_second": self.algbw,
            "busbw_bytes_per_second": self.busbw,
            "link_share": self.link_share,
            "skew_seconds": self.measurement.skew_seconds,
            "algorithm": self.measurement.algorithm,
            "transport": self.measurement.transport,
            "published_seconds": self.reference.seconds if self.reference else None,
            "published_source": self.reference.source if self.reference else None,
            "published_between": self.reference.between if self.reference else None,
        }


def between_ranks(case: Case) -> bool:
    """Whether a case is an operation between ranks of which a bandwidth can be said."""
    return case.op in specs_traffic.TRAFFIC and case.message_bytes is not None


def points(file: ResultFile, figures: Iterable[Figures], references: References) -> list[Point]:
    """Each figure of a file with what the links of its GPU, and others, say of it."""
    gpu = ceilings.known_gpu(file)
    one_host = file.machine.get("hosts", 1) == 1  # published figures are of ranks in one host
    return [Point(one, gpu, references.beside(gpu, one.measurement) if one_host else None) for one in figures]


def chosen(found: Sequence[Point], sizes: Sequence[int]) -> list[Point]:
    """Those at some sizes; all where there are none at these."""
    return [one for one in found if one.case.message_bytes in sizes] or list(found)

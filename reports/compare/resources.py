"""What a time can be waiting for, and how fast two machines are at it: memory, arithmetic, launches, the link.

The figures of both machines have one origin, or they are not compared: both measured in the run itself, else both from
the datasheet. What is measured is another case of the same file: the read, the square products, the launch, and of the
link the fastest large transfer with the shortest small one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from reports import ceilings
from reports.files import ResultFile
from specs import traffic
from specs.measurement import Case
from specs.roofline import Ceilings, compute_seconds, memory_seconds

MEMORY, FLOPS, LAUNCH, LINK = "memory bandwidth", "flops", "launch latency", "link"
RESOURCES = (MEMORY, FLOPS, LAUNCH, LINK)
Least = Mapping[str, tuple[float, float]]
"""By resource the least seconds that a case needs it for, on A and on B."""
LARGE = 2**20
"""Bytes of a message from which on it shows the link's bandwidth."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How fast one machine is at each, from one origin; what is None or missing is unknown.

    Attributes:
        roof: memory and arithmetic.
        launch_seconds: by how a kernel is launched.
        link_bytes_per_second: in one direction; link_seconds: of the shortest message.
    """

    roof: Ceilings
    launch_seconds: Mapping[str, float] = field(default_factory=dict)
    link_bytes_per_second: float | None = None
    link_seconds: float = 0.0

    def seconds(self, case: Case) -> dict[str, float]:
        """The least time of each resource that the case needs and whose speed is known; none if its bytes are not."""
        if not (case.hbm_bytes or case.wire_bytes_sent_per_rank):
            return {}
        found = {
            MEMORY: memory_seconds(case.work, self.roof),
            FLOPS: compute_seconds(case.work, case.dtype, self.roof),
            LAUNCH: self.launch_seconds.get(case.launch),
            LINK: self._on_the_wire(case),
        }
        return {name: seconds for name, seconds in found.items() if seconds}

    def _on_the_wire(self, case: Case) -> float | None:
        if not case.wire_bytes_sent_per_rank or not self.link_bytes_per_second:
            return None
        return self.link_seconds + case.wire_bytes_sent_per_rank / self.link_bytes_per_second


@dataclass(frozen=True)
class Machines:
    """Two files' machines at work on the same cases."""

    a: ResultFile
    b: ResultFile

    @cached_property
    def measured(self) -> tuple[Limits, Limits]:
        """By each run itself."""
        return _measured(self.a), _measured(self.b)

    @cached_property
    def datasheet(self) -> tuple[Limits, Limits]:
        """As the vendors print it."""
        return _printed(self.a), _printed(self.b)

    def seconds(self, case: Case) -> Least:
        """The least time that a case needs each resource for, on both machines: measured where both are, else printed.

        A case that is a ceiling itself is held against the datasheets alone: it cannot explain itself.
        """
        printed = self._both(self.datasheet, case)
        if case.question == "ceilings" or _shows_the_link(case):
            return printed
        found = {**printed, **self._both(self.measured, case)}
        return {name: found[name] for name in RESOURCES if name in found}

    @staticmethod
    def _both(limits: tuple[Limits, Limits], case: Case) -> Least:
        left, right = (one.seconds(case) for one in limits)
        return {name: (left[name], right[name]) for name in left if name in right}


def _measured(file: ResultFile) -> Limits:
    launches = {how: one.median for how in ("graph", "eager") if (one := ceilings.launch(file, how))}
    transfers = _transfers(file)
    fastest = max((rate for size, rate, _ in transfers if size >= LARGE), default=None)
    shortest = min((seconds for size, _, seconds in transfers if size < LARGE), default=0.0)
    return Limits(
        roof=ceilings.measured(file),
        launch_seconds=launches,
        link_bytes_per_second=fastest,
        link_seconds=shortest,
    )


def _printed(file: ResultFile) -> Limits:
    gpu = ceilings.known_gpu(file)
    if gpu is None:
        return Limits(roof=Ceilings(None, {}, origin="datasheet"))
    return Limits(roof=Ceilings.datasheet(gpu), link_bytes_per_second=gpu.link_bytes_per_second)


def _transfers(file: ResultFile) -> list[tuple[int, float, float]]:
    """Bytes, bytes a second in one direction, and seconds of each message that one rank sent another back to back."""
    return [
        (size, rate, one.median)
        for one in file.measurements
        if _shows_the_link(one.case)
        and (size := one.case.message_bytes)
        and (rate := traffic.busbw(one.case.op, one.case.ranks, size, one.median))
    ]


def _shows_the_link(case: Case) -> bool:
    """Whether the link's speed is taken from it."""
    return case.op == "send_recv" and case.question == "communication" and not case.gap_seconds

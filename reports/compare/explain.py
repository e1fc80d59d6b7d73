"""What could explain that a case takes longer or shorter on another machine, and what stays unexplained.

A case needs each resource for some least time (its bytes over the bandwidth, its flops over the peak, a launch, its
bytes on the wire), and no less than the longest of these. That resource binds it; how the longest changed between the
machines is the ratio of times to expect. It explains a change if at least half of what was to expect came, and if the
resource takes a good part of the time: a kernel at a tenth of its floor waits for something else.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import log
from typing import NamedTuple

from reports import machine
from reports.compare.verdict import CaseComparison
from reports.results import ResultFile
from specs import statistics, traffic
from specs.measurement import Case, Measurement
from specs.roofline import Ceilings, compute_seconds, memory_seconds

# What a time can be waiting for, and how fast two machines are at it: memory, arithmetic, launches, the link.
#
# The figures of both machines have one origin, or they are not compared: both measured in the run itself, else both
# from the datasheet. What is measured is another case of the same file: the read, the square products, the launch, and
# of the link the fastest large transfer with the shortest small one.

MEMORY, FLOPS, LAUNCH, LINK = "memory bandwidth", "flops", "launch latency", "link"
RESOURCES = (MEMORY, FLOPS, LAUNCH, LINK)
ResourceSeconds = Mapping[str, tuple[float, float]]
"""By resource the least seconds that a case needs it for, on A and on B."""
LARGE_MESSAGE = 2**20
"""Bytes of a message from which on it shows the link's bandwidth."""


@dataclass(frozen=True, kw_only=True)
class MachineLimits:
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
class MachinePair:
    """Two files' machines at work on the same cases."""

    a: ResultFile
    b: ResultFile

    @cached_property
    def measured(self) -> tuple[MachineLimits, MachineLimits]:
        """By each run itself."""
        return _measured_limits(self.a), _measured_limits(self.b)

    @cached_property
    def datasheet(self) -> tuple[MachineLimits, MachineLimits]:
        """As the vendors print it."""
        return _datasheet_limits(self.a), _datasheet_limits(self.b)

    def seconds(self, case: Case) -> ResourceSeconds:
        """The least time that a case needs each resource for, on both machines: measured where both are, else printed.

        A case that is a ceiling itself is held against the datasheets alone: it cannot explain itself.
        """
        printed = self._both(self.datasheet, case)
        if case.question == "ceilings" or _is_link_probe(case):
            return printed
        found = {**printed, **self._both(self.measured, case)}
        return {name: found[name] for name in RESOURCES if name in found}

    @staticmethod
    def _both(limits: tuple[MachineLimits, MachineLimits], case: Case) -> ResourceSeconds:
        left, right = (one.seconds(case) for one in limits)
        return {name: (left[name], right[name]) for name in left if name in right}


def _measured_limits(file: ResultFile) -> MachineLimits:
    launches = {how: one.median for how in ("graph", "eager") if (one := machine.fastest_launch(file, how))}
    transfers = _transfers(file)
    fastest = max((rate for size, rate, _ in transfers if size >= LARGE_MESSAGE), default=None)
    shortest = min((seconds for size, _, seconds in transfers if size < LARGE_MESSAGE), default=0.0)
    return MachineLimits(
        roof=machine.measured_ceilings(file),
        launch_seconds=launches,
        link_bytes_per_second=fastest,
        link_seconds=shortest,
    )


def _datasheet_limits(file: ResultFile) -> MachineLimits:
    gpu = machine.known_gpu(file)
    if gpu is None:
        return MachineLimits(roof=Ceilings(None, {}, origin="datasheet"))
    return MachineLimits(roof=Ceilings.datasheet(gpu), link_bytes_per_second=gpu.link_bytes_per_second)


def _transfers(file: ResultFile) -> list[tuple[int, float, float]]:
    """Bytes, bytes a second in one direction, and seconds of each message that one rank sent another back to back."""
    return [
        (size, rate, one.median)
        for one in file.measurements
        if _is_link_probe(one.case)
        and (size := one.case.message_bytes)
        and (rate := traffic.busbw(one.case.op, one.case.ranks, size, one.median))
    ]


def _is_link_probe(case: Case) -> bool:
    """Whether the link's speed is taken from it."""
    return case.op == "send_recv" and case.question == "communication" and not case.gap_seconds


# How much the machine itself changed between two runs on it.
#
# Passes cannot show what lasts longer than a run: another tenant, a warm room, a clock that settled lower. The
# ceilings can, where machine and libraries are the same: they are the same work in both files and no code under test,
# so what the ceiling of a case changed by is not to be called faster or slower. Between different machines, drivers or
# versions their ratio is the answer and no drift.

MeasurementPair = tuple[Measurement, Measurement]
MACHINE_IDENTITY = (
    "gpu", "gpus", "cpu", "cores", "threads", "torch_threads", "torch", "triton", "cuda", "hip", "nccl", "driver",
    "sm_mhz_default", "power_limit_watts", "ecc", "mig",
)  # fmt: skip
"""Facts that have to agree for two runs to be of one machine."""
CEILING_RESOURCES = {"read": MEMORY, "copy": MEMORY, "linear": FLOPS, "launch": LAUNCH}
"""By operation of a ceiling the resource that it shows."""


@dataclass(frozen=True)
class MachineDrift:
    """By case name each ceiling before and after; empty between different machines.

    Attributes:
        ceilings: the pairs.
        shared: whether one clock drives memory and arithmetic, as on a CPU: any ceiling is a witness of all then.
    """

    ceilings: Mapping[str, MeasurementPair] = field(default_factory=dict)
    shared: bool = False

    def range_for(self, case: Measurement, bound: Collection[str] = ()) -> tuple[float, float]:
        """Least and greatest factor by which a case may have changed with its machine, 1 among them.

        Args:
            case: a ceiling that is judged itself is no witness.
            bound: the resources that bind it, whose ceilings are the witnesses; where unknown, all but launches. Where
                all are, the others count for what is sure of their change.
        """
        wanted, ratios = set(bound) or {MEMORY, FLOPS}, [1.0]
        for name, (before, after) in self.ceilings.items():
            resource = CEILING_RESOURCES.get(before.case.op)
            if name == case.case.name:
                continue
            if resource in wanted:
                ratios.append(after.median / before.median)
            elif self.shared and resource != LAUNCH:
                ratios.append(self.certain_ratios[name])
        return min(ratios), max(ratios)

    @cached_property
    def certain_ratios(self) -> Mapping[str, float]:
        """Of each ceiling the end of its interval that is nearer to 1; 1 where that is within, or there is none."""
        found = {
            name: statistics.ratio_interval(before.seconds, after.seconds)
            for name, (before, after) in self.ceilings.items()
        }
        return {name: min(max(1.0, ends[0]), ends[1]) if ends else 1.0 for name, ends in found.items()}


def machine_drift(a: ResultFile, b: ResultFile, pairs: Iterable[MeasurementPair]) -> MachineDrift:
    """The ceilings among the cases that both files hold."""
    if not is_same_machine(a, b):
        return MachineDrift()
    ceilings = {pair[0].case.name: pair for pair in pairs if pair[0].case.question == "ceilings"}
    return MachineDrift(ceilings, shared=not a.machine.get("gpu"))


def is_same_machine(a: ResultFile, b: ResultFile) -> bool:
    """Whether both are runs on one machine with the same libraries, as far as they say."""
    return not {name for name, *_ in machine.differences(a.machine, b.machine)} & set(MACHINE_IDENTITY)


MIN_BINDING_SHARE = 0.4
"""Share of the time, on either machine, that the binding resource takes at least where it explains a change."""
MIN_CHANGE = 0.02
"""A resource that changed by less explains nothing."""
MIN_EXPECTED_PART = 0.5
"""Part of the expected change, on the logarithm, that has to have come."""


@dataclass(frozen=True)
class Explanation:
    """One case, all ratios being times of B over times of A.

    Attributes:
        resource_ratios: by resource what it changed by: those that the case needs and both machines' speed is known of.
        bound: the resources that bind it on A and on B.
        expected: what the least times say; None where no resource is known.
        share: of the time that the binding resource takes, the larger one of both machines.
        explained_by: what explains the change; None where nothing does.
        unexplained: the ratio over the expected one; all of the ratio where no resource takes a good part of the time.
    """

    resource_ratios: Mapping[str, float]
    bound: tuple[str, str] | None
    expected: float | None
    share: float | None
    explained_by: str | None
    unexplained: float


class ExplainedCase(NamedTuple):
    """A case in two files and what explains its ratio."""

    pair: CaseComparison
    why: Explanation


def binding_resources(least: ResourceSeconds) -> tuple[str, str] | None:
    """The resources that a case needs longest on A and on B; None where none is known."""
    if not least:
        return None
    return max(least, key=lambda name: least[name][0]), max(least, key=lambda name: least[name][1])


def explain(pair: CaseComparison, least: ResourceSeconds) -> Explanation:
    """Set a ratio against the ratios of what the case needs."""
    bound, could = binding_resources(least), {name: after / before for name, (before, after) in least.items()}
    if bound is None:
        return Explanation(could, None, None, None, None, pair.ratio)
    before, after = least[bound[0]][0], least[bound[1]][1]
    expected, share = after / before, max(before / pair.a.median, after / pair.b.median)
    by = None
    if share >= MIN_BINDING_SHARE and _is_as_expected(pair.ratio, expected):
        by = " and ".join(name for name in dict.fromkeys(bound) if _is_change(could[name])) or None
    unexplained = pair.ratio / expected if share >= MIN_BINDING_SHARE else pair.ratio
    return Explanation(could, bound, expected, share, by, unexplained)


def _is_as_expected(ratio: float, expected: float) -> bool:
    """Whether what was to expect is a change at all, and at least half of it came."""
    return _is_change(expected) and log(ratio) / log(expected) >= MIN_EXPECTED_PART


def _is_change(ratio: float) -> bool:
    return abs(log(ratio)) > log(1 + MIN_CHANGE)

"""Explanation of a changed time by the resources of two machines.

A case needs each resource for a minimum time: its bytes over the bandwidth, its flops over the peak, a launch, its
bytes on the wire. Its time is no less than the longest of these, and that resource binds it. The ratio of the longest
minimum times on both machines is the expected ratio. The resource explains a change if at least half of the expected
change occurred and the resource takes a good part of the time. A kernel whose floor is a tenth of its time waits for
something else.
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

# Resources that a time can wait for (memory, arithmetic, launches, the link), and the speed of two machines at each.
#
# Figures of both machines have the same origin, or they are not compared: both measured in the run itself, else both
# from the datasheet. Measured figures come from other cases of the same file: the read, the square products, the
# launch, and for the link the fastest large transfer and the shortest small one.

MEMORY, FLOPS, LAUNCH, LINK = "memory bandwidth", "flops", "launch latency", "link"
RESOURCES = (MEMORY, FLOPS, LAUNCH, LINK)
ResourceSeconds = Mapping[str, tuple[float, float]]
"""Minimum seconds that a case needs each resource for, on A and on B."""
LARGE_MESSAGE = 2**20
"""Message bytes from which on a transfer shows the link's bandwidth."""


@dataclass(frozen=True, kw_only=True)
class MachineLimits:
    """Speed of one machine at each resource, from one origin.

    Values that are None or missing are unknown.

    Attributes:
        roof: memory and arithmetic.
        launch_seconds: launch time by launch mode.
        link_bytes_per_second: rate in one direction; link_seconds: time of the shortest message.
    """

    roof: Ceilings
    launch_seconds: Mapping[str, float] = field(default_factory=dict)
    link_bytes_per_second: float | None = None
    link_seconds: float = 0.0

    @cached_property
    def is_empty(self) -> bool:
        """True where no speed is known."""
        known = self.roof.read_bytes_per_second, self.link_bytes_per_second
        return not (any(known) or self.roof.flops_per_second or self.launch_seconds)

    def seconds(self, case: Case) -> dict[str, float]:
        """Return the minimum time of each needed resource of known speed.

        Empty if the case's bytes are unknown.
        """
        if self.is_empty or not (case.hbm_bytes or case.wire_bytes_sent_per_rank):
            return {}
        work = case.work
        found = {
            MEMORY: memory_seconds(work, self.roof),
            FLOPS: compute_seconds(work, case.dtype, self.roof),
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
    """Machines of two files, for the same cases."""

    a: ResultFile
    b: ResultFile

    @cached_property
    def measured(self) -> tuple[MachineLimits, MachineLimits]:
        """Limits that each run itself measured."""
        return _measured_limits(self.a), _measured_limits(self.b)

    @cached_property
    def datasheet(self) -> tuple[MachineLimits, MachineLimits]:
        """Limits that the vendors print."""
        return _datasheet_limits(self.a), _datasheet_limits(self.b)

    def seconds(self, case: Case) -> ResourceSeconds:
        """Return the minimum time of each resource on both machines.

        Limits measured on both machines come before printed limits. A ceiling itself uses the datasheets only,
        as it cannot explain itself.
        """
        printed = self._both(self.datasheet, case)
        if case.question == "ceilings" or _is_link_probe(case):
            return printed
        found = {**printed, **self._both(self.measured, case)}
        return {name: found[name] for name in RESOURCES if name in found}

    @staticmethod
    def _both(limits: tuple[MachineLimits, MachineLimits], case: Case) -> ResourceSeconds:
        if any(one.is_empty for one in limits):
            return {}
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
    """Return bytes, bytes/s in one direction, and seconds of each message.

    The messages are those that one rank sent another back to back.
    """
    return [
        (size, rate, one.median)
        for one in file.measurements
        if _is_link_probe(one.case)
        and (size := one.case.message_bytes)
        and (rate := traffic.busbw(one.case.op, one.case.ranks, size, one.median))
    ]


def _is_link_probe(case: Case) -> bool:
    """Return whether a case gives the link's speed."""
    return case.op == "send_recv" and case.question == "communication" and case.is_back_to_back


# Drift: the change of the machine itself between two runs.
#
# Passes cannot show what lasts longer than a run: another tenant, a warm room, a clock that settled lower. Ceilings
# can, where machine and libraries are the same: they are the same work in both files and no code under test. So the
# change of a case's ceiling is not called faster or slower. Between different machines, drivers or versions the ratio
# of the ceilings is the answer, not drift.

MeasurementPair = tuple[Measurement, Measurement]
MACHINE_IDENTITY = (
    "gpu", "gpus", "cpu", "cores", "threads", "torch_threads", "torch", "triton", "cuda", "hip", "nccl", "driver",
    "sm_mhz_default", "power_limit_watts", "ecc", "mig",
)  # fmt: skip
"""Facts that must agree for two runs to be of one machine."""
CEILING_RESOURCES = {"read": MEMORY, "copy": MEMORY, "linear": FLOPS, "launch": LAUNCH}
"""Resource that a ceiling shows, by operation."""


@dataclass(frozen=True)
class MachineDrift:
    """Ceilings of both runs by case name; empty between different machines.

    Attributes:
        ceilings: each ceiling before and after.
        shared: whether one clock drives memory and arithmetic, as on a CPU; then any ceiling shows the drift of all.
    """

    ceilings: Mapping[str, MeasurementPair] = field(default_factory=dict)
    shared: bool = False

    def range_for(self, case: Measurement, bound: Collection[str] = ()) -> tuple[float, float]:
        """Return the range of factors by which a case may have drifted.

        The range includes 1.

        Args:
            case: the case; a ceiling that is judged is not used for itself.
            bound: resources that bind the case, whose ceilings count; where unknown, all but launches. With a shared
                clock, other ceilings count for the certain part of their change.
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
        """Certain change of each ceiling: the end of its interval that is nearer to 1.

        1 where the interval includes 1, or where there is none.
        """
        found = {
            name: statistics.ratio_interval(before.seconds, after.seconds)
            for name, (before, after) in self.ceilings.items()
        }
        return {name: min(max(1.0, ends[0]), ends[1]) if ends else 1.0 for name, ends in found.items()}


def machine_drift(a: ResultFile, b: ResultFile, pairs: Iterable[MeasurementPair]) -> MachineDrift:
    """Collect the ceilings among the cases that both files hold."""
    if not is_same_machine(a, b):
        return MachineDrift()
    ceilings = {pair[0].case.name: pair for pair in pairs if pair[0].case.question == "ceilings"}
    return MachineDrift(ceilings, shared=not a.machine.get("gpu"))


def is_same_machine(a: ResultFile, b: ResultFile) -> bool:
    """Return whether both runs are on one machine with the same libraries.

    Only recorded facts are compared.
    """
    return not {name for name, *_ in machine.differences(a.machine, b.machine)} & set(MACHINE_IDENTITY)


MIN_BINDING_SHARE = 0.4
"""Minimum share of the time, on either machine, of a resource that explains."""
MIN_CHANGE = 0.02
"""Minimum change of a resource that explains anything."""
MIN_LOG_CHANGE = log(1 + MIN_CHANGE)
MIN_EXPECTED_PART = 0.5
"""Part of the expected change, on the logarithm, that must have occurred."""


@dataclass(frozen=True)
class Explanation:
    """Explanation of one case; ratios are times of B over times of A.

    Attributes:
        resource_ratios: ratio by resource, for those that the case needs and whose speed is known on both machines.
        bound: resources that bind the case on A and on B.
        expected: ratio of the minimum times; None where no resource is known.
        share: share of the time that the binding resource takes, the larger of both machines.
        explained_by: resources that explain the change; None where none does.
        unexplained: ratio over the expected ratio; the whole ratio where no resource takes a good part of the time.
    """

    resource_ratios: Mapping[str, float]
    bound: tuple[str, str] | None
    expected: float | None
    share: float | None
    explained_by: str | None
    unexplained: float


class ExplainedCase(NamedTuple):
    """A case in two files with the explanation of its ratio."""

    pair: CaseComparison
    why: Explanation


def binding_resources(least: ResourceSeconds) -> tuple[str, str] | None:
    """Return the resources that bind a case on A and on B; None if unknown."""
    if not least:
        return None
    return max(least, key=lambda name: least[name][0]), max(least, key=lambda name: least[name][1])


def explain(pair: CaseComparison, least: ResourceSeconds) -> Explanation:
    """Compare a ratio with the ratios of the resources that the case needs."""
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
    """Return whether a change was expected, and at least half of it occurred."""
    return _is_change(expected) and log(ratio) / log(expected) >= MIN_EXPECTED_PART


def _is_change(ratio: float) -> bool:
    return abs(log(ratio)) > MIN_LOG_CHANGE

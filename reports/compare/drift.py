"""How much the machine itself changed between two runs on it.

Passes cannot show what lasts longer than a run: another tenant, a warm room, a clock that settled lower. The
ceilings can, where machine and libraries are the same: they are the same work in both files and no code under test, so
what the ceiling of a case changed by is not to be called faster or slower. Between different machines, drivers or
versions their ratio is the answer and no drift.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from reports import machine
from reports.compare.resources import FLOPS, LAUNCH, MEMORY
from reports.files import ResultFile
from specs import statistics
from specs.measurement import Measurement

Pair = tuple[Measurement, Measurement]
THE_SAME = (
    "gpu", "gpus", "cpu", "cores", "threads", "torch_threads", "torch", "triton", "cuda", "hip", "nccl", "driver",
    "sm_mhz_default", "power_limit_watts", "ecc", "mig",
)  # fmt: skip
"""Facts that have to agree for two runs to be of one machine."""
WITNESSES = {"read": MEMORY, "copy": MEMORY, "linear": FLOPS, "launch": LAUNCH}
"""By operation of a ceiling the resource that it shows."""


@dataclass(frozen=True)
class Drift:
    """By case name each ceiling before and after; empty between different machines.

    Attributes:
        ceilings: the pairs.
        shared: whether one clock drives memory and arithmetic, as on a CPU: any ceiling is a witness of all then.
    """

    ceilings: Mapping[str, Pair] = field(default_factory=dict)
    shared: bool = False

    def of(self, case: Measurement, bound: Collection[str] = ()) -> tuple[float, float]:
        """Least and greatest factor by which a case may have changed with its machine, 1 among them.

        Args:
            case: a ceiling that is judged itself is no witness.
            bound: the resources that bind it, whose ceilings are the witnesses; where unknown, all but launches. Where
                all are, the others count for what is sure of their change.
        """
        wanted, ratios = set(bound) or {MEMORY, FLOPS}, [1.0]
        for name, (before, after) in self.ceilings.items():
            resource = WITNESSES.get(before.case.op)
            if name == case.case.name:
                continue
            if resource in wanted:
                ratios.append(after.median / before.median)
            elif self.shared and resource != LAUNCH:
                ratios.append(self.sure[name])
        return min(ratios), max(ratios)

    @cached_property
    def sure(self) -> Mapping[str, float]:
        """Of each ceiling the end of its interval that is nearer to 1; 1 where that is within, or there is none."""
        found = {
            name: statistics.ratio_interval(before.seconds, after.seconds)
            for name, (before, after) in self.ceilings.items()
        }
        return {name: min(max(1.0, ends[0]), ends[1]) if ends else 1.0 for name, ends in found.items()}


def drift(a: ResultFile, b: ResultFile, pairs: Iterable[Pair]) -> Drift:
    """The ceilings among the cases that both files hold."""
    if not same_machine(a, b):
        return Drift()
    ceilings = {pair[0].case.name: pair for pair in pairs if pair[0].case.question == "ceilings"}
    return Drift(ceilings, shared=not a.machine.get("gpu"))


def same_machine(a: ResultFile, b: ResultFile) -> bool:
    """Whether both are runs on one machine with the same libraries, as far as they say."""
    return not {name for name, *_ in machine.differences(a.machine, b.machine)} & set(THE_SAME)

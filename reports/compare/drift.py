"""How much the machine itself changed between two runs on it.

Passes cannot show what lasts longer than a run: another tenant, a warm room, a clock that settled lower. The
ceilings can. They are the same work in both files and no code under test, so what they changed by is not to be
called faster or slower elsewhere. Between different machines their ratio is the answer and no drift.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reports import machine
from reports.files import ResultFile
from specs.measurement import Measurement

Pair = tuple[Measurement, Measurement]
THE_SAME = ("gpu", "cpu", "cores", "torch_threads")


LAUNCHED = 0.1
"""Share of its time that a case spends on a launch at least, where launches are a witness of what it takes."""


@dataclass(frozen=True)
class Drift:
    """By case name each ceiling before and after; empty between different machines."""

    ceilings: Mapping[str, Pair] = field(default_factory=dict)

    def of(self, case: Measurement) -> tuple[float, float]:
        """Least and greatest factor by which a case may have changed with its machine, 1 among them.

        A case that is judged itself is no witness, and a launch is none of what takes far longer.
        """
        ratios = [
            after.median / before.median
            for name, (before, after) in self.ceilings.items()
            if name != case.case.name and (before.case.op != "launch" or before.median > LAUNCHED * case.median)
        ]
        return min([1.0, *ratios]), max([1.0, *ratios])


def drift(a: ResultFile, b: ResultFile, pairs: Iterable[Pair]) -> Drift:
    """The ceilings among the cases that both files hold."""
    if not same_machine(a, b):
        return Drift()
    return Drift({pair[0].case.name: pair for pair in pairs if pair[0].case.question == "ceilings"})


def same_machine(a: ResultFile, b: ResultFile) -> bool:
    """Whether both are runs on one kind of machine, as far as they say."""
    return not {name for name, *_ in machine.differences(a.machine, b.machine)} & set(THE_SAME)

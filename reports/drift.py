"""How much the machine itself changed between two runs on it.

Passes cannot show what lasts longer than a run: another tenant, a warm room, a clock that settled lower. The
ceilings can. They are the same work in both files and no code under test, so what they changed by is not to be
called faster or slower elsewhere. Between different machines their ratio is the answer and no drift.
"""

from collections.abc import Sequence

from reports import machine
from reports.files import ResultFile
from specs.measurement import Measurement

Pair = tuple[Measurement, Measurement]
THE_SAME = ("gpu", "cpu", "cores", "torch_threads")


def drift(a: ResultFile, b: ResultFile, pairs: Sequence[Pair], apart_from: str = "") -> tuple[float, float]:
    """Least and greatest factor by which ceilings changed, 1 among them.

    Args:
        a: the file before.
        b: the file after.
        pairs: cases that both files hold.
        apart_from: a case that is judged itself, and so is no witness.
    """
    if {name for name, *_ in machine.differences(a.machine, b.machine)} & set(THE_SAME):
        return 1.0, 1.0
    ratios = [
        after.median / before.median
        for before, after in pairs
        if before.case.question == "ceilings" and before.case.name != apart_from
    ]
    return min(1.0, *ratios, 1.0), max(1.0, *ratios, 1.0)

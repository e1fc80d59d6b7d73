"""What else differs between two files besides the times: one warning each."""

from collections.abc import Iterable

from reports import clocks, machine
from reports.compare.verdict import Comparison
from reports.compare.versus import Versus

CASE = ("cache", "launch", "implementation", "kernel", "backend", "flops", "hbm_bytes")
RECORD = ("clock", "provenance", "version", "kernel_source")
LONGEST = 60
AS_SAID = {clocks.THROTTLED: "throttled", clocks.MOVED: "in which the SM clock moved"}


def warnings(versus: Versus, a: str = "A", b: str = "B") -> list[str]:
    """Facts of the machines that differ, then what differs between matched cases, then what weakens a verdict."""
    found = [
        f"machines differ in {name}: {_short(left)} → {_short(right)}"
        for name, left, right in machine.differences(versus.a.machine, versus.b.machine)
    ]
    if versus.a.schema != versus.b.schema:
        found.append(f"schemas differ: {versus.a.schema} → {versus.b.schema}; measure both with one shardbench")
    for side, file in ((a, versus.a), (b, versus.b)):
        if profiler := file.machine.get("profiler"):
            found.append(f"{side} was timed with a profiler attached: {_short(str(profiler))}")
    if versus.unlike:
        name, why = next(iter(versus.unlike.items()))
        found.append(f"{_cases(len(versus.unlike))} of one name but not of the same work, not compared: {name}: {why}")
    return [*found, *_fields(versus.pairs), *_weak(a, b, versus.pairs)]


def _fields(pairs: Iterable[Comparison]) -> list[str]:
    changes: dict[str, list[str]] = {}
    for pair in pairs:
        sides = [(name, getattr(pair.a.case, name), getattr(pair.b.case, name)) for name in CASE]
        sides += [(name, getattr(pair.a, name), getattr(pair.b, name)) for name in RECORD]
        for name, left, right in sides:
            if left != right:
                changes.setdefault(name, []).append(f"{left} → {right}")
    return [f"{name} differs in {_cases(len(found))}, as in {found[0]}" for name, found in changes.items()]


def _weak(a: str, b: str, pairs: Iterable[Comparison]) -> list[str]:
    pairs, said = tuple(pairs), dict[str, int]()
    for side, one in ((a, [pair.a for pair in pairs]), (b, [pair.b for pair in pairs])):
        single = sum(1 for of in one if len(of.seconds) < 2 and of.provenance == "measured")
        for word in (clocks.THROTTLED, clocks.MOVED):
            count = sum(word in clocks.doubts(of) for of in one)
            said[f"{side}: {_cases(count)} {AS_SAID[word]}"] = count
        said[
            f"{side}: {_cases(single)} with a single pass, which no interval can be made from: always ambiguous; "
            "measure with --passes 6"
        ] = single
    published = [pair for pair in pairs if pair.a.provenance != "measured"]
    by = sum(1 for pair in published if pair.basis == "frameworks")
    said[f"{_cases(by)} published as single figures: intervals are the range over frameworks, no statistics"] = by
    alone = len(published) - by
    said[f"{_cases(alone)} published by one framework alone: no interval, always ambiguous"] = alone
    return [text for text, count in said.items() if count]


def _cases(count: int) -> str:
    return "1 case" if count == 1 else f"{count} cases"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"

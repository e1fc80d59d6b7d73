"""What else differs between two files besides the times: one warning each."""

from collections.abc import Iterable, Sequence

from reports import machine
from reports.files import ResultFile
from reports.verdict import Comparison
from specs.measurement import Measurement

CASE = (
    "dtype", "cache", "launch", "implementation", "kernel", "tokens", "n", "k", "layers", "vocab", "backend", "ranks",
    "flops", "hbm_bytes",
)  # fmt: skip
RECORD = ("clock", "provenance")
LONGEST = 60


def warnings(a: ResultFile, b: ResultFile, pairs: Sequence[Comparison]) -> list[str]:
    """Facts of the machines that differ, then what differs between matched cases, then what weakens a verdict."""
    found = [
        f"machines differ in {name}: {_short(left)} → {_short(right)}"
        for name, left, right in machine.differences(a.machine, b.machine)
    ]
    found += _fields(pairs)
    for side, one in (("A", [pair.a for pair in pairs]), ("B", [pair.b for pair in pairs])):
        found += _weak(side, one)
    return found


def _fields(pairs: Iterable[Comparison]) -> list[str]:
    changes: dict[str, list[str]] = {}
    for pair in pairs:
        sides = [(name, getattr(pair.a.case, name), getattr(pair.b.case, name)) for name in CASE]
        sides += [(name, getattr(pair.a, name), getattr(pair.b, name)) for name in RECORD]
        for name, left, right in sides:
            if left != right:
                changes.setdefault(name, []).append(f"{left} → {right}")
    return [f"{name} differs in {_cases(len(found))}, as in {found[0]}" for name, found in changes.items()]


def _weak(side: str, measurements: Iterable[Measurement]) -> list[str]:
    measurements = tuple(measurements)
    throttled = sum(1 for one in measurements if one.throttled)
    single = sum(1 for one in measurements if len(one.seconds) < 2)
    said = {
        f"{side}: {_cases(throttled)} throttled": throttled,
        f"{side}: {_cases(single)} with a single pass, which no interval can be made from: always ambiguous": single,
    }
    return [text for text, count in said.items() if count]


def _cases(count: int) -> str:
    return "1 case" if count == 1 else f"{count} cases"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"

"""Which cases two files have in common, and which of those are the same work."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reports.files import ResultFile
from specs.errors import UserError
from specs.measurement import Case, Measurement

Pair = tuple[Measurement, Measurement]
WORK = (
    "model", "op", "dtype", "layer", "tp", "pp", "tokens", "n", "k", "context", "batch", "layers", "vocab", "ranks",
    "message_bytes",
)  # fmt: skip
"""What has to agree for two times to be of the same work."""
OF_CEILINGS = ("flops", "hbm_bytes")
"""Of a ceiling too: a read has no shape but its bytes."""
TELLING = ("model", "dtype", "tp", "pp", "tokens", "implementation", "question")
"""What files without a common case are told apart by."""
UNKNOWN = "unknown"
"""What a profile says of its cases where no run lends it their facts."""
MOST_VALUES = 6
"""Values of a field that are named before the rest is counted."""


@dataclass(frozen=True)
class Matched:
    """The cases that both files hold, in the order of the first; and by name why some are not the same work."""

    pairs: Sequence[Pair]
    unlike: dict[str, str]


def match(a: ResultFile, b: ResultFile) -> Matched:
    """Pair two files by the names of their cases.

    Raises:
        UserError: no case is in both.
    """
    others = {one.case.name: one for one in b.measurements}
    common = [(one, others[one.case.name]) for one in a.measurements if one.case.name in others]
    if not common:
        counts = f"{len(a.measurements)} and {len(b.measurements)} cases"
        raise UserError(f"{a.path} and {b.path}: {counts}, none in both{_why(a, b)}")
    unlike = {one.case.name: why for one, other in common if (why := _unlike(one.case, other.case))}
    if len(unlike) == len(common):
        name, why = next(iter(unlike.items()))
        raise UserError(
            f"{a.path} and {b.path}: {len(common)} cases have the same names, none is the same work, as {name}: {why}; "
            "measure both with the same options"
        )
    return Matched([pair for pair in common if pair[0].case.name not in unlike], unlike)


def only_in(one: ResultFile, others: Iterable[ResultFile]) -> list[str]:
    """Names of the cases that none of the other files has."""
    elsewhere = {measurement.case.name for other in others for measurement in other.measurements}
    return [measurement.case.name for measurement in one.measurements if measurement.case.name not in elsewhere]


def lacking(one: ResultFile, others: Sequence[ResultFile]) -> list[str]:
    """Names of the cases that two or more of the other files have and this one has not."""
    own, seen = {measurement.case.name for measurement in one.measurements}, dict[str, int]()
    for other in others:
        for measurement in other.measurements:
            seen[measurement.case.name] = seen.get(measurement.case.name, 0) + 1
    return [name for name, count in seen.items() if count > 1 and name not in own]


def _unlike(one: Case, other: Case) -> str:
    fields = (*WORK, *OF_CEILINGS) if one.question == "ceilings" else WORK
    changed = [(field, getattr(one, field), getattr(other, field)) for field in fields]
    told = [one for one in changed if not {None, UNKNOWN} & set(one[1:])]
    return ", ".join(f"{field} {left} → {right}" for field, left, right in told if left != right)


def _why(a: ResultFile, b: ResultFile) -> str:
    """What none of the cases agree in, and what to do."""
    for field in TELLING:
        left, right = (_values(file, field) for file in (a, b))
        if left and right and not set(left) & set(right):
            name = "impl" if field == "implementation" else field
            told = f"{name} {_listed(left)} in the one and {_listed(right)} in the other"
            how = "run the same suites" if field == "question" else f"measure both with the same --{name}"
            return f": {told}; {how}"
    return "; run the same suites with the same options"


def _values(file: ResultFile, field: str) -> list[str]:
    found = (getattr(one.case, field) for one in file.measurements if one.case.question != "ceilings")
    return list(dict.fromkeys(str(value) for value in found if value is not None))


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - MOST_VALUES} more" if len(values) > MOST_VALUES else ""
    return ", ".join(values[:MOST_VALUES]) + more

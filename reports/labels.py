"""What tells the cases of a table apart, and what they share."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from reports.page import Column
from reports.units import NONE, binary_bytes
from specs.case import Case

NAMED = ("tp", "pp", "ranks", "tokens", "n", "k")
"""Fields whose value says nothing without their name."""
FIELDS = ("model", "layer", "op", *NAMED, "message_bytes", "dtype", "implementation", "cache", "launch")
TITLES = {"implementation": "impl", "message_bytes": "message"}


def choose(cases: Sequence[Case]) -> tuple[tuple[Column, ...], list[tuple[str, ...]], str]:
    """Columns that differ between the cases, their cells for each case, and a caption of what does not differ."""
    fields = ["kernel" if f == "implementation" and not _one_kernel_each(cases) else f for f in FIELDS]
    if all(case.layer for case in cases):  # model, layer and tp say what n and k are
        fields = [field for field in fields if field not in ("n", "k")]
    varying = [field for field in fields if not _same(cases, field)]
    rows = [tuple(_text(case, field) for field in varying) for case in cases]
    columns = [Column(TITLES.get(field, field), number=field in (*NAMED, "message_bytes")) for field in varying]
    if not varying or len(set(rows)) < len(rows):
        columns.append(Column("case", number=False))
        rows = [(*row, _parameters(case.name)) for row, case in zip(rows, cases, strict=True)]
    shared = [_shared(cases[0], field) for field in fields if _same(cases, field)]
    return tuple(columns), rows, " · ".join(filter(None, shared))


def _same(cases: Sequence[Case], field: str) -> bool:
    return len({getattr(case, field) for case in cases}) == 1


def _one_kernel_each(cases: Iterable[Case]) -> bool:
    kernels = defaultdict(set)
    for case in cases:
        kernels[case.op, case.implementation].add(case.kernel)
    return all(len(names) == 1 for names in kernels.values())


def _parameters(name: str) -> str:
    return name.partition("[")[2].removesuffix("]") or name.rpartition("::")[2]


def _text(case: Case, field: str) -> str:
    value = getattr(case, field)
    if value is None:
        return NONE
    return binary_bytes(value) if field == "message_bytes" else str(value)


def _shared(case: Case, field: str) -> str:
    value = getattr(case, field)
    if value is None or (field == "ranks" and value == 1):
        return ""
    return f"{field} {value}" if field in NAMED else _text(case, field)

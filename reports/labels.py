"""What tells the cases of a table apart, and what they share."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from reports import units
from reports.page import Column
from reports.units import NONE
from specs.measurement import Case
from specs.units import binary_bytes

LAID = ("replicas", "schedule", "micro_batches", "partition", "layers")
"""How a whole model was laid over ranks, and how much of it."""
NAMED = ("tp", "pp", *LAID, "ranks", "pair", "gap_seconds", "tokens", "batch", "context", "n", "k", "per_layer")
"""Fields whose value says nothing without their name."""
NUMBERS = {*NAMED, "message_bytes"} - {"schedule", "partition"}
FIELDS = ("model", "layer", "op", *NAMED, "message_bytes", "dtype", "implementation", "cache", "launch")
TITLES = {
    "implementation": "impl",
    "message_bytes": "message",
    "gap_seconds": "gap",
    "per_layer": "calls",
    "micro_batches": "m",
}
OF_PARTS = tuple(field for field in FIELDS if field != "op")
"""Of whole layers and their parts: the part says what is done."""
OF_SHARES = ("model", "layer", "tokens", "tp", "ranks", "context", "dtype", "implementation", "cache", "launch")
"""Of what one rank computes; `ranks` do so at once, and only a layer has a context."""
OF_LAYERS = tuple(field for field in OF_PARTS if field not in ("layer", "per_layer"))
"""Of whole layers alone."""


def choose(
    cases: Sequence[Case], among: Sequence[str] = FIELDS
) -> tuple[tuple[Column, ...], list[tuple[str, ...]], str]:
    """Columns that differ between the cases, their cells for each case, and a caption of what does not differ.

    Args:
        cases: what stands in the table.
        among: fields that may tell them apart, in the order of the columns.
    """
    fields = ["kernel" if f == "implementation" and not _one_kernel_each(cases) else f for f in among]
    if all(case.layer for case in cases):  # model, layer and tp say what n and k are
        fields = [field for field in fields if field not in ("n", "k")]
    contexts = {case.context for case in cases if case.context} if among is OF_SHARES else set()
    if len(contexts) == 1:
        fields.remove("context")
    varying = [field for field in fields if not _same(cases, field)]
    rows = [tuple(_text(case, field) for field in varying) for case in cases]
    titles = TITLES | (
        {"layer": "part"} if among is OF_PARTS else {"ranks": "ranks\nat once"} if among is OF_SHARES else {}
    )
    columns = [Column(titles.get(field, field), number=field in NUMBERS) for field in varying]
    if not varying or len(set(rows)) < len(rows):
        columns.append(Column("case", number=False))
        rows = [(*row, _parameters(case.name)) for row, case in zip(rows, cases, strict=True)]
    shared = [_shared(cases[0], field) for field in fields if _same(cases, field)]
    if len(contexts) == 1:
        shared.append(f"context {contexts.pop()}")
    return tuple(columns), rows, " · ".join(dict.fromkeys(filter(None, shared)))  # layer and op may be one word


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
    if field == "gap_seconds":
        return units.one(units.SECONDS, value) if value else "none"
    return binary_bytes(value) if field == "message_bytes" else str(value)


def _shared(case: Case, field: str) -> str:
    value = getattr(case, field)
    if value is None or (field == "ranks" and value == 1) or (field == "gap_seconds" and not value):
        return ""
    return f"{TITLES.get(field, field)} {_text(case, field)}" if field in NAMED else _text(case, field)

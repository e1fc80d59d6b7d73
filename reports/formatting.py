"""Format numbers, label the cases of a table, and order tables by question."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import floor, log10
from operator import attrgetter
from statistics import median
from typing import TypeVar

from reports.output import Column
from specs import layer
from specs.measurement import Case
from specs.units import format_bytes

# Numbers: one unit and one count of decimals for a whole column.

DASH = "–"
"""Cell text for a missing number."""


@dataclass(frozen=True)
class Quantity:
    """Units that rise by factors of 1000, and the maximum number of decimals."""

    steps: tuple[tuple[float, str], ...]
    most_decimals: int


SECONDS = Quantity(((1e-9, "ns"), (1e-6, "us"), (1e-3, "ms"), (1.0, "s")), most_decimals=3)
BYTES_PER_SECOND = Quantity(((1e9, "GB/s"),), most_decimals=2)
FLOPS_PER_SECOND = Quantity(((1e9, "GFLOP/s"), (1e12, "TFLOP/s")), most_decimals=2)


@dataclass(frozen=True)
class Scale:
    """A unit and the number of decimals of its column."""

    factor: float
    symbol: str
    decimals: int

    def __call__(self, value: float | None) -> str:
        """Format the value without its unit, with at least two significant digits.

        None and 0 give `DASH`.
        """
        if not value:
            return DASH
        number = value / self.factor
        return f"{number:,.{max(self.decimals, _decimals(number, 2))}f}"


def choose_scale(quantity: Quantity, values: Iterable[float | None]) -> Scale:
    """Return the largest unit in which the median reads at least 1.

    The smallest value gets three digits.
    """
    present = [value for value in values if value] or [quantity.steps[-1][0]]
    middle = median(present) * (1 + 1e-9)
    factor, symbol = max((step for step in quantity.steps if step[0] <= middle), default=quantity.steps[0])
    return Scale(factor, symbol, min(quantity.most_decimals, _decimals(min(present) / factor, 3)))


def with_unit(quantity: Quantity, value: float) -> str:
    """Format a single value with its unit."""
    fitting = choose_scale(quantity, [value])
    return f"{fitting(value)} {fitting.symbol}"


def microseconds(seconds: float | None) -> str:
    """Format a time in microseconds with at least three digits: 5.23, 52.3, 52,300."""
    return three_digits(seconds * 1e6) if seconds else DASH


def three_digits(value: float) -> str:
    """Format three significant digits, or all digits before the point."""
    return f"{value:,.{_decimals(value, 3)}f}"


def percent(share: float | None) -> str:
    """Format a share with one to two digits or more: 0.07%, 4.2%, 97%, 104%."""
    if share is None:
        return DASH
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}" if share >= 0.00995 else f"{share:.2%}"


def ratio(value: float) -> str:
    """Format a ratio with three decimals, or with three digits where it is small."""
    return f"{value:.{max(3, _decimals(value, 3))}f}"


def interval_width(share: float | None) -> str:
    """Format a relative half-width; beyond 100 % its size says nothing more."""
    return ">100%" if share is not None and share > 1 else percent(share)


def ratio_range(low: float, high: float) -> str:
    """Format two ratios with one decimal, or a single one where both read the same."""
    return "–".join(dict.fromkeys((f"{low:.1f}", f"{high:.1f}")))


def pluralize(count: int, what: str) -> str:
    """Format a count with its noun: 1 token, 2 tokens."""
    return f"{count} {what}{'s' * (count != 1)}"


def decimal_bytes(count: float) -> str:
    """Format a size in decimal units to four digits: 57,344 B, 4.698 GB."""
    for factor, symbol in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= factor:
            return f"{count / factor:,.4g} {symbol}"
    return f"{count:,.0f} B"


def _decimals(number: float, digits: int) -> int:
    """Number of decimals, at least 0, that show `digits` significant digits."""
    return max(0, digits - 1 - floor(log10(number) + 1e-9))


DEPLOYMENT_FIELDS = ("replicas", "schedule", "micro_batches", "partition", "layers")
"""Fields of a whole model's deployment over ranks, and its number of layers."""
NAMED_FIELDS = (
    "tp",
    "pp",
    *DEPLOYMENT_FIELDS,
    "ranks",
    "pair",
    "gap_seconds",
    "late_seconds",
    "tokens",
    "batch",
    "context",
    "n",
    "k",
    "per_layer",
)
"""Fields that are shown with their name, as the value alone is ambiguous."""
NUMERIC_FIELDS = {*NAMED_FIELDS, "message_bytes"} - {"schedule", "partition"}
CASE_FIELDS = ("model", "layer", "op", *NAMED_FIELDS, "message_bytes", "dtype", "implementation", "cache", "launch")
COLUMN_TITLES = {
    "implementation": "impl",
    "message_bytes": "message",
    "gap_seconds": "gap",
    "late_seconds": "late",
    "per_layer": "calls",
    "micro_batches": "m",
}
PART_FIELDS = tuple(field for field in CASE_FIELDS if field != "op")
"""Fields of a layer and its parts. No `op`: the part implies it."""
SHARE_FIELDS = ("model", "layer", "tokens", "tp", "ranks", "context", "dtype", "implementation", "cache", "launch")
"""Fields of the work of one rank.

`ranks`: ranks that run at once. `context`: of a layer only.
"""
LAYER_FIELDS = tuple(field for field in PART_FIELDS if field not in ("layer", "per_layer"))
"""Fields of whole layers only."""


def label_columns(
    cases: Sequence[Case], among: Sequence[str] = CASE_FIELDS
) -> tuple[tuple[Column, ...], list[tuple[str, ...]], str]:
    """Columns that differ, the cells of each case, and a caption of what is shared.

    Args:
        cases: cases of the table.
        among: candidate fields, in the order of the columns.
    """
    fields = ["kernel" if f == "implementation" and not _one_kernel_each(cases) else f for f in among]
    if all(case.layer for case in cases):  # model, layer and tp determine n and k
        fields = [field for field in fields if field not in ("n", "k")]
    contexts = {case.context for case in cases if case.context} if among is SHARE_FIELDS else set()
    if len(contexts) == 1:
        fields.remove("context")
    alike = {field for field in fields if _is_shared(cases, field)}
    varying = [field for field in fields if field not in alike]
    rows = [tuple(_text(case, field) for field in varying) for case in cases]
    titles = COLUMN_TITLES | (
        {"layer": "part"} if among is PART_FIELDS else {"ranks": "ranks\nat once"} if among is SHARE_FIELDS else {}
    )
    columns = [Column(titles.get(field, field), number=field in NUMERIC_FIELDS) for field in varying]
    if not varying or len(set(rows)) < len(rows):
        columns.append(Column("case", number=False))
        rows = [(*row, _parameters(case.name)) for row, case in zip(rows, cases, strict=True)]
    shared = [_shared_text(cases[0], field) for field in fields if field in alike]
    if len(contexts) == 1:
        shared.append(f"context {contexts.pop()}")
    return tuple(columns), rows, " · ".join(dict.fromkeys(filter(None, shared)))  # layer and op may read the same


def _is_shared(cases: Sequence[Case], field: str) -> bool:
    return len(set(map(attrgetter(field), cases))) == 1


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
        return DASH
    if field in ("gap_seconds", "late_seconds"):
        return with_unit(SECONDS, value) if value else "none"
    return format_bytes(value) if field == "message_bytes" else str(value)


def _shared_text(case: Case, field: str) -> str:
    value = getattr(case, field)
    if value is None or (field == "ranks" and value == 1) or (field in ("gap_seconds", "late_seconds") and not value):
        return ""
    return f"{COLUMN_TITLES.get(field, field)} {_text(case, field)}" if field in NAMED_FIELDS else _text(case, field)


# Assignment of cases to tables, and the order of the tables on a page.

QUESTION_ORDER = ("decode", "prefill", "attention", "sweep", "layer", layer.SHARES_QUESTION, "ceilings")
QUESTION_TITLES = {layer.SHARES_QUESTION: "shares of a rank: a layer, and norm with LM head and sampling"}
"""Titles of tables whose question is no title."""

T = TypeVar("T")


def group_by_question(items: Iterable[T], case_of: Callable[[T], Case]) -> list[tuple[str, list[T]]]:
    """Group items by question: `QUESTION_ORDER` first, then in order of appearance.

    Launches form a table of their own: no unit of time suits both them and other cases.
    """
    tables: dict[tuple[str, bool], list[T]] = {}
    for item in items:
        case = case_of(item)
        tables.setdefault((case.question, is_launch(case)), []).append(item)
    return [(question, tables[question, launch]) for question, launch in sorted(tables, key=_table_order)]


def question_title(question: str) -> str:
    """Title of a question's table."""
    return QUESTION_TITLES.get(question, question)


def is_share(case: Case) -> bool:
    """True where a case runs on one rank's share of the cores.

    A file's ceilings are those of the whole machine.
    """
    return case.question == layer.SHARES_QUESTION


def is_launch(case: Case) -> bool:
    """True where a case measures the latency of a call.

    The few bytes that the call moves say nothing.
    """
    return case.op == "launch"


def _table_order(table: tuple[str, bool]) -> tuple[int, bool]:
    question, launch = table
    return QUESTION_ORDER.index(question) if question in QUESTION_ORDER else len(QUESTION_ORDER), launch


# Note on times with programmatic dependent launch.

DEPENDENT_LAUNCH = ("triton-pdl",)
DEPENDENT_LAUNCH_NOTE = (
    "triton-pdl: in a chain of one linear each call prefetches the next call's weights; a layer has other kernels "
    "between its linears and gains less"
)


def dependent_launch_notes(implementations: Iterable[str]) -> tuple[str, ...]:
    """Return the note where any implementation uses dependent launch."""
    return (DEPENDENT_LAUNCH_NOTE,) if set(implementations) & set(DEPENDENT_LAUNCH) else ()

"""Configurations by architecture and shape: `kernels/tuned/<arch>.json`, on what grounds, and the nearest row."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from math import log2
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from kernels.tuning.config import FEW_TOKENS, Config, token_tile
from specs.errors import UserError
from specs.units import ITEMSIZE

TUNED = Path(__file__).parent.parent / "tuned"
SCHEMA = 2
MEASURED, STATIC = "measured on ", "static model"
REMEDY = "restore it, or delete it and run python -m kernels tune"
REACH = 0.5
"""A row serves shapes up to this far in powers of two, in n and in k: a factor of 1.41 either way."""


@dataclass(frozen=True)
class Row:
    """The configuration of one shape class.

    Attributes:
        dtype, tokens, n, k: the shape that was looked at; `tokens` is the class, see `token_tile`.
        config: what was chosen.
        seconds: cold mean of a call where measured, or what the model predicts.
        basis: STATIC, or MEASURED followed by the GPU.
    """

    dtype: str
    tokens: int
    n: int
    k: int
    config: Config
    seconds: float
    basis: str

    @property
    def shape(self) -> tuple[Any, ...]:
        """What a row is of: a table has one row a shape."""
        return self.dtype, self.tokens, self.n, self.k

    def distance(self, dtype: str, tokens: int, n: int, k: int) -> float | None:
        """How far a shape is from this one in powers of two; None where it is out of reach or of another class."""
        along_n, along_k = abs(log2(n / self.n)), abs(log2(k / self.k))
        near = dtype == self.dtype and token_tile(tokens) == self.tokens and max(along_n, along_k) <= REACH
        return along_n + along_k if near else None


class AnyRow(Protocol):
    """A linear's row, or one of attention."""

    @property
    def config(self) -> Any:
        """A NamedTuple."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """What a row is of."""

    @property
    def distance(self) -> Callable[..., float | None]:
        """From a shape, in the order of `shape`; None where it is out of reach."""


Kind = TypeVar("Kind", bound=AnyRow)


@dataclass(frozen=True)
class Table(Generic[Kind]):
    """All rows of one architecture.

    Attributes:
        arch: sm_90, …
        made: by basis, what it was made with: GPU, versions, date.
        rows: one a shape class.
    """

    arch: str
    made: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: tuple[Kind, ...] = ()

    def nearest(self, *shape: Any) -> Kind | None:
        """The row nearest to a shape, given in the order of a row's fields; None where none is in reach."""
        distances = [(distance, row) for row in self.rows if (distance := row.distance(*shape)) is not None]
        return min(distances, key=lambda pair: pair[0])[1] if distances else None

    def with_row(self, row: Kind) -> "Table[Kind]":
        """This table with `row` in the place of the one of the same shape."""
        others = (one for one in self.rows if one.shape != row.shape)
        return replace(self, rows=tuple(sorted((*others, row), key=lambda one: one.shape)))


def dump(table: Table[Any]) -> str:
    """A table as JSON, a line a row so that a change of one shows as one."""
    rows = ",\n".join("    " + json.dumps(asdict(row) | {"config": row.config._asdict()}) for row in table.rows)
    head = {"schema": SCHEMA, "arch": table.arch, "made": table.made}
    return json.dumps(head, indent=2).removesuffix("\n}") + ',\n  "rows": [\n' + rows + "\n  ]\n}\n"


def load(path: Path) -> Table[Row]:
    """Read a table of linears.

    Raises:
        UserError: the file cannot be read, or is no table of this schema and of the architecture in its name.
    """
    return read_table(path, _row)


def read_table(path: Path, read_row: Callable[..., Kind]) -> Table[Kind]:
    """Read a table whose rows `read_row` makes of their fields.

    Raises:
        UserError: as above.
    """
    try:
        given = json.loads(path.read_text())
        if given["schema"] != SCHEMA:
            raise UserError(f"{path}: schema {given['schema']}, this version reads {SCHEMA}; {REMEDY}")
        if given["arch"] != path.name.split(".")[0]:
            raise UserError(f"{path} is the table of {given['arch']}; {REMEDY}")
        rows = tuple(read_row(**row) for row in given["rows"])
        return Table(given["arch"], given["made"], rows)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no table of configurations ({error!r}); {REMEDY}") from error


def _row(config: dict[str, Any], **rest: Any) -> Row:
    row = Row(**rest, config=Config(**config))
    counts = (row.tokens, row.n, row.k, *row.config[:6])
    if not all(type(count) is int and count > 0 for count in counts):
        raise ValueError(f"sizes are whole numbers of at least 1: {row}")
    if any(count & (count - 1) for count in (row.config.rows, row.config.tokens, row.config.depth, row.config.warps)):
        raise ValueError(f"rows, tokens, depth and warps are powers of two: {row.config}")
    if not all(type(flag) is bool for flag in row.config[6:]) or row.dtype not in ITEMSIZE:
        raise ValueError(f"matrix and tma are true or false, dtype one of {', '.join(ITEMSIZE)}: {row}")
    if row.config.tokens < min(row.tokens, FEW_TOKENS) or (row.basis != STATIC and not row.basis.startswith(MEASURED)):
        raise ValueError(f"too few tokens, or a basis that is unknown: {row}")
    return row


@cache
def tuned(arch: str, folder: Path = TUNED) -> Table[Row] | None:
    """The table of an architecture; None if there is none."""
    path = folder / f"{arch}.json"
    return load(path) if path.exists() else None

"""Configurations by architecture and shape: `kernels/tuned/<arch>.json`, on what grounds, and the nearest row."""

import json
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from math import log2
from pathlib import Path
from typing import Any

from kernels.tuning.config import FEW_TOKENS, Config, token_tile
from specs.dtypes import ITEMSIZE
from specs.errors import UserError

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

    def distance(self, dtype: str, tokens: int, n: int, k: int) -> float | None:
        """How far a shape is from this one in powers of two; None where it is out of reach."""
        along_n, along_k = abs(log2(n / self.n)), abs(log2(k / self.k))
        near = dtype == self.dtype and tokens == self.tokens and max(along_n, along_k) <= REACH
        return along_n + along_k if near else None


@dataclass(frozen=True)
class Table:
    """All rows of one architecture.

    Attributes:
        arch: sm_90, …
        made: by basis, what it was made with: GPU, versions, date.
        rows: one a shape class.
    """

    arch: str
    made: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    def nearest(self, dtype: str, tokens: int, n: int, k: int) -> Row | None:
        """The row nearest to a shape, by its class of tokens; None where none is in reach."""
        tile = token_tile(tokens)
        distances = [(distance, row) for row in self.rows if (distance := row.distance(dtype, tile, n, k)) is not None]
        return min(distances, key=lambda pair: pair[0])[1] if distances else None

    def with_row(self, row: Row) -> "Table":
        """This table with `row` in the place of the one of the same shape."""
        shape = (row.dtype, row.tokens, row.n, row.k)
        others = (one for one in self.rows if (one.dtype, one.tokens, one.n, one.k) != shape)
        return replace(self, rows=tuple(sorted((*others, row), key=lambda one: (one.dtype, one.tokens, one.n, one.k))))


def dump(table: Table) -> str:
    """A table as JSON, a line a row so that a change of one shows as one."""
    rows = ",\n".join("    " + json.dumps(asdict(row) | {"config": row.config._asdict()}) for row in table.rows)
    head = {"schema": SCHEMA, "arch": table.arch, "made": table.made}
    return json.dumps(head, indent=2).removesuffix("\n}") + ',\n  "rows": [\n' + rows + "\n  ]\n}\n"


def load(path: Path) -> Table:
    """Read a table.

    Raises:
        UserError: the file cannot be read, or is no table of this schema and of the architecture in its name.
    """
    try:
        given = json.loads(path.read_text())
        if given["schema"] != SCHEMA:
            raise UserError(f"{path}: schema {given['schema']}, this version reads {SCHEMA}; {REMEDY}")
        if given["arch"] != path.stem:
            raise UserError(f"{path} is the table of {given['arch']}; {REMEDY}")
        rows = tuple(_row(**row) for row in given["rows"])
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
def tuned(arch: str, folder: Path = TUNED) -> Table | None:
    """The table of an architecture; None if there is none."""
    path = folder / f"{arch}.json"
    return load(path) if path.exists() else None

"""Configurations by architecture and shape: `kernels/tuned/<arch>.json`, on what grounds, and the nearest row."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from math import log2
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch

from kernels.configs import cost_model, space
from kernels.configs.config import FEW_TOKENS, Config, compiles_well, token_tile
from kernels.configs.cost_model import Prediction
from specs.errors import UserError
from specs.gpus import ARCHS, Arch, arch
from specs.units import ITEMSIZE

# Which space of configurations and which model a count of tokens has: the skinny linear's or the GEMM's.


class SearchSpace(NamedTuple):
    """What the search knows of one kernel.

    Attributes:
        candidates: `candidates(on, dtype, tokens=…, n=…, k=…)` gives what is worth a try.
        predict: `predict(config, gpu, ctas, dtype, tokens=…, n=…, k=…)` says how long it should take.
        resident: `resident(on, config, dtype, registers=…, shared=…)` says how many programs an SM holds.
    """

    candidates: Callable[..., list[Config]]
    predict: Callable[..., Prediction]
    resident: Callable[..., int]


SKINNY = SearchSpace(space.skinny_candidates, cost_model.skinny_predict, cost_model.skinny_resident)
GEMM = SearchSpace(space.gemm_candidates, cost_model.gemm_predict, cost_model.gemm_resident)


def kind(tokens: int) -> SearchSpace:
    """That of the kernel which serves so many tokens."""
    return SKINNY if tokens <= FEW_TOKENS else GEMM


# The rule that serves what no table covers: of the configurations that fit, the one with the fastest prediction.
#
# The static model predicts. What lies within two percent of the best is a tie, which goes to pointers before
# descriptors, to fewer parts of k, to fewer stages and to larger tiles, in this order: each costs something that the
# model does not see. Then comes the best of what is left with its ties, and so on.

TIE = 0.02


def rank(configs: Iterable[tuple[Config, Prediction]]) -> list[tuple[Config, Prediction]]:
    """From the fastest prediction to the slowest, ties in the order above; what does not fit is left out."""

    def seconds(pair: tuple[Config, Prediction]) -> float:
        return pair[1].seconds or 0.0

    def preference(pair: tuple[Config, Prediction]) -> tuple[int, ...]:
        config = pair[0]
        return config.tma, config.split, config.stages, -config.rows, config.warps, -config.depth

    left = sorted((pair for pair in configs if pair[1].seconds is not None), key=seconds)
    order: list[tuple[Config, Prediction]] = []
    while left:
        bound = (1 + TIE) * seconds(left[0])
        tied = [pair for pair in left if seconds(pair) <= bound]
        order += sorted(tied, key=preference)
        left = left[len(tied) :]
    return order


def ranked(on: Arch, dtype: str, *, tokens: int, n: int, k: int) -> list[tuple[Config, Prediction]]:
    """All candidates for a shape with what is predicted on the architecture's representative GPU, best first."""
    shape, known = {"tokens": tokens, "n": n, "k": k}, kind(tokens)
    return rank(
        (config, known.predict(config, on.representative, known.resident(on, config, dtype), dtype, **shape))
        for config in known.candidates(on, dtype, **shape)
    )


def rule(on: Arch, dtype: str, *, tokens: int, n: int, k: int) -> Config:
    """The configuration for y[tokens, n] = x[tokens, k] · W[n, k]ᵀ on `on`."""
    return ranked(on, dtype, tokens=tokens, n=n, k=k)[0][0]


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


RowType = TypeVar("RowType", bound=AnyRow)


@dataclass(frozen=True)
class Table(Generic[RowType]):
    """All rows of one architecture.

    Attributes:
        arch: sm_90, …
        made: by basis, what it was made with: GPU, versions, date.
        rows: one a shape class.
    """

    arch: str
    made: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: tuple[RowType, ...] = ()

    def nearest(self, *shape: Any) -> RowType | None:
        """The row nearest to a shape, given in the order of a row's fields; None where none is in reach."""
        distances = [(distance, row) for row in self.rows if (distance := row.distance(*shape)) is not None]
        return min(distances, key=lambda pair: pair[0])[1] if distances else None

    def with_row(self, row: RowType) -> "Table[RowType]":
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


def read_table(path: Path, read_row: Callable[..., RowType]) -> Table[RowType]:
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


# The configuration that a call runs with: a table's where one covers the shape, else the rule's. No search.

WITHOUT_GPU = "sm_80"
"""Whose configurations calls on CPU tensors take, which only Triton's interpreter makes."""


ConfigType = TypeVar("ConfigType")


class Choice(NamedTuple, Generic[ConfigType]):
    """A configuration, and what it rests on: measured, static model, or rule."""

    config: ConfigType
    basis: str

    def __str__(self) -> str:
        return f"{self.config} ({self.basis})"


@cache
def choose(name: str, dtype: str, *, tokens: int, n: int, k: int) -> Choice[Config]:
    """What y[tokens, n] = x[tokens, k] · W[n, k]ᵀ runs with on the architecture `name`.

    A row that another Triton was chosen for, and that this one compiles badly, gives way to the rule.

    Raises:
        UserError: the architecture's limits are unknown, or its table cannot be read.
    """
    table = tuned(name)
    row = table.nearest(dtype, tokens, n, k) if table else None
    if row and compiles_well(row.config):
        return Choice(row.config, row.basis)
    return Choice(rule(arch(name), dtype, tokens=tokens, n=n, k=k), "rule")


@cache
def arch_of(device: torch.device) -> str:
    """Architecture of a device: sm_90, …; one that is unknown takes that of the newest below it."""
    if device.type != "cuda":
        return WITHOUT_GPU
    major, minor = torch.cuda.get_device_capability(device)
    older = [name for name in ARCHS if int(name.removeprefix("sm_")) <= 10 * major + minor]
    return max(older, key=lambda name: int(name.removeprefix("sm_")), default=WITHOUT_GPU)


def configuration(*, arch: str, dtype: str, tokens: int, n: int, k: int) -> str:
    """The choice in words, for the record."""
    return str(choose(arch, dtype, tokens=tokens, n=n, k=k))

"""Choice of a linear's configuration: tuned tables, else the cost model's rule.

Tables are `kernels/tuned/<arch>.json`; each row has its basis, and serves near shapes.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from math import log2
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch

from kernels.configs import cost_model, space
from kernels.configs.config import SKINNY_MAX_TOKENS, LinearConfig, compiles_well, token_class
from kernels.configs.cost_model import Prediction
from specs.errors import UserError
from specs.gpus import ARCHS, Arch, find_arch
from specs.units import ITEMSIZE

# Search space and cost model by token count: the skinny linear's or the GEMM's.


class SearchSpace(NamedTuple):
    """Functions of the search for one kernel.

    Attributes:
        candidates: `candidates(arch, dtype, tokens=…, n=…, k=…)` gives configurations that are worth a try.
        predict: `predict(config, gpu, ctas, dtype, tokens=…, n=…, k=…)` gives a `Prediction`.
        programs_per_sm: `programs_per_sm(arch, config, dtype, registers=…, shared=…)` gives the programs that an SM
            holds.
    """

    candidates: Callable[..., list[LinearConfig]]
    predict: Callable[..., Prediction]
    programs_per_sm: Callable[..., int]


SKINNY = SearchSpace(space.skinny_candidates, cost_model.predict_skinny, cost_model.skinny_programs_per_sm)
GEMM = SearchSpace(space.gemm_candidates, cost_model.predict_gemm, cost_model.gemm_programs_per_sm)


def search_space(tokens: int) -> SearchSpace:
    """Return the space of the kernel that serves so many tokens."""
    return SKINNY if tokens <= SKINNY_MAX_TOKENS else GEMM


# The rule for shapes without a tuned row: among configurations that fit, the fastest prediction.
#
# The static model predicts. Configurations within two percent of the best are a tie. Ties prefer pointers to
# descriptors, fewer parts of k, fewer stages and larger tiles, in this order: each costs time that the model does not
# see. Then comes the best of the rest with its ties, and so on.

TIE_TOLERANCE = 0.02


def rank_configs(configs: Iterable[tuple[LinearConfig, Prediction]]) -> list[tuple[LinearConfig, Prediction]]:
    """Return configurations from the fastest to the slowest prediction.

    Ties have the order above. Configurations that do not fit are left out.
    """

    def seconds(pair: tuple[LinearConfig, Prediction]) -> float:
        return pair[1].seconds or 0.0

    def preference(pair: tuple[LinearConfig, Prediction]) -> tuple[int, ...]:
        config = pair[0]
        return config.tma, config.split, config.stages, -config.rows, config.warps, -config.depth

    left = sorted((pair for pair in configs if pair[1].seconds is not None), key=seconds)
    order: list[tuple[LinearConfig, Prediction]] = []
    while left:
        bound = (1 + TIE_TOLERANCE) * seconds(left[0])
        tied = [pair for pair in left if seconds(pair) <= bound]
        order += sorted(tied, key=preference)
        left = left[len(tied) :]
    return order


def ranked_candidates(arch: Arch, dtype: str, *, tokens: int, n: int, k: int) -> list[tuple[LinearConfig, Prediction]]:
    """Return all candidates for a shape with their predictions, best first.

    Predictions are for the architecture's representative GPU.
    """
    shape, known = {"tokens": tokens, "n": n, "k": k}, search_space(tokens)
    return rank_configs(
        (config, known.predict(config, arch.representative, known.programs_per_sm(arch, config, dtype), dtype, **shape))
        for config in known.candidates(arch, dtype, **shape)
    )


def rule_config(arch: Arch, dtype: str, *, tokens: int, n: int, k: int) -> LinearConfig:
    """Return the configuration for y[tokens, n] = x[tokens, k] · W[n, k]ᵀ on `arch`."""
    return ranked_candidates(arch, dtype, tokens=tokens, n=n, k=k)[0][0]


TUNED_FOLDER = Path(__file__).parent.parent / "tuned"
SCHEMA = 2
MEASURED_BASIS, STATIC_BASIS = "measured on ", "static model"
REMEDY = "restore it, or delete it and run python -m kernels tune"
MAX_SHAPE_DISTANCE = 0.5
"""Largest distance of a row's shapes in powers of two, in n and in k.

It is a factor of 1.41 either way.
"""


@dataclass(frozen=True)
class LinearRow:
    """The configuration of one shape class.

    Attributes:
        dtype, tokens, n, k: the shape that was tuned; `tokens` is the class, see `token_class`.
        config: the chosen configuration.
        seconds: cold mean of a call where measured, else the model's prediction.
        basis: STATIC_BASIS, or MEASURED_BASIS followed by the GPU.
    """

    dtype: str
    tokens: int
    n: int
    k: int
    config: LinearConfig
    seconds: float
    basis: str

    @property
    def shape(self) -> tuple[Any, ...]:
        """Shape of the row; a table has one row per shape."""
        return self.dtype, self.tokens, self.n, self.k

    def distance(self, dtype: str, tokens: int, n: int, k: int) -> float | None:
        """Return the distance of a shape in powers of two.

        None where the shape is out of reach or of another class.
        """
        along_n, along_k = abs(log2(n / self.n)), abs(log2(k / self.k))
        near = (
            dtype == self.dtype and token_class(tokens) == self.tokens and max(along_n, along_k) <= MAX_SHAPE_DISTANCE
        )
        return along_n + along_k if near else None


class TableRow(Protocol):
    """A linear's row, or a row of attention."""

    @property
    def config(self) -> Any:
        """Configuration, a NamedTuple."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """Shape of the row."""

    @property
    def distance(self) -> Callable[..., float | None]:
        """Distance from a shape, in the order of `shape`; None where it is out of reach."""


RowType = TypeVar("RowType", bound=TableRow)


@dataclass(frozen=True)
class ConfigTable(Generic[RowType]):
    """All rows of one architecture.

    Attributes:
        arch: sm_90, …
        made: by basis, its provenance: GPU, versions, date.
        rows: one a shape class.
    """

    arch: str
    made: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: tuple[RowType, ...] = ()

    def nearest(self, *shape: Any) -> RowType | None:
        """Return the row nearest to a shape; None where none is in reach.

        The shape has the order of a row's fields.
        """
        distances = [(distance, row) for row in self.rows if (distance := row.distance(*shape)) is not None]
        return min(distances, key=lambda pair: pair[0])[1] if distances else None

    def with_row(self, row: RowType) -> "ConfigTable[RowType]":
        """Return this table with `row` in place of the row of the same shape."""
        others = (one for one in self.rows if one.shape != row.shape)
        return replace(self, rows=tuple(sorted((*others, row), key=lambda one: one.shape)))


def format_table(table: ConfigTable[Any]) -> str:
    """Return a table as JSON, a line per row.

    A change of one row thus changes one line.
    """
    rows = ",\n".join("    " + json.dumps(asdict(row) | {"config": row.config._asdict()}) for row in table.rows)
    head = {"schema": SCHEMA, "arch": table.arch, "made": table.made}
    return json.dumps(head, indent=2).removesuffix("\n}") + ',\n  "rows": [\n' + rows + "\n  ]\n}\n"


def load_linear_table(path: Path) -> ConfigTable[LinearRow]:
    """Read a table of linears.

    Raises:
        UserError: the file cannot be read, or is no table of this schema and of the architecture in its name.
    """
    return read_table(path, _read_linear_row)


def read_table(path: Path, read_row: Callable[..., RowType]) -> ConfigTable[RowType]:
    """Read a table; `read_row` makes a row of its fields.

    Raises:
        UserError: the file cannot be read, or is no table of this schema and of the architecture in its name.
    """
    try:
        given = json.loads(path.read_text())
        if given["schema"] != SCHEMA:
            raise UserError(f"{path}: schema {given['schema']}, this version reads {SCHEMA}; {REMEDY}")
        if given["arch"] != path.name.split(".")[0]:
            raise UserError(f"{path} is the table of {given['arch']}; {REMEDY}")
        rows = tuple(read_row(**row) for row in given["rows"])
        return ConfigTable(given["arch"], given["made"], rows)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no table of configurations ({error!r}); {REMEDY}") from error


def _read_linear_row(config: dict[str, Any], **rest: Any) -> LinearRow:
    row = LinearRow(**rest, config=LinearConfig(**config))
    counts = (row.tokens, row.n, row.k, *row.config[:6])
    if not all(type(count) is int and count > 0 for count in counts):
        raise ValueError(f"sizes are whole numbers of at least 1: {row}")
    if any(count & (count - 1) for count in (row.config.rows, row.config.tokens, row.config.depth, row.config.warps)):
        raise ValueError(f"rows, tokens, depth and warps are powers of two: {row.config}")
    if not all(type(flag) is bool for flag in row.config[6:]) or row.dtype not in ITEMSIZE:
        raise ValueError(f"matrix and tma are true or false, dtype one of {', '.join(ITEMSIZE)}: {row}")
    if row.config.tokens < min(row.tokens, SKINNY_MAX_TOKENS) or (
        row.basis != STATIC_BASIS and not row.basis.startswith(MEASURED_BASIS)
    ):
        raise ValueError(f"too few tokens, or a basis that is unknown: {row}")
    return row


@cache
def tuned_linear_table(arch: str, folder: Path = TUNED_FOLDER) -> ConfigTable[LinearRow] | None:
    """Return the table of an architecture; None if there is none."""
    path = folder / f"{arch}.json"
    return load_linear_table(path) if path.exists() else None


# Dispatch: the configuration of a tuned row that covers the shape, else the rule's. There is no search.

ARCH_WITHOUT_GPU = "sm_80"
"""Architecture whose configurations serve calls on CPU tensors.

Only Triton's interpreter makes these calls.
"""


ConfigType = TypeVar("ConfigType")


class ConfigChoice(NamedTuple, Generic[ConfigType]):
    """A configuration, and its basis: measured, static model, or rule."""

    config: ConfigType
    basis: str

    def __str__(self) -> str:
        return f"{self.config} ({self.basis})"


@cache
def choose_config(name: str, dtype: str, *, tokens: int, n: int, k: int) -> ConfigChoice[LinearConfig]:
    """Return the configuration of y[tokens, n] = x[tokens, k] · W[n, k]ᵀ on `name`.

    `name` is an architecture. A row that was chosen with another Triton, and that this Triton compiles badly, gives way
    to the rule.

    Raises:
        UserError: the architecture's limits are unknown, or its table cannot be read.
    """
    table = tuned_linear_table(name)
    row = table.nearest(dtype, tokens, n, k) if table else None
    if row and compiles_well(row.config):
        return ConfigChoice(row.config, row.basis)
    return ConfigChoice(rule_config(find_arch(name), dtype, tokens=tokens, n=n, k=k), "rule")


@cache
def device_arch(device: torch.device) -> str:
    """Return the architecture of a device, such as sm_90.

    An unknown architecture takes the newest older one.
    """
    if device.type != "cuda":
        return ARCH_WITHOUT_GPU
    major, minor = torch.cuda.get_device_capability(device)
    older = [name for name in ARCHS if int(name.removeprefix("sm_")) <= 10 * major + minor]
    return max(older, key=lambda name: int(name.removeprefix("sm_")), default=ARCH_WITHOUT_GPU)


def configuration(*, arch: str, dtype: str, tokens: int, n: int, k: int) -> str:
    """Return the choice in words, for the record."""
    return str(choose_config(arch, dtype, tokens=tokens, n=n, k=k))

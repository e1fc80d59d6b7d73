"""GEMM tables as the linears of sharded layers: published where a shape is tabulated, interpolated where it is not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from reports.silicon import formats, lint, tables
from reports.silicon.imported import Imported
from reports.silicon.interpolate import between
from reports.silicon.lint import Linted
from reports.silicon.points import ASKED, Source, name, point
from specs.gpus import Gpu
from specs.measurement import Case, Measurement
from specs.parallel import Shard
from specs.units import ITEMSIZE

KEY = ("gemm_dtype", "m", "n", "k")
SAFE = 0.9
"""Share of the tokens at which a shape is off by no more than the error that is given for it."""
ONE_COPY = ("vllm", "fp8_block")
"""Framework and format that the collector times without a graph, and on a single copy of the weights."""


class At(NamedTuple):
    """A time, and how it was come by: `over` is empty for what is tabulated."""

    seconds: float
    over: str = ""
    error: float = 0.0
    doubts: Sequence[str] = ()


@dataclass(frozen=True)
class Grid:
    """One framework's GEMMs of one number format: a linted series over tokens for each (n, k)."""

    source: Source
    dtype: str
    gpu: Gpu
    eager: bool
    series: Mapping[tuple[int, int], Linted]
    kernels: Mapping[tuple[int, int, int], str]

    def source_of(self, shard: Shard, tokens: int) -> Source:
        """The source of a point: a tabulated one names its kernel alone, one in between all that the framework has."""
        return replace(
            self.source, kernel_source=self.kernels.get((shard.n, shard.k, tokens), self.source.kernel_source)
        )

    @property
    def copies(self) -> int:
        """Copies of the weights that its calls rotated through, at most."""
        return 1 if self.eager else lint.COPIES


def read(system: Path, gpu: Gpu, shards: Sequence[Shard], dtypes: Sequence[str]) -> Imported:
    """The linears of `shards` in every framework that has them.

    Raises:
        UserError: the system has no table of GEMMs that can be used.
    """
    found = tables.read(system, "gemm", "gemm_perf", KEY)
    imported = Imported(notes=list(found.notes), device=str(found.rows["device"].iloc[0]))
    absent = set(dtypes)
    for grid in _grids(found.rows, gpu, formats.known(dtypes)):
        absent.discard(grid.dtype)
        for shard in shards:
            _add(imported, grid, shard)
    imported.not_run |= {name("linear", dtype): f"no table holds GEMMs in {dtype}" for dtype in absent if shards}
    return imported


def _grids(rows: pd.DataFrame, gpu: Gpu, dtypes: Mapping[str, str]) -> Iterator[Grid]:
    wanted = tables.newest(rows[rows["gemm_dtype"].isin(dtypes)], ["gemm_dtype", "n", "k"])
    wanted = wanted.sort_values("seconds", ascending=False)  # of two kernels for one shape the faster stays
    for (framework, theirs), group in wanted.groupby(["framework", "gemm_dtype"]):
        kernels = dict(zip(zip(group["n"], group["k"], group["m"], strict=True), group["kernel_source"], strict=True))
        eager = (framework, theirs) == ONE_COPY
        grid = Grid(Source.of(group), dtypes[theirs], gpu, eager, series := {}, kernels)
        for (n, k), one in group.groupby(["n", "k"]):
            seconds = dict(zip(one["m"].tolist(), one["seconds"].tolist(), strict=True))
            series[n, k] = lint.linear(seconds, n * k * ITEMSIZE[grid.dtype], gpu, grid.copies)
        yield grid


def _add(imported: Imported, grid: Grid, shard: Shard) -> None:
    """Add the points of one shard, or the reason why there are none."""
    linted = grid.series.get((shard.n, shard.k))
    if linted:
        found = {tokens: At(seconds) for tokens, seconds in linted.seconds.items()}
        hot, doubts = linted.maybe_hot, linted.doubts
        imported.refused |= {_name(grid, shard, tokens): why for tokens, why in linted.refused.items()}
    else:
        found, hot = _between_shapes(grid, shard)
        doubts = lint.dips({tokens: at.seconds for tokens, at in found.items()})
    if not found:
        why = "lies outside the tabulated shapes" if not linted else "has no point that its memory could serve"
        imported.not_run[_name(grid, shard)] = f"n={shard.n}, k={shard.k} {why}"
    found = {tokens: at._replace(doubts=doubts.get(tokens, ())) for tokens, at in found.items()}
    for tokens, at in sorted(_with_asked(found).items()):
        imported.measurements.append(_measurement(grid, shard, tokens, at, hot))


def _between_shapes(grid: Grid, shard: Shard) -> tuple[dict[int, At], bool]:
    """Times between the nearest tabulated shapes, along n or else along k, and whether they may be hot."""
    along = {n: one for (n, k), one in grid.series.items() if k == shard.k}
    axis, size = ("n", shard.n) if along else ("k", shard.k)
    along = along or {k: one for (n, k), one in grid.series.items() if n == shard.n}
    lines = {}
    for tokens in sorted({tokens for one in along.values() for tokens in one.seconds}):
        points = {at: one.seconds[tokens] for at, one in along.items() if tokens in one.seconds}
        if line := between(points, size):
            lines[tokens] = line
    error = _usual([line.error for line in lines.values()])
    found = {tokens: At(one.seconds, f"{axis} {one.low}–{one.high}", error) for tokens, one in lines.items()}
    around = [along[at].maybe_hot for one in lines.values() for at in (one.low, one.high)]
    return found, any(around) or lint.maybe_hot(shard.n * shard.k * ITEMSIZE[grid.dtype], grid.gpu, grid.copies)


def _usual(errors: Sequence[float]) -> float:
    """What nine in ten errors do not exceed: at a single count of tokens a line may meet its point by luck."""
    return sorted(errors)[ceil(SAFE * (len(errors) - 1))] if errors else 0.0


def _with_asked(found: Mapping[int, At]) -> dict[int, At]:
    """The times, and those for the tokens that a claim asks for; errors of both steps add up."""
    seconds = {tokens: at.seconds for tokens, at in found.items()}
    asked = {}
    for tokens in ASKED:
        if tokens not in found and (line := between(seconds, tokens)):
            low, high = found[line.low], found[line.high]
            over = ", ".join(filter(None, (low.over, f"tokens {line.low}–{line.high}")))
            doubts = lint.inherited({at: found[at].doubts for at in (line.low, line.high)}, line.low, line.high)
            asked[tokens] = At(line.seconds, over, line.error + max(low.error, high.error), doubts)
    return {**found, **asked}


def _name(grid: Grid, shard: Shard, tokens: int | None = None) -> str:
    labels = (shard.model, f"tp{shard.tp}", shard.layer, tokens, grid.dtype, grid.source.framework)
    return name("linear", *labels)


def _measurement(grid: Grid, shard: Shard, tokens: int, at: At, hot: bool) -> Measurement:
    """Read x and W, write y; fp8 results are bf16."""
    source = grid.source_of(shard, tokens)
    size, out = ITEMSIZE[grid.dtype], max(2, ITEMSIZE[grid.dtype])
    case = Case(
        name=_name(grid, shard, tokens),
        question="sweep",
        op="linear",
        implementation=grid.source.framework,
        kernel=source.kernel_source,
        dtype=grid.dtype,
        flops=2 * tokens * shard.n * shard.k,
        hbm_bytes=(tokens * shard.k + shard.n * shard.k) * size + tokens * shard.n * out,
        tokens=tokens,
        cache="unknown" if grid.eager else "rotated-6",
        launch="eager" if grid.eager else "graph",
        **shard._asdict(),
    )
    facts = {"copies": grid.copies, "maybe_hot": hot, "doubts": tuple(at.doubts)}
    if at.over:
        facts |= {"provenance": "interpolated", "interpolated_over": at.over, "interpolation_error": at.error}
    return point(case, at.seconds, source, **facts)

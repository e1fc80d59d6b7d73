"""Read tables of linears, attention, all-reduces and experts as measurements.

A linear is published where its shape is tabulated, and interpolated elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow.parquet as pq
from pyarrow import ArrowException

from reports.importers.aiconfigurator import points as aiconfigurator_points
from reports.importers.aiconfigurator import tables
from reports.importers.aiconfigurator.package import MESSAGE_FORMATS, TABLE_FORMATS, interpolate, known_formats
from reports.importers.aiconfigurator.points import (
    CLAIM_TOKENS,
    ImportedPoints,
    LintedSeries,
    TableSource,
    case_name,
    published_measurement,
)
from specs.errors import UserError
from specs.gpus import Gpu
from specs.layer import HEAD_SHARE
from specs.measurement import Case, Measurement
from specs.models import Model
from specs.parallel import Shard, Split
from specs.units import ITEMSIZE, NUMBER_FORMATS, STORED_ITEMSIZE, AttentionFormat

# Attention tables: decode over a KV cache, and causal prefill, for one rank of a split.

HEAD_COLUMNS = ("num_heads", "num_key_value_heads", "head_dim", "window_size")
ATTENTION_KEY = ("batch_size", "isl", "step", "beam_width", "attn_dtype", "kv_cache_dtype", *HEAD_COLUMNS)
ATTENTION_TABLES = {"decode": "generation_attention_perf", "prefill": "context_attention_perf"}


def read_attention(system: Path, gpu: Gpu, splits: Sequence[Split], dtypes: Sequence[str]) -> ImportedPoints:
    """Read decode and prefill attention of one rank of each split.

    The formats of queries and KV cache are those of `NumberFormat.attention`. Queries in the cache's format are read
    only of frameworks without any other.
    """
    imported = ImportedPoints()
    for phase, table in ATTENTION_TABLES.items():
        try:
            found = tables.read_tables(system, "attention", table, ATTENTION_KEY, {"window_size": 0})
        except UserError as error:
            imported.not_run[case_name("attention", phase)] = str(error)
            continue
        imported.notes += found.notes
        rows = found.rows
        for split in (one for one in splits if one.model.heads):
            wanted = _rows_in_formats(rows[_matches_rank(rows, split)], dtypes)
            for one in _attention_points(wanted, split, phase):
                _add_attention(imported, one, gpu)
    return imported


def _rows_in_formats(rows: pd.DataFrame, dtypes: Sequence[str]) -> pd.DataFrame:
    """Keep the rows in the formats of attention under `dtypes`."""
    formats = [NUMBER_FORMATS[dtype] for dtype in dtypes]
    usual = {pair for one in formats for pair in one.attention if pair.queries == one.queries}
    rest = {pair for one in formats for pair in one.attention} - usual
    pairs = pd.MultiIndex.from_frame(rows[["attn_dtype", "kv_cache_dtype"]])
    kept = pairs.isin(list(map(_table_formats, usual)))
    lacking = ~rows["framework"].isin(rows.loc[kept, "framework"])
    return rows[kept | (lacking & pairs.isin(list(map(_table_formats, rest))))]


def _table_formats(one: AttentionFormat) -> tuple[str, str]:
    return TABLE_FORMATS[one.queries], TABLE_FORMATS[one.kv_cache]


def _add_attention(imported: ImportedPoints, one: Measurement, gpu: Gpu) -> None:
    """Add a point, unless its time is impossible.

    Impossible: keys and values that exceed the L2 are read faster than the memory can.
    """
    hot, impossible = aiconfigurator_points.lint_stream(one.median, one.case.hbm_bytes, gpu)
    if impossible:
        imported.refused[one.case.name] = impossible
    else:
        imported.measurements.append(replace(one, maybe_hot=hot or None))


def _matches_rank(rows: pd.DataFrame, split: Split) -> "pd.Series[bool]":
    model = split.model
    heads = [model.heads // split.tp, split.kv_heads_per_rank, model.head_dim, 0]
    return (rows[list(HEAD_COLUMNS)] == heads).all(axis=1) & (rows["beam_width"] == 1)


def _attention_points(rows: pd.DataFrame, split: Split, phase: str) -> Iterator[Measurement]:
    ours = known_formats(tuple(TABLE_FORMATS))
    newest = tables.newest_versions(rows, ["attn_dtype", "kv_cache_dtype"])
    several = newest.duplicated(["framework", *ATTENTION_KEY], keep=False)  # one framework timed two kernels
    for row in newest.assign(several=several).itertuples():
        batch, context = int(row.batch_size), int(row.isl + row.step)
        dtype, cached, model = ours[row.attn_dtype], ours[row.kv_cache_dtype], split.model
        kv_dtype = cached if cached != dtype else None
        heads, kv_heads = model.heads // split.tp, split.kv_heads_per_rank
        queries = batch * (1 if phase == "decode" else int(row.isl))
        attended = context if phase == "decode" else (context + 1) / 2  # causal: half of the context on average
        flops = int(4 * queries * attended * heads * model.head_dim)
        keys = 2 * batch * context * kv_heads * model.head_dim
        kernel = row.kernel_source if row.several else None
        formats = f"{dtype}-kv{kv_dtype}" if kv_dtype else dtype
        labels = (model, f"tp{split.tp}", phase, f"b{batch}", f"c{context}", formats, row.framework, kernel)
        case = Case(
            name=case_name("attention", *labels),
            question="attention",
            op="attention",
            implementation=row.framework,
            kernel=row.kernel_source,
            dtype=dtype,
            flops=flops,
            hbm_bytes=keys * ITEMSIZE[cached] + 2 * queries * heads * model.head_dim * ITEMSIZE[dtype],
            model=model.slug,
            layer=phase,
            tp=split.tp,
            pp=1,
            tokens=queries,
            context=context,
            cache="unknown",
            launch="unknown",
            kv_dtype=kv_dtype,
        )
        yield published_measurement(case, row.seconds, TableSource(row.framework, row.version, row.kernel_source))


# All-reduce tables: NCCL as nccl-tests runs it, and custom kernels of serving engines, in a graph and eager.
#
# Message sizes are in elements in the tables, and in bytes in the records.

COLLECTIVES_TABLES = (("nccl_perf", "nccl_dtype", "nccl"), ("custom_allreduce_perf", "allreduce_dtype", "custom"))
GRAPH_KERNELS = ("trtllm",)
"""Kernels that the collector captures in a graph without saying so in their name."""


def read_collectives(system: Path) -> ImportedPoints:
    """Read every all-reduce of the newest versions, for all tabulated rank counts."""
    imported = ImportedPoints()
    for table, dtype, implementation in COLLECTIVES_TABLES:
        key = ("op_name", dtype, "num_gpus", "message_size")
        try:
            found = tables.read_tables(system, "comm", table, key)
        except UserError as error:
            imported.not_run[case_name("all_reduce", implementation)] = str(error)
            continue
        imported.notes += found.notes
        rows = found.rows[(found.rows["op_name"] == "all_reduce") & found.rows[dtype].isin(MESSAGE_FORMATS)]
        rows = rows.assign(launch=[_launch(kernel, implementation) for kernel in rows["kernel_source"]])
        newest = tables.newest_versions(rows, [dtype, "num_gpus", "launch"])
        imported.measurements += _collectives_points(newest.rename(columns={dtype: "dtype"}), implementation)
    return imported


def _collectives_points(rows: pd.DataFrame, implementation: str) -> Iterator[Measurement]:
    same = ["framework", "dtype", "num_gpus", "message_size", "launch"]
    rows = rows.assign(several=rows.duplicated(same, keep=False))  # one framework timed two kernels
    for row in rows.sort_values([*same, "kernel_source"]).itertuples():
        dtype, ranks = MESSAGE_FORMATS[row.dtype], int(row.num_gpus)
        message = int(row.message_size) * ITEMSIZE[dtype]
        who = implementation if implementation == "nccl" else row.framework
        kernel = row.kernel_source if row.several else None
        case = Case(
            name=case_name("all_reduce", f"{ranks}x{message}", dtype, who, row.launch, kernel),
            question="communication",
            op="all_reduce",
            implementation=implementation,
            kernel=row.kernel_source,
            dtype=dtype,
            flops=0,
            hbm_bytes=0,
            wire_bytes_sent_per_rank=2 * (ranks - 1) * message // ranks,
            tp=ranks,
            pp=1,
            cache="unknown",
            launch=row.launch,
            ranks=ranks,
            message_bytes=message,
        )
        yield published_measurement(case, row.seconds, TableSource(row.framework, row.version, row.kernel_source))


def _launch(kernel_source: str, implementation: str) -> str:
    for known in ("graph", "eager"):
        if kernel_source.endswith(f"_{known}"):
            return known
    if implementation == "nccl":
        return "eager"
    return "graph" if kernel_source.lower() in GRAPH_KERNELS else "unknown"


# MoE tables as routed experts of a layer: gate, up and down of every expert that the tokens visit, in one call.
#
# The collectors keep a single copy of the experts. All experts together exceed any L2; the few experts that few tokens
# visit may fit.

EXPERT_SHAPE = ("hidden_size", "inter_size", "topk", "num_experts")
EXPERT_SERIES_KEY = ("moe_dtype", "distribution", "moe_tp_size", *EXPERT_SHAPE)
EXPERTS_KEY = ("num_tokens", "moe_ep_size", *EXPERT_SERIES_KEY)


@dataclass(frozen=True)
class ExpertSeries:
    """Times over tokens of a model's experts in one framework.

    Each of `tp` ranks holds a slice of every expert.
    """

    model: Model
    gpu: Gpu
    tp: int
    dtype: str
    distribution: str
    source: TableSource
    several: bool
    seconds: Mapping[int, float]

    def add_to(self, imported: ImportedPoints) -> None:
        """Add the possible tabulated points, and points at `CLAIM_TOKENS`."""
        refused = {
            tokens: why for tokens, seconds in self.seconds.items() if (why := self._impossible(tokens, seconds))
        }
        imported.refused |= {self._name(tokens): why for tokens, why in refused.items()}
        kept = {tokens: seconds for tokens, seconds in self.seconds.items() if tokens not in refused}
        imported.measurements += replace(self, seconds=kept)._measurements()

    def _measurements(self) -> Iterator[Measurement]:
        doubts = aiconfigurator_points.find_dips(self.seconds)
        for tokens, seconds in self.seconds.items():
            yield self._point(tokens, seconds, doubts=doubts.get(tokens, ()))
        for tokens in CLAIM_TOKENS:
            if tokens not in self.seconds and (line := interpolate(self.seconds, tokens)):
                over = {"interpolated_over": f"tokens {line.low}–{line.high}", "interpolation_error": line.error}
                odd = aiconfigurator_points.inherited_doubts(doubts, line.low, line.high)
                yield self._point(tokens, line.seconds, provenance="interpolated", doubts=odd, **over)

    @property
    def _expert(self) -> int:
        """Number of weights in one expert's slice."""
        return (self.model.up_width + self.model.intermediate) // self.tp * self.model.hidden

    def _read(self, tokens: int) -> int:
        """Maximum bytes of the visited experts; exact for balanced routing."""
        return round(min(self.model.experts, tokens * self.model.top_k) * self._expert * STORED_ITEMSIZE[self.dtype])

    def _impossible(self, tokens: int, seconds: float) -> str:
        """Describe why a point is impossible; empty where it is possible.

        Only balanced routing is checked: otherwise the bytes are unknown.
        """
        return (
            aiconfigurator_points.lint_stream(seconds, self._read(tokens), self.gpu)[1]
            if self.distribution == "balanced"
            else ""
        )

    def _name(self, tokens: int) -> str:
        kernel = self.source.kernel_source if self.several else None
        labels = (self.model, f"tp{self.tp}", tokens, self.dtype, self.distribution, self.source.framework, kernel)
        return case_name("moe", *labels)

    def _point(self, tokens: int, seconds: float, **facts: Any) -> Measurement:
        hot = aiconfigurator_points.maybe_hot(self._read(tokens), self.gpu, copies=1)
        return published_measurement(self._case(tokens), seconds, self.source, maybe_hot=hot, **facts)

    def _case(self, tokens: int) -> Case:
        """Case that reads each visited expert and x once, and writes y.

        The visited experts are known for balanced routing alone.
        """
        model, size = self.model, STORED_ITEMSIZE[self.dtype]
        activations = round(tokens * model.hidden * (size + max(2, size)))
        return Case(
            name=self._name(tokens),
            question="moe",
            op="moe",
            implementation=self.source.framework,
            kernel=self.source.kernel_source,
            dtype=self.dtype,
            flops=2 * tokens * model.top_k * self._expert,
            hbm_bytes=self._read(tokens) + activations if self.distribution == "balanced" else 0,
            model=model.slug,
            layer="experts",
            tp=self.tp,
            pp=1,
            tokens=tokens,
            cache="unknown",
            launch="unknown",
            distribution=self.distribution,
        )


def read_experts(
    system: Path, gpu: Gpu, models: Sequence[Model], widths: Sequence[int], dtypes: Sequence[str]
) -> ImportedPoints:
    """Read the experts of those `models` that have any, sliced over `widths` ranks."""
    ours, imported = known_formats(dtypes), ImportedPoints()
    models = [one for one in models if one.experts]
    if not models:
        return imported
    try:
        found = tables.read_tables(system, "moe", "moe_perf", EXPERTS_KEY)
    except UserError as error:
        imported.not_run[case_name("moe", "experts")] = str(error)
        return imported
    imported.notes += found.notes
    rows = found.rows[(found.rows["moe_ep_size"] == 1) & found.rows["moe_dtype"].isin(ours)]
    for model in models:
        shape = [model.hidden, model.intermediate, model.top_k, model.experts]
        alike = (rows[list(EXPERT_SHAPE)] == shape).all(axis=1) & rows["moe_tp_size"].isin(widths)
        wanted = tables.newest_versions(rows[alike], EXPERT_SERIES_KEY)
        if wanted.empty:
            imported.not_run[case_name("moe", model, "experts")] = (
                "no table holds experts of these shapes in these formats"
            )
        for series in _expert_series(model, gpu, wanted, ours):
            series.add_to(imported)
    return imported


def _expert_series(model: Model, gpu: Gpu, rows: pd.DataFrame, ours: Mapping[str, str]) -> Iterator[ExpertSeries]:
    """Yield a series for each framework, format, width and distribution.

    A table with several kernels gives a series for each kernel.
    """
    by = ["framework", "moe_dtype", "distribution", "moe_tp_size"]
    for (_, theirs, distribution, tp), group in rows.groupby(by):
        several = bool(group["num_tokens"].duplicated().any())
        for _, one in group.groupby("kernel_source") if several else [("", group)]:
            seconds = dict(zip(one["num_tokens"].tolist(), one["seconds"].tolist(), strict=True))
            facts = (TableSource.from_rows(one), several, dict(sorted(seconds.items())))
            yield ExpertSeries(model, gpu, int(tp), ours[theirs], distribution, *facts)


LINEARS_KEY = ("gemm_dtype", "m", "n", "k")
ERROR_QUANTILE = 0.9
"""Share of token counts at which a shape's error is at most the stated error."""
EAGER_ONE_COPY = ("vllm", "fp8_block")
"""Framework and format that are timed without a graph, on one copy of weights."""
QUANTIZED_IN_CALL = ("trtllm", "fp8")
"""Framework and format whose times include the dynamic quantization of the activations.

Engines with static scales do not run its two kernels.
"""
QUANTIZATION_TABLES = ("computescale", "scale_matrix")


class GemmTime(NamedTuple):
    """A time and its origin; `over` is empty for a tabulated time."""

    seconds: float
    over: str = ""
    error: float = 0.0
    doubts: Sequence[str] = ()


@dataclass(frozen=True)
class GemmGrid:
    """GEMMs of one framework and number format: a checked series for each (n, k)."""

    source: TableSource
    dtype: str
    gpu: Gpu
    eager: bool
    series: Mapping[tuple[int, int], LintedSeries]
    kernels: Mapping[tuple[int, int, int], str]

    def source_of(self, shard: Shard, tokens: int) -> TableSource:
        """Source of a point.

        A tabulated point names its kernel alone; an interpolated point names all kernels of the framework.
        """
        return replace(
            self.source, kernel_source=self.kernels.get((shard.n, shard.k, tokens), self.source.kernel_source)
        )

    @property
    def copies(self) -> int:
        """Maximum number of weight copies that the calls rotated through."""
        return 1 if self.eager else aiconfigurator_points.MAX_COPIES


def read_linears(system: Path, gpu: Gpu, shards: Sequence[Shard], dtypes: Sequence[str]) -> ImportedPoints:
    """Read the linears of `shards` in every framework that has them.

    Raises:
        UserError: no table of GEMMs of the system can be used.
    """
    found = tables.read_tables(system, "gemm", "gemm_perf", LINEARS_KEY)
    imported = ImportedPoints(notes=list(found.notes), device=str(found.rows["device"].iloc[0]))
    absent = wanted = _shards_by_format(shards, dtypes)
    quantization = _read_quantization(system, found.rows, imported.notes) if QUANTIZED_IN_CALL[1] in wanted else {}
    for grid in _grids(found.rows, gpu, known_formats(tuple(wanted)), quantization):
        absent = {dtype: them for dtype, them in absent.items() if dtype != grid.dtype}
        for shard in wanted[grid.dtype]:
            _add_linears(imported, grid, shard)
    imported.not_run |= {case_name("linear", dtype): f"no table holds GEMMs in {dtype}" for dtype in absent if shards}
    return imported


def linear_formats(system: Path) -> list[str]:
    """Our names of the formats that any table of GEMMs of a system has; files that cannot be read give none."""
    found: set[str] = set()
    for path in system.glob("gemm/*/*/gemm_perf.parquet"):
        with suppress(OSError, ArrowException):
            found |= {*pq.read_table(path, columns=["gemm_dtype"])["gemm_dtype"].unique().to_pylist()}
    return [ours for ours, theirs in TABLE_FORMATS.items() if theirs in found]


def _shards_by_format(shards: Sequence[Shard], dtypes: Sequence[str]) -> dict[str, Sequence[Shard]]:
    """Shards by format: all in each of `dtypes`, and LM heads in the formats that engines keep them in."""
    heads = [one for one in shards if one.layer == HEAD_SHARE]
    kept = dict.fromkeys(NUMBER_FORMATS[dtype].residual for dtype in dtypes)
    return {dtype: heads for dtype in kept if heads} | dict.fromkeys(dtypes, shards)


QuantizationTimes = Mapping[int, Mapping[int, float]]
"""Seconds by width k and tokens m."""


def _read_quantization(system: Path, gemms: pd.DataFrame, notes: list[str]) -> dict[str, QuantizationTimes]:
    """Read the kernels that quantize activations for `QUANTIZED_IN_CALL`, and note whether times are without them.

    Empty where a table is missing.
    """
    framework, dtype = QUANTIZED_IN_CALL
    if not ((gemms["framework"] == framework) & (gemms["gemm_dtype"] == TABLE_FORMATS[dtype])).any():
        return {}
    found: dict[str, QuantizationTimes] = {}
    for name in QUANTIZATION_TABLES:
        try:
            key = ("quant_dtype", "m", "k")
            read = tables.read_tables(system, "quantize", f"{name}_perf", key, framework=framework, zeros=True)
        except UserError as error:
            notes.append(f"{system.name}: {dtype} GEMMs of {framework} include dynamic quantization ({error})")
            return {}
        notes += read.notes
        rows = tables.newest_versions(read.rows[read.rows["quant_dtype"] == TABLE_FORMATS[dtype]], ["quant_dtype"])
        found[name] = {k: dict(zip(one["m"], one["seconds"], strict=True)) for k, one in rows.groupby("k")}
    notes.append(f"{system.name}: {dtype} GEMMs of {framework} are without {' and '.join(found)}")
    return found


def _quantization_seconds(times: QuantizationTimes, m: int, k: int) -> float | None:
    """Seconds at m and k: tabulated, else between neighbours along m or along k; None outside the table."""
    alike = times.get(k, {})
    if m in alike:
        return alike[m]
    line = interpolate(alike, m) or interpolate({at: one[m] for at, one in times.items() if m in one}, k)
    return line.seconds if line else None


def _without_quantization(
    seconds: Mapping[int, float], k: int, quantization: Mapping[str, QuantizationTimes]
) -> tuple[dict[int, float], dict[int, str]]:
    """Subtract quantization from the times of one shape; return the rest, and reasons for refused points."""
    kept: dict[int, float] = {}
    refused: dict[int, str] = {}
    for tokens, time in seconds.items():
        parts = {name: _quantization_seconds(times, tokens, k) for name, times in quantization.items()}
        taken = sum(one for one in parts.values() if one is not None)
        if lacking := [name for name, one in parts.items() if one is None]:
            refused[tokens] = f"includes {' and '.join(lacking)}, which no table has at m={tokens}, k={k}"
        elif taken >= time:
            refused[tokens] = f"takes {1e6 * time:.1f} us, and {' and '.join(parts)} alone {1e6 * taken:.1f} us"
        else:
            kept[tokens] = time - taken
    return kept, refused


def _grids(
    rows: pd.DataFrame, gpu: Gpu, dtypes: Mapping[str, str], quantization: Mapping[str, QuantizationTimes]
) -> Iterator[GemmGrid]:
    wanted = tables.newest_versions(rows[rows["gemm_dtype"].isin(dtypes)], ["gemm_dtype", "n", "k"])
    wanted = wanted.sort_values("seconds", ascending=False)  # the faster of two kernels for one shape stays
    for (framework, theirs), group in wanted.groupby(["framework", "gemm_dtype"]):
        kernels = dict(zip(zip(group["n"], group["k"], group["m"], strict=True), group["kernel_source"], strict=True))
        eager = (framework, theirs) == EAGER_ONE_COPY
        grid = GemmGrid(TableSource.from_rows(group), dtypes[theirs], gpu, eager, series := {}, kernels)
        subtracted = quantization if (framework, grid.dtype) == QUANTIZED_IN_CALL else {}
        for (n, k), one in group.groupby(["n", "k"]):
            whole = dict(zip(one["m"].tolist(), one["seconds"].tolist(), strict=True))
            seconds, refused = _without_quantization(whole, k, subtracted)
            linted = aiconfigurator_points.lint_linear(seconds, n * k * STORED_ITEMSIZE[grid.dtype], gpu, grid.copies)
            series[n, k] = replace(linted, refused={**linted.refused, **refused})
        yield grid


def _add_linears(imported: ImportedPoints, grid: GemmGrid, shard: Shard) -> None:
    """Add the points of one shard, or the reason for their absence."""
    linted = grid.series.get((shard.n, shard.k))
    if linted:
        found = {tokens: GemmTime(seconds) for tokens, seconds in linted.seconds.items()}
        hot, doubts = linted.maybe_hot, linted.doubts
        imported.refused |= {_name(grid, shard, tokens): why for tokens, why in linted.refused.items()}
    else:
        found, hot = _interpolate_shapes(grid, shard)
        doubts = aiconfigurator_points.find_dips({tokens: at.seconds for tokens, at in found.items()})
    if not found:
        why = "lies outside the tabulated shapes" if not linted else "has no point that its memory could serve"
        imported.not_run[_name(grid, shard)] = f"n={shard.n}, k={shard.k} {why}"
    found = {tokens: at._replace(doubts=doubts.get(tokens, ())) for tokens, at in found.items()}
    for tokens, at in sorted(_with_claim_tokens(found).items()):
        imported.measurements.append(_measurement(grid, shard, tokens, at, hot))


def _interpolate_shapes(grid: GemmGrid, shard: Shard) -> tuple[dict[int, GemmTime], bool]:
    """Interpolate between the nearest tabulated shapes, along n or else along k.

    Returns times by tokens, and True where the times may be hot.
    """
    along = {n: one for (n, k), one in grid.series.items() if k == shard.k}
    axis, size = ("n", shard.n) if along else ("k", shard.k)
    along = along or {k: one for (n, k), one in grid.series.items() if n == shard.n}
    lines = {}
    for tokens in sorted({tokens for one in along.values() for tokens in one.seconds}):
        points = {at: one.seconds[tokens] for at, one in along.items() if tokens in one.seconds}
        if line := interpolate(points, size):
            lines[tokens] = line
    error = _error_quantile([line.error for line in lines.values()])
    found = {tokens: GemmTime(one.seconds, f"{axis} {one.low}–{one.high}", error) for tokens, one in lines.items()}
    around = [along[at].maybe_hot for one in lines.values() for at in (one.low, one.high)]
    return found, any(around) or aiconfigurator_points.maybe_hot(
        shard.n * shard.k * STORED_ITEMSIZE[grid.dtype], grid.gpu, grid.copies
    )


def _error_quantile(errors: Sequence[float]) -> float:
    """Error that nine in ten token counts do not exceed.

    At a single token count, a line may meet its point by luck.
    """
    return sorted(errors)[ceil(ERROR_QUANTILE * (len(errors) - 1))] if errors else 0.0


def _with_claim_tokens(found: Mapping[int, GemmTime]) -> dict[int, GemmTime]:
    """Add times at `CLAIM_TOKENS`; the errors of both interpolations add up."""
    seconds = {tokens: at.seconds for tokens, at in found.items()}
    asked = {}
    for tokens in CLAIM_TOKENS:
        if tokens not in found and (line := interpolate(seconds, tokens)):
            low, high = found[line.low], found[line.high]
            over = ", ".join(filter(None, (low.over, f"tokens {line.low}–{line.high}")))
            doubts = aiconfigurator_points.inherited_doubts(
                {at: found[at].doubts for at in (line.low, line.high)}, line.low, line.high
            )
            asked[tokens] = GemmTime(line.seconds, over, line.error + max(low.error, high.error), doubts)
    return {**found, **asked}


def _name(grid: GemmGrid, shard: Shard, tokens: int | None = None) -> str:
    labels = (shard.model, f"tp{shard.tp}", shard.layer, tokens, grid.dtype, grid.source.framework)
    return case_name("linear", *labels)


def _measurement(grid: GemmGrid, shard: Shard, tokens: int, at: GemmTime, hot: bool) -> Measurement:
    """Measurement that reads x and W and writes y; results of narrower formats are bf16."""
    source = grid.source_of(shard, tokens)
    size = STORED_ITEMSIZE[grid.dtype]
    case = Case(
        name=_name(grid, shard, tokens),
        question="sweep",
        op="linear",
        implementation=grid.source.framework,
        kernel=source.kernel_source,
        dtype=grid.dtype,
        flops=2 * tokens * shard.n * shard.k,
        hbm_bytes=round((tokens * shard.k + shard.n * shard.k) * size + tokens * shard.n * max(2, size)),
        tokens=tokens,
        cache="unknown" if grid.eager else "rotated-6",
        launch="eager" if grid.eager else "graph",
        **shard._asdict(),
    )
    facts = {"copies": grid.copies, "maybe_hot": hot, "doubts": tuple(at.doubts)}
    if at.over:
        facts |= {"provenance": "interpolated", "interpolated_over": at.over, "interpolation_error": at.error}
    return published_measurement(case, at.seconds, source, **facts)

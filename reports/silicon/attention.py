"""Attention tables: decode over a cache of keys and values, and causal prefill, as one rank of a split sees them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from reports.silicon import formats, lint, tables
from reports.silicon.imported import Imported
from reports.silicon.points import Source, name, point
from specs.errors import UserError
from specs.gpus import Gpu
from specs.measurement import Case, Measurement
from specs.parallel import Split
from specs.units import ITEMSIZE

HEADS = ("num_heads", "num_key_value_heads", "head_dim", "window_size")
KEY = ("batch_size", "isl", "step", "beam_width", "attn_dtype", "kv_cache_dtype", *HEADS)
TABLES = {"decode": "generation_attention_perf", "prefill": "context_attention_perf"}


def read(system: Path, gpu: Gpu, splits: Sequence[Split], dtypes: Sequence[str]) -> Imported:
    """Decode and prefill attention of one rank of each split, where keys and values have the format of the queries."""
    imported = Imported()
    for phase, table in TABLES.items():
        try:
            found = tables.read(system, "attention", table, KEY, {"window_size": 0})
        except UserError as error:
            imported.not_run[name("attention", phase)] = str(error)
            continue
        imported.notes += found.notes
        ours, rows = formats.known(dtypes), found.rows
        same = rows["attn_dtype"].isin(ours) & (rows["attn_dtype"] == rows["kv_cache_dtype"])
        for split in (one for one in splits if one.model.heads):
            for one in _points(rows[same & _of_rank(rows, split)], split, phase, ours):
                _add(imported, one, gpu)
    return imported


def _add(imported: Imported, one: Measurement, gpu: Gpu) -> None:
    """Take a point, unless it reads keys and values that no cache holds faster than the memory can."""
    hot, impossible = lint.streamed(one.median, one.case.hbm_bytes, gpu)
    if impossible:
        imported.refused[one.case.name] = impossible
    else:
        imported.measurements.append(replace(one, maybe_hot=hot or None))


def _of_rank(rows: pd.DataFrame, split: Split) -> "pd.Series[bool]":
    model = split.model
    heads = [model.heads // split.tp, split.kv_heads_per_rank, model.head_dim, 0]
    return (rows[list(HEADS)] == heads).all(axis=1) & (rows["beam_width"] == 1)


def _points(rows: pd.DataFrame, split: Split, phase: str, ours: Mapping[str, str]) -> Iterator[Measurement]:
    newest = tables.newest(rows, ["attn_dtype"])
    several = newest.duplicated(["framework", *KEY], keep=False)  # one framework timed two kernels
    for row in newest.assign(several=several).itertuples():
        batch, context = int(row.batch_size), int(row.isl + row.step)
        dtype, model = ours[row.attn_dtype], split.model
        heads, kv_heads = model.heads // split.tp, split.kv_heads_per_rank
        queries = batch * (1 if phase == "decode" else int(row.isl))
        attended = context if phase == "decode" else (context + 1) / 2  # causal: half of the context on average
        flops = int(4 * queries * attended * heads * model.head_dim)
        keys = 2 * batch * context * kv_heads * model.head_dim
        kernel = row.kernel_source if row.several else None
        labels = (model, f"tp{split.tp}", phase, f"b{batch}", f"c{context}", dtype, row.framework, kernel)
        case = Case(
            name=name("attention", *labels),
            question="attention",
            op="attention",
            implementation=row.framework,
            kernel=row.kernel_source,
            dtype=dtype,
            flops=flops,
            hbm_bytes=(keys + 2 * queries * heads * model.head_dim) * ITEMSIZE[dtype],
            model=model.slug,
            layer=phase,
            tp=split.tp,
            pp=1,
            tokens=queries,
            context=context,
            cache="unknown",
            launch="unknown",
        )
        yield point(case, row.seconds, Source(row.framework, row.version, row.kernel_source))

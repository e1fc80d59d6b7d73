"""Read the tables of one family, all frameworks and versions, into one frame."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from packaging.version import InvalidVersion, Version
from pandas.api.types import is_numeric_dtype, is_string_dtype
from pyarrow import ArrowException

from specs.errors import UserError

COMMON_COLUMNS = ("framework", "version", "device", "kernel_source", "latency")
"""Columns that every table must have; latency is in milliseconds."""
NO_DEFAULTS: Mapping[str, int] = {}
TEXT_COLUMNS = (
    "gemm_dtype",
    "moe_dtype",
    "nccl_dtype",
    "allreduce_dtype",
    "attn_dtype",
    "kv_cache_dtype",
    "quant_dtype",
    "distribution",
)
"""Key columns that hold text, with `op_name`; all other columns hold numbers."""


@dataclass(frozen=True)
class FamilyRows:
    """Rows of one family, with `seconds` for the latency, and notes on the files."""

    rows: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def read_tables(
    system: Path,
    family: str,
    table: str,
    key: Sequence[str],
    defaults: Mapping[str, int] = NO_DEFAULTS,
    framework: str = "*",
    zeros: bool = False,
) -> FamilyRows:
    """Read every table `<family>/<framework>/<version>/<table>.parquet` of a system.

    Args:
        system: folder of the system.
        family: gemm, comm, attention, moe or quantize.
        table: name of the files without their suffix.
        key: columns that distinguish the points of one table.
        defaults: key columns that older tables lack, with the value for all of their rows.
        framework: folder of the one framework to read; `*` for all.
        zeros: accept latencies of 0, which differences of two times can be.

    Returns:
        Rows with a rank, lower for newer versions, and a note for each file that was skipped.

    Raises:
        UserError: no file of the family can be used.
    """
    found, notes = [], []
    for path in sorted(system.glob(f"{family}/{framework}/*/{table}.parquet")):
        where = path.relative_to(system.parent)
        try:
            found.append((where, _read_checked(path, where, key, defaults, zeros)))
        except UserError as error:
            notes.append(str(error))
    # Rows state their version. Of files with the same version, the one in the newer folder comes first.
    found.sort(key=lambda one: (_version(str(one[1]["version"].iloc[0])), _version(one[0].parent.name)), reverse=True)
    frames: list[pd.DataFrame] = []
    seen: dict[str, Path] = {}
    for where, frame in found:
        content = _content(frame, key)
        if content in seen:
            notes.append(f"{where}: holds the figures of {seen[content]} again; passed over")
            continue
        seen[content] = where
        once, repeated = _merge_duplicates(frame, key)
        if repeated:
            notes.append(f"{where}: {repeated} points stand in it more than once; their medians are taken")
        frames.append(once.assign(rank=len(frames)))
    if not frames:
        why = f": {notes[0]}" if notes else ""
        raise UserError(f"{system.name}: no table {family}/{framework}/*/{table}.parquet that can be used{why}")
    return FamilyRows(pd.concat(frames, ignore_index=True), notes)


def newest_versions(rows: pd.DataFrame, series: Sequence[str]) -> pd.DataFrame:
    """Keep the newest version with a series of each framework.

    Versions of a framework are never mixed within a series.
    """
    by = ["framework", *series]
    return rows[rows["rank"] == rows.groupby(by, sort=False)["rank"].transform("min")]


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")


def _read_checked(
    path: Path, where: Path, key: Sequence[str], defaults: Mapping[str, int], zeros: bool
) -> pd.DataFrame:
    """Read the wanted columns of a table.

    Raises:
        UserError: the file cannot be read, lacks columns, or holds invalid values.
    """
    wanted = [*COMMON_COLUMNS, *key]
    try:
        present = pq.read_schema(path).names
        absent = [name for name in wanted if name not in present]
        lacking = [name for name in absent if name not in defaults]
        if lacking:
            raise UserError(f"{where}: lacks the columns {', '.join(lacking)}; it has {', '.join(present[:12])}")
        read = pq.read_table(path, columns=[name for name in wanted if name in present]).to_pandas()
        frame = read.assign(**{name: defaults[name] for name in absent})
    except (OSError, ArrowException) as error:
        raise UserError(f"{where}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    seconds = pd.to_numeric(frame.pop("latency"), errors="coerce") * 1e-3
    if not len(frame) or not seconds.between(0, 3600, inclusive="left" if zeros else "neither").all():
        raise UserError(f"{where}: empty, or with latencies that are no time in milliseconds")
    texts = [
        *(name for name in COMMON_COLUMNS if name != "latency"),
        *(name for name in key if name in (*TEXT_COLUMNS, "op_name")),
    ]
    odd = [name for name in frame if not (is_string_dtype if name in texts else is_numeric_dtype)(frame[name])]
    if odd or frame.isna().any(axis=None):
        raise UserError(f"{where}: has gaps, or other values than it should in {', '.join(odd) or 'a column'}")
    frame["framework"] = frame["framework"].str.lower()
    return frame.assign(seconds=seconds)


def _merge_duplicates(frame: pd.DataFrame, key: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """Merge repeated points by their medians; return the rows and the merged points."""
    point = [*(name for name in COMMON_COLUMNS if name != "latency"), *key]
    if not frame.duplicated(point).any():
        return frame, 0
    once = frame.groupby(point, as_index=False, sort=False)["seconds"]
    return once.median(), int((once.size()["size"] > 1).sum())


def _content(frame: pd.DataFrame, key: Sequence[str]) -> str:
    """Hash of the figures, whatever framework and version the rows claim."""
    figures = frame[[*key, "seconds"]].sort_values([*key, "seconds"], ignore_index=True)
    return hashlib.sha256(pd.util.hash_pandas_object(figures, index=False).values.tobytes()).hexdigest()

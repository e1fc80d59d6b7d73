"""Reads the tables of one family, all frameworks and versions, into one frame of checked columns."""

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow.parquet as pq
from packaging.version import InvalidVersion, Version
from pandas.api.types import is_numeric_dtype, is_string_dtype
from pyarrow import ArrowException

from specs.errors import UserError, find
from specs.gpus import GPUS, Gpu

# Number formats: the tables' names for them, and ours.

FORMATS = {"bf16": "bfloat16", "fp16": "float16", "fp8": "fp8", "fp8-block": "fp8_block"}
"""The tables' name of each format that can be taken over."""
OF_MESSAGES = {theirs: ours for ours, theirs in FORMATS.items()} | {"half": "fp16", "int8": "int8"}
"""Ours of each that messages are in."""


def known(dtypes: Sequence[str]) -> dict[str, str]:
    """Of the asked formats, ours by the tables' names."""
    return {FORMATS[dtype]: dtype for dtype in dtypes if dtype in FORMATS}


# Linear interpolation between tabulated neighbours, with the error that the method makes on those it can check.
#
# The time of a GEMM is close to affine in each of its sizes, and in trials on these tables a straight line missed
# left-out shapes by no more than curves in log-log or in share-of-roofline did. How far off it may be is said by
# leaving out each of the two neighbours and predicting it from the next ones around it: the larger error of the two.


class Interpolated(NamedTuple):
    """A value, its relative error by leave-one-out, and the two neighbours it stands between."""

    seconds: float
    error: float
    low: int
    high: int


def between(points: Mapping[int, float], at: int) -> Interpolated | None:
    """The value at `at`; None outside the points, and where no neighbour can be left out to find the error.

    Args:
        points: seconds by size.
        at: a size that is not among them.
    """
    sizes = sorted(points)
    place = bisect_left(sizes, at)
    if not 0 < place < len(sizes):
        return None
    errors = []
    for left_out in (place - 1, place):
        if 0 < left_out < len(sizes) - 1:
            size = sizes[left_out]
            guess = _line(points, sizes[left_out - 1], sizes[left_out + 1], size)
            errors.append(abs(guess / points[size] - 1))
    low, high = sizes[place - 1], sizes[place]
    return Interpolated(_line(points, low, high, at), max(errors), low, high) if errors else None


def _line(points: Mapping[int, float], low: int, high: int, at: int) -> float:
    return points[low] + (points[high] - points[low]) * (at - low) / (high - low)


# The installed `aiconfigurator-core`: where its tables lie and which systems have any.
#
# The package holds measured tables of NVIDIA's AIConfigurator (Apache-2.0) as Parquet files,
# systems/data/<system>/<family>/<framework>/<version>/<table>.parquet. Nothing else of it is read, and none of its code
# runs.

NAME = "aiconfigurator-core"
INSTALL = "pip install --constraint constraints.txt --editable '.[silicon]'"
GEMM = "gemm"


@dataclass(frozen=True)
class Package:
    """Where the tables of one version of the package lie: `data` holds a folder for each system."""

    data: Path
    version: str

    @property
    def name(self) -> str:
        """The package and its version, as provenance."""
        return f"{NAME} {self.version}"

    def systems(self) -> dict[str, Path]:
        """Folder of each system that has tables of GEMMs."""
        return {path.parent.name: path.parent for path in sorted(self.data.glob(f"*/{GEMM}"))}

    def system(self, name: str) -> tuple[Path, Gpu]:
        """The folder of a system's tables, and the datasheet row that they are held against.

        Raises:
            UserError: no such system, or none of its GPU in specs/gpus.py.
        """
        found = self.systems()
        known = {slug: folder for slug, folder in found.items() if slug in GPUS}
        if name in found and name not in known:
            raise UserError(
                f"system {name!r}: has tables, but specs/gpus.py has no row for its GPU to check them against; "
                f"add one, or choose among {', '.join(known)}"
            )
        return find(known, name, "system"), GPUS[name]


def installed() -> Package:
    """The package on this machine.

    Raises:
        UserError: it is not installed, or holds no tables.
    """
    spec = util.find_spec("aiconfigurator_core")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise UserError(f"published silicon: {NAME} is not installed; {INSTALL}")
    try:
        package = Package(Path(places[0]) / "systems" / "data", metadata.version(NAME))
    except metadata.PackageNotFoundError as error:
        raise UserError(f"published silicon: {NAME} is not installed; {INSTALL}") from error
    if not package.systems():
        raise UserError(f"{package.data}: no tables in {package.name}; install it anew: {INSTALL}")
    return package


TOLD = ("framework", "version", "device", "kernel_source", "latency")
"""Columns that every table has to have; latency is in milliseconds."""
NOTHING: Mapping[str, int] = {}
WORDS = ("gemm_dtype", "moe_dtype", "nccl_dtype", "allreduce_dtype", "attn_dtype", "kv_cache_dtype", "distribution")
"""Columns of a key that hold text, with `op_name`; all others hold numbers."""


@dataclass(frozen=True)
class Tables:
    """Rows of one family, with `seconds` in place of the latency, and what was odd about the files."""

    rows: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def read(system: Path, family: str, table: str, key: Sequence[str], usual: Mapping[str, int] = NOTHING) -> Tables:
    """Every table `<family>/<framework>/<version>/<table>.parquet` of a system.

    Args:
        system: the system's folder.
        family: gemm, comm, attention or moe.
        table: name of the files without their ending.
        key: columns that tell the points of one table apart.
        usual: columns among them that older tables lack, and what holds for all their rows.

    Returns:
        Rows with a rank: 0 for the newest version of each framework, and a note for each file that was passed over.

    Raises:
        UserError: no file of the family can be used.
    """
    found, notes = [], []
    for path in sorted(system.glob(f"{family}/*/*/{table}.parquet")):
        where = path.relative_to(system.parent)
        try:
            found.append((where, _checked(path, where, key, usual)))
        except UserError as error:
            notes.append(str(error))
    # the rows say which version they are of; where two files say the same, the younger folder
    found.sort(key=lambda one: (_version(str(one[1]["version"].iloc[0])), _version(one[0].parent.name)), reverse=True)
    frames: list[pd.DataFrame] = []
    seen: dict[str, Path] = {}
    for where, frame in found:
        content = _content(frame, key)
        if content in seen:
            notes.append(f"{where}: holds the figures of {seen[content]} again; passed over")
            continue
        seen[content] = where
        once, repeated = _once(frame, key)
        if repeated:
            notes.append(f"{where}: {repeated} points stand in it more than once; their medians are taken")
        frames.append(once.assign(rank=len(frames)))
    if not frames:
        why = f": {notes[0]}" if notes else ""
        raise UserError(f"{system.name}: no table {family}/*/*/{table}.parquet that can be used{why}")
    return Tables(pd.concat(frames, ignore_index=True), notes)


def newest(rows: pd.DataFrame, series: Sequence[str]) -> pd.DataFrame:
    """Of each framework's versions the newest that holds a series: versions are never mixed within one."""
    by = ["framework", *series]
    return rows[rows["rank"] == rows.groupby(by, sort=False)["rank"].transform("min")]


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")


def _checked(path: Path, where: Path, key: Sequence[str], usual: Mapping[str, int]) -> pd.DataFrame:
    """One table's wanted columns.

    Raises:
        UserError: it cannot be read, lacks columns, or holds what is no time.
    """
    wanted = [*TOLD, *key]
    try:
        present = pq.read_schema(path).names
        absent = [name for name in wanted if name not in present]
        lacking = [name for name in absent if name not in usual]
        if lacking:
            raise UserError(f"{where}: lacks the columns {', '.join(lacking)}; it has {', '.join(present[:12])}")
        read = pq.read_table(path, columns=[name for name in wanted if name in present]).to_pandas()
        frame = read.assign(**{name: usual[name] for name in absent})
    except (OSError, ArrowException) as error:
        raise UserError(f"{where}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    seconds = pd.to_numeric(frame.pop("latency"), errors="coerce") * 1e-3
    if not len(frame) or not seconds.between(0, 3600, inclusive="neither").all():
        raise UserError(f"{where}: empty, or with latencies that are no time in milliseconds")
    texts = [*(name for name in TOLD if name != "latency"), *(name for name in key if name in (*WORDS, "op_name"))]
    odd = [name for name in frame if not (is_string_dtype if name in texts else is_numeric_dtype)(frame[name])]
    if odd or frame.isna().any(axis=None):
        raise UserError(f"{where}: has gaps, or other values than it should in {', '.join(odd) or 'a column'}")
    frame["framework"] = frame["framework"].str.lower()
    return frame.assign(seconds=seconds)


def _once(frame: pd.DataFrame, key: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """The rows with each point once, and how many points were there more often."""
    point = [*(name for name in TOLD if name != "latency"), *key]
    if not frame.duplicated(point).any():
        return frame, 0
    once = frame.groupby(point, as_index=False, sort=False)["seconds"]
    return once.median(), int((once.size()["size"] > 1).sum())


def _content(frame: pd.DataFrame, key: Sequence[str]) -> str:
    """A hash of the figures, whatever framework and version the rows claim."""
    figures = frame[[*key, "seconds"]].sort_values([*key, "seconds"], ignore_index=True)
    return hashlib.sha256(pd.util.hash_pandas_object(figures, index=False).values.tobytes()).hexdigest()

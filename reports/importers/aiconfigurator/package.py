"""The installed package aiconfigurator-core: its folders, its number formats, and points between its tabulated ones."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

from specs.errors import UserError, find
from specs.gpus import GPUS, Gpu

# Number formats: the tables' names for them, and ours.

TABLE_FORMATS = {"bf16": "bfloat16", "fp16": "float16", "fp8": "fp8", "fp8-block": "fp8_block"}
"""The tables' name of each format that can be taken over."""
MESSAGE_FORMATS = {theirs: ours for ours, theirs in TABLE_FORMATS.items()} | {"half": "fp16", "int8": "int8"}
"""Ours of each that messages are in."""


def known_formats(dtypes: Sequence[str]) -> dict[str, str]:
    """Of the asked formats, ours by the tables' names."""
    return {TABLE_FORMATS[dtype]: dtype for dtype in dtypes if dtype in TABLE_FORMATS}


# Linear interpolation between tabulated neighbours, with the error that the method makes on those it can check.
#
# The time of a GEMM is close to affine in each of its sizes, and in trials on these tables a straight line missed
# left-out shapes by no more than curves in log-log or in share-of-roofline did. How far off it may be is said by
# leaving out each of the two neighbours and predicting it from the next ones around it: the larger error of the two.


class Interpolation(NamedTuple):
    """A value, its relative error by leave-one-out, and the two neighbours it stands between."""

    seconds: float
    error: float
    low: int
    high: int


def interpolate(points: Mapping[int, float], at: int) -> Interpolation | None:
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
    return Interpolation(_line(points, low, high, at), max(errors), low, high) if errors else None


def _line(points: Mapping[int, float], low: int, high: int, at: int) -> float:
    return points[low] + (points[high] - points[low]) * (at - low) / (high - low)


# The installed `aiconfigurator-core`: where its tables lie and which systems have any.
#
# The package holds measured tables of NVIDIA's AIConfigurator (Apache-2.0) as Parquet files,
# systems/data/<system>/<family>/<framework>/<version>/<table>.parquet. Nothing else of it is read, and none of its code
# runs.

PACKAGE_NAME = "aiconfigurator-core"
INSTALL_COMMAND = "pip install --constraint constraints.txt --editable '.[silicon]'"
GEMM_FAMILY = "gemm"


@dataclass(frozen=True)
class TablePackage:
    """Where the tables of one version of the package lie: `data` holds a folder for each system."""

    data: Path
    version: str

    @property
    def name(self) -> str:
        """The package and its version, as provenance."""
        return f"{PACKAGE_NAME} {self.version}"

    def systems(self) -> dict[str, Path]:
        """Folder of each system that has tables of GEMMs."""
        return {path.parent.name: path.parent for path in sorted(self.data.glob(f"*/{GEMM_FAMILY}"))}

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


def find_package() -> TablePackage:
    """The package on this machine.

    Raises:
        UserError: it is not installed, or holds no tables.
    """
    spec = util.find_spec("aiconfigurator_core")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise UserError(f"published silicon: {PACKAGE_NAME} is not installed; {INSTALL_COMMAND}")
    try:
        package = TablePackage(Path(places[0]) / "systems" / "data", metadata.version(PACKAGE_NAME))
    except metadata.PackageNotFoundError as error:
        raise UserError(f"published silicon: {PACKAGE_NAME} is not installed; {INSTALL_COMMAND}") from error
    if not package.systems():
        raise UserError(f"{package.data}: no tables in {package.name}; install it anew: {INSTALL_COMMAND}")
    return package

"""Installed package aiconfigurator-core: tables, formats and interpolation."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

from specs.errors import UserError, find
from specs.gpus import GPUS, Gpu, match_gpu

# Selection of an import, unless its options say otherwise.

DEFAULT_DTYPES = ("bf16",)
DEFAULT_MODELS = ("llama-3-70b", "qwen3-235b-a22b", "deepseek-v3")
DEFAULT_WIDTHS = (1, 2, 4, 8)

# Number formats: names in the tables, and our names.

TABLE_FORMATS = {"bf16": "bfloat16", "fp16": "float16", "fp8": "fp8", "fp8-block": "fp8_block", "nvfp4": "nvfp4"}
"""Name in the tables of each format that can be imported."""
MESSAGE_FORMATS = {
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "fp8": "fp8", "fp8_block": "fp8-block", "int8": "int8",
}  # fmt: skip
"""Our name of each format of messages."""


def known_formats(dtypes: Sequence[str]) -> dict[str, str]:
    """Our names by the tables' names, for the requested formats."""
    return {TABLE_FORMATS[dtype]: dtype for dtype in dtypes if dtype in TABLE_FORMATS}


# Linear interpolation between tabulated neighbours, with an error estimate.
#
# The time of a GEMM is close to affine in each of its sizes. In trials on these tables, straight lines missed left-out
# shapes by no more than curves in log-log or in share of the roofline. The estimate leaves out each of the two
# neighbours, predicts its time from the next points around it, and takes the larger error of the two.


class Interpolation(NamedTuple):
    """A value, its relative error by leave-one-out, and its two neighbours."""

    seconds: float
    error: float
    low: int
    high: int


def interpolate(points: Mapping[int, float], at: int) -> Interpolation | None:
    """Interpolate linearly at `at`; None outside the points.

    None also where no neighbour can be left out to estimate the error.

    Args:
        points: seconds by size.
        at: a size that is not among the points.
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


# Installed `aiconfigurator-core`: place of its tables, and systems that have tables.
#
# The package holds measured tables of NVIDIA's AIConfigurator (Apache-2.0) as Parquet files,
# systems/data/<system>/<family>/<framework>/<version>/<table>.parquet. Only these files are read; no code of the
# package runs.

PACKAGE_NAME = "aiconfigurator-core"
INSTALL_COMMAND = "pip install --constraint constraints.txt --editable '.[silicon]'"
GEMM_FAMILY = "gemm"


@dataclass(frozen=True)
class TablePackage:
    """Tables of one version of the package; `data` holds a folder for each system."""

    data: Path
    version: str

    @property
    def name(self) -> str:
        """Package name and version, as provenance."""
        return f"{PACKAGE_NAME} {self.version}"

    def systems(self) -> dict[str, Path]:
        """Folder of each system that has tables of GEMMs."""
        return {path.parent.name: path.parent for path in sorted(self.data.glob(f"*/{GEMM_FAMILY}"))}

    def system(self, name: str) -> tuple[Path, Gpu]:
        """Return the folder of a system's tables, and its GPU's datasheet row.

        Args:
            name: the package's name of the system, or any name that `find_gpu` takes for its GPU.

        Raises:
            UserError: the system is unknown, or specs/gpus.py has no row for its GPU.
        """
        found = self.systems()
        known = {slug: folder for slug, folder in found.items() if slug in GPUS}
        if name in found and name not in known:
            raise UserError(
                f"system {name!r}: has tables, but specs/gpus.py has no row for its GPU to check them against; "
                f"add one, or choose among {', '.join(known)}"
            )
        gpu = match_gpu(name)
        if gpu and gpu.slug not in known:
            raise UserError(f"system {name!r}: {self.name} has no tables of {gpu.slug}; it has {', '.join(known)}")
        slug = gpu.slug if gpu else name
        return find(known, slug, "system", distinct=str), GPUS[slug]


def find_package() -> TablePackage:
    """Find the package on this machine.

    Raises:
        UserError: the package is not installed, or holds no tables.
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

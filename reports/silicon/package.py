"""The installed `aiconfigurator-core`: where its tables lie and which systems have any.

The package holds measured tables of NVIDIA's AIConfigurator (Apache-2.0) as Parquet files,
systems/data/<system>/<family>/<framework>/<version>/<table>.parquet. Nothing else of it is read, and none of its code
runs.
"""

from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from specs.errors import UserError, find
from specs.gpus import GPUS, Gpu

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

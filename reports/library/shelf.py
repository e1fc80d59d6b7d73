"""Where the result files of this repository lie, and which of them can be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reports import files, jsontext
from reports.files import ResultFile
from specs.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "reports" / "data"


@dataclass(frozen=True)
class Shelf:
    """The files of a folder, by name: those that could be read, and why the others could not."""

    folder: Path
    files: Sequence[ResultFile]
    damaged: Sequence[str]


def look(folder: Path = DATA) -> Shelf:
    """All result files of a folder; the paths in it are told from the repository's root.

    Raises:
        UserError: there is no such folder, or no result file in it.
    """
    read, damaged = [], []
    for path in paths(folder):
        try:
            read.append(files.parse(told(path), jsontext.read(path)))
        except UserError as error:
            damaged.append(str(error).replace(str(path), str(told(path))))
    return Shelf(folder, read, damaged)


def paths(folder: Path) -> list[Path]:
    """The JSON files of a folder.

    Raises:
        UserError: there is no such folder, or no JSON file in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give result files, as in `python -m reports show out.json`")
    if not (found := sorted(folder.glob("*.json"))):
        raise UserError(f"{folder}: no result file in it; give one that {files.SUITES} wrote")
    return found


def told(path: Path) -> Path:
    """A path as one types it in the repository's root; one outside stays as it is."""
    whole = path.resolve()
    return whole.relative_to(ROOT) if whole.is_relative_to(ROOT) else path

"""OUT holds few files: gate.json, gate.log, result files, and one archive of all that the steps wrote."""

import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specs.errors import UserError
from suites.gate.step import Place

ARCHIVE = "evidence.tar.gz"
LOOSE = ("gate.json", "gate.log")
MARK = ".made-by-the-gate"
"""A file in the work folder: only a folder that holds it is deleted."""


def begin(place: Place) -> None:
    """Make the folders; the archive of an earlier run is kept beside the new one.

    Raises:
        OSError: OUT is a file, or cannot be written.
        UserError: its work folder is somebody else's.
    """
    if why_not := foreign(place.work):
        raise UserError(why_not)
    place.out.mkdir(parents=True, exist_ok=True)
    if (archive := place.out / ARCHIVE).exists():
        archive.replace(place.out / ARCHIVE.replace(".", ".previous.", 1))
    (place.out / "gate.log").unlink(missing_ok=True)
    shutil.rmtree(place.work, ignore_errors=True)
    place.work.mkdir(parents=True)
    (place.work / MARK).touch()


def foreign(work: Path) -> str | None:
    """Why a run cannot use this folder: it was not made by an earlier one."""
    if not work.exists() or (work / MARK).exists():
        return None
    return f"{work} exists and no run of the gate made it, so that it is not deleted; name another folder"


def keep_result(place: Place, figures: Mapping[str, Any]) -> None:
    """Copy a step's result file, which its figures name, from the work folder into OUT."""
    if (name := figures.get("file")) and (made := place.work / Path(name).name).is_file():
        shutil.copy2(made, place.out / made.name)


def pack(place: Place) -> None:
    """Renew the archive: gate.json, gate.log and the work folder. An older one stays until the new one is whole."""
    fresh = place.scratch / ARCHIVE
    with tarfile.open(fresh, "w:gz") as archive:
        for name in LOOSE:
            if (place.out / name).exists():
                archive.add(place.out / name, name)
        for path in sorted(place.work.rglob("*")):
            if path.is_file() and path.name != MARK:
                archive.add(path, str(path.relative_to(place.work)))
    beside = place.out / f"{ARCHIVE}.tmp"
    shutil.move(fresh, beside)
    beside.replace(place.out / ARCHIVE)


def finish(place: Place) -> None:
    """The archive holds all: the work folder goes."""
    pack(place)
    shutil.rmtree(place.work, ignore_errors=True)

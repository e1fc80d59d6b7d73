"""Keeps what was imported: the same package, options and code give the same file, at once."""

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "build" / "cache"
CODE = ("reports/silicon/*.py", "reports/resultfile.py", "specs/*.py")


def fetch(key: str, make: Callable[[], tuple[str, str]], folder: Path = FOLDER) -> tuple[str, str, bool]:
    """A result file's text and its summary from the cache, or made and kept there; True where it was there.

    A cache that cannot be written costs time the next time and nothing else.
    """
    place = folder / f"{hashlib.sha256((key + _code()).encode()).hexdigest()[:24]}.txt"
    try:
        length, summary, content = place.read_text(encoding="utf-8").split("\0", 2)
        if content and len(content) == int(length):
            return content, summary, True
    except (OSError, ValueError):  # not there, or damaged: made anew
        pass
    content, summary = make()
    beside = place.with_suffix(f".{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside.write_text(f"{len(content)}\0{summary}\0{content}", encoding="utf-8")
        beside.replace(place)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return content, summary, False


def state(folder: Path) -> str:
    """What tells one state of a folder's files from another: their names, sizes and times."""
    files = ((path, path.stat()) for path in sorted(folder.rglob("*.parquet")))
    return "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in files)


def _code() -> str:
    """A hash of the code that makes the file: a changed rule makes it anew."""
    found = hashlib.sha256()
    for pattern in CODE:
        for path in sorted(ROOT.glob(pattern)):
            found.update(path.read_bytes())
    return found.hexdigest()

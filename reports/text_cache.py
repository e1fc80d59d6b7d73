"""Texts that take seconds to make, kept in the folder build/cache."""

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE_FOLDER = ROOT / "build" / "cache"


def fetch_cached(key: str, make: Callable[[], str], folder: Path = CACHE_FOLDER) -> tuple[str, bool]:
    """Return a text from the cache or from `make`, and True where the cache held it.

    The key names all that the text depends on. A cache that cannot be written only costs time the next time. A file in
    the cache starts with a hash of the rest, so that a damaged one is made again.
    """
    place = folder / f"{_digest(key)[:24]}.txt"
    try:
        digest, kept = place.read_text(encoding="utf-8").split("\0", 1)
        if digest == _digest(kept):
            return kept, True
    except (OSError, ValueError):  # missing or damaged: make it again
        pass
    made = make()
    beside = place.with_suffix(f".{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside.write_text(f"{_digest(made)}\0{made}", encoding="utf-8")
        beside.replace(place)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return made, False


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

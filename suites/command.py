"""How a run was started, as one would type it again: for the result file, without paths of this machine."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from specs.privacy import here
from suites.world.place import Place


def typed(
    arguments: Sequence[object],
    root: Path,
    place: Place | None,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """The command line of a run, its launcher before it.

    Args:
        arguments: pytest's; a path among them is told from the repository's root, and one outside by its last part.
        root: of the repository, pytest's rootdir.
        place: this process's, where a launcher started several.
        environment: PYTEST_ADDOPTS are arguments too.
    """
    given = [*shlex.split(environment.get("PYTEST_ADDOPTS", "")), *map(str, arguments)]
    words = [_without_folders(word, root) for word in given]
    return here().text(f"{_program(place)} {shlex.join(words)}".rstrip())


def _program(place: Place | None) -> str:
    """What starts pytest: on several hosts with as many ranks as each was given."""
    if place is None:
        return "pytest"
    if place.launcher == "torchrun":
        hosts = -(-place.ranks // place.local_ranks)
        nodes = f"--nnodes {hosts} " if hosts > 1 else ""
        return f"torchrun {nodes}--nproc-per-node {place.local_ranks} -m pytest"
    return f"{place.launcher} -n {place.ranks} python -m pytest"


def _without_folders(word: str, root: Path) -> str:
    """An argument, or the value in `--option=value`, without the folders that only this machine has."""
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if not equals and option:
        return word
    path, colons, case = value.partition("::")
    if not Path(path).is_absolute():
        return word
    inside = Path(path).is_relative_to(root) and Path(path) != root
    told = str(Path(path).relative_to(root)) if inside else Path(path).name or "."
    folder = "/" if path.endswith("/") else ""
    return f"{option}{equals}{told}{folder}{colons}{case}"

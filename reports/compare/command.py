"""`compare`: read the files, write what changed, and stop CI where a gate says so."""

from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from reports import files, output
from reports.compare import gate
from reports.compare.page import page
from reports.compare.record import record
from reports.compare.versus import against
from reports.output import Format
from specs.errors import UserError


def compare(
    paths: Sequence[Path],
    threshold: float | None,
    format: Format,  # noqa: A002
    to: Path | None,
    *,
    limit: float | None = None,
    every: bool = False,
) -> list[str]:
    """Write the comparison of each further file with the first; returns what a gate could not see.

    Args:
        paths: the baseline, then one file or more.
        threshold: change that counts; None for what the files can tell.
        format: how to write it.
        to: where to write it; None for standard output.
        limit: the gate: the slow-down beyond which the command fails; None for no gate.
        every: all cases of long tables.

    Raises:
        UserError: a file cannot be read, two share no case, or the report cannot be written.
        GateError: the gate is closed.
    """
    names = _names(len(paths))
    loaded = [files.load(path) for path in paths]
    found = [against(loaded[0], other, threshold) for other in loaded[1:]]
    if format is Format.JSON:
        output.emit([], record(loaded, found, names), format, to, paths)
    else:
        output.emit(page(loaded, found, names, every=every), None, format, to, paths)
    if limit is not None:
        return gate.check(found, limit)
    return []


def _names(count: int) -> str:
    if not 2 <= count <= len(ascii_uppercase):
        raise UserError(f"compare: {count} files given; give the baseline and 1 to {len(ascii_uppercase) - 1} others")
    return ascii_uppercase[:count]

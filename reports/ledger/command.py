"""`ledger`: where the time of each whole layer goes."""

from collections.abc import Sequence
from pathlib import Path

from reports import ceilings, files, header, output
from reports.ledger import chapter
from reports.ledger.chapter import Accounts
from reports.ledger.layers import QUESTION
from reports.output import Format
from reports.page import Block
from specs.errors import UserError

MEASURE = "`pytest suites/bench_layer.py suites/bench_ceilings.py --benchmark-json=out.json` measures them"


def ledger(paths: Sequence[Path], format: Format, to: Path | None) -> None:  # noqa: A002
    """Write the ledgers of each file; as JSON a list of all of them.

    Raises:
        UserError: a file cannot be read, none holds a whole layer, or the report cannot be written.
    """
    loaded = files.load_all(paths)
    found = chapter.write(loaded)
    if not found:
        lost = any(f"bench_{QUESTION}" in name for file in loaded for name in (*file.failed, *file.not_run))
        why = "those in it failed or were not run, and `python -m reports show` says why" if lost else MEASURE
        raise UserError(f"{', '.join(map(str, paths))}: no whole layer among the cases; {why}")
    page = [block for one in found.accounts for block in _section(one)]
    output.emit(page, found.data(), format, to, paths)


def _section(one: Accounts) -> list[Block]:
    above = header.above(one.file, ceilings.measured(one.file), ceilings.known_gpu(one.file))
    return [above, *one.tables()]

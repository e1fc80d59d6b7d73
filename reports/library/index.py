"""`index`: the pages of `reports/data`, one for each result file and one that lists them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from reports import machine, markdown, output
from reports.gate import GateError
from reports.library import listing, page, shelf
from reports.library.summary import Summary
from reports.page import Block, Column, Facts, Table
from specs.errors import UserError

WRITTEN = "\n<!-- written by `python -m reports index`; do not edit -->\n"
"""Ends each page, and tells it from what somebody wrote."""
INTRODUCTION = """# Result files

What `pytest suites/` wrote, one file a run. `python -m reports show FILE` prints all of it, `python -m reports compare
A B` holds two against each other, `python -m reports check` says whether they are sound. What a file holds is told in
[docs/result-file.md](../../docs/result-file.md), how to add one in
[CONTRIBUTING.md](../../CONTRIBUTING.md#add-a-result-file).

"""


def index(folder: Path = shelf.DATA, *, only_check: bool = False) -> str:
    """Write the pages, or with `only_check` say whether they are what would be written; returns a line.

    Raises:
        UserError: a result file is damaged, or a page cannot be written.
        GateError: `only_check`, and a page is not what would be written.
    """
    pages = written(folder)
    stale = [path for path in sorted(folder.glob("*.md")) if path.name not in pages and _ours(path)]
    changed = [name for name, text in pages.items() if _text(folder / name) != text]
    if only_check:
        if wrong := [*changed, *(path.name for path in stale)]:
            raise GateError(f"{shelf.told(folder)}: not as written: {', '.join(wrong)}; run `python -m reports index`")
        return f"{shelf.told(folder)}: {len(pages)} pages are as written"
    for name in changed:
        output.write(folder / name, pages[name])
    for path in stale:
        path.unlink()
    return f"{shelf.told(folder)}: {len(changed)} of {len(pages)} pages written, {len(stale)} removed"


def written(folder: Path) -> Mapping[str, str]:
    """Each page's text, by its name.

    Raises:
        UserError: a result file is damaged: a library has none.
    """
    found = shelf.look(folder)
    if found.damaged:
        raise UserError(found.damaged[0])
    summaries = listing.by_date(found)
    pages = {f"{one.name}.md": markdown.draw(page.blocks(one)) + WRITTEN for one in summaries}
    return {"README.md": INTRODUCTION + markdown.draw(_index(summaries)) + WRITTEN, **pages}


def _index(summaries: Sequence[Summary]) -> list[Block]:
    """A table with links, and what each file says."""
    said = [
        Facts(title=f"{machine.name(one.file.machine)}, {one.file.datetime[:10]}", rows=tuple(_said(one)), level=3)
        for one in summaries
    ]
    return [_table(summaries), *said]


def _said(one: Summary) -> list[tuple[str, str]]:
    return [("page", _link(one)), *one.headlines]


def _link(one: Summary) -> str:
    return f"[{one.name}]({one.name}.md)"


def _table(summaries: Sequence[Summary]) -> Table:
    plain = listing.table(summaries)
    more = (Column("machine", number=False), Column("answers", number=False))
    rows = [
        (_link(one), *row[1:], machine.describe(one.file.machine), ", ".join(one.questions))
        for one, row in zip(summaries, plain.rows, strict=True)
    ]
    return Table(
        title="All of them",
        columns=(*plain.columns, *more),
        groups=(tuple(rows),),
        notes=plain.notes,
    )


def _ours(path: Path) -> bool:
    return _text(path).endswith(WRITTEN)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""

"""`index`: write the pages of `reports/data`, one per result file and a list."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from reports import machine, output, show
from reports.archive import entries
from reports.archive.entries import ResultFolder, Summary
from reports.communication.points import NO_REFERENCES
from reports.formatting import pluralize
from reports.output import Block, Column, Facts, Format, Table
from reports.tp_vs_pp import report as tp_vs_pp_report
from specs.errors import GateError, UserError
from specs.units import format_bytes

# `show` without a file: list the repository's own result files.

NUMERIC_COLUMNS = ("cases", "passes")
DIRTY_NOTE = "+ behind a commit: with uncommitted changes"


def show_folder(format: Format, to: Path | None, folder: Path = entries.DATA_FOLDER) -> None:  # noqa: A002
    """Write the list of the files in `reports/data`.

    Raises:
        UserError: the folder holds no file, or the list cannot be written.
    """
    found = entries.load_folder(folder)
    summaries = summaries_by_date(found)
    data = {"files": [one.record() for one in summaries], "damaged": list(found.damaged)}
    output.emit(listing_blocks(found, summaries), data, format, to, entries.result_paths(folder))


def summaries_by_date(folder: ResultFolder) -> list[Summary]:
    """Summaries of the readable files, the latest last."""
    return [Summary(file) for file in sorted(folder.files, key=lambda file: (file.datetime, file.path.name))]


def listing_blocks(folder: ResultFolder, summaries: Sequence[Summary]) -> list[Block]:
    """Table of the files, answers of each, and files that cannot be read."""
    page: list[Block] = [listing_table(summaries)] if summaries else []
    page += [
        Facts(
            title=str(one.file.path),
            rows=(("machine", machine.describe(one.file.machine)), ("certainty", one.certainty()), *one.headlines),
            level=3,
        )
        for one in summaries
    ]
    if folder.damaged:
        page.append(Facts(title="cannot be read", rows=tuple(("", line) for line in folder.damaged), level=3))
    return page


def listing_table(summaries: Sequence[Summary]) -> Table:
    """Table with a row for each file."""
    cells = [one.cells() for one in summaries]
    return Table(
        title="result files",
        caption=f"in {summaries[0].file.path.parent}",
        columns=tuple(Column(title, number=title in NUMERIC_COLUMNS) for title in cells[0]),
        groups=(tuple(tuple(row.values()) for row in cells),),
        notes=(DIRTY_NOTE,) * any(one.file.commit.get("dirty") for one in summaries),
    )


# Page of a result file: hardware, versions, date, commit, command, ceilings, figures and noise.

MAX_ROWS = 48
"""Maximum number of rows of a table on a page; `show` prints all rows."""
VERSION_LABELS = {
    "python_version": "Python",
    "pytest": "pytest",
    "pytest-benchmark": "pytest-benchmark",
    "numpy": "numpy",
}
HARDWARE_LABELS = {
    "memory_bytes": "memory",
    "threads": "hardware threads",
    "gpus": "GPUs",
    "arch": "architecture",
    "power_limit_watts": "W power limit",
    "sm_mhz_default": "MHz default clock",
    "sm_mhz_most": "MHz highest clock",
    "ecc": "ECC",
    "mig": "MIG",
}


def page_blocks(one: Summary) -> list[Block]:
    """Page of a file: facts, answers in short, tables, and cases that did not run."""
    above, *rest = show.file_blocks(one.file, one.figures, NO_REFERENCES)
    assert isinstance(above, Facts)  # noqa: S101  # section's first block is the header
    page: list[Block] = [Facts(title=one.name, rows=tuple(_facts(one, above)), level=1)]
    if one.headlines:
        page.append(Facts(title="in short", rows=tuple(one.headlines), level=2))
    page.append(Facts(title="figures", rows=(), level=2))
    figures = [_truncate_table(block, str(one.file.path)) for block in rest if block.title != tp_vs_pp_report.TITLE]
    return [*page, *figures]


def _facts(one: Summary, above: Facts) -> Iterable[tuple[str, str]]:
    """Lines of the header, with more facts on hardware and versions than a terminal."""
    machine = one.file.machine
    more = {"machine": _hardware(machine), "software": _versions(machine)}
    for name, text in above.rows:
        yield name, ", ".join(filter(None, [text, more.get(name, "")]))
    if ranks := machine.get("ranks"):
        hosts = pluralize(machine.get("hosts") or 1, "host")
        yield "ranks", ", ".join(map(str, filter(None, [ranks, f"on {hosts}", machine.get("transport")])))
    if variables := machine.get("variables"):
        yield "variables", " ".join(f"{name}={value}" for name, value in sorted(variables.items()))
    yield "certainty", one.certainty()
    yield "file", f"[{one.file.path.name}]({one.file.path.name})"


def _hardware(machine: Mapping[str, Any]) -> str:
    facts = {name: machine[name] for name in HARDWARE_LABELS if machine.get(name) not in (None, "", "cpu")}
    return ", ".join(_fact(HARDWARE_LABELS[name], value) for name, value in facts.items())


def _fact(what: str, value: object) -> str:
    if isinstance(value, bool):
        return f"{what} {'on' if value else 'off'}"
    if what == "memory" and isinstance(value, int):
        return f"{format_bytes(value)} {what}"
    return f"{value} {what}" if isinstance(value, int | float) else f"{what} {value}"


def _versions(machine: Mapping[str, Any]) -> str:
    packages = machine.get("packages")
    known = {**machine, **(packages if isinstance(packages, dict) else {})}
    named = [f"{title} {known[name]}" for name, title in VERSION_LABELS.items() if known.get(name)]
    system = " ".join(str(machine[name]) for name in ("system", "release") if machine.get(name))
    return ", ".join(filter(None, [*named, system]))


def _truncate_table(block: Block, path: str) -> Block:
    """Cut a table to `MAX_ROWS` rows, with a note on the rest."""
    if isinstance(block, Facts) or len(block.rows) <= MAX_ROWS:
        return block
    left, groups = MAX_ROWS, []
    for group in block.groups:
        groups.append(tuple(islice(group, left)))
        left -= len(groups[-1])
    note = f"the first {MAX_ROWS} of {len(block.rows)} rows; python -m reports show {path} has them all"
    return replace(block, groups=tuple(filter(None, groups)), notes=(*block.notes, note))


GENERATED_FOOTER = "\n<!-- written by `python -m reports index`; do not edit -->\n"
"""End of each generated page, which distinguishes it from handwritten pages."""
INTRODUCTION = """# Result files

What `pytest suites/` wrote, one file a run. `python -m reports show FILE` prints all of it, `python -m reports compare
A B` holds two against each other, `python -m reports check` says whether they are sound. What a file holds is told in
[docs/result-file.md](../../docs/result-file.md), how to add one in
[CONTRIBUTING.md](../../CONTRIBUTING.md#add-a-result-file).

"""


def write_index(folder: Path = entries.DATA_FOLDER, *, only_check: bool = False) -> str:
    """Write the pages, or with `only_check` compare them; return a line.

    Raises:
        UserError: a result file is damaged, or a page cannot be written.
        GateError: with `only_check`, a page differs from the generated page.
    """
    pages = render_pages(folder)
    stale = [path for path in sorted(folder.glob("*.md")) if path.name not in pages and _is_generated(path)]
    changed = [name for name, text in pages.items() if _text(folder / name) != text]
    if only_check:
        if wrong := [*changed, *(path.name for path in stale)]:
            raise GateError(
                f"{entries.path_from_root(folder)}: not as written: {', '.join(wrong)}; run `python -m reports index`"
            )
        return f"{entries.path_from_root(folder)}: {len(pages)} pages are as written"
    for name in changed:
        output.write_file(folder / name, pages[name])
    for path in stale:
        path.unlink()
    return f"{entries.path_from_root(folder)}: {len(changed)} of {len(pages)} pages written, {len(stale)} removed"


def render_pages(folder: Path) -> Mapping[str, str]:
    """Text of each page, by file name.

    Raises:
        UserError: a result file is damaged; the archive accepts none.
    """
    found = entries.load_folder(folder)
    if found.damaged:
        raise UserError(found.damaged[0])
    summaries = summaries_by_date(found)
    pages = {f"{one.name}.md": output.render_markdown(page_blocks(one)) + GENERATED_FOOTER for one in summaries}
    return {"README.md": INTRODUCTION + output.render_markdown(_index(summaries)) + GENERATED_FOOTER, **pages}


def _index(summaries: Sequence[Summary]) -> list[Block]:
    """Table with links, and the answers of each file."""
    said = [
        Facts(
            title=f"{machine.device_name(one.file.machine)}, {one.file.datetime[:10]}",
            rows=tuple(_summary_rows(one)),
            level=3,
        )
        for one in summaries
    ]
    return [_table(summaries), *said]


def _summary_rows(one: Summary) -> list[tuple[str, str]]:
    return [("page", _link(one)), *one.headlines]


def _link(one: Summary) -> str:
    return f"[{one.name}]({one.name}.md)"


def _table(summaries: Sequence[Summary]) -> Table:
    plain = listing_table(summaries)
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


def _is_generated(path: Path) -> bool:
    return _text(path).endswith(GENERATED_FOOTER)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""

import re
from urllib.parse import unquote

import pytest

from reports.archive import entries
from reports.archive import index as archive_index
from reports.archive.entries import Summary
from reports.archive.index import render_pages, write_index
from reports.output import Table
from specs.errors import GateError, UserError
from tests.reports import planted
from tests.reports.run_reports import run_reports

DATA = entries.DATA_FOLDER


def test_the_committed_pages_are_what_would_be_written():
    """To renew them: `python -m reports index`."""
    assert re.fullmatch(r"reports/data: \d+ pages are as written", write_index(only_check=True))


def test_every_file_has_a_page_and_every_link_leads_somewhere():
    pages = render_pages(DATA)
    assert {*pages} == {"README.md", *(f"{path.stem}.md" for path in entries.result_paths(DATA))}
    for name, text in pages.items():
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
        assert links, name
        assert not [link for link in links if not (DATA / unquote(link)).exists()], name


@pytest.fixture
def folder(tmp_path):
    facts = {
        "variables": {"TRITON_HOME": "~/a", "OMP_NUM_THREADS": "4"},
        "packages": {"pytest": "9.2.0"},
        "system": "Linux",
    }
    planted.write(
        tmp_path / "a.json",
        [planted.measured(planted.case(), ((0.2, 0.2), (0.22,))), *planted.ceilings()],
        machine=planted.CPU | facts,
        not_run=[("suites/bench_linears.py::x", "needs a GPU")],
    )
    return tmp_path


def test_a_page_says_hardware_versions_date_commit_command_ceilings_figures_and_what_did_not_run(folder):
    text = render_pages(folder)["a.md"]
    assert text.startswith("# a\n\n- machine: Planted CPU 9000, 8 cores, 32 MiB LLC, 8 threads\n")
    for line in (
        "- software: torch 2.13.0+cpu, pytest 9.2.0, Linux",
        "- date: 2026-01-31 12:34 UTC",
        "- commit: 0123456789ab with uncommitted changes",
        "- command: pytest suites/bench_ceilings.py suites/bench_linears.py --passes 6 (by its options)",
        "- ceilings: read 10.0 GB/s, bf16 100 GFLOP/s",
        "- variables: OMP_NUM_THREADS=4 TRITON_HOME=\\~/a",
        "- file: [a.json](a.json)",
        "- decode: 1 case, 50% of floor, reading at up to 5.00 GB/s",
        "- 1: needs a GPU",
    ):
        assert f"\n{line}\n" in text, line
    assert "\n### decode\n" in text


def test_how_sure_a_file_is_is_counted(tmp_path):
    """Half-widths of 0 in three of four cases; one pass has none."""
    cases = [planted.measured(planted.case(f"s.py::b[{n}]"), 1.0, stopped_by="budget") for n in range(3)]
    cases.append(planted.measured(planted.case("s.py::b[9]"), 1.0, passes=1))
    planted.write(tmp_path / "a.json", cases)
    (file,) = entries.load_folder(tmp_path).files
    said = "±0.00% in the middle and ±0.00% at worst (95 %, between passes), 3 of 4 stopped by the budget"
    assert Summary(file).certainty() == said
    planted.write(tmp_path / "a.json", cases[3:])
    (file,) = entries.load_folder(tmp_path).files
    assert Summary(file).certainty() == "single passes: no intervals, so nothing can be told apart"


def test_a_long_table_is_cut_and_says_where_the_rest_is(tmp_path):
    """Of two series of 40 the first, and 8 of the second."""
    shapes = [(layer, tokens) for layer in ("o", "down") for tokens in range(1, 41)]
    cases = [planted.case(f"s.py::s[{la}-{n}]", question="sweep", layer=la, tokens=n) for la, n in shapes]
    planted.write(tmp_path / "a.json", [planted.measured(one, 1.0) for one in cases])
    (file,) = entries.load_folder(tmp_path).files
    (table,) = [block for block in archive_index.page_blocks(Summary(file)) if isinstance(block, Table)]
    assert [len(group) for group in table.groups] == [40, 8]
    assert table.notes[-1] == f"the first 48 of 80 rows; python -m reports show {file.path} has them all"


def test_check_finds_a_page_that_is_old_edited_missing_or_left_over(folder):
    write_index(folder)
    assert "2 pages are as written" in write_index(folder, only_check=True)
    (folder / "a.md").write_text((folder / "a.md").read_text().replace("GB/s", "TB/s"))
    with pytest.raises(GateError, match=r"not as written: a\.md; run `python -m reports index`"):
        write_index(folder, only_check=True)
    assert "1 of 2 pages written" in write_index(folder)
    (folder / "b.md").write_text((folder / "a.md").read_text())
    (folder / "notes.md").write_text("somebody's own")
    (folder / "README.md").unlink()
    with pytest.raises(GateError, match=r"README\.md, b\.md"):
        write_index(folder, only_check=True)
    assert "1 of 2 pages written, 1 removed" in write_index(folder)
    assert sorted(path.name for path in folder.glob("*.md")) == ["README.md", "a.md", "notes.md"]


def test_a_damaged_file_is_an_error_and_nothing_is_written(folder):
    (folder / "b.json").write_text("{")
    with pytest.raises(UserError, match=r"b\.json: cut short"):
        write_index(folder)
    assert not list(folder.glob("*.md"))


def test_the_command_checks(capsys):
    assert run_reports("index", "--check") == 0
    assert "pages are as written" in capsys.readouterr().out

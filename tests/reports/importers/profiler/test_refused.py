"""Files that no device time can be read from: one clear line each."""

import sqlite3

import pytest

from reports.__main__ import main
from tests.reports.importers.profiler.planted_trace import CASE, GRAPH, KERNEL, NVTX, RUNTIME
from tests.reports.importers.profiler.test_nsys import eager, graphs

EXPORT = "`nsys export --type sqlite -o trace.sqlite trace.nsys-rep`"


@pytest.mark.parametrize("name", ["trace.nsys-rep", "old.qdrep"])
def test_a_report_has_to_be_exported_first(refused, tmp_path, name):
    (tmp_path / name).write_bytes(b"\x00\x01report")
    assert f"{name}: a report of Nsight Systems; export it first: {EXPORT}" in refused(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty; give what this wrote"), (b"ID,Time\n1,2\n" * 20, "no SQLite file; give what this wrote")],
)
def test_what_is_no_sqlite(refused, tmp_path, content, said):
    (tmp_path / "trace.sqlite").write_bytes(content)
    assert f"{said}: {EXPORT}" in refused(tmp_path / "trace.sqlite")


def test_a_file_that_is_not_there_and_a_folder(refused, tmp_path):
    assert "cannot read it (No such file or directory)" in refused(tmp_path / "none.sqlite")
    assert "cannot read it (Is a directory)" in refused(tmp_path)


def test_sqlite_of_something_else(refused, tmp_path):
    with sqlite3.connect(tmp_path / "other.sqlite") as database:
        database.execute("CREATE TABLE notes (id INTEGER)")
    database.close()
    assert "SQLite, but not of Nsight Systems" in refused(tmp_path / "other.sqlite")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
def test_a_file_that_was_cut_short(refused, tmp_path, share):
    path = eager(calls=200).write(tmp_path / "trace.sqlite")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    said = refused(path)
    assert "cut short" in said
    assert "export it again" in said


def test_a_file_that_was_cut_behind_all_that_is_read(refused, tmp_path):
    path = eager().write(tmp_path / "trace.sqlite")
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE OSRT_API (start INTEGER)")
        database.executemany("INSERT INTO OSRT_API VALUES (?)", [(number,) for number in range(10_000)])
    database.close()
    path.write_bytes(path.read_bytes()[:-8192])
    assert "cut short after" in refused(path)


def test_a_file_that_was_damaged(refused, tmp_path):
    path = eager(calls=200).write(tmp_path / "trace.sqlite")
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    assert "cut short or damaged" in refused(path)


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ((NVTX,), "no NVTX ranges in it; trace with `nsys profile --trace=cuda,nvtx`"),
        ((KERNEL, RUNTIME), "ranges of 1 case, but no CUDA kernels; trace a run on a GPU with --trace=cuda,nvtx"),
    ],
)
def test_a_trace_of_cuda_or_of_nvtx_alone(refused, tmp_path, without, said):
    assert said in refused(eager().write(tmp_path / "trace.sqlite", without=without))


def test_a_trace_that_began_inside_of_a_case(refused, tmp_path):
    trace = eager()
    trace.rows[NVTX] = [row for row in trace.rows[NVTX] if row.get("textId") != trace.string(CASE)]
    assert "no range of a case in it, only what lies within" in refused(trace.write(tmp_path / "trace.sqlite"))


def test_a_trace_of_another_program(refused, tmp_path):
    trace = eager()
    for row in trace.rows[NVTX]:
        if row["eventType"] == 75:
            row["text"] = "someone else's"
    said = refused(trace.write(tmp_path / "trace.sqlite"))
    assert "4 NVTX ranges, none of the domain shardbench; trace a run of `pytest suites/`" in said


@pytest.mark.parametrize(
    ("table", "column"), [(NVTX, "eventType"), (KERNEL, "correlationId"), (RUNTIME, "globalTid"), (GRAPH, "end")]
)
def test_a_column_that_every_export_has_is_missing(refused, tmp_path, table, column):
    said = refused(graphs(node=False).write(tmp_path / "trace.sqlite", dropped={table: (column,)}))
    assert f"{table} has no column {column}, which every documented export has; export it again" in said


@pytest.mark.parametrize("table", [KERNEL, NVTX, RUNTIME])
def test_a_value_that_is_no_number(refused, tmp_path, table):
    path = eager().write(tmp_path / "trace.sqlite")
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE {table} SET start = 'soon' WHERE rowid = 3")
    database.close()
    assert f"{table} holds 'soon' for a number; export it again" in refused(path)


def test_a_text_of_no_letters_is_no_number_either(refused, tmp_path):
    path = eager().write(tmp_path / "trace.sqlite")
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE {KERNEL} SET streamId = '' WHERE rowid = 3")
    database.close()
    assert f"{KERNEL} holds '' for a number; export it again" in refused(path)


def test_an_export_without_names(refused, tmp_path):
    said = refused(eager().write(tmp_path / "trace.sqlite", without=("StringIds",)))
    assert "no table StringIds, in which all names stand; export it again" in said


def test_several_processes_whose_kernels_name_none(refused, tmp_path):
    trace = eager()
    trace.visit(0, 1000, (200, 900), pid=200)
    trace.eager(300, 310, 320, pid=200, number=3)
    for row in trace.rows[KERNEL]:
        row["globalPid"] = None
    said = refused(trace.write(tmp_path / "trace.sqlite"))
    assert "2 processes, and no kernel says whose it is; trace one process at a time" in said


def test_a_source_is_not_overwritten(capsys, tmp_path):
    path = eager().write(tmp_path / "trace.sqlite")
    before = path.read_bytes()
    with pytest.raises(SystemExit) as caught:
        main(["import", "nsys", str(path), "-o", str(path)])
    assert caught.value.code == 2
    assert "would overwrite" in capsys.readouterr().err
    assert path.read_bytes() == before

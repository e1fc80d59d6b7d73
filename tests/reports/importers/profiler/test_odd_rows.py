"""Rows that a damaged or strange trace holds: left out and said, and the rest is read."""

import math
import sqlite3

import pytest

from tests.reports.importers.profiler.planted_trace import CASE, KERNEL, MEMCPY, NVTX
from tests.reports.importers.profiler.test_nsys import eager


@pytest.fixture
def changed(imported, tmp_path):
    """The row of the one case, and the notes, of a trace in which a statement changed something."""

    def reads(statement, *values, trace=None):
        path = (trace or eager()).write(tmp_path / "trace.sqlite")
        with sqlite3.connect(path) as database:
            database.execute(statement, values)
        database.close()
        cases, notes, _ = imported(path)
        return cases[CASE], notes

    return reads


@pytest.mark.parametrize("end", [0, 1000])
def test_a_kernel_that_ends_before_it_starts_is_left_out(changed, end):
    one, notes = changed(f"UPDATE {KERNEL} SET end = ? WHERE rowid = 3", end)
    # of 4 calls of 10 + 8 us one lacks its gemm
    assert one["busy_seconds"] == pytest.approx(15.5e-6)
    assert "1 kernels and copies without an end, or with one before the start: left out" in notes


def test_a_copy_without_an_end_is_left_out(changed):
    trace = eager()
    trace.kernel(trace.launch(212), 500, 510, table=MEMCPY)
    declared = f"CREATE TABLE other AS SELECT * FROM {MEMCPY}"
    path_of = trace.write

    def without_constraint(path):
        path_of(path)
        with sqlite3.connect(path) as database:
            database.execute(declared)
            database.execute(f"DROP TABLE {MEMCPY}")
            database.execute(f"ALTER TABLE other RENAME TO {MEMCPY}")
        database.close()
        return path

    trace.write = without_constraint
    one, notes = changed(f"UPDATE {MEMCPY} SET end = NULL", trace=trace)
    assert one["busy_seconds"] == pytest.approx(18e-6)
    assert "1 kernels and copies without an end, or with one before the start: left out" in notes


@pytest.mark.parametrize("figure", [math.inf, -1.0])
def test_a_mark_of_no_figure_is_left_out(changed, figure):
    one, notes = changed(f"UPDATE {NVTX} SET doubleValue = ? WHERE doubleValue IS NOT NULL", figure)
    assert (one["clock_seconds"], one["calls"]) == (None, 4)
    assert f"1 mark that cannot be, as of {figure:g}: left out" in notes


def test_calls_without_end_are_counted_by_the_checked_call(changed):
    one, _ = changed(f"UPDATE {NVTX} SET doubleValue = ?, int64Value = NULL WHERE int64Value = 4", math.inf)
    assert (one["calls"], one["busy_seconds"]) == (4, pytest.approx(18e-6))


def test_a_name_that_is_no_utf_8_costs_no_more_than_its_odd_letters(changed):
    one, _ = changed("UPDATE StringIds SET value = CAST(? AS TEXT) WHERE value LIKE 'void sum%'", b"s\xffm")
    assert (one["busy_seconds"], one["kernels_per_call"]) == (pytest.approx(18e-6), 2)


def test_one_kernel_that_names_no_process_does_not_cost_the_others_theirs(changed):
    trace = eager()
    trace.eager(1500, 1501, 1502, pid=200, number=5)  # another process counts its launches alike
    trace.eager(1600, 1601, 1602, number=900)
    one, notes = changed(f"UPDATE {KERNEL} SET globalPid = NULL WHERE correlationId = 900", trace=trace)
    assert (one["busy_seconds"], one["calls"]) == (pytest.approx(18e-6), 4)
    assert any(note.startswith("2 kernels and copies were launched outside") for note in notes)


def test_a_kernel_belongs_to_the_latest_call_of_its_id(changed):
    trace = eager()
    # the ids of the first timed call again, much later and in no range
    trace.eager(5000, 5001, 5050, number=3)
    trace.eager(5100, 5101, 5150, "sum", number=4)
    one, notes = changed("SELECT 1", trace=trace)
    assert (one["busy_seconds"], one["calls"]) == (pytest.approx(18e-6), 4)
    assert any(note.startswith("2 kernels and copies were launched outside") for note in notes)

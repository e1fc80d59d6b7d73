"""The parser of Nsight Compute's tables: units, separators, both pages, ranges; what cannot be read is an error."""

import pytest

from specs.ncu import DURATION_METRIC, ProfiledKernel, parse_kernels
from tests.specs.planted_ncu import kernel, table

THREE = table(
    kernel(1, "_gate_mark", "(3, 1, 1)", "0", "1,100"),
    kernel(2, "splitKreduce, part one", "(64, 2, 1)", "20,000,000", "5,000"),
    kernel(5, "_skinny", "(264, 1, 1)", "21,000,000", "6,000"),
)


def test_kernels_are_read_in_order_with_separators_and_names_that_hold_commas():
    found = parse_kernels(THREE)
    assert found[1] == ProfiledKernel(
        "splitKreduce, part one", 64, 20_000_000, pytest.approx(5e-6), process="4242", arch="9.0"
    )
    assert [one.kernel for one in found] == ["_gate_mark", "splitKreduce, part one", "_skinny"]


@pytest.mark.parametrize(
    ("units", "read", "seconds"),
    [
        (("Mbyte", "us"), "16.78", "5.02"),
        (("Kbyte", "usecond"), "16,780", "5.02"),
        (("Gbyte", "msecond"), "0.01678", "0.00502"),
        (("byte", "nsecond"), "16,780,000", "5,020"),
    ],
)
def test_units_are_those_of_any_version_and_bytes_are_decimal(units, read, seconds):
    (one,) = parse_kernels(table(kernel(0, "k", "(1, 1, 1)", read, seconds, units)))
    assert one.read_bytes == pytest.approx(16.78e6)
    assert one.seconds == pytest.approx(5.02e-6)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("==WARNING== No kernels were profiled.", "no table"),
        (table(kernel(0, "k", "(1, 1, 1)", "n/a", "5")), "dram__bytes_read.sum is 'n/a byte'"),
        (table(kernel(0, "k", "(1, 1, 1)", "5", "5", ("sector", "ns"))), "is '5 sector'"),
        (table(kernel(0, "k", "(1, 1, 1)", "5", "5")[:1]), "gpu__time_duration.sum is 'absent'"),
        (table(kernel(0, "k", "gemm", "5", "5")), r"kernel 0 \(k\): its grid is 'gemm'; cells are displaced"),
    ],
)
def test_what_cannot_be_read_is_an_error_never_a_number(text, told):
    with pytest.raises(ValueError, match=told):
        parse_kernels(text)


def test_bytes_that_nobody_asked_for_may_be_missing_but_not_in_an_unknown_unit():
    absent, uncounted, odd = (
        table(kernel(0, "k", "(1, 1, 1)", "5", "5")[1:]),
        table(kernel(0, "k", "(1, 1, 1)", "n/a", "5")),
        table(kernel(0, "k", "(1, 1, 1)", "5", "5", ("sector", "ns"))),
    )
    assert [parse_kernels(text, needed=(DURATION_METRIC,))[0].read_bytes for text in (absent, uncounted)] == [
        None,
        None,
    ]
    with pytest.raises(ValueError, match="is '5 sector'"):
        parse_kernels(odd, needed=(DURATION_METRIC,))


def test_a_second_table_numbers_its_kernels_anew():
    both = "\n".join(table(kernel(0, name, "(1, 1, 1)", "1", "5")) for name in ("first", "second"))
    assert [one.kernel for one in parse_kernels(both)] == ["first", "second"]


def test_the_raw_page_has_a_column_a_metric_and_a_row_of_units():
    text = """
"ID","Process ID","Kernel Name","Grid Size","CC","dram__bytes_read.sum","gpu__time_duration.sum"
"","","","","","Mbyte","us"
"0","7","gemm","(4, 1, 1)","9.0","1.5","1,002.5"
"""
    (one,) = parse_kernels(text)
    assert one == ProfiledKernel("gemm", 4, pytest.approx(1.5e6), pytest.approx(1002.5e-6), process="7", arch="9.0")


@pytest.mark.parametrize(
    ("cell", "ranges"),
    [
        ("", ()),
        ('41  "<default domain>:step:none:none:none:none:none:none" ', (("<default domain>", "step"),)),
        (
            '41  "shardbench:suites/bench_linears.py::bench_decode[m-tp8]:int64:3:none:none:registered:x"  '
            '"shardbench:warm-up:none:none:none:none:none:none" ',
            (("shardbench", "suites/bench_linears.py::bench_decode[m-tp8]"), ("shardbench", "warm-up")),
        ),
        ('41  "shardbench:bench_it.py::bench_point:none:none:none" ', (("shardbench", "bench_it.py::bench_point"),)),
    ],
)
def test_ranges_are_taken_from_the_stack_the_outermost_first(cell, ranges):
    quoted = cell.replace('"', '""')
    head = f'"ID","thread Domain:Push/Pop_Range:PL_Type","Kernel Name","{DURATION_METRIC}"'
    text = f'{head}\n"","","","ns"\n"0","{quoted}","k","5"'
    (one,) = parse_kernels(text, needed=(DURATION_METRIC,))
    assert one.ranges == ranges

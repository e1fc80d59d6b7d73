"""What a report says of a GPU's clock and of its ceilings: nothing that a run on one has is lost on the reader."""

from dataclasses import replace

import pytest

from reports import output
from reports.archive.entries import headlines
from reports.compare import comparison, report
from reports.html.report import build_report
from reports.results import load
from reports.show import case_metrics, file_blocks
from tests.reports import planted
from tests.reports.planted import H200, measured

SIZES = [2**power for power in (24, 25, 26, 27)]
BIG = 1_920_000_000
INTERCEPT, SLOPE = 2e-6, 4e12


def clock(before, after=None, moved=0):
    after = after or before
    return {"sm_mhz": after, "sm_mhz_before": before, "sm_mhz_after": after, "moved_visits": float(moved)}


def ceiling(name, op, *, launch="graph", kernel="triton_read", implementation="triton", **facts):
    bare = dict.fromkeys(("model", "layer", "tp", "pp", "n", "k", "tokens"))
    common = {"question": "ceilings", "op": op, "launch": launch, "kernel": kernel, "implementation": implementation}
    return planted.case(f"c[{name}]", **{**bare, "dtype": "fp32", "flops": 0, **common, **facts})


def reads(sizes=(*SIZES, BIG), kernel="triton_read"):
    """Times on a line, each pass off by its own factor of up to 1 %."""
    shifts = (0.99, 0.995, 1.0, 1.0, 1.005, 1.01)
    for size in sizes:
        seconds = INTERCEPT + size / SLOPE
        passes = tuple((seconds * shift,) * 4 for shift in shifts)
        yield measured(ceiling(f"{kernel}{size}", "read", hbm_bytes=size, kernel=kernel), passes)


def rows(tmp_path, measurements, machine=H200):
    """The lines above a file's tables, by name."""
    file = load(planted.write(tmp_path / "x.json", measurements, machine=machine))
    above, *_ = file_blocks(file, case_metrics(file))
    return dict(above.rows)


def test_the_clock_of_a_run_is_the_range_over_its_cases(tmp_path):
    found = [
        measured(planted.case("x[1]"), 1.0, telemetry=clock(1965, 1980)),
        measured(planted.case("x[2]", tokens=2), 1.0, telemetry=clock(1755, moved=2), throttled=True),
        measured(planted.case("x[3]", tokens=3), 1.0),
    ]
    assert rows(tmp_path, found)["SM clock"] == "1755 to 1980 MHz, clock moved in 1 case, throttled in 1 case"
    older = [measured(planted.case("x[1]"), 1.0, telemetry={"sm_mhz": 1410.0})]
    assert rows(tmp_path, older)["SM clock"] == "1410 MHz"


def test_a_gpus_clock_that_nothing_told_is_unknown_and_a_cpu_has_none(tmp_path):
    silent = [replace(measured(planted.case("x[1]"), 1.0), clock="cuda_event")]
    assert rows(tmp_path, silent)["SM clock"].startswith("unknown: NVML told nothing")
    assert "SM clock" not in rows(tmp_path, [measured(planted.case("x[1]"), 1.0)], machine=planted.CPU)


def test_a_case_whose_clock_moved_is_labelled_in_its_row(tmp_path):
    found = [
        measured(planted.case("x[1]"), 1.0, telemetry=clock(1980, moved=1)),
        measured(planted.case("x[2]", tokens=2), 1.0, telemetry=clock(1980)),
    ]
    file = load(planted.write(tmp_path / "x.json", found, machine=H200))
    assert [one.warnings() for one in case_metrics(file)] == [["clock moved"], []]
    assert "clock moved\n" in output.render_terminal(file_blocks(file, case_metrics(file)), width=120)


@pytest.mark.parametrize(
    ("index", "facts", "said"),
    [
        (0, {"throttled": True}, "read: throttled"),
        (1, {"telemetry": clock(1980, moved=1)}, "bf16 matmul: clock moved"),
        (2, {"throttled": True, "telemetry": clock(1500, moved=3)}, "launch graph: throttled, clock moved"),
        (3, {"throttled": True}, "copy eager: throttled"),
    ],
)
def test_a_ceiling_in_doubt_is_flagged_where_ceilings_are_printed(tmp_path, index, facts, said):
    found = [*planted.ceilings(), measured(ceiling("l", "launch", kernel="torch_launch", implementation="torch"), 2e-6)]
    found.append(measured(ceiling("e", "copy", launch="eager", kernel="torch_copy", implementation="torch"), 1.0))
    assert "in doubt" not in rows(tmp_path, found)
    found[index] = replace(found[index], **facts)
    assert rows(tmp_path, found)["in doubt"] == said
    file = load(tmp_path / "x.json")
    assert f"({said.replace(':', '')})" in dict(headlines(file, case_metrics(file)))["ceilings"]
    assert said in output.render_terminal(build_report([file]).provenance(), width=200), "and on the page"


def test_a_ceiling_that_is_not_the_best_may_have_been_throttled(tmp_path):
    slow = planted.ceilings(read=5e9)[0]
    slow = replace(slow, case=replace(slow.case, name="slow"), throttled=True)
    assert "in doubt" not in rows(tmp_path, [*planted.ceilings(), slow])


def test_comparing_says_both_clocks_and_counts_cases_in_which_they_moved(tmp_path):
    a = load(planted.write(tmp_path / "a.json", [measured(planted.case(), 1.0, telemetry=clock(1980))], machine=H200))
    slow = measured(planted.case(), 1.2, telemetry=clock(1500, 1515, moved=1))
    b = load(planted.write(tmp_path / "b.json", [slow], machine=H200))
    found = comparison.compare_files(a, b)
    text = output.render_terminal(report.comparison_page([a, b], [found], ["A", "B"], every=True), width=160)
    assert "SM clock 1980 MHz" in text
    assert "SM clock 1500 to 1515 MHz" in text
    assert "B: 1 case in which the SM clock moved" in text


def test_a_copy_is_shown_by_how_it_was_launched(tmp_path):
    facts = {"kernel": "torch_copy", "implementation": "torch", "hbm_bytes": 4_000_000_000}
    graph = measured(ceiling("g", "copy", **facts), 1e-3)
    eager = measured(ceiling("e", "copy", launch="eager", **facts), 1.25e-3)
    assert rows(tmp_path, [eager, graph])["copy"] == "3,200 GB/s eager, 4,000 GB/s in a graph"
    assert "copy" not in rows(tmp_path, [graph], machine=planted.CPU)


def test_the_planted_intercept_and_slope_are_found_with_their_intervals(tmp_path):
    found = rows(tmp_path, list(reads()))
    intercept, over = found["launch intercept"].split(": ")
    value, interval = intercept.split(" (")
    assert value == "2.00 us"
    low, high = (float(end.removesuffix(")").split()[0]) for end in interval.split(" to "))
    assert 1.95 < low < 2.0 < high < 2.05
    assert over == "a line through reads of 16.78 MB to 1.92 GB in a graph"
    assert found["bandwidth slope"].startswith("4,000 GB/s (3,9")


def test_there_is_no_line_through_three_sizes_or_through_two_kernels(tmp_path):
    three = list(reads(SIZES[:3]))
    assert "launch intercept" not in rows(tmp_path, three)
    assert "bandwidth slope" not in rows(tmp_path, [*three, *reads(SIZES[:3], "torch_read")])
    assert "launch intercept" in rows(tmp_path, list(reads(SIZES)))


def test_an_empty_kernel_stands_beside_the_launch_and_is_not_the_launch_ceiling(tmp_path):
    empty = measured(ceiling("e", "launch", kernel="triton_empty", flops=0, hbm_bytes=0), 1.2e-6)
    one = measured(ceiling("l", "launch", kernel="torch_launch", implementation="torch", hbm_bytes=12), 1.9e-6)
    found = rows(tmp_path, [empty, one])
    assert found["empty kernel"] == "1.20 us in a graph; 1.90 us with one element to compute"
    file = load(tmp_path / "x.json")
    assert case_metrics(file)[0].measured.launch_seconds == pytest.approx(1.9e-6)

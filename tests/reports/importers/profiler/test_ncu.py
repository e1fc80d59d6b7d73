"""Tables of Nsight Compute: whose a kernel is, by the ranges it was launched in, and what a call takes and reads."""

import csv
import io

import pytest

from tests.reports import planted
from tests.reports.importers.profiler.planted_trace import CASE, HOST
from tests.reports.run_reports import run_reports

STACK = "thread Domain:Push/Pop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg"
STARTED = "Id:Domain:Start/Stop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg"
COMMON = ("ID", "Process ID", "Process Name", "Host Name", STACK, STARTED, "Kernel Name", "Context", "Stream")
PLACE = ("Block Size", "Grid Size", "Device", "CC")
DURATION, READ = "gpu__time_duration.sum", "dram__bytes_read.sum"


def stack(*names, domain="shardbench"):
    """As ncu prints a stack of ranges, the outermost first."""
    return "13416  " + "  ".join(f'"{domain}:{name}:int64:3:none:none:registered:{name}"' for name in names) + " "


def row(number, where, kernel, process=7):
    common = (str(number), str(process), "python3.12", HOST, where, "", kernel, "1", "7")
    return (*common, "(128, 1, 1)", "(264, 1, 1)", "0", "9.0")


CALL = stack(CASE, "warm-up", "call")
IN_THEIRS = CALL + stack("qkv", domain="someone else's")[7:]
KERNELS = [
    # ranges, kernel, nanoseconds, bytes
    (stack(CASE, "warm-up"), "reference", 90_000, 5),
    (CALL, "gemm<float, (int)3>", 10_000, 16_000_000),
    (IN_THEIRS, "sum", 2_500, 1_000_000),
    (stack(CASE, "timed"), "gemm<float, (int)3>", 11_000, 0),
    ("", "outside", 7_000, 7),
    (stack("step", "call", domain="<default domain>"), "theirs", 7_000, 7),
]


ODD = ("nan", "inf", "1e999", "-5", "1.234,50", "1,23")
"""Durations that are none; the last two are how other locales write 1234.5 and 1.23."""


def written(lines):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(lines)
    said = ["==PROF== Connected to process 7 (/usr/bin/python3.12)", "11 passed in 3 s"]
    return "\n".join([*said, text.getvalue(), "==PROF== Disconnected from process 7"])


def details(kernels, units=("ns", "byte"), counted=True):
    """The details page: a row a kernel and metric."""
    lines = [(*COMMON, *PLACE, "Section Name", "Metric Name", "Metric Unit", "Metric Value", "Rule Name")]
    for number, (where, kernel, seconds, read) in enumerate(kernels):
        about = row(number, where, kernel)
        lines.append((*about, "GPU Speed Of Light Throughput", "Duration", units[0], f"{seconds:,}", ""))
        lines.append((*about, "GPU Speed Of Light Throughput", "Memory Throughput", "%", "80.1", ""))
        if counted:
            lines.append((*about, "Command line profiler metrics", READ, units[1], f"{read:,}", ""))
        lines.append((*about, "SpeedOfLight", "", "", "", "Bottleneck"))
    return written(lines)


def raw(kernels, gpu="NVIDIA H100 80GB HBM3"):
    """The raw page: a row a kernel, a column a metric, and a row of units under the header."""
    header = (*COMMON, *PLACE, "device__attribute_display_name", READ, "sm__cycles.avg", DURATION)
    lines = [header, (*("",) * (len(COMMON) + len(PLACE)), "", "Mbyte", "cycle", "us")]
    for number, (where, kernel, seconds, read) in enumerate(kernels):
        lines.append((*row(number, where, kernel), gpu, f"{read / 1e6:,.6f}", "1,000", f"{seconds / 1e3:,.3f}"))
    return written(lines)


@pytest.fixture
def table(tmp_path):
    def writes(text):
        (tmp_path / "table.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / "table.csv"

    return writes


@pytest.mark.parametrize("page", [details, raw])
def test_a_call_takes_and_reads_what_its_kernels_do_on_either_page(imported, table, page):
    cases, notes, file = imported(table(page(KERNELS)), tool="ncu")
    one = cases[CASE]
    # the checked call alone: 10 + 2.5 us and 16 + 1 MB
    assert one["busy_seconds"] == pytest.approx(12.5e-6)
    assert one["dram_bytes_read"] == pytest.approx(17e6)
    assert (one["visits"], one["calls"], one["kernels_per_call"]) == (1, 1, 2)
    assert (one["span_seconds"], one["clock_seconds"], one["explained_by"], one["parts"]) == (None, None, "", [])
    (measurement,) = file.measurements
    assert (measurement.clock, measurement.seconds) == ("ncu", ((pytest.approx(12.5e-6),),))
    assert measurement.telemetry == {"dram_bytes_read": pytest.approx(17e6)}
    assert measurement.case.kernel == "gemm<float, (int)3>"
    assert any("--cache-control none" in note for note in notes)
    assert "2 of 6 kernels are in no range of ours: left out" in notes
    assert HOST not in file.path.read_text()
    assert run_reports("check", file.path) == 0
    assert file.profiler == "Nsight Compute"


def test_a_gpu_is_named_by_the_table_the_run_or_the_option(imported, table, tmp_path):
    assert imported(table(raw(KERNELS)), tool="ncu")[2].machine["gpu"] == "NVIDIA H100 80GB HBM3"
    assert imported(table(details(KERNELS)), tool="ncu")[2].machine["gpu"] == "unknown GPU (sm_90)"
    named = imported(table(details(KERNELS)), "--gpu", "h100_sxm", tool="ncu")[2]
    assert named.machine["gpu"] == "NVIDIA H100 80GB HBM3"
    run = planted.write(tmp_path / "out.json", [planted.measured(planted.case(CASE), 1e-5)], machine=planted.H200)
    cases, _, lent = imported(table(details(KERNELS)), "--run", run, tool="ncu")
    assert lent.machine["gpu"] == "NVIDIA H200"
    assert lent.measurements[0].case == planted.case(CASE)
    assert cases[CASE]["clock_seconds"] == pytest.approx(1e-5)
    assert cases[CASE]["explained_by"] == "caches and clocks were not as in the run, or gaps"
    assert cases[CASE]["launch"] == "unknown"


@pytest.mark.parametrize("inside", [("call",), ()])
def test_parts_of_a_layer_are_added_up_and_norm_comes_twice(imported, table, inside):
    """In newer runs the parts stand in the checked call, in older ones beside it."""
    layer = [("norm", 2_000), ("qkv", 10_000), ("qkv", 1_000), ("attention", 7_000), ("norm", 3_000)]
    kernels = [(stack(CASE, "warm-up", *inside, part), f"{part} kernel", each, 100) for part, each in layer]
    cases, _, file = imported(table(details(kernels)), tool="ncu")
    parts = {one["part"]: one for one in cases[CASE]["parts"]}
    assert cases[CASE]["busy_seconds"] == pytest.approx(23e-6)
    assert {name: one["busy_seconds"] for name, one in parts.items()} == {
        "norm": pytest.approx(5e-6),
        "qkv": pytest.approx(11e-6),
        "attention": pytest.approx(7e-6),
    }
    assert [parts[name]["per_layer"] for name in parts] == [2, 1, 1]
    assert [parts[name]["kernels"] for name in parts] == [2, 2, 1]
    assert parts["qkv"]["dram_bytes_read"] == 200
    norm = next(one for one in file.measurements if one.case.layer == "norm")
    assert norm.seconds == ((pytest.approx(2.5e-6),),)


def test_a_second_checked_call_and_what_is_between_samples_are_no_part_of_a_call(imported, table):
    kernels = [
        (CALL, "gemm", 10_000, 1),
        (stack(CASE, "warm-up"), "reference", 90_000, 5),
        (CALL, "gemm", 10_000, 1),
        (stack(CASE, "timed", "between"), "gemm", 50_000, 1),
    ]
    cases, *_ = imported(table(details(kernels)), tool="ncu")
    assert (cases[CASE]["busy_seconds"], cases[CASE]["kernels_per_call"]) == (pytest.approx(10e-6), 1)
    alone = [(stack(CASE, "timed"), "gemm", 11_000, 1), kernels[-1]]
    cases, *_ = imported(table(details(alone)), tool="ncu")
    assert cases[CASE]["busy_seconds"] == pytest.approx(11e-6)


def test_bytes_that_were_not_counted_are_not_made_up(imported, table):
    cases, _, file = imported(table(details(KERNELS, counted=False)), tool="ncu")
    assert (cases[CASE]["dram_bytes_read"], file.measurements[0].telemetry) == (None, None)


def test_without_a_checked_call_what_was_timed_stands_for_it_and_that_is_said(imported, table):
    timed = [(stack(CASE, "timed"), "gemm", each, 1) for each in (10_000, 12_000)]
    cases, notes, _ = imported(table(details(timed)), tool="ncu")
    assert (cases[CASE]["busy_seconds"], cases[CASE]["calls"]) == (pytest.approx(11e-6), 2)
    assert f"no checked call is in the table of {CASE}: its time is that of what was timed" in notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "empty; give what ncu printed with --csv"),
        (b"ID,Kernel\n0,gemm\n", "ncu wrote no table of kernels; give what ncu printed with --csv"),
        (b"\xff\xfe\x00\x01\x02", "ncu wrote no table of kernels"),
        (details([("", "gemm", 5, 5)]), "no column of NVTX ranges, or nothing in it; profile with `ncu --nvtx --csv`"),
        (
            details([(stack("step", domain="other"), "gemm", 5, 5)]),
            "1 kernels, none in a range of the domain shardbench",
        ),
        (details(KERNELS, units=("cycle", "byte")), "gpu__time_duration.sum is '90,000 cycle'; give what ncu"),
        (details(KERNELS, units=("ns", "sector")), "dram__bytes_read.sum is '5 sector'"),
        *((details(KERNELS).replace('"90,000"', f'"{odd}"'), f"is '{odd} ns'; give what ncu") for odd in ODD),
        (details(KERNELS).replace("Duration", "Elapsed Cycles"), "gpu__time_duration.sum is 'absent'"),
    ],
)
def test_what_cannot_be_read_is_one_line(refused, table, text, said):
    assert said in refused(table(text), tool="ncu")


def test_a_report_has_to_be_printed_first_and_a_file_has_to_be_there(refused, tmp_path):
    (tmp_path / "report.ncu-rep").write_bytes(b"NVR\x00")
    said = refused(tmp_path / "report.ncu-rep", tool="ncu")
    assert "a report of Nsight Compute; print it first: `ncu --import report.ncu-rep --csv --page raw`" in said
    assert "cannot read it (No such file or directory)" in refused(tmp_path / "none.csv", tool="ncu")


def test_a_gpu_that_contradicts_the_table(refused, table):
    said = refused(table(raw(KERNELS)), "--gpu", "h200_sxm", tool="ncu")
    assert "names its GPU, NVIDIA H100 80GB HBM3, where --gpu says NVIDIA H200; leave --gpu out" in said


def test_the_printed_table_holds_the_bytes_beside_those_that_have_to_move(table, tmp_path, capsys):
    needed = planted.case(CASE, hbm_bytes=16_000_000)
    run = planted.write(tmp_path / "out.json", [planted.measured(needed, 1e-5)], machine=planted.H200)
    assert run_reports("import", "ncu", table(details(KERNELS)), "-o", tmp_path / "p.json", "--run", run) == 0
    assert "17 MB (106%)" in capsys.readouterr().out

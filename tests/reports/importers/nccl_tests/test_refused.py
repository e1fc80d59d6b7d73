import json

import pytest

from reports.__main__ import main
from tests.reports.importers.nccl_tests import planted_outputs as planted
from tests.reports.importers.nccl_tests.planted_outputs import ALL_REDUCE, document, line, output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0.txt: empty; give what nccl-tests printed, or what its -J wrote"),
        ("size count\n1 2 3\n", "0.txt: no table of nccl-tests in it; give what all_reduce_perf and the like print"),
        (b"\x7fELF\x00\xff", "no table of nccl-tests in it"),
        (ALL_REDUCE.partition("# Out")[0], "cut short after line 20: a run has no `Out of bounds values` under its"),
        (ALL_REDUCE.partition("       16384")[0], "cut short before its first row: "),
        (ALL_REDUCE.replace("(us)", "(ms)"), "line 17: time is in (ms), and nccl-tests prints (us); import its own"),
        (ALL_REDUCE.replace("(GB/s)", "(GiB/s)"), "line 17: algbw is in (GiB/s), and nccl-tests prints (GB/s)"),
        (ALL_REDUCE.replace("(elements)", "(B)"), "line 17: count is in (B), and nccl-tests prints (elements)"),
        (ALL_REDUCE.replace("(B)", ""), "line 17: 7 units under 8 columns that have one"),
        (ALL_REDUCE.replace("  busbw", ""), "line 16: a table without busbw; give the output as nccl-tests printed"),
        (ALL_REDUCE.replace("   time", "cputime"), "line 16: times are of the CPU (-C 1)"),
        (ALL_REDUCE.replace("# Using", "# using").replace("#  Rank", "#"), "no list under `Using devices`"),
        (ALL_REDUCE.replace("Rank  5", "Rank  9"), "8 ranks are listed up to rank 9; the list is cut"),
        (ALL_REDUCE.replace("Rank  1", "Rank  0"), "rank 0 is listed 2 times: logs are mixed, or several programs ran"),
        (ALL_REDUCE.replace("0000:df:00] NVIDIA H100 80GB HBM3", "0000:df:00] NVIDIA H200"), "different GPUs: NVIDIA"),
        (ALL_REDUCE + line(), "a row after the end of its table; logs are mixed"),
        (ALL_REDUCE.replace("# Out", "#\n#  size  count  type  time  algbw  busbw\n# Out"), "a second table before"),
        (output(line(), op="alltoall"), "none of 1 rows can be used; the first: alltoall_perf has no counterpart"),
        ("{", "0.txt: cut short or not JSON ("),
        (document()[:-40], "cut short or not JSON ("),
        ('[{"numCycle":0, "name":"AllReduce"}]', "JSON, but not what nccl-tests' -J writes: no version"),
        (json.dumps({"benchmarks": [], "version": 5}), "JSON, but not what nccl-tests' -J writes: no config"),
        (document(config={}), "JSON, but not what nccl-tests' -J writes: no usable config ('nthreads')"),
        (document(results=[]), "no results in it"),
        (document(out_of_bounds=None).replace('"out_of_bounds"', '"x"'), "cut short: no out_of_bounds after"),
        (document().replace('"time"', '"cpu_time"'), "result 1: times are of the CPU (-C 1)"),
    ],
)
def test_an_output_that_cannot_be_used_is_one_clear_line(run, text, said):
    assert said in run(text)[1]


def test_a_list_of_devices_without_its_end_is_given_away_by_busbw(run):
    _, err = run(ALL_REDUCE.replace("#  Rank  7", "#"))
    assert "none of 6 rows can be used; the first: line 18: busbw 1.57 GB/s, but 16384 B in 18.30 us are 1.535" in err


ROW = "nccl-tests::all_reduce[8x1048576-fp32-nccl-eager-out-of-place]"
GOOD = line(size=2097152, microseconds=50.0)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        # 1048576 B / 35.2 us = 29.789 GB/s = 27.743 GiB/s; x 1.75 = 52.131 = 48.551
        (
            ("29.79", "27.74"),
            "algbw 27.74 GB/s, but 1048576 B in 35.20 us are 29.79 GB/s, as if bandwidths were in GiB/s",
        ),
        (
            ("52.13", "48.55"),
            "busbw 48.55 GB/s, but 1048576 B in 35.20 us are 52.13 GB/s, as if bandwidths were in GiB/s",
        ),
        (
            ("29.79", "238.3"),
            "algbw 238.3 GB/s, but 1048576 B in 35.20 us are 29.79 GB/s, as if bandwidths were in Gbit/s",
        ),
        (
            ("35.20", "0.0352"),
            "algbw 29.79 GB/s, but 1048576 B in 0.0352 us are 2.979e+04 GB/s, as if the time were in ms",
        ),
        (("52.13", "29.79"), "busbw 29.79 GB/s, but 1048576 B in 35.20 us are 52.13 GB/s"),
        (("262144", "1048576"), "size 1048576 B is not count 1048576 x 4 B = 4194304 B; elements given as bytes?"),
        (("float", "half "), "size 1048576 B is not count 262144 x 2 B = 524288 B"),
        (("float", "quark"), "type quark: how many bytes an element has is not known; known are int8, "),
        (("35.20", " 0.00"), "time 0.00 us is not above 0"),
        (("35.20", "  nan"), "not a number where one belongs: '1048576 262144 float sum -1 nan 29.79 52.13 0 nan"),
        (
            ("52.13       0", "52.13"),
            "11 values under 13 columns: '1048576 262144 float sum -1 35.20 29.79 52.13 35.20",
        ),
    ],
)
def test_a_row_that_contradicts_itself_is_listed_with_line_and_reason(run, row, said):
    file, told = run(output(GOOD, line().replace(*row)))
    assert {one.case.message_bytes for one in file.measurements} == {2097152}
    (reason, *_) = file.not_run.values()
    assert reason.startswith("line 19: ")
    assert said in reason
    assert f"not imported: {reason}" in told


def test_a_wrong_unit_takes_rows_with_it_that_have_too_few_digits_to_show_it(run):
    # 16 B / 10 us = 0.0016 GB/s, printed as 0.00: nothing to check
    few, plain = line(size=16, microseconds=10.0), line()
    assert not run(output(few, plain))[0].not_run
    file, _ = run(output(few, GOOD, plain.replace("29.79", "27.74")))
    assert file.not_run["nccl-tests::all_reduce[8x16-fp32-nccl-eager-in-place]"] == (
        "line 18: too few digits to be checked, and line 20 of the same run contradicts itself"
    )


def test_a_message_of_no_bytes_is_listed_and_accuses_nobody(run):
    file, _ = run(output("0 0 float sum -1 5.10 0.00 0.00 0 5.10 0.00 0.00 0", line(size=16, microseconds=10.0)))
    assert {*file.not_run.values()} == {"line 18: moves nothing: fewer elements than ranks"}
    assert {one.case.message_bytes for one in file.measurements} == {16}


def test_counts_of_one_rank_and_of_all_are_told_apart(run):
    row = line("all_gather")
    assert "  32768  " in row  # 1048576 / 4 / 8
    _, err = run(output(row.replace(" 32768 ", " 262144 "), op="all_gather"))
    assert "size 1048576 B is not count 262144 x 4 B x 8 ranks = 8388608 B" in err


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"count": 262144.0}, "Decimal('262144.0') is no whole number"),
        ({"type": "float", "in_place": {"time": "nan"}}, "'nan' is no figure"),
        ({"out_of_place": {"time": 35.2}}, "its 'alg_bw' cannot be read"),
    ],
)
def test_a_result_of_json_that_cannot_be_read_is_listed(run, broken, reason):
    (good,) = json.loads(document())["results"]
    file, _ = run(document(results=[good, good | broken]))
    assert len(file.measurements) == 2
    ((_, said),) = file.not_run.items()
    assert said.startswith("result 2: ")
    assert reason in said


def test_json_is_checked_like_text(run):
    _, err = run(document().replace('"alg_bw": 29.78', '"alg_bw": 27.78'))
    assert "result 1: algbw 27.789091 GB/s, but 1048576 B in 35.2 us are 29.79 GB/s" in err


def test_files_of_two_machines_are_not_mixed(run):
    other = ALL_REDUCE.replace(planted.GPU, "NVIDIA H200")
    assert "1.txt: GPU is NVIDIA H200, and NVIDIA H100 80GB HBM3 in " in run(ALL_REDUCE, other)[1]
    newer = ALL_REDUCE.replace("22807", "22903")
    assert "1.txt: library is nccl 2.29.3, and nccl 2.28.7 in " in run(ALL_REDUCE, newer)[1]


def test_a_gpu_is_named_where_it_has_no_known_name(run):
    nameless = ALL_REDUCE.replace(planted.GPU, "NVIDIA Graphics Device")
    assert run(nameless)[0].machine["gpu"] == "NVIDIA Graphics Device"
    assert run(nameless, options=["--gpu", "h200_sxm"])[0].machine["gpu"] == "NVIDIA H200"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpu", "h200_sxm"], "names its GPU, NVIDIA H100 80GB HBM3, where --gpu says NVIDIA H200; leave --gpu out"),
        (["--op", "all_gather"], "says that it is of all_reduce_perf, where --op says all_gather; leave --op out"),
        (["--op", "all_redcue"], "unknown operation of nccl-tests 'all_redcue'; did you mean all_reduce? known: "),
    ],
)
def test_options_that_contradict_the_output(run, options, said):
    assert said in run(ALL_REDUCE, options=options)[1]


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(["import", "nccl-tests", *map(str, arguments)])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_a_source_is_not_overwritten_nor_taken_twice(tmp_path, capsys):
    source = tmp_path / "log.txt"
    source.write_text(ALL_REDUCE)
    assert "would overwrite" in refused(capsys, source, "-o", source)
    assert source.read_text() == ALL_REDUCE
    assert "given twice; its times would count as two passes" in refused(
        capsys, source, tmp_path / "." / "log.txt", "-o", tmp_path / "out.json"
    )


def test_a_file_that_is_not_there_and_a_folder(tmp_path, capsys):
    assert "cannot read it (No such file or directory)" in refused(capsys, tmp_path / "x", "-o", tmp_path / "out.json")
    assert "cannot read it (Is a directory)" in refused(capsys, tmp_path, "-o", tmp_path / "out.json")

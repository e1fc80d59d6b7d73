import math

import pandas as pd
import pytest

from reports.importers.aiconfigurator import tables
from specs.errors import UserError
from tests.reports.importers.aiconfigurator import planted_tables as planted

KEY = ("gemm_dtype", "m", "n", "k")
ROW = {"m": 1, "n": 8192, "k": 8192, "latency": 2.0}


@pytest.fixture
def system(tmp_path):
    return tmp_path / "h200_sxm"


def read(system):
    return tables.read_tables(system, "gemm", "gemm_perf", KEY)


def seconds(rows):
    return {(row.framework, row.n, row.m): row.seconds for row in rows.itertuples()}


def test_milliseconds_become_seconds_and_frameworks_small_letters(system):
    planted.gemm(system, [ROW])
    (row,) = read(system).rows.to_dict("records")
    told = {"framework": "vllm", "version": "1.0.0", "device": "NVIDIA H200", "kernel_source": "torch_flow"}
    assert row == {**told, "gemm_dtype": "bfloat16", "m": 1, "n": 8192, "k": 8192, "seconds": 2e-3, "rank": 0}


def test_of_each_series_the_newest_version_is_taken_and_never_mixed(system):
    old = [{**ROW, "m": m, "n": n} for n in (1024, 8192) for m in (1, 2, 4)]
    planted.gemm(system, [ROW, {**ROW, "m": 2}], version="0.10.0")
    planted.gemm(system, [{**row, "latency": 9.0} for row in old], version="0.9.0")  # sorts last as a text
    planted.gemm(system, [{**row, "latency": 7.0} for row in old], version="0.10.0rc2")
    planted.gemm(system, [{**row, "latency": 5.0} for row in old], framework="SGLang", version="0.1")
    found = seconds(tables.newest_versions(read(system).rows, ["gemm_dtype", "n", "k"]))
    # the newest lacks 4 tokens of n = 8192, and all of n = 1024, which the release candidate has
    assert found == {
        **{("vllm", 8192, m): 2e-3 for m in (1, 2)},
        **{("vllm", 1024, m): 7e-3 for m in (1, 2, 4)},
        **{("sglang", n, m): 5e-3 for n in (1024, 8192) for m in (1, 2, 4)},
    }


def test_the_rows_say_the_version_and_not_the_folder(system):
    planted.gemm(system, [ROW], version="2.0", at="1.0")
    planted.gemm(system, [{**ROW, "latency": 3.0}], version="1.0", at="3.0")
    planted.gemm(system, [{**ROW, "latency": 4.0}], version="2.0", at="1.1")
    (row,) = tables.newest_versions(read(system).rows, ["n"]).to_dict("records")
    assert (row["version"], row["seconds"]) == ("2.0", 4e-3)  # of two files that say 2.0 the younger folder


def test_the_same_table_again_is_passed_over(system):
    rows = [ROW, {**ROW, "m": 2, "latency": 3.0}]
    planted.gemm(system, rows, version="2.0")
    planted.gemm(system, rows[::-1], framework="SGLang", version="0.5")
    found = read(system)
    assert sorted(seconds(found.rows)) == [("vllm", 8192, 1), ("vllm", 8192, 2)]
    (note,) = found.notes
    again, first = (f"h200_sxm/gemm/{one}/gemm_perf.parquet" for one in ("sglang/0.5", "vllm/2.0"))
    assert note == f"{again}: holds the figures of {first} again; passed over"


def test_repeated_rows_become_their_median(system):
    planted.gemm(system, [{**ROW, "latency": latency} for latency in (1.0, 2.0, 9.0)] + [{**ROW, "m": 2}])
    found = read(system)
    assert seconds(found.rows) == {("vllm", 8192, 1): 2e-3, ("vllm", 8192, 2): 2e-3}
    (note,) = found.notes
    assert note.endswith("/gemm_perf.parquet: 1 points stand in it more than once; their medians are taken")


def other_columns(path):
    pd.DataFrame([{"m": 1, "n": 2, "gflops": 3.0}]).to_parquet(path)


def empty(path):
    pd.read_parquet(path).iloc[:0].to_parquet(path)


def no_parquet(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def column(name, value):
    def change(path):
        pd.read_parquet(path).assign(**{name: value}).to_parquet(path)

    return change


BROKEN = [
    (other_columns, "lacks the columns framework, version, device, kernel_source, latency, gemm_dtype, k; it has m, n"),
    (empty, "empty, or with latencies that are no time in milliseconds"),
    (no_parquet, "cannot be read as Parquet"),
    (cut_short, "cannot be read as Parquet"),
    *((column("latency", value), "latencies that are no time") for value in (-1.0, 0.0, math.nan, math.inf, "fast")),
]


@pytest.mark.parametrize(("damage", "said"), BROKEN)
def test_a_broken_table_is_passed_over_with_a_note(system, damage, said):
    planted.gemm(system, [ROW])
    damage(planted.gemm(system, [{**ROW, "latency": 9.0}] * 2, framework="SGLang"))
    found = read(system)
    assert seconds(found.rows) == {("vllm", 8192, 1): 2e-3}
    (note,) = found.notes
    assert note.startswith("h200_sxm/gemm/sglang/1.0.0/gemm_perf.parquet: ")
    assert said in note
    assert "\n" not in note


@pytest.mark.parametrize(("name", "value"), [("framework", 1), ("framework", None), ("version", 2.27), ("m", None)])
def test_a_table_with_other_kinds_of_values_is_passed_over(system, name, value):
    planted.gemm(system, [ROW])
    column(name, value)(planted.gemm(system, [{**ROW, "latency": 9.0}], framework="SGLang"))
    found = read(system)
    assert seconds(found.rows) == {("vllm", 8192, 1): 2e-3}
    assert [note.split(":")[0] for note in found.notes] == ["h200_sxm/gemm/sglang/1.0.0/gemm_perf.parquet"]


@pytest.mark.parametrize(("damage", "said"), BROKEN)
def test_nothing_left_is_an_error_that_says_why(system, damage, said):
    damage(planted.gemm(system, [ROW]))
    with pytest.raises(UserError, match=r"h200_sxm: no table gemm/\*/\*/gemm_perf.parquet that can be used: ") as error:
        read(system)
    assert said in str(error.value)


def test_no_table_at_all(system):
    with pytest.raises(UserError, match=r"no table gemm/\*/\*/gemm_perf.parquet that can be used$"):
        read(system)


def test_a_missing_column_takes_its_usual_value_and_a_present_one_its_own(system):
    planted.gemm(system, [ROW], framework="SGLang")
    planted.gemm(system, [{**ROW, "latency": 3.0, "window_size": 128}])
    found = tables.read_tables(system, "gemm", "gemm_perf", (*KEY, "window_size"), {"window_size": 0})
    assert found.rows.set_index("framework")["window_size"].to_dict() == {"sglang": 0, "vllm": 128}
    assert found.notes == []

"""Tables on the disk: what is written is read, what is near is found, what is damaged is told."""

import json
from math import ceil

import pytest

from kernels.configs import dispatch as tables
from kernels.configs.config import GEMM_TOKEN_CLASSES, TOKEN_CLASSES, LinearConfig, layer_shards
from kernels.configs.dispatch import (
    MEASURED_BASIS,
    STATIC_BASIS,
    TUNED_FOLDER,
    ConfigTable,
    LinearRow,
    format_table,
    load_linear_table,
    search_space,
    tuned_linear_table,
)
from specs.errors import UserError
from specs.gpus import ARCHS

CONFIG = LinearConfig(64, 16, 128, 3, 4, 4, tma=True)
ROW = LinearRow("bf16", 16, 8192, 1024, CONFIG, 5.7e-6, MEASURED_BASIS)
TABLE = ConfigTable("sm_90", {MEASURED_BASIS: {"gpu": "NVIDIA H200", "date": "2026-01-01"}}, (ROW,))
COMMITTED = sorted(TUNED_FOLDER.glob("*.json"))


@pytest.mark.parametrize(
    "table", [TABLE, ConfigTable("sm_90"), TABLE.with_row(LinearRow("fp16", 1, 1, 1, CONFIG, 1e-6, STATIC_BASIS))]
)
def test_what_is_written_is_read(tmp_path, table):
    path = tmp_path / "sm_90.json"
    path.write_text(format_table(table))
    assert load_linear_table(path) == table


def test_a_row_is_a_line():
    more = TABLE.with_row(LinearRow("bf16", 32, 8192, 1024, CONFIG, 6e-6, STATIC_BASIS))
    assert len(format_table(more).splitlines()) == len(format_table(TABLE).splitlines()) + 1
    assert format_table(TABLE).endswith("}\n")


def test_a_row_takes_the_place_of_the_one_of_its_shape_and_no_other():
    faster = LinearRow("bf16", 16, 8192, 1024, CONFIG._replace(split=1), 5e-6, MEASURED_BASIS)
    others = [
        LinearRow(*shape, CONFIG, 1e-6, STATIC_BASIS) for shape in (("fp16", 16, 8192, 1024), ("bf16", 1, 8192, 1024))
    ]
    table = TABLE.with_row(others[0]).with_row(others[1]).with_row(faster)
    assert set(table.rows) == {faster, *others}
    assert table.made == TABLE.made


@pytest.mark.parametrize(
    ("tokens", "n", "k", "found"),
    [
        (16, 8192, 1024, True),
        (8, 8192, 1024, True),  # in a tile of 16
        (5, 8192, 1024, True),
        (4, 8192, 1024, False),  # in a tile of 4
        (17, 8192, 1024, False),
        (16, 11585, 1024, True),  # 8192 x 1.41421 = 11585.2
        (16, 11586, 1024, False),
        (16, 5793, 1024, True),  # 8192 / 1.41421 = 5792.6
        (16, 5792, 1024, False),
        (16, 8192, 1448, True),  # 1024 x 1.41421 = 1448.2
        (16, 8192, 1449, False),
        (16, 11585, 725, True),  # each on its own; 1024 / 1.41421 = 724.1
        (16, 11585, 724, False),
    ],
)
def test_a_row_serves_its_tile_within_a_factor_of_root_two(tokens, n, k, found):
    assert TABLE.nearest("bf16", tokens, n, k) == (ROW if found else None)


def test_a_row_serves_no_other_dtype():
    assert TABLE.nearest("fp16", 16, 8192, 1024) is None


def test_the_nearest_of_several_is_found():
    other = LinearRow("bf16", 16, 10240, 1024, CONFIG._replace(split=1), 7e-6, MEASURED_BASIS)
    both = TABLE.with_row(other)
    assert both.nearest("bf16", 16, 9000, 1024) == ROW  # log2(9000 / 8192) = 0.136, log2(10240 / 9000) = 0.186
    assert both.nearest("bf16", 16, 9300, 1024) == other  # 0.183 and 0.139
    deeper = LinearRow("bf16", 16, 8192, 1280, CONFIG._replace(split=1), 7e-6, MEASURED_BASIS)
    both = TABLE.with_row(deeper)
    assert both.nearest("bf16", 16, 8192, 1100) == ROW  # log2(1100 / 1024) = 0.103, log2(1280 / 1100) = 0.219
    assert both.nearest("bf16", 16, 8192, 1200) == deeper  # 0.229 and 0.093


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"schema": 2, "arch": "sm_90", "made": {}, "rows": [',
        "[]",
        '"words"',
        '{"benchmarks": []}',
        '{"schema": 2, "arch": "sm_90", "rows": []}',
        '{"schema": 2, "arch": "sm_90", "made": {}, "rows": [{"dtype": "bf16"}]}',
        format_table(TABLE).replace('"depth"', '"deep"'),
        format_table(TABLE).replace('"n": 8192', '"n": 0'),
        format_table(TABLE).replace('"rows": 64', '"rows": 7'),
        format_table(TABLE).replace('"rows": 64', '"rows": "four"'),
        format_table(TABLE).replace('"tma": true', '"tma": 1'),
        format_table(TABLE).replace('"basis": "', '"basis": "guessed '),
        "\udcff",
    ],
)
def test_a_damaged_or_foreign_file_is_told_in_a_line_with_its_name_and_a_remedy(tmp_path, text):
    path = tmp_path / "sm_90.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as told:
        load_linear_table(path)
    said = str(told.value)
    assert "\n" not in said
    assert said.startswith(str(path))
    assert "restore it" in said


def test_a_table_of_another_schema_is_told_with_both_and_a_remedy(tmp_path):
    path = tmp_path / "sm_90.json"
    path.write_text(format_table(TABLE).replace('"schema": 2', '"schema": 0'))
    with pytest.raises(UserError, match=r"sm_90.json: schema 0, this version reads 2; .*python -m kernels tune"):
        load_linear_table(path)


def test_a_file_that_cannot_be_read_is_told_in_a_line(tmp_path):
    with pytest.raises(UserError, match=r"^\S+: Is a directory$"):
        load_linear_table(tmp_path)


def test_a_table_under_the_name_of_another_arch_is_refused(tmp_path):
    (tmp_path / "sm_80.json").write_text(format_table(TABLE))  # its descriptors would not run there
    with pytest.raises(UserError, match="sm_90"):
        tuned_linear_table("sm_80", tmp_path)


def test_no_file_is_no_table(tmp_path):
    assert tuned_linear_table("sm_90", tmp_path) is None


def test_five_archs_have_a_committed_table():
    assert {"sm_80", "sm_89", "sm_90", "sm_100", "sm_120"} <= {path.stem for path in COMMITTED}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_table_covers_every_shard_and_says_on_what_grounds(path):
    table = load_linear_table(path)
    assert table.arch == path.stem in ARCHS
    shapes = [(row.tokens, row.n, row.k) for row in table.rows if row.dtype == "bf16"]
    assert len(shapes) == len(set(shapes))
    assert set(shapes) >= {(tokens, shard.n, shard.k) for shard in layer_shards() for tokens in TOKEN_CLASSES}
    assert all(row.basis == STATIC_BASIS or row.basis.startswith(MEASURED_BASIS) for row in table.rows)
    for basis in {row.basis for row in table.rows}:
        assert table.made[basis].keys() >= {"gpu", "torch", "triton"}
    assert path.read_text() == format_table(table), "written by hand?"


def unfit(row, on):
    """What keeps a row from running well on its own shape."""
    config = row.config
    last = (config.split - 1) * ceil(ceil(row.k / config.depth) / config.split) * config.depth
    found = {
        "tokens": config.tokens < row.tokens not in GEMM_TOKEN_CLASSES,
        "room": search_space(row.tokens).programs_per_sm(on, config, row.dtype) == 0,
        "copy engine": config.tma and not on.tma,
        "idle part": last >= row.k,
        "time": not 0 < row.seconds < 1e-1,
    }
    return [fault for fault, there in found.items() if there]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_every_committed_row_runs_on_its_arch(path):
    table = load_linear_table(path)
    assert [(row, faults) for row in table.rows if (faults := unfit(row, ARCHS[table.arch]))] == []


def test_rows_that_would_not_run_are_caught():
    assert unfit(ROW, ARCHS["sm_90"]) == []
    assert unfit(ROW, ARCHS["sm_80"]) == ["copy engine"]
    assert unfit(LinearRow("bf16", 32, 8192, 128, CONFIG._replace(stages=12), 0.0, STATIC_BASIS), ARCHS["sm_90"]) == [
        "tokens",
        "room",  # 12 x (64 + 16) x 128 x 2 bytes = 240 KiB
        "idle part",
        "time",
    ]


def test_a_table_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "sm_90.json").write_text(format_table(TABLE))
    reads = []
    monkeypatch.setattr(tables, "load_linear_table", lambda path: reads.append(path) or json.loads(path.read_text()))
    assert tuned_linear_table("sm_90", tmp_path) is tuned_linear_table("sm_90", tmp_path)
    assert len(reads) == 1

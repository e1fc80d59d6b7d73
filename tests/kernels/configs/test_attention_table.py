"""Tables of attention: what is near, what is damaged, and which cut a call takes."""

import pytest

from kernels.configs import attention
from kernels.configs.attention import (
    AttentionRow,
    SplitConfig,
    choose_split_config,
    load_attention_table,
    tuned_attention_table,
)
from kernels.configs.dispatch import MEASURED_BASIS, STATIC_BASIS, ConfigTable, format_table
from kernels.decode_attention import TRITON_DECODE_ATTENTION, TRITON_PAGED_ATTENTION
from specs.errors import UserError

CUT = SplitConfig(128, 8, 3, 2)
OURS = MEASURED_BASIS + "NVIDIA Planted"
ROW = AttentionRow("bf16", 32, 8192, 64, 8, 128, 0, CUT, 2e-4, OURS)
TABLE = ConfigTable("sm_90", {OURS: {"gpu": "NVIDIA Planted"}}, (ROW,))
SHAPE = {"batch": 32, "context": 8192, "heads": 64, "kv_heads": 8, "head_dim": 128}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "sm_90.attention.json"
    path.write_text(format_table(TABLE))
    assert load_attention_table(path) == tuned_attention_table("sm_90", tmp_path) == TABLE


def test_no_file_is_no_table(tmp_path):
    assert tuned_attention_table("sm_90", tmp_path) is None


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, True),
        ({"batch": 128, "heads": 16, "kv_heads": 2}, True),  # 256 pairs as well
        ({"batch": 45}, True),  # 360 pairs; 256 x 1.41421 = 362.04
        ({"batch": 46}, False),  # 368
        ({"batch": 23}, True),  # 184; 256 / 1.41421 = 181.02
        ({"batch": 22}, False),  # 176
        ({"context": 16384}, True),
        ({"context": 16385}, False),
        ({"context": 4096}, True),
        ({"context": 4095}, False),
        ({"heads": 32}, False),  # four query heads a kv head
        ({"head_dim": 64}, False),
        ({"page_size": 64}, False),
        ({"dtype": "fp16"}, False),
    ],
)
def test_a_row_serves_as_many_pairs_within_root_two_and_contexts_within_two(changed, found):
    one = {"dtype": "bf16", **SHAPE, "page_size": 0, **changed}
    assert TABLE.nearest(*one.values()) == (ROW if found else None)


def test_the_nearest_of_several_is_found():
    other = AttentionRow("bf16", 1, 16384, 64, 8, 128, 0, CUT, 1e-4, OURS)
    near = AttentionRow("bf16", 1, 8192, 64, 8, 128, 0, CUT._replace(split=16), 1e-4, OURS)
    both = TABLE.with_row(other).with_row(near)
    assert (
        both.nearest("bf16", 1, 11000, 64, 8, 128, 0) == near
    )  # log2(11000 / 8192) = 0.43, log2(16384 / 11000) = 0.57
    assert both.nearest("bf16", 8, 12000, 8, 1, 128, 0) == other  # 0.55 and 0.45


@pytest.mark.parametrize(
    "fault",
    [
        ('"rows"', '"lines"'),
        ('"block": 128', '"block": 8'),
        ('"block": 128', '"block": 96'),
        ('"warps": 8', '"warps": 3'),
        ('"split": 2', '"split": 257'),
        ('"split": 2', '"split": 0'),
        ('"split"', '"parts"'),
        ('"batch": 32', '"batch": "many"'),
        ('"kv_heads": 8', '"kv_heads": 7'),
        ('"page_size": 0', '"page_size": -1'),
        ('"bf16"', '"int4"'),
        (f'"basis": "{OURS}"', f'"basis": "{STATIC_BASIS}"'),
        ('"schema": 2', '"schema": 9'),
        ('"arch": "sm_90"', '"arch": "sm_80"'),
    ],
    ids=lambda pair: pair[1],
)
def test_a_damaged_table_is_told_in_a_line_with_its_name_and_a_remedy(tmp_path, fault):
    path = tmp_path / "sm_90.attention.json"
    text = format_table(TABLE)
    assert fault[0] in text
    path.write_text(text.replace(*fault))
    with pytest.raises(UserError) as told:
        load_attention_table(path)
    assert str(told.value).startswith(str(path))
    assert "\n" not in str(told.value)
    assert "python -m kernels tune" in str(told.value)


@pytest.fixture
def committed(monkeypatch):
    """A table of sm_90 with one row."""
    monkeypatch.setattr(attention, "tuned_attention_table", lambda name: TABLE if name == "sm_90" else None)
    choose_split_config.cache_clear()
    yield
    choose_split_config.cache_clear()


def test_a_call_takes_the_table_where_it_covers_the_shape_and_else_the_rule(committed):
    assert choose_split_config("sm_90", 132, "bf16", **SHAPE) == (CUT, OURS)
    assert choose_split_config("sm_90", 132, "bf16", **SHAPE, page_size=64) == (SplitConfig(64, 4, 3), "rule")
    assert choose_split_config("sm_100", 148, "bf16", **SHAPE).basis == "rule"


def test_the_record_says_which_it_was(committed):
    told = TRITON_DECODE_ATTENTION.configuration(arch="sm_90", dtype="bf16", **SHAPE)
    assert told == "128 tokens /2 w8 s3 (measured on NVIDIA Planted)"
    paged = TRITON_PAGED_ATTENTION.configuration(arch="sm_90", dtype="bf16", **SHAPE, page_size=64)
    assert paged == "64 tokens w4 s3 (rule)"

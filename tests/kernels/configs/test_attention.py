"""The rule that cuts decode attention: tiles by shared memory, parts by SMs."""

import pytest
import torch

from kernels.configs.attention import (
    MERGE_FAN_IN,
    SplitConfig,
    choose_split,
    choose_split_config,
    merge_levels,
    sm_count,
    unsplit_config,
)
from kernels.decode_attention import TRITON_DECODE_ATTENTION, TRITON_PAGED_ATTENTION
from specs.errors import UserError
from specs.gpus import ARCHS

H200, A100 = 132, 108
CUT = SplitConfig(64, 4, 3)


@pytest.mark.parametrize(
    ("pairs", "steps", "expected"),
    [
        # 264 seats; a turn lasts ceil(steps / parts) + 1, and 2 or 4 more where results are added up
        (32 * 8, 128, 1),  # batch 32, context 8k of 64 tokens a step: 256 programs fill them at once
        (128 * 8, 128, 1),  # 1024 are 3.9 turns: 4 x 129 = 516; in two parts 8 x 67
        (40 * 8, 128, 4),  # 320 are 1.2 turns: 2 x 129 = 258; 3 x 67, 4 x 46, 5 x 35 = 175 and 7 x 29 for 2, 3, 4, 5
        (32, 128, 8),  # one kv head a rank: 256 programs, 16 + 3 = 19; in 9 parts 2 x 18
        (8, 128, 32),  # 256 programs, 4 + 5 = 9; in 16 parts 8 + 3
        (1, 512, 256),  # 2 + 5, as far as two levels of 16 reach
        (1, 4, 1),  # 256 tokens: 4 + 1 = 5; in two parts 2 + 3 as well, and fewest win
        (1, 1, 1),
    ],
)
def test_parts_by_hand(pairs, steps, expected):
    assert choose_split(pairs, steps, H200) == expected


@pytest.mark.parametrize("steps", [2, 7, 128, 2048])
@pytest.mark.parametrize("pairs", [1, 3, 8, 100, 4096])
def test_a_part_has_two_steps_at_least_and_results_two_levels_at_most(pairs, steps):
    parts = choose_split(pairs, steps, A100)
    assert 1 <= parts <= MERGE_FAN_IN * MERGE_FAN_IN
    assert parts == 1 or steps / parts >= 2


def test_tiles_take_32_kib_or_16_where_shared_memory_is_short():
    blocks = {name: unsplit_config(arch, "bf16", 128).block for name, arch in ARCHS.items()}
    assert blocks == {"sm_80": 64, "sm_86": 32, "sm_89": 32, "sm_90": 64, "sm_100": 64, "sm_103": 64, "sm_120": 32}
    assert (unsplit_config(ARCHS["sm_90"], "bf16", 64).block, unsplit_config(ARCHS["sm_90"], "fp32", 128).block) == (
        128,
        32,
    )


def test_room_for_partial_results_by_hand():
    assert (merge_levels(1), merge_levels(16), merge_levels(17), merge_levels(256)) == (0, 1, 2, 2)
    assert (CUT._replace(split=1).partial_count(8), CUT._replace(split=1).counter_count(8)) == (0, 0)
    assert (CUT._replace(split=16).partial_count(8), CUT._replace(split=16).counter_count(8)) == (8 * 17, 8 * 2)
    assert (CUT._replace(split=33).partial_count(8), CUT._replace(split=33).counter_count(8)) == (
        8 * 36,
        8 * 4,
    )  # 33 parts and 3 groups of them


def test_two_tiles_in_flight_keep_memory_busy():
    # K and V: 2 x 64 x 128 x 2 bytes; H200 needs 4.8e12 x 1 us / 132 = 36 KB an SM, which two programs have
    assert CUT.in_flight_bytes("bf16", 128) == 32768


def test_the_choice_is_told():
    shape = {"batch": 1, "context": 8192, "heads": 64, "kv_heads": 8, "head_dim": 128}
    told = TRITON_DECODE_ATTENTION.configuration(arch="sm_90", dtype="bf16", **shape)
    assert told == "64 tokens /32 w4 s3 (rule)"
    assert TRITON_PAGED_ATTENTION.configuration(arch="sm_90", dtype="bf16", page_size=64, **shape) == told


def test_an_unknown_arch_is_refused():
    with pytest.raises(UserError, match="sm_75"):
        choose_split_config("sm_75", 40, "bf16", batch=1, context=1, heads=1, kv_heads=1, head_dim=128)


def test_without_a_gpu_the_rule_counts_the_sms_of_an_a100():
    assert sm_count(torch.device("cpu")) == A100

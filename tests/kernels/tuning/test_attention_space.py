"""The candidates of decode attention: the rule's first, all of them fit, and the compiler agrees on their size."""

from itertools import pairwise

import pytest

from kernels.compile import compile_variant
from kernels.configs.attention import MERGE_FAN_IN, SplitConfig, rule_split_config
from kernels.configs.space import config_distance
from kernels.decode_attention import attention_variant
from kernels.tuning import shapes
from kernels.tuning.shapes import AttentionShape, split_candidates, split_shared_bytes
from specs.gpus import ARCHS

RANK = AttentionShape("bf16", 32, 8192, 8, 1, 128)
SMS = 132


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("shape", [RANK, RANK._replace(batch=1, context=1024), RANK._replace(dtype="fp32", batch=128)])
def test_the_rule_leads_and_what_follows_fits_and_moves_away_from_it(arch, shape):
    on = ARCHS[arch]
    first, *others = found = split_candidates(on, SMS, shape)
    assert first == rule_split_config(on, SMS, shape.dtype, pairs=shape.pairs, context=shape.context, head_dim=128)
    assert len(found) == len(set(found))
    assert all(split_shared_bytes(cut, shape) <= on.shared_bytes_per_block for cut in found)
    assert all(1 <= cut.split <= MERGE_FAN_IN * MERGE_FAN_IN for cut in found)
    assert all(config_distance(first, one) <= config_distance(first, other) for one, other in pairwise(others))
    assert {cut.warps for cut in found} == {2, 4, 8}


def test_parts_are_half_as_many_as_many_and_twice_the_rules():
    # 32 pairs of 128 steps of 64 tokens: the rule has 8 parts on 132 SMs
    found = split_candidates(ARCHS["sm_90"], SMS, RANK)
    assert {cut.split for cut in found if cut.block == 64} == {4, 8, 16}


def test_where_shared_memory_is_short_large_tiles_have_fewer_stages():
    # 2 x 128 x 128 x 2 bytes are 64 KiB a stage but one; an SM of sm_120 has 99 KiB for a program
    stages = {cut.stages for cut in split_candidates(ARCHS["sm_120"], SMS, RANK) if cut.block == 128}
    assert stages == {2}


@pytest.mark.parametrize("cut", [SplitConfig(32, 2, 4), SplitConfig(128, 2, 3, MERGE_FAN_IN)], ids=str)
def test_the_compiler_asks_for_about_as_much_shared_memory(cut):
    compiled = compile_variant(attention_variant(cut, "bf16", group=8, head_dim=128), "sm_90")
    assert compiled.spill_bytes == 0
    assert compiled.shared_bytes == pytest.approx(
        split_shared_bytes(cut, RANK), rel=0.1
    )  # versions differ in a few rows


def test_what_spills_is_refused_and_each_code_compiled_once(monkeypatch):
    asked = []

    def compiles(code, arch):
        asked.append(code)
        return type("Compiled", (), {"spill_bytes": 16 if code.num_warps == 8 else 0})

    monkeypatch.setattr(shapes, "compile_variant", compiles)
    shapes._spill_bytes.cache_clear()
    try:
        assert RANK.rejection(SplitConfig(128, 8, 3, 4), "sm_90") == "spills 16 bytes a thread"
        assert (
            RANK.rejection(SplitConfig(128, 8, 3, 16), "sm_90") == "spills 16 bytes a thread"
        )  # parts are no other code
        assert RANK.rejection(SplitConfig(128, 4, 3, 16), "sm_90") == ""
        assert RANK.rejection(SplitConfig(128, 4, 3, 17), "sm_90") == ""  # a level more is
    finally:
        shapes._spill_bytes.cache_clear()
    assert [(code.num_warps, code.constexprs["LEVELS"]) for code in asked] == [(8, 1), (4, 1), (4, 2)]


def test_bytes_of_a_cache_by_hand():
    assert RANK.streamed_bytes == 2 * 32 * 8192 * 128 * 2
    assert RANK._replace(context=65, page_size=64).streamed_bytes == 2 * 32 * 128 * 128 * 2  # two pages

"""The static model and the space of the GEMM: predictions by hand, and what must hold of any."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.configs import cost_model
from kernels.configs.config import GEMM_TOKEN_CLASSES, LinearConfig, layer_shards
from kernels.configs.cost_model import gemm_programs_per_sm, predict_gemm
from kernels.configs.dispatch import GEMM, SKINNY, ranked_candidates, rule_config, search_space
from kernels.configs.space import FP32_GEMM_CONFIG, gemm_candidates
from kernels.linear import work
from specs.gpus import ARCHS, GPUS
from specs.roofline import Ceilings, floor_seconds

few = settings(max_examples=50, deadline=None, derandomize=True, database=None)
H200, HOPPER = GPUS["h200_sxm"], ARCHS["sm_90"]
WIDE = LinearConfig(256, 128, 64, 1, 8, 4, tma=True)
ON = st.sampled_from(list(ARCHS.values()))
SHAPE = st.fixed_dictionaries({
    "tokens": st.integers(65, 40_000), "n": st.integers(1, 60_000), "k": st.integers(1, 30_000)
})  # fmt: skip


def test_64_tokens_are_the_skinny_linears_and_65_the_gemms():
    assert (search_space(64), search_space(65)) == (SKINNY, GEMM)


def test_a_prediction_by_hand():
    # 132 tiles, one an SM, 128 steps. Loading: 384 x 8192 x 2 bytes = 6.29 MB; ahead are three stages of 48 KiB, 2.107
    # times what 70 GB/s need in 1 us, so 0.988 of them: 91.0 us. Multiplying: 2 x 32768 x 8192 = 537 MFLOP at
    # 0.9 x 989.5e12 / 132 x 32768 / (32768 + 8 x 384) = 6.168e12: 87.0 us. Both: (91.0^4 + 87.0^4)^(1/4) = 105.9 us.
    # Storing 65536 bytes: 1 us + 0.94 us. Launch: 1.8 us. Memory would have done in 71 us.
    found = predict_gemm(WIDE, H200, 1, "bf16", tokens=256, n=66 * 256, k=8192)
    assert found.seconds == pytest.approx(1.8e-6 + 105.9e-6 + 1.94e-6, rel=2e-3)
    assert found[1:] == (1, 256 * 64 * 2 * 3, 36364)


def test_one_tile_beyond_a_round_costs_a_round():
    one, two = (predict_gemm(WIDE, H200, 1, "bf16", tokens=256, n=n * 256, k=8192).seconds for n in (66, 67))
    assert 1.9 < two / one < 2


def test_parts_pay_where_tiles_leave_sms_idle():
    shape = {"tokens": 128, "n": 33 * 256, "k": 8192}
    assert (
        predict_gemm(WIDE._replace(split=4), H200, 1, "bf16", **shape).seconds
        < 0.5 * predict_gemm(WIDE, H200, 1, "bf16", **shape).seconds
    )


def test_without_matrix_units_a_prediction_is_that_of_multiply_adds():
    shape = {"tokens": 4096, "n": 8192, "k": 8192}
    assert predict_gemm(FP32_GEMM_CONFIG, H200, 2, "fp32", **shape).seconds > 2 * 4096 * 8192 * 8192 / 67e12


def test_programs_that_an_sm_holds_by_hand():
    # 4 x 384 x 64 x 2 bytes and a piece of 128 x 64 x 2 = 208 KiB; 128 sums and 100 more registers x 256 threads
    assert cost_model.gemm_shared_bytes(HOPPER, WIDE, "bf16") == 208 * 1024
    assert gemm_programs_per_sm(HOPPER, WIDE, "bf16") == 1
    assert (
        gemm_programs_per_sm(HOPPER, LinearConfig(64, 64, 64, 1, 4, 3, tma=True), "bf16") == 3
    )  # 228 / (48 + 8 + 1) = 4; 132 registers: 3
    assert gemm_programs_per_sm(HOPPER, WIDE, "bf16", registers=128, shared=0) == 2


def test_sums_in_tensor_memory_are_columns_of_512():
    # flattened a loop keeps two tiles of 128 columns each, in parts one; shared memory would hold three
    narrow = LinearConfig(128, 128, 64, 1, 8, 3, tma=True)
    on = ARCHS["sm_100"]
    assert gemm_programs_per_sm(on, narrow, "bf16", registers=64, shared=1024) == 2
    assert gemm_programs_per_sm(on, narrow._replace(split=2), "bf16", registers=64, shared=1024) == 4
    assert gemm_programs_per_sm(on, WIDE, "bf16", registers=64, shared=1024) == 1


@few
@given(on=ON, shape=SHAPE, dtype=st.sampled_from(["bf16", "fp16", "fp32"]))
def test_every_shape_has_a_configuration_that_fits_and_none_beats_the_datasheet(on, shape, dtype):
    config, prediction = ranked_candidates(on, dtype, **shape)[0]
    assert rule_config(on, dtype, **shape) == config
    assert gemm_programs_per_sm(on, config, dtype) > 0
    assert config.tma == (on.tma and dtype != "fp32")
    floor = floor_seconds(work(dtype=dtype, **shape), dtype, Ceilings.datasheet(on.representative))
    assert prediction.seconds > floor


@few
@given(on=ON, shape=SHAPE)
def test_no_part_is_idle_and_no_tile_twice_as_wide_as_the_tokens(on, shape):
    for config in gemm_candidates(on, "bf16", **shape):
        assert (config.split - 1) * config.steps(shape["k"]) * config.depth < shape["k"]
        assert config.tokens < 2 * shape["tokens"]


def test_few_tokens_and_narrow_shards_share_tiles_and_large_ones_do_not():
    for name in ("sm_90", "sm_100"):
        assert rule_config(ARCHS[name], "bf16", tokens=128, n=1280, k=8192).split > 1
        assert rule_config(ARCHS[name], "bf16", tokens=8192, n=57344, k=8192).split == 1


def test_a_layer_at_every_count_of_tokens_needs_few_configurations():
    """Each one costs a user the time to compile it."""
    shapes = [
        {"tokens": tokens, "n": shard.n, "k": shard.k} for shard in layer_shards() for tokens in GEMM_TOKEN_CLASSES
    ]
    assert len({rule_config(HOPPER, "bf16", **shape) for shape in shapes}) <= 16


def test_the_two_models_share_what_memory_and_launches_cost():
    assert cost_model.LAUNCH_SECONDS is cost_model.LAUNCH_SECONDS
    assert cost_model.READ_EFFICIENCY is cost_model.READ_EFFICIENCY

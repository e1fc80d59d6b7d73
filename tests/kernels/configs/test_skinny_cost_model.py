"""The static model: Little's law and one prediction by hand, and what must hold of any."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kernels.configs.config import LinearConfig, token_class
from kernels.configs.cost_model import needed_bytes_per_sm, predict_skinny, skinny_programs_per_sm, skinny_shared_bytes
from kernels.linear import work
from specs.gpus import ARCHS, GPUS
from specs.roofline import Ceilings, floor_seconds

few = settings(max_examples=100, deadline=None, derandomize=True, database=None)
H200, HOPPER = GPUS["h200_sxm"], ARCHS["sm_90"]
BASE = LinearConfig(128, 16, 64, 1, 4, 4)
GPU = st.sampled_from([on.representative for on in ARCHS.values()])
SHAPE = st.fixed_dictionaries({"tokens": st.integers(1, 64), "n": st.integers(1, 60_000), "k": st.integers(64, 30_000)})
CONFIG = st.builds(
    LinearConfig,
    rows=st.sampled_from([64, 128]),
    tokens=st.just(64),
    depth=st.sampled_from([64, 128]),
    split=st.integers(1, 8),
    warps=st.sampled_from([4, 8]),
    stages=st.integers(2, 6),
)


def seconds(config, gpu=H200, ctas=2, dtype="bf16", **shape):
    return predict_skinny(config, gpu, ctas, dtype, **shape).seconds


def test_littles_law_by_hand():
    assert needed_bytes_per_sm(H200) == 36364  # 4.8e12 bytes/s x 1 us / 132 SMs
    assert 30_000 <= needed_bytes_per_sm(H200) <= 40_000
    assert needed_bytes_per_sm(GPUS["a100_sxm"]) == 18880  # 2.039e12 x 1 us / 108
    with pytest.raises(ValueError, match="SMs"):
        needed_bytes_per_sm(replace(H200, sms=None))


def test_a_prediction_by_hand():
    # 132 programs, one an SM. In flight: 128 x 64 x 2 bytes x 3 stages = 49152, 1.352 times the need; that draws
    # 1.352 / (1 + 1.352^4)^(1/4) = 0.9366 of 0.9 x 4.8 TB/s = 4.046 TB/s. Bytes: W 276.82e6, x 0.26e6, y 0.54e6.
    # 277.63e6 / 4.046e12 = 68.6 us; the SM's own port (48 us), L2 (48 us) and arithmetic (4 us) are faster.
    found = predict_skinny(BASE, H200, 2, "bf16", tokens=16, n=132 * 128, k=8192)
    assert found.seconds == pytest.approx(1.8e-6 + 68.6e-6, rel=1e-3)
    assert found[1:] == (1, 49152, 36364)


def test_the_port_of_the_busiest_sm_can_be_the_limit():
    # 133 programs for 132 SMs: one SM does two, each reading (128 + 16) x 8192 x 2 bytes = 2.36 MB at 55 GB/s
    found = predict_skinny(BASE._replace(stages=6), H200, 2, "bf16", tokens=16, n=133 * 128, k=8192)
    assert found.seconds == pytest.approx(1.8e-6 + 2 * 2_359_296 / 5.5e10, rel=1e-3)


def test_a_split_adds_its_reduction_and_nothing_else_where_the_memory_is_the_limit():
    shape = {"tokens": 16, "n": 132 * 128 * 4, "k": 8192}  # four programs an SM, eight when split; two at once
    added = seconds(BASE._replace(split=2), **shape) - seconds(BASE, **shape)
    # 1 us of trips to L2, and two partial sums of 128 x 16 x 4 bytes through a port of 55 GB/s
    assert added == pytest.approx(1e-6 + 2 * 8192 / 5.5e10, rel=1e-6)


def test_work_for_half_of_the_sms_is_slower_than_the_same_cut_for_all():
    # 66 programs ask for half of 1.352 times the need, which draws 0.645 of the bandwidth; 132 draw 0.937
    shape = {"tokens": 16, "n": 66 * 128, "k": 28672}
    assert seconds(BASE, **shape) > 1.4 * seconds(BASE._replace(split=2), **shape)


def test_padding_of_tokens_costs_arithmetic():
    shape = {"tokens": 1, "n": 57344, "k": 8192}
    narrow, padded = LinearConfig(8, 1, 2048, 1, 4, 1, matrix=False), LinearConfig(8, 64, 2048, 1, 4, 1, matrix=False)
    assert seconds(padded, ctas=4, **shape) > seconds(narrow, ctas=4, **shape)


@few
@given(config=CONFIG, gpu=GPU, ctas=st.integers(1, 8), shape=SHAPE)
def test_more_bytes_in_flight_are_never_slower(config, gpu, ctas, shape):
    before = predict_skinny(config, gpu, ctas, "bf16", **shape)
    deeper = predict_skinny(config._replace(stages=config.stages + 1), gpu, ctas, "bf16", **shape)
    long = config.steps(shape["k"]) >= config.stages
    assert (deeper.in_flight_bytes_per_sm > before.in_flight_bytes_per_sm) == long
    assert deeper.seconds <= before.seconds
    assert seconds(config, gpu, ctas + 1, **shape) <= before.seconds


@few
@given(config=CONFIG, gpu=GPU, ctas=st.integers(1, 8), shape=SHAPE, dtype=st.sampled_from(["bf16", "fp16", "fp32"]))
def test_no_prediction_beats_the_datasheet(config, gpu, ctas, shape, dtype):
    floor = floor_seconds(work(dtype=dtype, **shape), dtype, Ceilings.datasheet(gpu))
    assert seconds(config, gpu, ctas, dtype, **shape) > floor


@few
@given(config=CONFIG, gpu=GPU, ctas=st.integers(1, 8), shape=SHAPE)
def test_twice_the_rows_are_never_faster(config, gpu, ctas, shape):
    n = shape["n"]
    assume(config.programs(n) >= gpu.sms)  # below, more programs draw more, and x is read once: by 5 % faster at most
    assert seconds(config, gpu, ctas, **shape | {"n": 2 * n}) >= seconds(config, gpu, ctas, **shape)


def test_what_does_not_fit_has_no_time():
    large = LinearConfig(128, 64, 128, 1, 4, 6)  # 6 x 192 x 128 x 2 = 288 KiB of 227
    assert skinny_programs_per_sm(HOPPER, large, "bf16") == 0
    assert predict_skinny(large, H200, 0, "bf16", tokens=64, n=8192, k=8192) == (None, 0, 0, 36364)


def test_programs_that_an_sm_holds_by_what_the_compiler_told_or_by_what_is_assumed():
    assert skinny_shared_bytes(BASE, "bf16") == 4 * 144 * 64 * 2  # 72 KiB
    assert skinny_programs_per_sm(HOPPER, BASE, "bf16") == 3  # 228 / 73; 128 registers x 128 threads would allow 4
    assert skinny_programs_per_sm(HOPPER, BASE, "bf16", shared=0) == 4
    assert skinny_programs_per_sm(HOPPER, BASE, "bf16", shared=0, registers=255) == 2  # 255 is handed out as 256
    stream = LinearConfig(8, 1, 2048, 1, 4, 1, matrix=False)
    assert skinny_shared_bytes(stream, "bf16") == 0
    assert skinny_programs_per_sm(HOPPER, stream, "bf16") == 6  # 65536 / (80 x 128) = 6.4


def test_a_program_has_no_more_in_flight_than_it_has_to_read():
    shape = {"tokens": 16, "n": 132 * 64, "k": 128}
    deep = LinearConfig(
        64, token_class(16), 64, 1, 4, 6
    )  # k is two steps of 64 = 16 KiB of W, and five stages would be 40
    assert predict_skinny(deep, H200, 2, "bf16", **shape).in_flight_bytes_per_sm == 64 * 128 * 2

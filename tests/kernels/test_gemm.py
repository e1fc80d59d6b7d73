"""The GEMM under the interpreter, whose few programs take several tiles each: odd sizes, every path, NaN before."""

import math
import sys

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels import gemm, linear
from kernels.configs.config import LinearConfig
from kernels.configs.space import FP32_GEMM_CONFIG
from kernels.gate_up import TRITON_GEMM_GATE_UP
from kernels.gemm import TRITON_GEMM
from kernels.kernel import RandomTensors
from kernels.operands import RING_LENGTH, Workspace
from specs.errors import UserError
from specs.roofline import Work
from tests.kernels.interpreter import interpreted, needs_interpreter, stock_dot

pytestmark = needs_interpreter
few = settings(max_examples=5, deadline=None, derandomize=True, database=None)
RTOL = {**linear.RTOL, "bf16": 2**-7}  # the interpreter cuts fp32 to bf16 where a GPU rounds
DTYPE = st.sampled_from(list(RTOL))
CPU = torch.device("cpu")

CONFIGS = (
    LinearConfig(64, 64, 32, 1, 4, 3),
    LinearConfig(128, 64, 32, 3, 4, 3),
    LinearConfig(64, 128, 64, 1, 8, 4, tma=True),
    LinearConfig(256, 64, 64, 1, 8, 4, tma=True),
    LinearConfig(128, 64, 64, 2, 4, 4, tma=True),
)
SHAPE = {"tokens": st.integers(65, 150), "n": st.integers(1, 300), "k": st.integers(1, 300)}


def drawn(kernel, dtype, **shape):
    return kernel.inputs(RandomTensors(5), **shape, dtype=dtype)


@few
@given(**SHAPE, dtype=DTYPE)
@example(tokens=65, n=1, k=1, dtype="bf16")
@example(tokens=129, n=129, k=65, dtype="fp16")  # one past the block on each axis
@example(tokens=129, n=1153, k=65, dtype="bf16")  # groups of eight row blocks and a last one of fewer
def test_as_it_chooses(tokens, n, k, dtype):
    inputs = drawn(TRITON_GEMM, dtype, tokens=tokens, n=n, k=k)
    with interpreted(gemm, gemm):
        TRITON_GEMM.run(**inputs)
    assert TRITON_GEMM.relative_error(inputs) <= RTOL[dtype]


@few
@given(config=st.sampled_from(CONFIGS), **SHAPE, dtype=DTYPE)
@example(config=CONFIGS[0], tokens=129, n=600, k=64, dtype="bf16")  # 3 x 10 tiles for three programs
@example(config=CONFIGS[1], tokens=128, n=256, k=96, dtype="bf16")  # three parts of one step each
@example(config=CONFIGS[1], tokens=65, n=130, k=33, dtype="fp16")  # the third part has nothing to do
@example(config=CONFIGS[2], tokens=129, n=200, k=136, dtype="bf16")  # the descriptors reach beyond every edge
@example(config=CONFIGS[3], tokens=100, n=296, k=136, dtype="fp16")  # in four pieces, the last one ragged
@example(config=CONFIGS[4], tokens=129, n=136, k=136, dtype="bf16")
@example(config=CONFIGS[4], tokens=70, n=131, k=136, dtype="bf16")  # no descriptor: rows of y begin off 16 bytes
@example(config=CONFIGS[2], tokens=70, n=128, k=137, dtype="bf16")  # no descriptor: rows of x and W do
def test_in_every_configuration(config, tokens, n, k, dtype):
    """Partial sums are poisoned with NaN before, and every counter is zero after."""
    scratch, inputs = Workspace(CPU), drawn(TRITON_GEMM, dtype, tokens=tokens, n=n, k=k)
    with interpreted(gemm, gemm):
        for _ in range(RING_LENGTH + 1 if config.split > 1 else 1):  # every slot, and the first one again
            inputs["out"].fill_(math.nan)
            scratch.partials.fill_(math.nan)
            gemm.launch(**inputs, config=config, scratch=scratch)
            assert TRITON_GEMM.relative_error(inputs) <= RTOL[dtype]
            assert not scratch.arrived.any()


@few
@given(config=st.sampled_from(CONFIGS), **SHAPE | {"n": st.integers(1, 150).map(lambda half: 2 * half)}, dtype=DTYPE)
@example(config=CONFIGS[3], tokens=129, n=400, k=136, dtype="bf16")  # two pieces of 128 columns, 64 features each
@example(config=CONFIGS[4], tokens=65, n=272, k=136, dtype="fp16")
@example(config=CONFIGS[1], tokens=65, n=2, k=1, dtype="bf16")
def test_gate_and_up_in_every_configuration(config, tokens, n, k, dtype):
    inputs = drawn(TRITON_GEMM_GATE_UP, dtype, tokens=tokens, n=n, k=k)
    with interpreted(gemm, gemm):
        gemm.launch(**inputs, config=config, swiglu=True, scratch=Workspace(CPU))
    assert TRITON_GEMM_GATE_UP.relative_error(inputs) <= 2 * RTOL[dtype]  # of a product of two


def test_gate_and_up_as_it_chooses():
    inputs = drawn(TRITON_GEMM_GATE_UP, "bf16", tokens=70, n=300, k=65)
    with interpreted(gemm, gemm):
        TRITON_GEMM_GATE_UP.run(**inputs)
    assert TRITON_GEMM_GATE_UP.relative_error(inputs) <= 2 * RTOL["bf16"]


def test_the_reference_of_gate_and_up_by_hand():
    # gate 2 and up 3 of the first feature, gate -1 and up 4 of the second: 2 / (1 + e^-2) x 3 and -1 / (1 + e) x 4
    x, weight = torch.eye(1), torch.tensor([[2.0], [3.0], [-1.0], [4.0]])
    expected = [[6 / (1 + math.exp(-2)), -4 / (1 + math.e)]]
    assert TRITON_GEMM_GATE_UP.reference(x, weight).tolist() == [pytest.approx(expected[0])]


def test_work_of_gate_and_up_by_hand():
    # W 4 x 3, x 5 x 3 and y 5 x 2 in 2 bytes; a multiply and an add for each of 5 x 4 x 3
    assert TRITON_GEMM_GATE_UP.work(tokens=5, n=4, k=3, dtype="bf16") == Work(120, 2 * (12 + 15 + 10))


def test_an_odd_number_of_rows_is_no_gate_and_up():
    with pytest.raises(UserError, match="weight has 5 rows; SwiGLU takes a gate and an up"):
        TRITON_GEMM_GATE_UP.run(torch.zeros(65, 8), torch.zeros(5, 8), torch.zeros(65, 2))


def test_weights_that_begin_off_16_bytes_are_fetched_without_descriptors():
    inputs = drawn(TRITON_GEMM, "bf16", tokens=66, n=65, k=128)
    inputs["weight"] = inputs["weight"].view(-1)[4 : 4 + 64 * 128].view(64, 128)
    inputs["out"] = inputs["out"][:, :64].contiguous()
    with interpreted(gemm, gemm):
        gemm.launch(**inputs, config=CONFIGS[2], scratch=Workspace(CPU))
    assert TRITON_GEMM.relative_error(inputs) <= RTOL["bf16"]


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[1], CONFIGS[4]], ids=str)
def test_two_calls_give_the_same_bits(config):
    first = drawn(TRITON_GEMM, "fp32", tokens=70, n=136, k=300)
    second = first | {"out": torch.full_like(first["out"], math.nan)}
    with interpreted(gemm, gemm):
        gemm.launch(**first, config=config)
        gemm.launch(**second, config=config)
    assert torch.equal(first["out"], second["out"])


def test_parts_are_added_in_their_order():
    """1e8 + 1 − 1e8 is 0 in fp32 in this order, and 1 in another."""
    x, weight, out = torch.ones(65, 96), torch.zeros(1, 96), torch.full((65, 1), math.nan)
    weight[0, 0], weight[0, 32], weight[0, 64] = 1e8, 1.0, -1e8
    with interpreted(gemm, gemm):
        gemm.launch(x, weight, out, CONFIGS[1], scratch=Workspace(CPU))
    assert not out.any()


def test_what_arrived_before_the_call_spoils_it():
    scratch, inputs = Workspace(CPU), drawn(TRITON_GEMM, "fp32", tokens=65, n=64, k=96)
    with interpreted(gemm, gemm):
        gemm.launch(**inputs, config=CONFIGS[1], scratch=scratch)
        scratch.partials.fill_(math.nan)
        scratch.arrived.fill_(1)
        inputs["out"].fill_(math.nan)
        gemm.launch(**inputs, config=CONFIGS[1], scratch=scratch)
    assert math.isnan(TRITON_GEMM.relative_error(inputs))


@pytest.mark.parametrize(("tokens", "n"), [(1, 1), (2, 20), (3, 17), (5, 8)])
def test_every_tile_is_walked_once_group_after_group(tokens, n):
    """Row blocks in groups of eight and all token blocks of a group, before the next one."""
    rows, blocks = walked(tokens, n)
    assert sorted(zip(rows, blocks, strict=True)) == [(row, token) for row in range(n) for token in range(tokens)]
    groups = [row // gemm.GROUP_ROW_BLOCKS for row in rows]
    assert groups == sorted(groups)
    assert blocks[: min(n, 8)] == [0] * min(n, 8)


HERE = sys.modules[__name__]


@triton.jit
def _store_places(out, token_blocks, row_blocks, TILES: tl.constexpr, GROUP: tl.constexpr):
    for tile in range(TILES):
        row, token = gemm.place(tile, row_blocks, token_blocks, GROUP)
        tl.store(out + 2 * tile, row)
        tl.store(out + 2 * tile + 1, token)


def walked(tokens, n):
    out = torch.zeros(tokens * n, 2, dtype=torch.int32)
    with interpreted(gemm, HERE):
        HERE._store_places[(1,)](out, tokens, n, tokens * n, gemm.GROUP_ROW_BLOCKS)
    return out[:, 0].tolist(), out[:, 1].tolist()


@pytest.mark.parametrize("config", CONFIGS[:2], ids=str)
def test_however_many_programs_take_turns_the_bits_are_the_same(config):
    inputs, results = drawn(TRITON_GEMM, "fp32", tokens=130, n=130, k=100), []
    for programs in (1, 2, 7, 1000):
        inputs["out"].fill_(math.nan)
        with interpreted(gemm, gemm):
            gemm.launch(**inputs, config=config, programs=programs, scratch=Workspace(CPU))
        assert TRITON_GEMM.relative_error(inputs) <= RTOL["fp32"]
        results.append(inputs["out"].clone())
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_rows_of_y_beyond_2_31_elements_are_found():
    tokens, n, k = 2**16, 2**15 + 128, 32
    out = torch.empty(tokens, n, dtype=torch.float16)  # 2.16e9 elements, of which the last rows alone take memory
    x, weight = torch.ones(64, k, dtype=torch.float16), torch.ones(64, k, dtype=torch.float16)
    with interpreted(gemm, HERE):
        HERE._last_tile[(1,)](x, weight, out, tokens - 64, n - 64, tokens, n, k)
    assert (out[-64:, -64:] == k).all()


@triton.jit
def _last_tile(x, weight, out, first_token, first_row, tokens, n, k):
    total = gemm.product(x, weight, None, None, 0, 0, 0, k, 64, 64, k, 64, 64, 32, 3, True)
    gemm.store(total, out, None, first_token, first_row, tokens, n, 64, 64, 64, False)


def test_stock_interpreter_multiplies_bf16_as_integers():
    inputs = drawn(TRITON_GEMM, "bf16", tokens=65, n=32, k=64)
    with interpreted(gemm, gemm, create_dot=stock_dot):
        TRITON_GEMM.run(**inputs)
    assert TRITON_GEMM.relative_error(inputs) > 1  # once this fails, widened_dot is no longer needed
    with interpreted(gemm, gemm):
        TRITON_GEMM.run(**inputs)
    assert TRITON_GEMM.relative_error(inputs) <= RTOL["bf16"]


def test_fp32_has_a_configuration_of_its_own():
    assert FP32_GEMM_CONFIG.split == 1
    inputs = drawn(TRITON_GEMM, "fp32", tokens=65, n=70, k=33)
    with interpreted(gemm, gemm):
        gemm.launch(**inputs, config=FP32_GEMM_CONFIG)
    assert TRITON_GEMM.relative_error(inputs) <= RTOL["fp32"]

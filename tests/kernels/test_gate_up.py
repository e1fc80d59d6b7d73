"""Gate and up projection with SwiGLU in the epilogue: every configuration under the interpreter, and by hand."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels import linear, skinny
from kernels.configs.config import LinearConfig
from kernels.gate_up import (
    GATE_UPS,
    TORCH_GATE_UP,
    TRITON_SKINNY_GATE_UP,
    TRITON_SKINNY_GATE_UP_PDL,
    reference_of_alternating,
    reference_of_halves,
    select_gate_up,
)
from kernels.kernel import RandomTensors
from kernels.operands import RING_LENGTH, Workspace
from specs.errors import UserError
from specs.roofline import Work
from tests.kernels.interpreter import interpreted, needs_interpreter

few = settings(max_examples=5, deadline=None, derandomize=True, database=None)
RTOL = {**linear.RTOL, "bf16": 2**-7}  # the interpreter cuts fp32 to bf16 where a GPU rounds
CONFIGS = (
    LinearConfig(4, 4, 64, 1, 4, 1, matrix=False),
    LinearConfig(2, 1, 64, 3, 4, 3, matrix=False),
    LinearConfig(64, 16, 32, 1, 4, 3),
    LinearConfig(64, 64, 32, 3, 4, 3),
    LinearConfig(64, 64, 64, 2, 4, 3, tma=True),
)
SHAPE = {"tokens": st.integers(1, 64), "features": st.integers(1, 80), "k": st.integers(1, 300)}
DTYPE = st.sampled_from(list(RTOL))


@needs_interpreter
@few
@given(**SHAPE, dtype=DTYPE)
@example(tokens=1, features=1, k=1, dtype="bf16")
@example(tokens=3, features=7, k=1025, dtype="fp32")
@example(tokens=17, features=33, k=129, dtype="fp16")  # one feature past the block
def test_skinny_gate_up_as_it_chooses(tokens, features, k, dtype):
    inputs = TRITON_SKINNY_GATE_UP.inputs(RandomTensors(5), tokens=tokens, n=2 * features, k=k, dtype=dtype)
    with interpreted(skinny):
        TRITON_SKINNY_GATE_UP.run(**inputs)
    assert TRITON_SKINNY_GATE_UP.relative_error(inputs) <= RTOL[dtype]


@needs_interpreter
@few
@given(config=st.sampled_from(CONFIGS), **SHAPE, dtype=DTYPE)
@example(config=CONFIGS[1], tokens=1, features=2, k=192, dtype="bf16")  # whole tiles, nothing masked
@example(config=CONFIGS[3], tokens=64, features=64, k=96, dtype="bf16")  # three parts of one step each
@example(config=CONFIGS[3], tokens=5, features=35, k=33, dtype="fp16")  # the third part has nothing to do
@example(config=CONFIGS[4], tokens=33, features=35, k=136, dtype="bf16")  # the descriptor reaches beyond n and k
def test_skinny_gate_up_in_every_configuration(config, tokens, features, k, dtype):
    """Partial sums are poisoned with NaN before, and every counter is zero after."""
    scratch = Workspace(torch.device("cpu"))
    shape = {"tokens": min(tokens, config.tokens), "n": 2 * features, "k": k}
    inputs = TRITON_SKINNY_GATE_UP.inputs(RandomTensors(5), **shape, dtype=dtype)
    with interpreted(skinny):
        for _ in range(RING_LENGTH + 1):  # every slot, and the first one again
            inputs["out"].fill_(math.nan)
            scratch.partials.fill_(math.nan)
            skinny.launch(**inputs, config=config, swiglu=True, scratch=scratch)
            assert TRITON_SKINNY_GATE_UP.relative_error(inputs) <= RTOL[dtype]
            assert not scratch.arrived.any()


@needs_interpreter
def test_nothing_is_written_beyond_half_the_rows():
    whole = torch.full((4, 35), math.nan)
    inputs = TRITON_SKINNY_GATE_UP.inputs(RandomTensors(5), tokens=3, n=70, k=64, dtype="fp32") | {"out": whole[:3]}
    with interpreted(skinny):
        skinny.launch(**inputs, config=CONFIGS[2], swiglu=True)
    assert whole[3].isnan().all()
    assert TRITON_SKINNY_GATE_UP.relative_error(inputs) <= RTOL["fp32"]


@needs_interpreter
def test_a_weight_with_all_gates_first_gives_another_result():
    inputs = TRITON_SKINNY_GATE_UP.inputs(RandomTensors(5), tokens=2, n=64, k=64, dtype="fp32")
    arranged = torch.stack(inputs["weight"].chunk(2), dim=1).reshape(64, 64)
    with interpreted(skinny):
        skinny.launch(**inputs | {"weight": arranged}, config=CONFIGS[2], swiglu=True)
    assert TORCH_GATE_UP.relative_error(inputs) <= RTOL["fp32"]
    assert TRITON_SKINNY_GATE_UP.relative_error(inputs) > 0.5


def silu(gate):
    return gate / (1 + math.exp(-gate))


def test_references_by_hand():
    x, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 2.0]])
    # products 1, 2, 3, 4: gates are 1 and 2 with ups 3 and 4, or 1 and 3 with ups 2 and 4
    assert reference_of_halves(x, weight)[0].tolist() == pytest.approx([3 * silu(1), 4 * silu(2)])
    assert reference_of_alternating(x, weight)[0].tolist() == pytest.approx([2 * silu(1), 4 * silu(3)])


def test_references_agree_with_silu_of_the_linear_over_several_slices():
    x, weight = torch.randn(2, 2**20), torch.randn(18, 2**20)  # 2^22 / 2^20: slices of four rows, four and one
    products = linear.reference(x, weight)
    gate, up = products[:, 0::2], products[:, 1::2]
    torch.testing.assert_close(reference_of_alternating(x, weight), torch.nn.functional.silu(gate) * up)


def test_work_by_hand():
    # W 6 x 4, x 2 x 4, out 2 x 3, 2 bytes each; a multiply and an add for each of 2 x 6 x 4
    assert TORCH_GATE_UP.work(tokens=2, n=6, k=4, dtype="bf16") == Work(96, 2 * (24 + 8 + 6))


@pytest.mark.parametrize("dtype", list(TORCH_GATE_UP.rtol))
def test_torch_on_cpu(dtype):
    inputs = TORCH_GATE_UP.inputs(RandomTensors(1), tokens=3, n=66, k=130, dtype=dtype)
    assert math.isnan(TORCH_GATE_UP.relative_error(inputs)), "unwritten output must show"
    TORCH_GATE_UP.run(**inputs)
    assert TORCH_GATE_UP.relative_error(inputs) <= TORCH_GATE_UP.rtol[dtype]
    inputs["out"] *= 1.05
    assert TORCH_GATE_UP.relative_error(inputs) > TORCH_GATE_UP.rtol[dtype]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"out": torch.zeros(2, 4)}, r"out\[2, 4\] do not belong together.*out\[tokens, n / 2\]"),
        ({"weight": torch.zeros(5, 8)}, r"weight has 5 rows.*even"),
        ({"weight": torch.zeros(4, 16)[:, :8]}, r"weight has .* strides \(16, 1\)"),
        ({"x": torch.zeros(65, 8), "out": torch.zeros(65, 2)}, "65 tokens.*1 to 64"),
    ],
)
def test_operands_that_would_touch_foreign_memory_are_refused(fault, message):
    good = {"x": torch.zeros(2, 8), "weight": torch.zeros(4, 8), "out": torch.zeros(2, 2)}
    with pytest.raises(UserError, match=message):
        TRITON_SKINNY_GATE_UP.run(**good | fault)


def test_the_row_for_a_token_count():
    assert select_gate_up("torch", 4096) is TORCH_GATE_UP
    assert select_gate_up("triton", 64) is TRITON_SKINNY_GATE_UP
    assert select_gate_up("triton-pdl", 1) is TRITON_SKINNY_GATE_UP_PDL
    assert len({kernel.op for kernel in GATE_UPS}) == 1
    with pytest.raises(UserError, match=r"'cuda' of a gate_up_swiglu; choose one of torch, triton"):
        select_gate_up("cuda", 1)
    with pytest.raises(UserError, match=r"no triton-pdl gate_up_swiglu takes 65 tokens"):
        select_gate_up("triton-pdl", 65)

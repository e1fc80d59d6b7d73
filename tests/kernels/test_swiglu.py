"""SwiGLU alone: under the interpreter, by hand, and what it refuses."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels import swiglu
from kernels.kernel import RandomTensors
from kernels.swiglu import TORCH_SWIGLU, TRITON_SWIGLU
from specs.errors import UserError
from specs.roofline import Work
from tests.kernels.interpreter import interpreted, needs_interpreter

few = settings(max_examples=8, deadline=None, derandomize=True, database=None)
RTOL = {**swiglu.RTOL, "bf16": 2**-7}  # the interpreter cuts fp32 to bf16 where a GPU rounds


@needs_interpreter
@few
@given(tokens=st.integers(1, 9), intermediate=st.integers(1, 3000), dtype=st.sampled_from(list(RTOL)))
@example(tokens=1, intermediate=1, dtype="bf16")
@example(tokens=3, intermediate=1025, dtype="fp16")  # one past the block
@example(tokens=2, intermediate=3584, dtype="bf16")  # three and a half blocks a token
@example(tokens=5, intermediate=512, dtype="fp32")  # whole blocks
def test_swiglu(tokens, intermediate, dtype):
    inputs = TRITON_SWIGLU.inputs(RandomTensors(5), tokens=tokens, intermediate=intermediate, dtype=dtype)
    with interpreted(swiglu):
        TRITON_SWIGLU.run(**inputs)
    assert TRITON_SWIGLU.relative_error(inputs) <= RTOL[dtype]


@needs_interpreter
@pytest.mark.parametrize("gate", [-1e4, 1e4])
def test_far_gates_give_no_nan(gate):
    gate_up, out = torch.tensor([[gate, 2.0]]), torch.full((1, 1), math.nan)
    with interpreted(swiglu):
        TRITON_SWIGLU.run(gate_up, out)
    assert out.item() == (0 if gate < 0 else 2e4)


def test_reference_by_hand():
    gate_up = torch.tensor([[0.0, 1.0, 5.0, 3.0]])  # gates 0 and 1, ups 5 and 3
    assert TORCH_SWIGLU.reference(gate_up)[0].tolist() == pytest.approx([0, 3 / (1 + math.exp(-1))], rel=1e-12)


def test_work_by_hand():
    # gate and up 2 x 4 each, out 2 x 4, 2 bytes each; five flops an element of out
    assert TORCH_SWIGLU.work(tokens=2, intermediate=4, dtype="bf16") == Work(40, 2 * 24)


@pytest.mark.parametrize("dtype", list(TORCH_SWIGLU.rtol))
def test_torch_on_cpu(dtype):
    inputs = TORCH_SWIGLU.inputs(RandomTensors(1), tokens=5, intermediate=1001, dtype=dtype)
    assert math.isnan(TORCH_SWIGLU.relative_error(inputs)), "unwritten output must show"
    TORCH_SWIGLU.run(**inputs)
    assert TORCH_SWIGLU.relative_error(inputs) <= TORCH_SWIGLU.rtol[dtype]
    inputs["out"] *= 1.05
    assert TORCH_SWIGLU.relative_error(inputs) > TORCH_SWIGLU.rtol[dtype]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"gate_up": torch.zeros(2, 9)}, r"gate_up\[2, 9\] and out\[2, 4\] do not belong together"),
        ({"out": torch.zeros(4)}, "do not belong together"),
        ({"out": torch.zeros(2, 8)[:, :4]}, r"out has .* strides \(8, 1\)"),
        ({"out": torch.zeros(2, 4).half()}, "convert them to one dtype"),
        ({"gate_up": torch.zeros(2, 8).double(), "out": torch.zeros(2, 4).double()}, "float64; triton_swiglu takes"),
    ],
)
def test_operands_that_would_touch_foreign_memory_are_refused(fault, message):
    with pytest.raises(UserError, match=message):
        TRITON_SWIGLU.run(**{"gate_up": torch.zeros(2, 8), "out": torch.zeros(2, 4)} | fault)

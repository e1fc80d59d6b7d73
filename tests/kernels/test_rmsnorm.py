"""RMSNorm with its residual: under the interpreter, against hand-computed rows, and what it refuses."""

import math
from functools import partial

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels import rmsnorm
from kernels.kernel import RandomTensors
from kernels.rmsnorm import TORCH_RMSNORM, TRITON_RMSNORM
from kernels.timing.device import current_device
from kernels.timing.pool import TensorPool
from specs.errors import UserError
from specs.roofline import Work
from tests.kernels.interpreter import interpreted, needs_interpreter

few = settings(max_examples=8, deadline=None, derandomize=True, database=None)
RTOL = {**rmsnorm.RTOL, "bf16": 2**-7}  # the interpreter cuts fp32 to bf16 where a GPU rounds
DTYPE = st.sampled_from(list(RTOL))


def ran(dtype, **shape):
    inputs = TRITON_RMSNORM.inputs(RandomTensors(5), **shape, dtype=dtype)
    with interpreted(rmsnorm):
        TRITON_RMSNORM.run(**inputs)
    return inputs


@needs_interpreter
@few
@given(tokens=st.integers(1, 20), hidden=st.integers(1, 2100), dtype=DTYPE)
@example(tokens=1, hidden=1, dtype="bf16")
@example(tokens=17, hidden=64, dtype="fp16")  # sixteen rows a program, and one more
@example(tokens=3, hidden=1024, dtype="fp32")  # whole rows, nothing masked
@example(tokens=2, hidden=8192, dtype="bf16")
@example(tokens=1, hidden=16384, dtype="fp32")
def test_rmsnorm(tokens, hidden, dtype):
    assert TRITON_RMSNORM.relative_error(ran(dtype, tokens=tokens, hidden=hidden)) <= RTOL[dtype]


@needs_interpreter
def test_total_may_be_the_residual_itself():
    inputs = TRITON_RMSNORM.inputs(RandomTensors(5), tokens=5, hidden=96, dtype="fp32")
    out, total = TRITON_RMSNORM.reference(inputs["x"], inputs["residual"].clone(), inputs["weight"])
    with interpreted(rmsnorm):
        TRITON_RMSNORM.run(**inputs | {"total": inputs["residual"]})
    assert torch.equal(inputs["residual"], total)
    torch.testing.assert_close(inputs["out"].double(), out, rtol=1e-5, atol=1e-6)


@needs_interpreter
def test_the_rounded_total_is_normed():
    """To the last bit: a norm of the exact sums would differ from it in every third element."""
    inputs = ran("fp16", tokens=4, hidden=512)
    out, total = TRITON_RMSNORM.reference(inputs["x"], inputs["residual"], inputs["weight"])
    assert torch.equal(inputs["total"], total)
    assert (inputs["out"] != out.half()).double().mean() < 0.01  # fp32 on the way decides a tie now and then


def test_reference_by_hand():
    x, residual, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 2.0]]), torch.tensor([1.0, -2.0])
    out, total = TORCH_RMSNORM.reference(x, residual, weight)
    assert total.tolist() == [[3, 4]]
    root = math.sqrt((9 + 16) / 2 + 1e-5)
    assert out[0].tolist() == pytest.approx([3 / root, -8 / root], rel=1e-12)


def test_work_by_hand():
    # x, residual, out and total 2 x 8, weight 8, 2 bytes each; five flops an element
    assert TORCH_RMSNORM.work(tokens=2, hidden=8, dtype="bf16") == Work(80, 2 * (4 * 16 + 8))


def test_in_a_pool_no_two_tensors_of_a_call_are_one():
    inputs = TORCH_RMSNORM.inputs(TensorPool(current_device(), {}), tokens=8, hidden=8, dtype="fp32")
    assert len({tensor.data_ptr() for tensor in inputs.values()}) == len(inputs)


@pytest.mark.parametrize("dtype", list(TORCH_RMSNORM.rtol))
def test_torch_on_cpu(dtype):
    inputs = TORCH_RMSNORM.inputs(RandomTensors(1), tokens=7, hidden=1000, dtype=dtype)
    TORCH_RMSNORM.run(**inputs | {"out": torch.empty_like(inputs["out"])})
    assert math.isnan(TORCH_RMSNORM.relative_error(inputs)), "an unwritten output must show"
    TORCH_RMSNORM.run(**inputs)
    assert TORCH_RMSNORM.relative_error(inputs) <= TORCH_RMSNORM.rtol[dtype]


@pytest.mark.parametrize("output", ["out", "total"])
def test_one_wrong_element_in_five_thousand_is_caught(output):
    inputs = TORCH_RMSNORM.inputs(RandomTensors(2), tokens=5, hidden=1000, dtype="fp32")
    TORCH_RMSNORM.run(**inputs)
    inputs[output][4, 999] = 0.0
    assert TORCH_RMSNORM.relative_error(inputs) > TORCH_RMSNORM.rtol["fp32"]


def test_narrow_rows_share_a_program_and_wide_ones_have_one_each():
    # 512 elements: two rows for 1024, which are 128 pieces of 16 bytes, two for each of 64 threads
    assert rmsnorm.choose_tiling(hidden=512, itemsize=2) == (2, 512, 2)
    # 5120 lie in 8192 columns: 1024 pieces, two for each of 512 threads
    assert rmsnorm.choose_tiling(hidden=5120, itemsize=2) == (1, 8192, 16)
    assert rmsnorm.choose_tiling(hidden=16384, itemsize=4) == (1, 16384, 16)
    assert rmsnorm.choose_tiling(hidden=1, itemsize=2).warps == 2


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"x": torch.zeros(2, 16)[:, :8]}, r"x has .* strides \(16, 1\)"),
        ({"out": torch.zeros(3, 8)}, r"out\[3, 8\].*do not belong together; they must be weight\[hidden\]"),
        ({"weight": torch.zeros(7)}, r"weight\[7\].*do not belong together"),
        ({"total": torch.zeros(2, 8).half()}, "convert them to one dtype"),
        (dict.fromkeys(("x", "residual", "out", "total"), torch.zeros(8)), "do not belong together"),
    ],
)
def test_operands_that_would_touch_foreign_memory_are_refused(fault, message):
    good = dict.fromkeys(("x", "residual", "out", "total"), torch.zeros(2, 8)) | {"weight": torch.zeros(8)}
    with pytest.raises(UserError, match=message):
        TRITON_RMSNORM.run(**good | fault)


def test_rows_that_no_program_holds_are_refused():
    zeros = partial(torch.zeros, dtype=torch.bfloat16)
    rows = dict.fromkeys(("x", "residual", "out", "total"), zeros(1, 16385))
    with pytest.raises(UserError, match=r"hidden 16385; triton_rmsnorm takes rows of up to 16384.*torch_rmsnorm"):
        TRITON_RMSNORM.run(**rows, weight=zeros(16385))

"""Rotary embedding with its hand-over: under the interpreter, into the slots of a cache, and by hand."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels import rotary
from kernels.kernel import RandomTensors
from kernels.rotary import TORCH_ROTARY, TRITON_ROTARY
from kernels.timing.device import current_device
from kernels.timing.pool import TensorPool
from specs.errors import UserError
from specs.roofline import Work
from tests.kernels.interpreter import interpreted, needs_interpreter

few = settings(max_examples=8, deadline=None, derandomize=True, database=None)
RTOL = {**rotary.RTOL, "bf16": 2**-7}  # the interpreter cuts fp32 to bf16 where a GPU rounds
BOTH = [TORCH_ROTARY, pytest.param(TRITON_ROTARY, marks=needs_interpreter)]


def run(kernel, inputs):
    with interpreted(rotary):
        kernel.run(**inputs)


@needs_interpreter
@few
@given(
    tokens=st.integers(1, 5),
    heads=st.integers(1, 40),
    kv_heads=st.integers(1, 9),
    half=st.integers(1, 80),
    dtype=st.sampled_from(list(RTOL)),
)
@example(tokens=1, heads=1, kv_heads=1, half=1, dtype="bf16")
@example(tokens=2, heads=64, kv_heads=8, half=64, dtype="bf16")  # five programs a token, nothing masked
@example(tokens=3, heads=15, kv_heads=1, half=64, dtype="fp32")  # the value begins a program of its own
@example(tokens=2, heads=8, kv_heads=8, half=32, dtype="fp16")  # all three outputs of one shape
def test_rotary(tokens, heads, kv_heads, half, dtype):
    shape = {"tokens": tokens, "heads": heads, "kv_heads": kv_heads, "head_dim": 2 * half}
    inputs = TRITON_ROTARY.inputs(RandomTensors(5), **shape, dtype=dtype)
    run(TRITON_ROTARY, inputs)
    assert TRITON_ROTARY.relative_error(inputs) <= RTOL[dtype]
    assert torch.equal(inputs["value"], inputs["qkv"].view(tokens, -1, 2 * half)[:, heads + kv_heads :])


@pytest.mark.parametrize("kernel", BOTH, ids=lambda kernel: kernel.name)
def test_keys_and_values_go_to_the_slots_of_a_cache(kernel):
    tokens, context, slot = 3, 5, 2
    inputs = kernel.inputs(RandomTensors(5), tokens=tokens, heads=4, kv_heads=2, head_dim=16, dtype="fp32")
    keys, values = torch.full((tokens, context, 2, 16), math.nan), torch.full((tokens, context + 1, 2, 16), math.nan)
    inputs |= {"key": keys[:, slot], "value": values[:, slot + 1]}
    run(kernel, inputs)
    assert kernel.relative_error(inputs) <= kernel.rtol["fp32"]
    assert [at for at in range(context) if not keys[:, at].isnan().all()] == [slot]
    assert [at for at in range(context + 1) if not values[:, at].isnan().all()] == [slot + 1]


@needs_interpreter
def test_slots_beyond_2_31_elements_are_found():
    inputs = TRITON_ROTARY.inputs(RandomTensors(5), tokens=3, heads=1, kv_heads=1, head_dim=2, dtype="fp16")
    cache = torch.empty(2**31 + 16, dtype=torch.float16)  # of which three slots alone take memory
    inputs["key"] = cache.as_strided((3, 1, 2), (2**30, 2, 1))
    inputs["value"] = cache[8:].as_strided((3, 1, 2), (2**30, 2, 1))
    run(TRITON_ROTARY, inputs)
    assert TRITON_ROTARY.relative_error(inputs) <= RTOL["fp16"]


@pytest.mark.parametrize("kernel", BOTH, ids=lambda kernel: kernel.name)
def test_a_quarter_turn_by_hand(kernel):
    # cos 0 and sin 1 in the first column, cos 1 and sin 0 in the second: (1, 3) becomes (-3, 1), (2, 4) stays
    qkv = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]])
    cos, sin = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    outputs = {name: torch.full((1, 1, 4), math.nan) for name in kernel.outputs}
    run(kernel, {"qkv": qkv, "cos": cos, "sin": sin, **outputs})
    expected = [[-3, 2, 1, 4], [-7, 6, 5, 8], [9, 10, 11, 12]]
    assert [outputs[name].flatten().tolist() for name in ("out", "key", "value")] == expected
    found = kernel.reference(qkv, cos, sin, torch.tensor(1))
    assert [result.flatten().tolist() for result in found] == expected


def test_the_reference_agrees_with_a_rotation_of_the_complex_plane():
    inputs = TORCH_ROTARY.inputs(RandomTensors(3), tokens=3, heads=5, kv_heads=2, head_dim=16, dtype="fp32")
    angle = torch.randn(3, 8, dtype=torch.float64)
    queries, keys, _ = TORCH_ROTARY.reference(inputs["qkv"], angle.cos(), angle.sin(), inputs["kv_heads"])
    heads = inputs["qkv"].double().view(3, 9, 2, 8)[:, :7]
    turned = torch.complex(heads[:, :, 0], heads[:, :, 1]) * torch.polar(torch.ones_like(angle), angle)[:, None]
    torch.testing.assert_close(torch.cat((queries, keys), 1), torch.cat((turned.real, turned.imag), 2))


def test_work_by_hand():
    # qkv of (4 + 2 x 2) x 16 read and written, 2 bytes each, and cos and sin 8 each of 4 bytes; two products and a sum
    # for each of (4 + 2) x 16; all of it for 3 tokens
    shape = {"tokens": 3, "heads": 4, "kv_heads": 2, "head_dim": 16}
    assert TORCH_ROTARY.work(**shape, dtype="bf16") == Work(3 * 3 * 96, 3 * (2 * 128 * 2 + 2 * 8 * 4))


def test_in_a_pool_no_two_tensors_of_a_call_are_one():
    inputs = TORCH_ROTARY.inputs(
        TensorPool(current_device(), {}), tokens=4, heads=2, kv_heads=2, head_dim=4, dtype="fp32"
    )
    assert len({tensor.data_ptr() for tensor in inputs.values()}) == len(inputs)


@pytest.mark.parametrize("dtype", list(TORCH_ROTARY.rtol))
def test_torch_on_cpu(dtype):
    inputs = TORCH_ROTARY.inputs(RandomTensors(1), tokens=5, heads=6, kv_heads=2, head_dim=64, dtype=dtype)
    assert math.isnan(TORCH_ROTARY.relative_error(inputs)), "an unwritten output must show"
    TORCH_ROTARY.run(**inputs)
    assert TORCH_ROTARY.relative_error(inputs) <= TORCH_ROTARY.rtol[dtype]
    inputs["key"] *= 1.05
    assert TORCH_ROTARY.relative_error(inputs) > TORCH_ROTARY.rtol[dtype]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"qkv": torch.zeros(2, 64)[:, :32]}, r"qkv has .* strides \(64, 1\)"),
        ({"key": torch.zeros(2, 1, 16)[:, :, ::2]}, "key has shape"),
        ({"key": torch.zeros(2, 2, 8)}, r"key\[2, 2, 8\].*do not belong together"),
        ({"value": torch.zeros(3, 1, 8)}, r"value\[3, 1, 8\].*do not belong together"),
        ({"out": torch.zeros(2, 16)}, "do not belong together"),
        ({"out": torch.zeros(2, 2, 7), "key": torch.zeros(2, 1, 7)}, "even head_dim"),
        ({"cos": torch.zeros(2, 8)}, r"cos\[2, 8\].*do not belong together"),
        ({"out": torch.zeros(2, 2, 8).half()}, "convert them to one dtype"),
        ({"cos": torch.zeros(2, 4).half(), "sin": torch.zeros(2, 4).half()}, r"cos and sin are torch.float16.*fp32"),
    ],
)
def test_operands_that_would_touch_foreign_memory_are_refused(fault, message):
    angles = dict.fromkeys(("cos", "sin"), torch.zeros(2, 4))
    slots = dict.fromkeys(("key", "value"), torch.zeros(2, 1, 8))
    good = {"qkv": torch.zeros(2, 32), **angles, "out": torch.zeros(2, 2, 8), **slots}
    with pytest.raises(UserError, match=message):
        TRITON_ROTARY.run(**good | fault)

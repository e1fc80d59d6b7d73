"""The Triton kernels but the GEMM under the interpreter: odd sizes, every dtype, output poisoned with NaN."""

import math

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels import ceilings, linear, skinny
from kernels.ceilings import TRITON_READ
from kernels.configs.config import LinearConfig
from kernels.kernel import RandomTensors
from kernels.operands import RING_LENGTH, Workspace
from kernels.skinny import TRITON_SKINNY
from tests.kernels.interpreter import interpreted, needs_interpreter

pytestmark = needs_interpreter
few = settings(max_examples=5, deadline=None, derandomize=True, database=None)
RTOL = {**linear.RTOL, "bf16": 2**-7}  # the interpreter cuts fp32 to bf16 where a GPU rounds
DTYPE = st.sampled_from(list(RTOL))


def error_of(kernel, module, dtype, **shape):
    inputs = kernel.inputs(RandomTensors(5), **shape, dtype=dtype)
    with interpreted(module):
        kernel.run(**inputs)
    return kernel.relative_error(inputs)


CONFIGS = (
    LinearConfig(4, 4, 64, 1, 4, 1, matrix=False),
    LinearConfig(2, 4, 64, 3, 4, 3, matrix=False),
    LinearConfig(64, 64, 32, 1, 4, 3),
    LinearConfig(64, 64, 32, 3, 4, 3),
    LinearConfig(64, 64, 64, 2, 4, 3, tma=True),
)
SHAPE = {"tokens": st.integers(1, 64), "n": st.integers(1, 150), "k": st.integers(1, 300)}


@few
@given(**SHAPE, dtype=DTYPE)
@example(tokens=1, n=1, k=1, dtype="bf16")
@example(tokens=3, n=13, k=1, dtype="fp16")
@example(tokens=3, n=1, k=1025, dtype="fp32")
@example(tokens=64, n=1, k=1, dtype="bf16")
@example(tokens=17, n=65, k=129, dtype="fp16")  # one past the block on each axis
def test_skinny_as_it_chooses(tokens, n, k, dtype):
    assert error_of(TRITON_SKINNY, skinny, dtype, tokens=tokens, n=n, k=k) <= RTOL[dtype]


@few
@given(config=st.sampled_from(CONFIGS), **SHAPE, dtype=DTYPE)
@example(config=CONFIGS[1], tokens=4, n=4, k=192, dtype="bf16")  # whole tiles, nothing masked
@example(config=CONFIGS[3], tokens=64, n=128, k=96, dtype="bf16")  # three parts of one step each
@example(config=CONFIGS[3], tokens=5, n=70, k=33, dtype="fp16")  # the third part has nothing to do
@example(config=CONFIGS[4], tokens=33, n=70, k=136, dtype="bf16")  # the descriptor reaches beyond n and k
@example(config=CONFIGS[4], tokens=33, n=70, k=137, dtype="bf16")  # no descriptor: rows begin off 16 bytes
def test_skinny_in_every_configuration(config, tokens, n, k, dtype):
    """Partial sums are poisoned with NaN before, and every counter is zero after."""
    scratch = Workspace(torch.device("cpu"))
    tokens = min(tokens, config.tokens)
    inputs = TRITON_SKINNY.inputs(RandomTensors(5), tokens=tokens, n=n, k=k, dtype=dtype)
    with interpreted(skinny):
        for _ in range(RING_LENGTH + 1):  # every slot, and the first one again
            inputs["out"].fill_(math.nan)
            scratch.partials.fill_(math.nan)
            skinny.launch(**inputs, config=config, scratch=scratch)
            assert TRITON_SKINNY.relative_error(inputs) <= RTOL[dtype]
            assert not scratch.arrived.any()


def test_weights_that_begin_off_16_bytes_are_fetched_without_a_descriptor():
    inputs = TRITON_SKINNY.inputs(RandomTensors(5), tokens=2, n=65, k=128, dtype="bf16")
    inputs["weight"] = inputs["weight"].view(-1)[4 : 4 + 64 * 128].view(64, 128)
    inputs["out"] = inputs["out"][:, :64].contiguous()
    with interpreted(skinny):
        skinny.launch(**inputs, config=CONFIGS[4], scratch=Workspace(torch.device("cpu")))
    assert TRITON_SKINNY.relative_error(inputs) <= RTOL["bf16"]


def test_what_arrived_before_the_call_spoils_it():
    scratch, config = Workspace(torch.device("cpu")), CONFIGS[3]
    inputs = TRITON_SKINNY.inputs(RandomTensors(5), tokens=2, n=64, k=96, dtype="fp32")
    with interpreted(skinny):
        skinny.launch(**inputs, config=config, scratch=scratch)
        scratch.partials.fill_(math.nan)
        scratch.arrived.fill_(1)
        inputs["out"].fill_(math.nan)
        skinny.launch(**inputs, config=config, scratch=scratch)
    assert math.isnan(TRITON_SKINNY.relative_error(inputs))


def test_parts_are_added_in_their_order():
    """1e8 + 1 − 1e8 is 0 in fp32 in this order, and 1 in another."""
    x, weight, out = torch.ones(1, 96), torch.zeros(1, 96), torch.full((1, 1), math.nan)
    weight[0, 0], weight[0, 32], weight[0, 64] = 1e8, 1.0, -1e8
    with interpreted(skinny):
        skinny.launch(x, weight, out, CONFIGS[3], scratch=Workspace(torch.device("cpu")))
    assert out.item() == 0.0


@few
@given(elements=st.integers(1, 60_000), dtype=st.sampled_from(["fp32", "bf16"]))
@example(elements=1, dtype="fp32")
@example(elements=8193, dtype="bf16")
def test_read(elements, dtype):
    assert error_of(TRITON_READ, ceilings, dtype, elements=elements) <= TRITON_READ.rtol[dtype]


@pytest.mark.parametrize("config", CONFIGS[1::2], ids=str)
def test_two_calls_give_the_same_bits(config):
    first = TRITON_SKINNY.inputs(RandomTensors(6), tokens=3, n=70, k=300, dtype="fp32")
    second = first | {"out": torch.full_like(first["out"], math.nan)}
    with interpreted(skinny):
        skinny.launch(**first, config=config)
        skinny.launch(**second, config=config)
    assert torch.equal(first["out"], second["out"])


@triton.jit
def _drops_the_last_element(
    x, weight, tiles, out, partials, arrived, tokens, n, k, ROWS: tl.constexpr, TOKENS: tl.constexpr,
    DEPTH: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr, MATRIX: tl.constexpr, EVEN: tl.constexpr,
    PREFETCH: tl.constexpr, SWIGLU: tl.constexpr, DELAY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    for token in range(tokens):
        total = tl.zeros([ROWS], tl.float32)
        for at in range(k - 1):
            total += tl.load(weight + row * k + at, mask=row < n, other=0.0) * tl.load(x + token * k + at)
        tl.store(out + token * n + row, total, mask=row < n)


@triton.jit
def _leaves_the_last_row(
    x, weight, tiles, out, partials, arrived, tokens, n, k, ROWS: tl.constexpr, TOKENS: tl.constexpr,
    DEPTH: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr, MATRIX: tl.constexpr, EVEN: tl.constexpr,
    PREFETCH: tl.constexpr, SWIGLU: tl.constexpr, DELAY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tl.store(out + row, tl.zeros([ROWS], tl.float32), mask=row < n - 1)


def error_with(monkeypatch, fault, **shape):
    inputs = TRITON_SKINNY.inputs(RandomTensors(5), **shape, dtype="fp32")
    monkeypatch.setattr(skinny, "_skinny", fault)
    with interpreted(skinny):
        skinny.launch(**inputs, config=CONFIGS[0])
    return TRITON_SKINNY.relative_error(inputs)


def test_a_kernel_that_drops_one_product_is_caught(monkeypatch):
    assert error_with(monkeypatch, _drops_the_last_element, tokens=2, n=5, k=33) > TRITON_SKINNY.rtol["fp32"]


def test_a_kernel_that_leaves_an_element_unwritten_gives_nan(monkeypatch):
    assert math.isnan(error_with(monkeypatch, _leaves_the_last_row, tokens=1, n=5, k=33))

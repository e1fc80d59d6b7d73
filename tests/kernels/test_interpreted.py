"""Every Triton kernel under the interpreter: odd sizes, every dtype, output poisoned with NaN."""

import math

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels import gemm, gemv, linear, read
from kernels.draw import FreshDraw
from kernels.gemm import TRITON_GEMM
from kernels.gemv import TRITON_GEMV
from kernels.read import TRITON_READ
from tests.kernels.interpreter import interpreted, needs_interpreter, stock_dot

pytestmark = needs_interpreter
few = settings(max_examples=5, deadline=None, derandomize=True, database=None)
RTOL = {**linear.RTOL, "bf16": 2**-7}  # the interpreter cuts fp32 to bf16 where a GPU rounds
DTYPE = st.sampled_from(list(RTOL))


def error_of(kernel, module, dtype, **shape):
    inputs = kernel.inputs(FreshDraw(5), **shape, dtype=dtype)
    with interpreted(module):
        kernel.run(**inputs)
    return kernel.relative_error(inputs)


@few
@given(tokens=st.integers(1, 4), n=st.integers(1, 21), k=st.integers(1, 2500), dtype=DTYPE)
@example(tokens=1, n=1, k=1, dtype="bf16")
@example(tokens=3, n=13, k=1, dtype="fp16")
@example(tokens=3, n=1, k=1025, dtype="fp32")
def test_gemv(tokens, n, k, dtype):
    assert error_of(TRITON_GEMV, gemv, dtype, tokens=tokens, n=n, k=k) <= RTOL[dtype]


@pytest.mark.parametrize("tokens", [1, 3])
def test_gemv_with_four_rows_a_program(monkeypatch, tokens):
    monkeypatch.setattr(gemv, "MANY_ROWS", 1)
    assert error_of(TRITON_GEMV, gemv, "fp32", tokens=tokens, n=13, k=1100) <= RTOL["fp32"]


@few
@given(tokens=st.integers(5, 150), n=st.integers(1, 300), k=st.integers(1, 300), dtype=DTYPE)
@example(tokens=5, n=1, k=1, dtype="bf16")
@example(tokens=17, n=65, k=129, dtype="fp16")  # one past the block on each axis
@example(tokens=129, n=6911, k=65, dtype="bf16")  # 2 x 54 large tiles, groups of eight and a last one of six
def test_gemm(tokens, n, k, dtype):
    assert error_of(TRITON_GEMM, gemm, dtype, tokens=tokens, n=n, k=k) <= RTOL[dtype]


@few
@given(elements=st.integers(1, 60_000), dtype=st.sampled_from(["fp32", "bf16"]))
@example(elements=1, dtype="fp32")
@example(elements=8193, dtype="bf16")
def test_read(elements, dtype):
    assert error_of(TRITON_READ, read, dtype, elements=elements) <= TRITON_READ.rtol[dtype]


def test_gemv_gives_the_same_bits_twice():
    first = TRITON_GEMV.inputs(FreshDraw(6), tokens=3, n=9, k=1500, dtype="fp32")
    second = first | {"out": torch.full_like(first["out"], math.nan)}
    with interpreted(gemv):
        TRITON_GEMV.run(**first)
        TRITON_GEMV.run(**second)
    assert torch.equal(first["out"], second["out"])


@pytest.mark.parametrize(("tokens", "n"), [(5, 100), (16, 57344), (17, 100), (64, 100), (65, 1280), (512, 8192)])
def test_gemm_tile_holds_the_tokens_or_fills_the_gpu(tokens, n):
    tile = gemm.tile(tokens=tokens, n=n, dtype=torch.bfloat16)
    assert tile.tokens >= min(tokens, 64)
    assert tile in (*gemm.DECODE, gemm.PREFILL)
    assert (tile == gemm.PREFILL) == (tokens > 64 and triton.cdiv(tokens, 128) * triton.cdiv(n, 128) >= 108)


@triton.jit
def _drops_the_last_element(
    x, weight, out, tokens, n, k, TOKENS: tl.constexpr, ROWS: tl.constexpr, CHUNKS: tl.constexpr,
    CHUNK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    for token in range(tokens):
        total = tl.zeros([ROWS], tl.float32)
        for at in range(k - 1):
            total += tl.load(weight + row * k + at, mask=row < n, other=0.0) * tl.load(x + token * k + at)
        tl.store(out + token * n + row, total, mask=row < n)


@triton.jit
def _leaves_the_last_row(
    x, weight, out, tokens, n, k, TOKENS: tl.constexpr, ROWS: tl.constexpr, CHUNKS: tl.constexpr,
    CHUNK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tl.store(out + row, tl.zeros([ROWS], tl.float32), mask=row < n - 1)


def test_a_kernel_that_drops_one_product_is_caught(monkeypatch):
    monkeypatch.setattr(gemv, "_gemv", _drops_the_last_element)
    assert error_of(TRITON_GEMV, gemv, "fp32", tokens=2, n=5, k=33) > TRITON_GEMV.rtol["fp32"]


def test_a_kernel_that_leaves_an_element_unwritten_gives_nan(monkeypatch):
    monkeypatch.setattr(gemv, "_gemv", _leaves_the_last_row)
    assert math.isnan(error_of(TRITON_GEMV, gemv, "fp32", tokens=1, n=5, k=33))


def test_stock_interpreter_multiplies_bf16_as_integers():
    inputs = TRITON_GEMM.inputs(FreshDraw(7), tokens=16, n=32, k=64, dtype="bf16")
    with interpreted(gemm, create_dot=stock_dot):
        TRITON_GEMM.run(**inputs)
    assert TRITON_GEMM.relative_error(inputs) > 1  # once this fails, widened_dot is no longer needed
    with interpreted(gemm):
        TRITON_GEMM.run(**inputs)
    assert TRITON_GEMM.relative_error(inputs) <= RTOL["bf16"]

"""Addresses that no small shape would show wrong: beyond 2^31 elements, and of prefetches, which store nothing."""

import sys

import pytest
import torch
import triton
import triton.language as tl

from kernels import skinny, triton_utils
from kernels.skinny import _on_matrix_units, _with_multiply_adds
from kernels.triton_utils import lines
from tests.kernels.interpreter import interpreted, needs_interpreter

pytestmark = needs_interpreter
HERE = sys.modules[__name__]


@triton.jit
def _one_tile(x, weight, out, first, tokens, n, k, ROWS: tl.constexpr, DEPTH: tl.constexpr, MATRIX: tl.constexpr):
    if MATRIX:
        total = _on_matrix_units(x, weight, None, first, 0, k, tokens, n, k, ROWS, 16, DEPTH, 3, True)
    else:
        total = _with_multiply_adds(x, weight, first, 0, k, tokens, n, k, ROWS, 16, DEPTH, 1, True)
    tl.store(out + tl.arange(0, ROWS)[:, None] * 16 + tl.arange(0, 16)[None, :], total)


@triton.jit
def _store_lines(out, first, begin, n, k, ROWS: tl.constexpr, STEP: tl.constexpr, LINES: tl.constexpr):
    found = lines(first + tl.arange(0, ROWS), begin, n, k, STEP, LINES)
    tl.store(out + tl.arange(0, ROWS)[:, None] * LINES + tl.arange(0, LINES)[None, :], found)


@pytest.mark.parametrize("matrix", [True, False])
def test_rows_beyond_2_31_elements_are_found(matrix):
    n, k, rows = 32832, 65536, 64
    weight = torch.empty(n, k, dtype=torch.float16)  # 2.15e9 elements, of which the last rows alone take memory
    weight[-rows:].copy_(torch.arange(rows)[:, None].expand(rows, k))
    x, out = torch.zeros(1, k, dtype=torch.float16), torch.zeros(rows, 16)
    x[0, 5] = 1.0
    with interpreted(skinny, HERE):
        HERE._one_tile[(1,)](x, weight, out, n - rows, 1, n, k, rows, 1024, matrix)
    assert out[:, 0].tolist() == list(range(rows))


def prefetched(first, begin, n, k, step):
    out = torch.zeros(4, 4, dtype=torch.int64)
    with interpreted(triton_utils, HERE):
        HERE._store_lines[(1,)](out, first, begin, n, k, 4, step, 4)
    return out.tolist()


def test_prefetches_stay_within_the_matrix():
    # rows 6 and 7 of 7 are the last one, row 6; columns 70, 134 and 198 of 100 are 70, 99 and 99
    assert prefetched(5, 70, 7, 100, 64) == [[row * 100 + 70, *(row * 100 + 99,) * 3] for row in (5, 6, 6, 6)]


def test_prefetches_of_far_rows_do_not_wrap():
    row = 2**21
    assert prefetched(row, 0, 2**22, 2**13, 64)[0] == [row * 2**13 + column for column in (0, 64, 128, 192)]

"""Every kernel on a real GPU, at the shapes of Llama-3-70B cut over eight ranks."""

import math

import pytest
import torch

from kernels.copy import TORCH_COPY
from kernels.draw import FreshDraw
from kernels.launch import TORCH_LAUNCH
from kernels.linears import LINEARS
from kernels.read import TORCH_READ, TRITON_READ

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, torch sees none")

SHARDS = {"qkv": (1280, 8192), "o": (8192, 1024), "gate_up": (7168, 8192), "down": (8192, 3584)}
"""(n, k) of hidden 8192, intermediate 28672, 64 heads and 8 kv_heads of 128, at tp 8."""

TOKENS = (1, 2, 3, 4, 5, 16, 33, 64, 100, 2048)

LINEAR_CASES = [
    pytest.param(kernel, dtype, {"tokens": tokens, "n": n, "k": k}, id=f"{kernel.name}-{dtype}-{layer}-{tokens}")
    for kernel in LINEARS
    for dtype in kernel.rtol
    for layer, (n, k) in SHARDS.items()
    for tokens in TOKENS
    if tokens in kernel.tokens
]
CEILING_CASES = [
    pytest.param(kernel, dtype, shape, id=f"{kernel.name}-{dtype}")
    for kernel, shape in [
        (TORCH_READ, {"elements": 2**28 + 3}),
        (TRITON_READ, {"elements": 2**28 + 3}),
        (TORCH_COPY, {"elements": 2**28 + 3}),
        (TORCH_LAUNCH, {}),
    ]
    for dtype in kernel.rtol
]


@pytest.fixture(scope="module")
def arch():
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


ODD_CASES = [
    pytest.param(kernel, dtype, {"tokens": tokens, "n": n, "k": k}, id=f"{kernel.name}-{dtype}-{tokens}x{n}x{k}")
    for kernel in LINEARS
    for dtype in kernel.rtol
    for tokens, n, k in [(1, 1, 1), (3, 4099, 8200), (5, 1, 1), (70, 131, 257), (129, 6911, 65)]
    if tokens in kernel.tokens
]


@pytest.mark.parametrize(("kernel", "dtype", "shape"), LINEAR_CASES + ODD_CASES + CEILING_CASES)
def test_kernel(arch, kernel, dtype, shape):
    if reason := kernel.why_not(arch, dtype):
        pytest.skip(reason)
    inputs = kernel.inputs(FreshDraw(1, "cuda"), **shape, dtype=dtype)
    assert math.isnan(kernel.relative_error(inputs)), "unwritten output must show"
    kernel.run(**inputs)
    assert kernel.relative_error(inputs) <= kernel.rtol[dtype]

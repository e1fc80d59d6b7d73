"""Every kernel on a real GPU, at the shards of Llama-3-70B and at odd sizes, its output poisoned with NaN before."""

import pytest
import torch

from kernels import cublaslt, gemm
from kernels.ceilings import TORCH_COPY, TORCH_LAUNCH, TORCH_READ, TRITON_EMPTY, TRITON_READ
from kernels.configs.dispatch import tuned_linear_table
from kernels.cublaslt import CUBLASLT_LINEAR
from kernels.gate_up import TRITON_GEMM_GATE_UP
from kernels.gemm import TRITON_GEMM
from kernels.kernel import RandomTensors
from kernels.registry import LINEARS
from kernels.skinny import TRITON_SKINNY, launch
from specs.gpus import ARCHS
from tests.gpu.config_shapes import gemm_configs, ragged_gemm, ragged_skinny, skinny_configs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, torch sees none")

SHARDS = {
    f"{layer}-tp{tp}": shape
    for tp in (1, 2, 4, 8)
    for layer, shape in {
        "qkv": (10240 // tp, 8192),
        "o": (8192, 8192 // tp),
        "gate_up": (57344 // tp, 8192),
        "down": (8192, 28672 // tp),
    }.items()
}
"""(n, k): hidden 8192, intermediate 28672, 64 heads and 8 kv_heads of 128."""

# Each line of these compiles: all shards in bf16, every token count and the other dtypes at one shard each.
WANTED = [
    *(("bf16", shard, tokens) for shard in SHARDS for tokens in (1, 16, 64, 128)),
    *(("bf16", "o-tp8", tokens) for tokens in (2, 3, 4, 5, 8, 32, 33, 100, 129, 256, 512, 2048, 8192)),
    *(("bf16", shard, tokens) for shard in ("qkv-tp8", "down-tp8") for tokens in (129, 256, 512, 2048)),
    *((dtype, "down-tp8", tokens) for dtype in ("fp32", "fp16") for tokens in (1, 16, 100)),
]
LINEAR_CASES = [
    pytest.param(
        kernel,
        dtype,
        dict(zip(("tokens", "n", "k"), (tokens, *SHARDS[shard]), strict=True)),
        id=f"{kernel.name}-{dtype}-{shard}-{tokens}",
    )
    for kernel in LINEARS
    for dtype, shard, tokens in WANTED
    if dtype in kernel.rtol and tokens in kernel.tokens
]
ODD_CASES = [
    pytest.param(kernel, dtype, {"tokens": tokens, "n": n, "k": k}, id=f"{kernel.name}-{dtype}-{tokens}x{n}x{k}")
    for kernel in LINEARS
    for dtype in kernel.rtol
    for tokens, n, k in [(1, 1, 1), (3, 4099, 8200), (5, 1, 1), (40, 131, 257), (70, 131, 257), (129, 6911, 65)]
    if tokens in kernel.tokens and (dtype == "bf16" or n > 1)
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


@pytest.mark.parametrize(("kernel", "dtype", "shape"), LINEAR_CASES + ODD_CASES + CEILING_CASES)
def test_kernel(arch, kernel, dtype, shape):
    if reason := kernel.why_not(arch, dtype):
        pytest.skip(reason)
    inputs = kernel.inputs(RandomTensors(1, "cuda"), **shape, dtype=dtype)
    assert inputs["out"].isnan().all(), "unwritten output must show"
    with cublaslt.take_first_correct():
        kernel.run(**inputs)
    assert kernel.relative_error(inputs) <= kernel.rtol[dtype]


def test_the_empty_kernel_leaves_what_is_there(arch):
    if reason := TRITON_EMPTY.why_not(arch, "fp32"):
        pytest.skip(reason)
    inputs = TRITON_EMPTY.inputs(RandomTensors(1, "cuda"), dtype="fp32")
    TRITON_EMPTY.run(**inputs)
    assert TRITON_EMPTY.relative_error(inputs) == 0


def test_the_candidates_of_cublaslt_are_timed_in_the_first_call(arch):
    """Here alone: elsewhere results count, and the first candidate that is right is taken."""
    if reason := CUBLASLT_LINEAR.why_not(arch, "bf16"):
        pytest.skip(reason)
    n, k = SHARDS["o-tp8"]
    inputs = CUBLASLT_LINEAR.inputs(RandomTensors(1, "cuda"), tokens=16, n=n, k=k, dtype="bf16")
    CUBLASLT_LINEAR.run(**inputs)
    told = CUBLASLT_LINEAR.configuration(arch=arch, dtype="bf16", tokens=16, n=n, k=k)
    assert "fastest cold of" in told
    inputs["out"].fill_(float("nan"))
    CUBLASLT_LINEAR.run(**inputs)
    assert CUBLASLT_LINEAR.relative_error(inputs) <= CUBLASLT_LINEAR.rtol["bf16"]
    assert CUBLASLT_LINEAR.configuration(arch=arch, dtype="bf16", tokens=16, n=n, k=k) == told


def gate_up(tokens, n=SHARDS["gate_up-tp8"][0], k=8192):
    return pytest.param(TRITON_GEMM_GATE_UP, "bf16", {"tokens": tokens, "n": n, "k": k}, id=f"gate-up-{tokens}x{n}x{k}")


@pytest.mark.parametrize(
    ("kernel", "dtype", "shape"),
    [*(gate_up(tokens) for tokens in (128, 129, 512, 2048)), gate_up(129, 1000, 1032), gate_up(70, 262, 257)],
)
def test_gate_and_up(arch, kernel, dtype, shape):
    test_kernel(arch, kernel, dtype, shape)


@pytest.mark.parametrize("tma", [False, True], ids=["pointers", "descriptors"])
def test_every_configuration_of_the_table_at_ragged_sizes(arch, tma):
    """Descriptors are in no table until somebody tunes."""
    table = tuned_linear_table(arch)
    if table is None or (tma and not ARCHS[arch].tma):
        pytest.skip(f"{arch} has no table, or no descriptors")
    configs = {config for config in skinny_configs(table) if not tma or config.matrix}
    errors = {}
    for config in sorted(config._replace(tma=tma) for config in configs):
        inputs = TRITON_SKINNY.inputs(RandomTensors(1, "cuda"), **ragged_skinny(config), dtype="bf16")
        launch(**inputs, config=config)
        errors[str(config)] = TRITON_SKINNY.relative_error(inputs)
    assert errors
    assert {config: error for config, error in errors.items() if not error <= TRITON_SKINNY.rtol["bf16"]} == {}


@pytest.mark.parametrize("swiglu", [False, True], ids=["linear", "swiglu"])
def test_every_gemm_of_the_table_at_ragged_sizes(arch, swiglu):
    """Two programs take all tiles in turn."""
    table, kernel, errors = tuned_linear_table(arch), TRITON_GEMM_GATE_UP if swiglu else TRITON_GEMM, {}
    if table is None:
        pytest.skip(f"{arch} has no table")
    for config in sorted(gemm_configs(table)):
        inputs = kernel.inputs(RandomTensors(1, "cuda"), **ragged_gemm(config), dtype="bf16")
        gemm.launch(**inputs, config=config, swiglu=swiglu, programs=2 * config.split)
        errors[str(config)] = kernel.relative_error(inputs)
    assert errors
    assert {config: error for config, error in errors.items() if not error <= kernel.rtol["bf16"]} == {}


OURS = [kernel for kernel in LINEARS if kernel.implementation not in ("torch", "cublaslt")]


@pytest.mark.parametrize("kernel", OURS, ids=lambda kernel: kernel.name)
def test_two_calls_give_the_same_bits(arch, kernel):
    if reason := kernel.why_not(arch, "bf16"):
        pytest.skip(reason)
    n, k = SHARDS["o-tp4"]
    inputs = kernel.inputs(RandomTensors(1, "cuda"), tokens=kernel.tokens[0], n=n, k=k, dtype="bf16")
    kernel.run(**inputs)
    first = inputs["out"].clone()
    inputs["out"].fill_(float("nan"))
    kernel.run(**inputs)
    assert torch.equal(first.view(torch.int16), inputs["out"].view(torch.int16))

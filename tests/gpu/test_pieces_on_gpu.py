"""The pieces between a layer's linears on a real GPU, at the shards of Llama-3-70B and at odd sizes."""

from functools import partial

import pytest
import torch

from kernels.configs.dispatch import tuned_linear_table
from kernels.gate_up import GATE_UPS, TRITON_SKINNY_GATE_UP
from kernels.kernel import RandomTensors
from kernels.rmsnorm import TORCH_RMSNORM, TRITON_RMSNORM
from kernels.rotary import TORCH_ROTARY, TRITON_ROTARY
from kernels.skinny import launch
from kernels.swiglu import TORCH_SWIGLU, TRITON_SWIGLU
from specs.gpus import ARCHS
from tests.gpu.config_shapes import ragged_skinny, skinny_configs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, torch sees none")

ROWS = (1, 64, 4096)
"""Tokens of the pieces."""
NORMS = [{"tokens": tokens, "hidden": 8192} for tokens in ROWS]
ODD_NORMS = [{"tokens": 33, "hidden": 129}, {"tokens": 3, "hidden": 5001}, {"tokens": 2, "hidden": 16384}]
HEADS = [{"heads": 64 // tp, "kv_heads": 8 // tp, "head_dim": 128} for tp in (1, 8)]
TURNS = [{"tokens": tokens, **heads} for heads in HEADS for tokens in ROWS]
ODD_TURNS = [
    {"tokens": 3, "heads": 15, "kv_heads": 1, "head_dim": 96},
    {"tokens": 33, "heads": 7, "kv_heads": 7, "head_dim": 66},
    {"tokens": 5, "heads": 1, "kv_heads": 1, "head_dim": 2},
]
GATES = [{"tokens": tokens, "intermediate": 28672 // tp} for tp in (1, 8) for tokens in ROWS]
ODD_GATES = [{"tokens": 3, "intermediate": 1027}, {"tokens": 65, "intermediate": 1}]
LINEARS = [{"tokens": tokens, "n": 57344 // tp, "k": 8192} for tp in (1, 8) for tokens in (1, 4, 16, 64)]
ODD_LINEARS = [{"tokens": tokens, "n": n, "k": k} for tokens, n, k in [(1, 2, 1), (3, 4098, 8200), (40, 130, 257)]]
PIECES = [
    *((kernel, NORMS, ODD_NORMS) for kernel in (TORCH_RMSNORM, TRITON_RMSNORM)),
    *((kernel, TURNS, ODD_TURNS) for kernel in (TORCH_ROTARY, TRITON_ROTARY)),
    *((kernel, GATES, ODD_GATES) for kernel in (TORCH_SWIGLU, TRITON_SWIGLU)),
    *((kernel, LINEARS, ODD_LINEARS) for kernel in GATE_UPS),
]
CASES = [
    pytest.param(kernel, dtype, shape, id="-".join((kernel.name, dtype, *map(str, shape.values()))))
    for kernel, shapes, odd in PIECES
    for dtype in kernel.rtol
    for shape in (odd if dtype != "bf16" else shapes + odd)
    if shape["tokens"] in kernel.tokens
]


@pytest.fixture(scope="module")
def arch():
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def drawn(arch, kernel, dtype, shape):
    if reason := kernel.why_not(arch, dtype):
        pytest.skip(reason)
    return kernel.inputs(RandomTensors(1, "cuda"), **shape, dtype=dtype)


@pytest.mark.parametrize(("kernel", "dtype", "shape"), CASES)
def test_piece(arch, kernel, dtype, shape):
    inputs = drawn(arch, kernel, dtype, shape)
    assert all(inputs[name].isnan().all() for name in kernel.outputs), "unwritten output must show"
    kernel.run(**inputs)
    assert kernel.relative_error(inputs) <= kernel.rtol[dtype]


@pytest.mark.parametrize(("kernel", "shape"), [(kernel, shapes[0]) for kernel, shapes, _ in PIECES])
def test_a_captured_call_writes_its_outputs_again(arch, kernel, shape):
    inputs = drawn(arch, kernel, "bf16", shape)
    kernel.run(**inputs)
    first = [inputs[name].clone() for name in kernel.outputs]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kernel.run(**inputs)
    for name in kernel.outputs:
        inputs[name].fill_(float("nan"))
    graph.replay()
    assert all(torch.equal(inputs[name], one) for name, one in zip(kernel.outputs, first, strict=True))


@pytest.mark.parametrize("kernel", [TORCH_ROTARY, TRITON_ROTARY], ids=lambda kernel: kernel.name)
def test_keys_and_values_go_to_the_slots_of_a_cache(kernel):
    inputs = kernel.inputs(RandomTensors(1, "cuda"), tokens=32, heads=8, kv_heads=2, head_dim=128, dtype="bf16")
    cache = partial(torch.full, fill_value=float("nan"), dtype=torch.bfloat16, device="cuda")
    keys, values = cache((32, 9, 2, 128)), cache((32, 7, 2, 128))
    inputs |= {"key": keys[:, 4], "value": values[:, 6]}
    kernel.run(**inputs)
    assert kernel.relative_error(inputs) <= kernel.rtol["bf16"]
    assert [at for at in range(9) if not keys[:, at].isnan().all()] == [4]
    assert [at for at in range(7) if not values[:, at].isnan().all()] == [6]


def test_every_configuration_of_the_table_gates_at_ragged_sizes(arch):
    """Those of many tokens stand in test_kernels_on_gpu.py."""
    if (table := tuned_linear_table(arch)) is None:
        pytest.skip(f"{arch} has no table")
    errors = {}
    fetched = [True] if ARCHS[arch].tma else []
    configs = skinny_configs(table)
    configs |= {config._replace(tma=tma) for config in configs if config.matrix for tma in fetched}
    for config in sorted(configs):
        inputs = TRITON_SKINNY_GATE_UP.inputs(RandomTensors(1, "cuda"), **ragged_skinny(config), dtype="bf16")
        launch(**inputs, config=config, swiglu=True)
        errors[str(config)] = TRITON_SKINNY_GATE_UP.relative_error(inputs)
    assert errors
    rtol = TRITON_SKINNY_GATE_UP.rtol["bf16"]
    assert {config: error for config, error in errors.items() if not error <= rtol} == {}

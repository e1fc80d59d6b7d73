"""A whole layer: its parts wired together, held against a float64 layer written down another way."""

import math
from dataclasses import replace

import pytest
import torch

from kernels import decode_attention, decoder_layer, gemm, rmsnorm, rotary, skinny, swiglu, triton_utils
from kernels.decoder_layer import compiled_layer, layer_kernel, missing_compiler, part_kernel, part_names
from kernels.kernel import RandomTensors
from kernels.timing.pool import ByteCounter
from specs.layer import FUSED_GATE_UP, LAYER_PARTS, LayerShape
from tests.kernels.interpreter import interpreted, needs_interpreter

MODULES = (
    decode_attention, decode_attention, triton_utils, gemm, triton_utils, rmsnorm, rotary, skinny, swiglu,
)  # fmt: skip
WIDTHS = LayerShape(hidden=96, heads=4, kv_heads=2, head_dim=64, intermediate=80)
DECODE = {"tokens": 3, "batch": 3, "context": 21}
PREFILL = {"tokens": 5, "batch": 1, "context": 5}
BOTH = pytest.mark.parametrize("shape", [DECODE, PREFILL], ids=["decode", "prefill"])


def drawn(kernel, shape, dtype="fp32", seed=3):
    return kernel.inputs(RandomTensors(seed), **shape, dtype=dtype)


def by_hand(t, widths, decode):
    """A layer in float64, sequence by sequence and head by head."""
    x, residual = t["x"].double(), t["residual"].double()

    def norm(rows, gain):
        return rows / torch.sqrt((rows**2).mean(1, keepdim=True) + 1e-5) * gain.double()

    def turn(rows, cos, sin):
        low, high = rows.chunk(2, dim=-1)
        return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)

    start = x + residual
    qkv = norm(start, t["first_gain"]) @ t["qkv_weight"].double().T
    heads, kv_heads, dim = widths.heads, widths.kv_heads, widths.head_dim
    query, key, value = qkv.split([heads * dim, kv_heads * dim, kv_heads * dim], dim=1)
    cos, sin = t["cos"].double()[:, None], t["sin"].double()[:, None]
    query, key = turn(query.view(-1, heads, dim), cos, sin), turn(key.view(-1, kv_heads, dim), cos, sin)
    value = value.view(-1, kv_heads, dim)
    attended = torch.empty(len(x), heads, dim, dtype=torch.float64)
    for row in range(len(x)):
        for head in range(heads):
            of = head // (heads // kv_heads)
            if decode:
                keys = torch.cat([t["key"][row, :-1, of].double(), key[row, of][None]])
                values = torch.cat([t["value"][row, :-1, of].double(), value[row, of][None]])
            else:
                keys, values = key[: row + 1, of], value[: row + 1, of]
            shares = torch.softmax(keys @ query[row, head] / math.sqrt(dim), dim=0)
            attended[row, head] = shares @ values
    total = start + attended.flatten(1) @ t["o_weight"].double().T
    gate, up = (norm(total, t["second_gain"]) @ t["gate_up_weight"].double().T).chunk(2, dim=1)
    return (gate * torch.sigmoid(gate) * up) @ t["down_weight"].double().T, total


@BOTH
def test_the_reference_is_a_layer_written_down_another_way(shape):
    kernel = layer_kernel("torch", WIDTHS, **shape)
    given = drawn(kernel, shape)
    found = kernel.reference(**{name: one for name, one in given.items() if name not in kernel.outputs})
    for one, right in zip(found, by_hand(given, WIDTHS, shape is DECODE), strict=True):
        assert torch.linalg.norm(one - right) <= 1e-6 * torch.linalg.norm(right)  # fp32 cos and sin, else float64


@BOTH
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_torch_runs_it_right(shape, dtype):
    kernel = layer_kernel("torch", WIDTHS, **shape)
    given = drawn(kernel, shape, dtype)
    kernel.run(**given)
    assert kernel.relative_error(given) <= kernel.rtol[dtype]


@BOTH
def test_a_call_that_is_bound_beforehand_does_the_same(shape):
    kernel = layer_kernel("torch", WIDTHS, **shape)
    first, second = drawn(kernel, shape), drawn(kernel, shape)
    kernel.run(**first)
    kernel.call(second)()
    assert torch.equal(first["out"], second["out"])
    assert not first["out"].isnan().any()


def test_its_steps_bear_the_names_of_the_parts_in_the_order_of_a_layer():
    kernel = layer_kernel("torch", WIDTHS, **DECODE)
    told = [name for name, _ in kernel.steps(**drawn(kernel, DECODE))]
    assert told == ["norm", "qkv", "rotary", "attention", "o", "norm", "gate_up", "swiglu", "down"]
    assert set(told) == set(LAYER_PARTS)


@BOTH
@pytest.mark.parametrize("left_out", range(9))
def test_a_layer_that_leaves_a_step_out_is_caught(shape, left_out, monkeypatch):
    kernel = layer_kernel("torch", WIDTHS, **shape)
    given = drawn(kernel, shape)
    for number, (_, step) in enumerate(kernel.steps(**given)):
        if number != left_out:
            step()
    error = kernel.relative_error(given)
    assert math.isnan(error) or error > kernel.rtol["bf16"]


def test_the_new_tokens_keys_and_values_are_what_attention_reads_last():
    kernel = layer_kernel("torch", WIDTHS, **DECODE)
    given = drawn(kernel, DECODE)
    before = given["key"].clone()
    kernel.run(**given)
    assert torch.equal(given["key"][:, :-1], before[:, :-1])
    assert not torch.equal(given["key"][:, -1], before[:, -1])


@needs_interpreter
@pytest.mark.parametrize(("shape", "dtype"), [(DECODE, "bf16"), (DECODE, "fp16"), (PREFILL, "bf16")])
def test_our_own_kernels_run_it_right(shape, dtype):
    kernel = layer_kernel("triton", WIDTHS, **shape)
    given = drawn(kernel, shape, dtype)
    with interpreted(*MODULES):
        kernel.run(**given)
    assert kernel.relative_error(given) <= kernel.rtol[dtype]


def test_ours_has_swiglu_in_the_epilogue_and_torchs_behind_it():
    assert FUSED_GATE_UP in part_names("triton")
    assert {"gate_up", "swiglu"} < set(part_names("torch"))


@pytest.mark.skipif(missing_compiler() is not None, reason=f"{missing_compiler()}")
def test_compiled_it_is_right_for_each_of_two_shapes():
    for shape in (DECODE, {**DECODE, "context": 9}):
        kernel = compiled_layer(WIDTHS, **shape)
        given = drawn(kernel, shape)
        kernel.run(**given)
        assert kernel.relative_error(given) <= kernel.rtol["fp32"]


def test_without_a_compiler_for_c_there_is_no_compiled_layer_on_a_cpu(monkeypatch):
    monkeypatch.setattr("kernels.decoder_layer.shutil.which", lambda name: None)
    kernel = compiled_layer(WIDTHS, **DECODE)
    assert "apt-get install g++" in kernel.why_not("cpu", "bf16")


@BOTH
def test_its_bytes_are_weights_cache_and_the_streams_ends(shape):
    """By hand: qkv 512 x 96, o 96 x 256, gate_up 160 x 96, down 96 x 80, two gains of 96."""
    cache = 2 * shape["batch"] * shape["context"] * 2 * 64
    weights = 512 * 96 + 96 * 256 + 160 * 96 + 96 * 80 + 2 * 96
    whole = layer_kernel("torch", WIDTHS, **shape).work(**shape, dtype="bf16")
    assert whole.hbm_bytes == 2 * (weights + cache + 4 * shape["tokens"] * 96)


def test_it_streams_its_weights_and_its_cache():
    ruler = ByteCounter()
    layer_kernel("torch", WIDTHS, **DECODE).inputs(ruler, **DECODE, dtype="bf16")
    cache = 2 * 3 * 21 * 2 * 64
    assert ruler.weight_bytes == 2 * (512 * 96 + 96 * 256 + 160 * 96 + 96 * 80 + cache)


def test_flops_are_those_of_the_parts_with_the_norm_twice():
    alone = {name: part_kernel(name, "torch", WIDTHS, **DECODE) for name in part_names("torch")}
    flops = {name: one.kernel.work(**one.shape, dtype="bf16").flops for name, one in alone.items()}
    assert (
        layer_kernel("torch", WIDTHS, **DECODE).work(**DECODE, dtype="bf16").flops
        == sum(flops.values()) + flops["norm"]
    )


def test_a_part_that_lacks_a_package_lacks_it_for_the_layer(monkeypatch):
    lacking = replace(decoder_layer.TORCH_RMSNORM, missing=lambda: "no such package")
    monkeypatch.setitem(decoder_layer.ELEMENTWISE_KERNELS["torch"], "norm", lacking)
    assert layer_kernel("torch", WIDTHS, **DECODE).why_not("cpu", "bf16") == "no such package"

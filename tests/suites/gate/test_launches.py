"""A launch that is written down compiles to what the launch itself would: the same key, without a GPU."""

import json

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from kernels import gemm, skinny
from kernels.ceilings import TRITON_READ
from kernels.configs.config import LinearConfig
from kernels.decode_attention import TRITON_DECODE_ATTENTION, TRITON_PAGED_ATTENTION
from kernels.gemm import TRITON_GEMM
from kernels.kernel import RandomTensors
from kernels.rmsnorm import TRITON_RMSNORM
from kernels.rotary import TRITON_ROTARY
from kernels.skinny import TRITON_SKINNY
from kernels.swiglu import TRITON_SWIGLU
from suites.gate import launches

HEADS = {"heads": 8, "kv_heads": 1, "head_dim": 128}
ROWS = {"tokens": 5, "n": 136, "k": 1032}
FEW = LinearConfig(64, 16, 128, 2, 4, 3)
MANY = LinearConfig(128, 128, 64, 1, 8, 3)


class Absent:
    """A driver that names a GPU and can do nothing; kernels are kept by device, and this one is no other's."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 97

    def get_current_stream(self, device):
        return 0


@pytest.fixture
def seen(monkeypatch):
    """(record, key of Triton's cache) of each launch, which is compiled and not run."""
    found, stock = [], JITFunction.run

    def compiled_only(self, *args, grid, warmup, **options):
        if not warmup:
            record = launches.describe_launch(self, args, {**options, "grid": grid, "warmup": warmup})
            found.append((record, stock(self, *args, grid=grid, warmup=True, **options).hash))
            return None
        return stock(self, *args, grid=grid, warmup=True, **options)

    monkeypatch.setattr(JITFunction, "run", compiled_only)
    monkeypatch.setattr(driver, "_active", Absent())
    return found


def run_kernel(kernel, dtype="bf16", **shape):
    kernel.run(**kernel.inputs(RandomTensors(1), dtype=dtype, **shape))


def run_skinny(config, odd=False, **more):
    inputs = TRITON_SKINNY.inputs(RandomTensors(1), dtype="bf16", **ROWS)
    if odd:  # begins two bytes off
        wide = torch.zeros(inputs["weight"].numel() + 1, dtype=torch.bfloat16)
        inputs["weight"] = wide[1:].view(inputs["weight"].shape)
    skinny.launch(**inputs, config=config, **more)


def run_gemm(config):
    inputs = TRITON_GEMM.inputs(RandomTensors(1), dtype="bf16", tokens=129, n=256, k=1024)
    gemm.launch(**inputs, config=config)


CALLS = {
    "skinny by pointers": lambda: run_skinny(FEW),
    "skinny by descriptors": lambda: run_skinny(FEW._replace(tma=True)),
    "skinny off 16 bytes": lambda: run_skinny(FEW, odd=True),
    "skinny dependent": lambda: run_skinny(FEW, dependent=True),
    "skinny at one token": lambda: run_kernel(TRITON_SKINNY, tokens=1, n=130, k=257),
    "gemm by pointers": lambda: run_gemm(MANY),
    "gemm by descriptors": lambda: run_gemm(MANY._replace(tma=True)),
    "read": lambda: run_kernel(TRITON_READ, elements=2**16 + 3),
    "rmsnorm": lambda: run_kernel(TRITON_RMSNORM, dtype="fp16", tokens=3, hidden=200),
    "rotary": lambda: run_kernel(TRITON_ROTARY, tokens=3, **HEADS),
    "swiglu": lambda: run_kernel(TRITON_SWIGLU, dtype="fp32", tokens=3, intermediate=1032),
    "attention": lambda: run_kernel(TRITON_DECODE_ATTENTION, batch=3, context=130, **HEADS),
    "paged attention": lambda: run_kernel(TRITON_PAGED_ATTENTION, batch=3, context=130, page_size=64, **HEADS),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_record_of_a_launch_has_its_key(seen, call):
    call()
    assert seen, "nothing was launched"
    for record, key in list(seen):
        made = launches.compile_launch(json.loads(json.dumps(record)))
        assert made.hash == key


def test_what_a_launch_is_specialised_on_is_written_down(seen):
    run_skinny(FEW)
    run_skinny(FEW, odd=True)
    run_kernel(TRITON_SKINNY, tokens=1, n=1, k=257)
    sound, off, one = (record["arguments"] for record, _ in seen)
    assert sound["weight"] == {"pointer": "bf16", "aligned": True}
    assert off["weight"] == {"pointer": "bf16", "aligned": False}
    assert sound["tokens"] == {"integer": {"bits": 32}}, "it is not specialised on"
    assert sound["n"] == {"integer": {"one": False, "divisible": False, "bits": 32}}
    assert one["n"] == {"integer": {"one": True, "divisible": False, "bits": 32}}
    assert sound["ROWS"] == {"value": 64}
    assert sound["tiles"] == {"value": None}
    assert len({json.dumps(record) for record, _ in seen}) == 3


@pytest.mark.parametrize("value", [1, 16, 0, 7, 2**31, 2**40 + 1, -5, -16])
def test_integers_stand_for_all_that_triton_treats_alike(value):
    class Plain:
        name, is_constexpr, do_not_specialize = "n", False, False

    told = launches._describe_argument(Plain, value)["integer"]
    other = launches.make_stand_in({"integer": told})
    assert launches._describe_argument(Plain, other)["integer"] == told


def test_records_are_written_once_each_in_an_order_that_stays(tmp_path):
    one, other = ({"kernel": "a:b", "arguments": {"x": {"value": value}}, "options": {}} for value in (1, 2))
    path = launches.write_records("sm_90", [other, one, other], tmp_path)
    assert launches.read_records("sm_90", tmp_path) == [one, other]
    text = path.read_text()
    launches.write_records("sm_90", [one, other], tmp_path)
    assert path.read_text() == text
    assert launches.read_records("sm_80", tmp_path) == []

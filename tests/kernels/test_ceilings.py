"""A launch compiles what the tests and `inspect` have looked at: the same code, from real arguments, with no GPU."""

import pytest
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from kernels import ceilings, gemm, rmsnorm, rotary, skinny, swiglu
from kernels.compile import CompiledKernel, compile_variant
from kernels.configs.config import LinearConfig
from kernels.gate_up import TRITON_GEMM_GATE_UP, TRITON_SKINNY_GATE_UP
from kernels.kernel import RandomTensors


class Absent:
    """A driver that names a GPU and can do nothing."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 99  # Triton keeps compiled kernels by device: a real one must not meet these

    def get_current_stream(self, device):
        return 0


@pytest.fixture
def launched(monkeypatch):
    """Kernels as launches would have run them, in order."""
    made, stock = [], JITFunction.run

    def compiled_only(self, *args, grid, warmup, **options):
        made.append(stock(self, *args, grid=grid, warmup=True, **options))

    monkeypatch.setattr(JITFunction, "run", compiled_only)
    monkeypatch.setattr(driver, "_active", Absent())
    return made


def code(made):
    """The instructions alone: behind them stands their file, and a cache may have seen another checkout."""
    ptx = made.ptx if isinstance(made, CompiledKernel) else made.asm["ptx"]
    return ptx.split("\t.file", 1)[0]


CONFIGS = [
    LinearConfig(8, 4, 1024, 1, 4, 1, matrix=False),
    LinearConfig(64, 16, 128, 2, 4, 3),
    LinearConfig(64, 16, 128, 2, 4, 3, tma=True),
]


@pytest.mark.parametrize("dependent", [False, True], ids=["alone", "dependent"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_skinny(launched, config, dependent):
    inputs = skinny.TRITON_SKINNY.inputs(RandomTensors(1), tokens=3, n=256, k=1024, dtype="bf16")
    skinny.launch(**inputs, config=config, dependent=dependent)
    (kernel,) = launched
    looked_at = compile_variant(skinny.variant(config, "bf16", dependent=dependent), "sm_90")
    assert code(kernel) == code(looked_at)
    assert kernel.metadata.launch_pdl == dependent


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_skinny_with_swiglu(launched, config):
    inputs = TRITON_SKINNY_GATE_UP.inputs(RandomTensors(1), tokens=3, n=256, k=1024, dtype="bf16")
    skinny.launch(**inputs, config=config, swiglu=True)
    assert code(launched[0]) == code(compile_variant(skinny.variant(config, "bf16", swiglu=True), "sm_90"))


def test_a_shape_of_ragged_edges_compiles_another_form(launched):
    inputs = skinny.TRITON_SKINNY.inputs(RandomTensors(1), tokens=3, n=250, k=1024, dtype="bf16")
    skinny.launch(**inputs, config=CONFIGS[1])
    assert code(launched[0]) != code(compile_variant(skinny.variant(CONFIGS[1], "bf16"), "sm_90"))


@pytest.mark.parametrize("swiglu", [False, True], ids=["linear", "swiglu"])
@pytest.mark.parametrize(
    "config", [LinearConfig(128, 64, 64, 2, 4, 3), LinearConfig(128, 128, 64, 1, 8, 4, tma=True)], ids=str
)
def test_gemm(launched, config, swiglu):
    kernel = TRITON_GEMM_GATE_UP if swiglu else gemm.TRITON_GEMM
    inputs = kernel.inputs(RandomTensors(1), tokens=100, n=256, k=1024, dtype="bf16")
    gemm.launch(**inputs, config=config, swiglu=swiglu)
    assert code(launched[0]) == code(compile_variant(gemm.variant(config, "bf16", swiglu=swiglu), "sm_90"))


def test_gemm_without_descriptors_where_rows_begin_off_16_bytes(launched):
    config = LinearConfig(128, 64, 64, 1, 4, 3, tma=True)
    inputs = gemm.TRITON_GEMM.inputs(RandomTensors(1), tokens=100, n=250, k=1024, dtype="bf16")  # rows of y: 500 bytes
    gemm.launch(**inputs, config=config)
    assert "cp.async.bulk.tensor" not in launched[0].asm["ptx"]


def test_read(launched):
    inputs = ceilings.TRITON_READ.inputs(RandomTensors(1), elements=65536, dtype="bf16")
    ceilings.run_triton_read(**inputs)
    assert code(launched[0]) == code(compile_variant(ceilings.read_variants("bf16")[0], "sm_90"))


PIECES = [
    (rmsnorm.TRITON_RMSNORM, {"tokens": 3, "hidden": 8192}, rmsnorm.variant(8192, "bf16")),
    (rmsnorm.TRITON_RMSNORM, {"tokens": 16, "hidden": 512}, rmsnorm.variant(512, "bf16")),
    (rotary.TRITON_ROTARY, {"tokens": 16, "heads": 8, "kv_heads": 1, "head_dim": 128}, rotary.variant(128, "bf16")),
    (swiglu.TRITON_SWIGLU, {"tokens": 3, "intermediate": 3584}, swiglu.variants("bf16")[0]),
]


@pytest.mark.parametrize(("kernel", "shape", "variant"), PIECES, ids=lambda value: getattr(value, "name", None))
def test_pieces(launched, kernel, shape, variant):
    kernel.run(**kernel.inputs(RandomTensors(1), **shape, dtype="bf16"))
    assert code(launched[0]) == code(compile_variant(variant, "sm_90"))
    assert launched[0].metadata.num_warps == variant.num_warps


def test_empty(launched):
    inputs = ceilings.TRITON_EMPTY.inputs(RandomTensors(1), dtype="fp32")
    ceilings.TRITON_EMPTY.run(**inputs)
    (kernel,) = launched
    (variant,) = ceilings.empty_variants("fp32")
    ptx = code(kernel)
    assert ptx == code(compile_variant(variant, "sm_90"))
    assert not [word for word in ("ld.global", "st.global", "bar.sync") if word in ptx]

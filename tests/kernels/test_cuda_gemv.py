"""The CUDA C++ GEMV: what compilers make of it for each GPU, and its arithmetic on this machine's processor."""

import math
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels import cuda_gemv
from kernels.compile import TRITON_ARCHS
from kernels.cuda_gemv import (
    CUDA_GEMV,
    EIGHT_ROWS_MIN_N,
    GemvVariant,
    bytes_in_flight,
    choose_variant,
    compile_cuda,
    compile_gemv,
    variants,
)
from kernels.inspection.sass import base_opcode, count_opcodes, narrowest_load_bits
from kernels.kernel import TORCH_DTYPES, RandomTensors
from specs.errors import UserError
from specs.gpus import ARCHS, blocks_per_sm
from tests.kernels.cuda_on_cpu.host import GUARD, OnCpu, bits, guarded, needs_gxx


@cache
def made(form, arch):
    with skipping_where_nothing_compiles(compile_cuda, arch, 0):
        return compile_gemv(form, arch)


VECTOR = [form for form in variants("bf16") if form.vector]
LLAMA_70B = [
    *((n, 8192) for n in (10240, 5120, 2560, 1280, 57344, 28672, 14336, 7168)),
    *((8192, k) for k in (8192, 4096, 2048, 1024, 28672, 14336, 7168, 3584)),
]
"""(n, k) of QKV, gate+up, O and down at TP 1, 2, 4, 8."""

GENERATIONS = ("sm_80", "sm_90", "sm_100", "sm_120")
"""The other archs' code is that of one of these but for its header: there the first form and the last will do."""


@contextmanager
def skipping_where_nothing_compiles(how, *arguments):
    """Skips the test if what failed in it fails for an empty kernel too: no compiler, or one older than the GPU."""
    try:
        yield
    except UserError:
        with tempfile.TemporaryDirectory() as folder:
            empty = Path(folder, "empty.cu")
            empty.write_text('extern "C" __global__ void empty() {}')
            try:
                how(empty, {}, *arguments)
            except UserError as error:
                pytest.skip(str(error))
        raise


def faults(one):
    found = {
        "spills": one.spill_bytes > 0,
        "too much shared memory": one.shared_bytes > ARCHS[one.arch].shared_bytes_per_block,
        "narrow loads": narrowest_load_bits(one.sass) != 128,
        "weights through registers": "LDGSTS" not in map(base_opcode, count_opcodes(one.sass)),
    }
    return [fault for fault, there in found.items() if there]


def all_faults(forms, arch):
    made(forms[0], arch)  # alone: threads that import cuda.core together can find it half imported
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(forms, pool.map(lambda form: made(form, arch), forms), strict=True))
    assert all(one.registers > 0 for one in results.values())
    return {str(form): found for form, one in results.items() if (found := faults(one))}


@pytest.mark.parametrize("arch", TRITON_ARCHS)
def test_forms_are_clean(arch):
    assert all_faults(VECTOR if arch in GENERATIONS else [VECTOR[0], VECTOR[-1]], arch) == {}


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_widest_forms_of_other_dtypes_are_clean(dtype):
    assert all_faults([variants(dtype)[0], [form for form in variants(dtype) if form.vector][-1]], "sm_90") == {}


def test_scalar_loads_do_not_spill_and_are_told_from_wide_ones():
    narrowest, widest = (form._replace(vector=False) for form in (VECTOR[0], VECTOR[-1]))
    expected = ["narrow loads", "weights through registers"]
    assert all_faults([narrowest, widest], "sm_90") == {str(narrowest): expected, str(widest): expected}


def test_spills_and_too_much_shared_memory_are_caught():
    # 32 warps leave a thread 64 registers, and 32 sums with as many operands do not fit into them
    crowded = GemvVariant("bf16", tokens=4, rows=8, warps=32, stages=2, vector=True)
    assert faults(made(crowded, "sm_89")) == ["spills", "too much shared memory"]


def test_nvcc_gives_the_intermediate_code_too():
    if cuda_gemv.find_nvcc() is None:
        pytest.skip("nvcc is not installed")
    assert "cp.async.cg.shared.global.L2::cache_hint" in made(VECTOR[0], "sm_90").ptx


def test_nvrtc_will_do(monkeypatch):
    monkeypatch.setattr(cuda_gemv, "find_nvcc", lambda: None)
    with skipping_where_nothing_compiles(compile_cuda, "sm_90", 0):
        assert faults(compile_gemv(VECTOR[0], "sm_90")) == []


def test_without_a_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cuda_gemv, "find_nvcc", lambda: None)
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(UserError, match=r"nvcc on the PATH.*pip install .* cuda-core"):
        compile_gemv(VECTOR[0], "sm_90")
    with pytest.raises(UserError, match=r"'sm_75'; choose one of sm_80"):
        compile_gemv(VECTOR[0], "sm_75")


def test_what_the_compiler_says_is_passed_on():
    made(VECTOR[0], "sm_90")
    with pytest.raises(UserError, match=r"cannot compile gemv.cu for sm_90: .*error.*halves them"):
        compile_gemv(VECTOR[0]._replace(rows=3), "sm_90")


def test_nvcc_is_found_through_cuda_home(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert cuda_gemv.find_nvcc() is None
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.touch(mode=0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert cuda_gemv.find_nvcc() == str(nvcc)


def test_sizes_by_hand():
    one = choose_variant(tokens=1, n=8192, dtype="bf16")
    # a step is 4 rows x 128 threads x 16 bytes = 8 KiB, four of them 32; 4 bytes for each of 4 warps x 4 rows
    assert one == ("bf16", 1, 4, 4, 4, True)
    assert (one.ring_bytes(), one.shared_bytes()) == (32768, 32768 + 64)
    assert (one.ring_bytes(1024), one.shared_bytes(1)) == (8192, 8192 + 64)  # 2 KiB a row is one step, and so is less
    assert one.ring_bytes(3584) == 32768  # 3.5 steps, whose last is half empty
    assert bytes_in_flight(one, 3584) == 4 * 3584 * 2
    assert bytes_in_flight(one) == 32768
    assert bytes_in_flight(one._replace(vector=False)) == 0
    three = choose_variant(tokens=3, n=EIGHT_ROWS_MIN_N, dtype="fp32")
    assert three == ("fp32", 3, 8, 4, 2, True)
    assert three.shared_bytes() == 32768 + 4 * 4 * 8 * 4  # three tokens take the room of four
    assert choose_variant(tokens=4, n=EIGHT_ROWS_MIN_N - 1, dtype="bf16").rows == 4


def test_variants_are_what_the_rule_chooses():
    assert [(form.tokens, form.rows) for form in VECTOR] == [(1, 4), (2, 4), (2, 8), (3, 4), (3, 8), (4, 4), (4, 8)]
    assert len(set(map(str, variants("bf16")))) == len(variants("bf16")) == 14
    chosen = {choose_variant(tokens=t, n=n, dtype="bf16") for t in range(1, 5) for n in (1, 1280, 8192, 57344)}
    assert chosen <= set(VECTOR)


@pytest.mark.parametrize("tokens", [1, 2, 3, 4])
def test_40_kib_are_in_flight_on_each_of_132_sms(tokens):
    for n, k in LLAMA_70B:
        form = choose_variant(tokens=tokens, n=n, dtype="bf16")
        registers, shared = made(form, "sm_90").registers, form.shared_bytes(k)
        fitting = blocks_per_sm(ARCHS["sm_90"], registers=registers, shared_bytes=shared, warps=form.warps)
        ctas = min(fitting, math.ceil(n / form.rows) // 132)
        assert ctas * bytes_in_flight(form, k) >= 40 * 1024, (n, k, ctas)


# Arithmetic, on this machine's processor.

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def ran(monkeypatch, *, tokens, n, k, dtype, shift=0, many_rows=EIGHT_ROWS_MIN_N, fault=None):
    """A call through `run` with NaNs all around its operands: inputs, and the stand-in for CuPy."""
    drawn = CUDA_GEMV.inputs(RandomTensors(9), tokens=tokens, n=n, k=k, dtype=dtype)
    given = {name: guarded(tensor, shift) for name, tensor in drawn.items()}
    inputs, whole = {name: view for name, (view, _) in given.items()}, given["out"][1]
    before = bits(whole).clone()
    monkeypatch.setattr(cuda_gemv, "EIGHT_ROWS_MIN_N", many_rows)
    cupy = OnCpu(monkeypatch, *inputs.values(), fault=fault)
    cuda_gemv._load_kernel.cache_clear()
    CUDA_GEMV.run(**inputs)
    outside = [*range(GUARD + shift), *range(GUARD + shift + tokens * n, len(whole))]
    assert torch.equal(bits(whole)[outside], before[outside]), "wrote outside of out"
    return inputs, cupy


def error_of(monkeypatch, **call):
    return CUDA_GEMV.relative_error(ran(monkeypatch, **call)[0])


@needs_gxx
@few
@given(
    tokens=st.integers(1, 4),
    n=st.integers(1, 21),
    k=st.integers(1, 5000) | st.integers(1, 1300).map(lambda chunks: 8 * chunks),
    dtype=st.sampled_from(["bf16", "fp16"]),
    many_rows=st.sampled_from([1, EIGHT_ROWS_MIN_N]),
    shift=st.sampled_from([0, 0, 3]),
)
@example(tokens=1, n=1, k=1, dtype="bf16", many_rows=1, shift=0)
@example(tokens=3, n=13, k=1, dtype="fp16", many_rows=1, shift=0)
@example(tokens=4, n=9, k=8 * 128 * 3 + 8, dtype="bf16", many_rows=1, shift=0)  # a chunk and a row too many
@example(tokens=3, n=8, k=8 * 127, dtype="bf16", many_rows=1, shift=0)  # the last lane has nothing to do
@example(tokens=1, n=5, k=8 * 128 * 9, dtype="fp16", many_rows=1, shift=0)  # twice round a ring of four
@example(tokens=2, n=4, k=1024, dtype="bf16", many_rows=1, shift=1)  # whole chunks at misaligned addresses
@example(tokens=4, n=7, k=2052, dtype="fp32", many_rows=1, shift=0)
@example(tokens=1, n=7, k=2051, dtype="fp32", many_rows=1, shift=0)
def test_it_agrees_with_the_reference(tokens, n, k, dtype, many_rows, shift):
    with pytest.MonkeyPatch.context() as patch:
        call = {"tokens": tokens, "n": n, "k": k, "dtype": dtype, "shift": shift, "many_rows": many_rows}
        assert error_of(patch, **call) <= CUDA_GEMV.rtol[dtype]


PLANTED = {
    "a wait that is missing": ("wait<STAGES - 1>();", ""),
    "a wait for too few": ("wait<STAGES - 1>();", "wait<STAGES>();"),
    "a refill before the slot was read": ("        wait<STAGES - 1>();", "fetch(step + STAGES); wait<STAGES - 1>();"),
    "a last chunk that is dropped": ("(k + CHUNK - 1) / CHUNK)", "(k + CHUNK - 1) / CHUNK - 1)"),
    "a row too far": ("first + r < n ? first + r : n - 1", "first + r"),
    "a wrong row": ("weight + (first + r", "weight + (first + (r ^ 1)"),
    "a row behind the last": (" && first + thread % ROWS < n)", ")"),
    "a wrong token": ("x + t * k + behind", "x + (t ^ 1) * k + behind"),
    "a sum that is left out": ("for (int warp = 0; warp < WARPS", "for (int warp = 1; warp < WARPS"),
    "a barrier that is missing": ("__syncthreads();", ""),
    "a barrier that not all reach": ("__syncthreads();", "if (thread < 32) __syncthreads();"),
    "a shuffle by part of a warp": ("add_up<SUMS>(total, lane);", "if (lane < 31) add_up<SUMS>(total, lane);"),
    "a wrong distance": ("distance = 32 * half / SUMS", "distance = 16 * half / SUMS"),
    "a ring that is too small": ("uint4* ring = shared +", "uint4* ring = shared + 8 +"),
    "a ring over the sums": ("uint4* ring = shared + SUMS * WARPS / 4", "uint4* ring = shared"),
}


@needs_gxx
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_caught(monkeypatch, name):
    # 8 x 128 x 3 + 64 elements: four steps in a ring of two for 8 lanes, three for the others; 8 rows and one too many
    call = {"tokens": 2, "n": 9, "k": 3136, "dtype": "bf16", "many_rows": 1}
    assert error_of(monkeypatch, **call) <= CUDA_GEMV.rtol["bf16"]
    try:
        error = error_of(monkeypatch, **call, fault=PLANTED[name])
    except AssertionError as caught:
        assert "the kernel" in str(caught) or "wrote outside" in str(caught)  # noqa: PT017 - either way will do
    else:
        assert not error <= CUDA_GEMV.rtol["bf16"]


def rounded_alike(monkeypatch, dtype, fault=None):
    """Whether ties, overflow, subnormals, zeros, infinities and NaN come out of the kernel as they do out of torch."""
    values = [1.00390625, 1.01171875, 1.00048828125, 1.00146484375, 65519.0, 65520.0, 3.3e38, 3.4e38, 5.9e-8, 2.9e-8]
    values += [6.1e-5, 1e-41, 0.0, math.inf, math.nan, 0.1, 1e5]
    wide = torch.tensor([*values, *(-value for value in values)])
    # The kernel adds up two operands, exactly in fp32: the upper half of the value's bits, and what is left of it.
    high = (wide.view(torch.int32) & -65536).view(torch.float32)
    low = torch.where(high.isfinite(), wide - high, 0.0)
    weight = torch.stack([high, low], 1).to(TORCH_DTYPES[dtype])
    x, out = torch.ones(1, 2, dtype=weight.dtype), torch.empty(1, len(wide), dtype=weight.dtype)
    OnCpu(monkeypatch, x, weight, out, fault=fault)
    cuda_gemv._load_kernel.cache_clear()
    CUDA_GEMV.run(x, weight, out)
    expected = weight.float().sum(1).to(weight.dtype)
    nan = expected.isnan()
    return torch.equal(out[0].isnan(), nan) and torch.equal(bits(out[0])[~nan], bits(expected)[~nan])


@needs_gxx
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_results_are_rounded_as_torch_rounds(monkeypatch, dtype):
    assert rounded_alike(monkeypatch, dtype)


@needs_gxx
@pytest.mark.parametrize(
    "fault",
    [
        ("(bits + 0x7fffu + (bits >> 16 & 1u))", "bits"),
        ("0x7fffu + (bits >> 16 & 1u)", "0x8000u"),
        ("> 0x7f800000u", "> 0x7fffffffu"),
    ],
    ids=["cuts off", "rounds ties up", "lets NaN through"],
)
def test_wrong_rounding_is_caught(monkeypatch, fault):
    assert not rounded_alike(monkeypatch, "bf16", fault)


@needs_gxx
def test_two_calls_give_the_same_bits(monkeypatch):
    first, second = (ran(monkeypatch, tokens=3, n=9, k=2000, dtype="bf16")[0]["out"] for _ in range(2))
    assert torch.equal(bits(first), bits(second))


@needs_gxx
def test_a_launch_is_what_the_shape_asks_for(monkeypatch):
    inputs, cupy = ran(monkeypatch, tokens=2, n=9, k=1024, dtype="bf16")
    ((grid, block, args, shared_bytes),) = cupy.launches
    assert grid == (3,)  # 9 rows by fours
    assert block == (128,)
    assert args == (*(inputs[name].data_ptr() for name in ("x", "weight", "out")), 9, 1024)
    assert shared_bytes == 8192 + 4 * 4 * 4 * 2  # one step, and a sum for each warp, row and token
    assert cupy.compiled == [
        ("-std=c++17", "-DFORMAT=1", "-DTOKENS=2", "-DROWS=4", "-DWARPS=4", "-DSTAGES=4", "-DVECTOR=1")
    ]


@needs_gxx
def test_the_second_call_compiles_nothing_and_is_on_torchs_stream(monkeypatch):
    cuda_gemv._cupy_stream.cache_clear()
    inputs, cupy = ran(monkeypatch, tokens=1, n=4, k=64, dtype="bf16")
    assert cupy.entered == [("device", 3), ("device", 3), ("stream", 7, 3)]  # to compile, and to launch
    CUDA_GEMV.run(**inputs)
    assert len(cupy.compiled) == 1
    assert cupy.entered[3:] == [("device", 3)]
    assert len(cupy.launches) == 2


def test_what_it_is_not_made_for_is_refused(monkeypatch):
    def call(tokens=1, dtype=torch.bfloat16):
        CUDA_GEMV.run(*(torch.zeros(shape, dtype=dtype) for shape in ((tokens, 8), (4, 8), (tokens, 4))))

    with pytest.raises(UserError, match=r"5 tokens; cuda_gemv takes 1 to 4, so use triton_skinny"):
        call(tokens=5)
    with pytest.raises(UserError, match=r"float64; cuda_gemv takes bf16, fp16, fp32"):
        call(dtype=torch.float64)
    with pytest.raises(UserError, match=r"weight has .* strides \(16, 1\).*contiguous\(\)"):
        CUDA_GEMV.run(torch.zeros(1, 8), torch.zeros(4, 16)[:, :8], torch.zeros(1, 4))
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(UserError, match=r"cuda_gemv needs CuPy: pip install -c constraints.txt .\[cu13\]"):
        call()
    assert "CuPy" in CUDA_GEMV.why_not("sm_90", "bf16")


def test_its_configuration_says_what_it_rests_on():
    said = CUDA_GEMV.configuration(arch="sm_90", dtype="bf16", tokens=4, n=57344, k=8192)
    assert said == "8x4 w4 s2 (rule)"

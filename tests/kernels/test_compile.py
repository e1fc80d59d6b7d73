"""What the compiler makes of every Triton kernel, for GPUs that need not be here."""

import re

import pytest

from kernels import gemm, gemv, read
from kernels.compile import Variant, compile_for
from kernels.draw import FreshDraw
from kernels.gemv import TRITON_GEMV
from specs.errors import UserError
from tests.kernels.interpreter import interpreted, needs_interpreter

SHARED_BYTES = {
    arch: kib * 1024 for arch, kib in {"sm_80": 163, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_120": 99}.items()
}
"""The most that one program may ask for, by the technical specifications in the CUDA C++ programming guide."""

MATRIX = {"sm_80": "HMMA", "sm_89": "HMMA", "sm_90": "HGMMA", "sm_100": "UTCHMMA", "sm_120": "HMMA"}
"""The tensor instruction of each generation: by warp, by warp group, by one thread."""

EVERYWHERE = [
    (variant, arch) for module in (gemv, gemm, read) for variant in module.variants("bf16") for arch in SHARED_BYTES
]
FP32 = [(variant, "sm_90") for module in (gemv, gemm, read) for variant in module.variants("fp32")]
FP16 = [(gemv.variants("fp16")[-1], "sm_90"), (gemm.variants("fp16")[0], "sm_90")]


def made(variant, arch):
    return compile_for(
        variant.fn,
        variant.signature,
        variant.constexprs,
        arch,
        num_warps=variant.num_warps,
        num_stages=variant.num_stages,
    )


def opcodes(sass):
    return set(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", sass, re.MULTILINE))


def faults(compiled):
    loads = {code for code in opcodes(compiled.sass) if code.startswith(("LDG.", "LDGSTS", "UTMALDG"))}
    narrow = {code for code in loads if not code.startswith("UTMALDG") and not code.endswith(".128")}
    found = {
        "spills": compiled.spill_bytes > 0,
        "too much shared memory": compiled.shared_bytes > SHARED_BYTES[compiled.arch],
        "narrow loads": bool(narrow) or not loads,
    }
    return [fault for fault, there in found.items() if there]


def has_matrix(compiled):
    return any(code.split(".")[0] == MATRIX[compiled.arch] for code in opcodes(compiled.sass))


@pytest.mark.parametrize(
    ("variant", "arch"),
    EVERYWHERE + FP32 + FP16,
    ids=lambda value: f"{value.fn.__name__}-{value}" if isinstance(value, Variant) else value,
)
def test_variant_is_clean(variant, arch):
    compiled = made(variant, arch)
    assert compiled.registers > 0
    assert faults(compiled) == []
    tensor = variant.fn is gemm._gemm and variant.signature["x"] != "*fp32"
    assert has_matrix(compiled) == tensor


def test_spills_and_too_much_shared_memory_are_caught():
    wide = gemm.Tile(rows=256, tokens=128, depth=32, warps=4, stages=8)
    signature = gemm.variants("bf16")[0].signature
    compiled = made(Variant(gemm._gemm, signature, wide.constexprs, wide.warps, wide.stages), "sm_80")
    assert faults(compiled) == ["spills", "too much shared memory"]


def test_narrow_loads_are_caught():
    variant = gemv.variants("bf16")[0]
    assert "narrow loads" in faults(made(variant._replace(constexprs={**variant.constexprs, "CHUNK": 1}), "sm_90"))


def test_only_nvidia_from_sm_80_compiles():
    variant = read.variants("bf16")[0]
    with pytest.raises(UserError, match=r"'sm_75'.*sm_80, sm_86"):
        made(variant, "sm_75")


@needs_interpreter
def test_compiles_after_the_interpreter_ran(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with interpreted(gemv):
        TRITON_GEMV.run(**TRITON_GEMV.inputs(FreshDraw(8), tokens=1, n=2, k=16, dtype="fp32"))
    assert faults(made(gemv.variants("fp32")[0], "sm_90")) == []
    assert any(tmp_path.iterdir()), "a cached result would have proved nothing"

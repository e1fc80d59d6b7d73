"""One row of `inspect`, from planted machine code, and its line in the table."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from kernels.compile import CompiledKernel
from kernels.configs.config import LinearConfig
from kernels.configs.cost_model import predict_gemm
from kernels.gate_up import TRITON_GEMM_GATE_UP
from kernels.gemm import TRITON_GEMM
from kernels.inspection import variants
from kernels.inspection.report import render_table, variant_record
from kernels.inspection.variants import InspectedVariant, inspected_variants
from kernels.skinny import TRITON_SKINNY, TRITON_SKINNY_PDL
from specs.errors import UserError
from specs.gpus import ARCHS
from specs.parallel import Shard

QKV = Shard("llama-3-70b", 8, 1, "qkv", 1280, 8192)
O_PROJ = Shard("llama-3-70b", 8, 1, "o", 8192, 1024)
CONFIG = LinearConfig(64, 16, 128, 3, 4, 4)
SASS = """
        /*0000*/                   LDGSTS.E.BYPASS.128 [R5], [R2.64] ;
        /*0010*/                   HGMMA.64x16x16.F32.BF16 R24, gdesc[UR4], R24 ;
"""
MADE = CompiledKernel("sm_90", 90, 0, 81920, "", SASS)
KEYS = {
    "kernel", "config", "basis", "dtype", "arch", "gpu", "registers", "spill_bytes", "shared_bytes", "ctas_per_sm",
    "bytes_in_flight_per_sm", "bytes_needed_per_sm", "instructions", "load_bits", "predicted", "reason", "barriers",
    "pipeline_barriers", "fences", "unfenced",
}  # fmt: skip
FIGURES = ("registers", "spill_bytes", "shared_bytes", "ctas_per_sm", "bytes_in_flight_per_sm", "load_bits")
FIGURES += ("barriers", "fences", "unfenced")
LOOP = """
        /*0000*/                   LDGSTS.E.BYPASS.128 [R5], [R2.64] ;
        /*0010*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0020*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0030*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0040*/                   HGMMA.64x16x16.F32.BF16 R24, gdesc[UR4], R24 ;
        /*0050*/               @P0 BRA 0x0 ;
        /*0060*/                   EXIT ;
"""
"""One barrier more than its pipeline needs, and no fence."""


def form(kernel=TRITON_SKINNY, made=MADE, **changed):
    planted = InspectedVariant(
        kernel=kernel,
        config=str(CONFIG),
        basis="rule",
        dtype="bf16",
        warps=4,
        in_flight_bytes=49152,
        compile_for=lambda arch: made,
        linear_config=CONFIG,
        shapes=((QKV, 16), (O_PROJ, 16)),
    )
    return replace(planted, **changed)


def test_figures_by_hand():
    told = variant_record(form(), ARCHS["sm_90"])
    assert told.keys() == KEYS
    assert (told["registers"], told["spill_bytes"], told["shared_bytes"]) == (90, 0, 81920)
    assert told["ctas_per_sm"] == 2  # 228 KiB / 81; 65536 / (96 x 128) registers would hold 5
    assert told["bytes_in_flight_per_sm"] == 2 * 49152
    assert told["bytes_needed_per_sm"] == 36364  # 4.8e12 x 1 us / 132
    assert told["instructions"] == {"LDGSTS.128": 1, "HGMMA": 1}
    assert (told["load_bits"], told["reason"], told["gpu"]) == (128, None, "h200_sxm")
    json.dumps(told)


def test_each_shape_has_its_prediction_beside_the_floor():
    qkv, o_proj = variant_record(form(), ARCHS["sm_90"])["predicted"]
    assert (qkv["layer"], qkv["tp"], qkv["n"], qkv["k"], qkv["tokens"]) == ("qkv", 8, 1280, 8192, 16)
    assert qkv["ctas_per_sm"] == 1  # 20 tiles in 3 parts are fewer than 132 SMs
    assert o_proj["ctas_per_sm"] == 2  # 128 tiles in 3 parts would make 3, and 2 fit
    # (1280 x 8192 + 16 x 8192 + 16 x 1280) x 2 bytes / 4.8 TB/s
    assert qkv["floor_seconds"] == pytest.approx(21_274_624 / 4.8e12)
    for one in (qkv, o_proj):
        assert one["share_of_floor"] == pytest.approx(one["floor_seconds"] / one["seconds"])
        assert 0 < one["share_of_floor"] < 1


def test_barriers_and_fences_are_those_of_the_loop():
    told = variant_record(form(made=replace(MADE, sass=LOOP)), ARCHS["sm_90"])
    assert (told["barriers"], told["pipeline_barriers"], told["fences"], told["unfenced"]) == (3, 2, 0, True)
    fenced = LOOP.replace("0030*/                   BAR.SYNC.DEFER_BLOCKING 0x0", "0030*/  FENCE.VIEW.ASYNC.S")
    told = variant_record(form(made=replace(MADE, sass=fenced)), ARCHS["sm_90"])
    assert (told["barriers"], told["pipeline_barriers"], told["fences"], told["unfenced"]) == (2, 2, 1, False)
    none = variant_record(form(linear_config=None, shapes=()), ARCHS["sm_90"])
    assert (none["barriers"], none["pipeline_barriers"], none["fences"], none["unfenced"]) == (None, None, None, False)


def test_what_an_arch_lacks_is_a_reason_and_no_figure():
    told = variant_record(form(missing_feature="sm_80 has no such thing"), ARCHS["sm_80"])
    assert told.keys() == KEYS
    assert told["reason"] == "sm_80 has no such thing"
    assert [told[figure] for figure in FIGURES] == [None] * len(FIGURES)
    assert (told["instructions"], told["predicted"]) == ({}, [])
    assert variant_record(form(), ARCHS["sm_80"])["reason"] is None


def test_a_missing_compiler_is_a_reason_too():
    def missing(arch):
        raise UserError("nvcc is not on the PATH")

    told = variant_record(form(compile_for=missing), ARCHS["sm_90"])
    assert told["reason"] == "nvcc is not on the PATH"
    assert told["registers"] is None


def test_what_no_sm_holds_has_no_time():
    told = variant_record(form(made=replace(MADE, shared_bytes=300_000)), ARCHS["sm_90"])
    assert (told["ctas_per_sm"], told["bytes_in_flight_per_sm"]) == (0, 0)
    assert {shape["seconds"] for shape in told["predicted"]} == {None}
    assert {shape["share_of_floor"] for shape in told["predicted"]} == {None}


def test_every_shape_is_served_by_one_form_of_each_kernel_and_forms_are_told_once(monkeypatch):
    monkeypatch.setattr(variants, "SKINNY_TOKEN_CLASSES", (1, 4, 16, 64))
    monkeypatch.setattr(variants, "GEMM_TOKEN_CLASSES", (128, 2048))
    found = list(inspected_variants(ARCHS["sm_90"], "bf16", [QKV, O_PROJ]))
    served = {}
    for one in found:
        served.setdefault(one.kernel.name, []).extend(one.shapes)
    assert served["triton_skinny"] == served["triton_skinny_pdl"]
    assert sorted(served["triton_skinny"]) == sorted((s, t) for s in (QKV, O_PROJ) for t in (1, 4, 16, 64))
    assert sorted(served["cuda_gemv"]) == sorted((s, t) for s in (QKV, O_PROJ) for t in (1, 2, 3, 4))
    assert len({(one.kernel.name, one.config, one.basis) for one in found}) == len(found)
    assert sorted(served["triton_gemm"]) == sorted((s, t) for s in (QKV, O_PROJ) for t in (128, 2048))
    assert "triton_read" in served


def test_the_epilogue_of_gate_and_up_serves_gate_up_alone(monkeypatch):
    monkeypatch.setattr(variants, "GEMM_TOKEN_CLASSES", (128, 2048))
    gate_up = Shard("llama-3-70b", 8, 1, "gate_up", 7168, 8192)
    found = [
        one for one in inspected_variants(ARCHS["sm_90"], "bf16", [QKV, gate_up]) if one.kernel is TRITON_GEMM_GATE_UP
    ]
    assert sorted(shape for one in found for shape in one.shapes) == [(gate_up, 128), (gate_up, 2048)]


def test_many_tokens_are_predicted_by_the_model_of_the_gemm():
    cut = LinearConfig(256, 128, 64, 1, 8, 4, tma=True)
    told = variant_record(form(TRITON_GEMM, linear_config=cut, shapes=((QKV, 8192),)), ARCHS["sm_90"])
    expected = predict_gemm(cut, ARCHS["sm_90"].representative, 2, "bf16", tokens=8192, n=1280, k=8192)
    assert told["predicted"][0]["seconds"] == expected.seconds


def test_no_kernel_is_listed_in_a_format_that_it_refuses():
    dtype = "fp16"
    assert [
        one.kernel.name for one in inspected_variants(ARCHS["sm_90"], dtype, []) if dtype not in one.kernel.rtol
    ] == []


def printed(*rows, name="sm_90"):
    out = io.StringIO()
    Console(file=out, width=200, markup=False).print(*render_table(rows, ARCHS[name]), sep="\n")
    return out.getvalue()


def test_the_table_shows_figures_and_what_they_rest_on():
    told = variant_record(form(), ARCHS["sm_90"])
    shares = sorted(shape["share_of_floor"] for shape in told["predicted"])
    text = printed(told)
    (line,) = [line for line in text.splitlines() if "matrix 64x16x128" in line]
    # 81920 / 1024 = 80 KiB; 98304 / 1024 = 96 KiB
    assert (
        line.split()
        == (
            f"skinny matrix 64x16x128 /3 w4 s4 rule 90 0 80.0 2 96 / 36 HGMMA 1, LDGSTS.128 1 "
            f"{shares[0]:.0%} – {shares[1]:.0%} 2"
        ).split()
    )
    assert "h200_sxm: 4.80 TB/s, 132 SMs" in text
    assert "bandwidth x 1 us / SMs" in text  # 36364 / 1024 = 35.5
    assert "nobody measured it" in text


def test_the_table_shows_reasons():
    lacking = form(TRITON_SKINNY_PDL, missing_feature="sm_80 has no such thing")
    text = printed(variant_record(form(), ARCHS["sm_80"]), variant_record(lacking, ARCHS["sm_80"]), name="sm_80")
    line = next(line for line in text.splitlines() if line.startswith("skinny pdl"))
    assert "n/a" in line
    assert "sm_80 has no such thing" in " ".join(text.split())


def test_the_table_marks_needless_barriers_and_missing_fences():
    cell = "  3 > 2      0*"
    text = printed(variant_record(form(made=replace(MADE, sass=LOOP)), ARCHS["sm_90"]))
    assert cell in next(line for line in text.splitlines() if line.startswith("skinny"))
    assert "* unfenced: cp.async writes what the instruction reads" in " ".join(text.split())
    text = printed(
        variant_record(form(linear_config=CONFIG._replace(tma=True), made=replace(MADE, sass=LOOP)), ARCHS["sm_90"])
    )
    assert "3 >" not in text.split("barriers: ")[0]

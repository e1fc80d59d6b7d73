"""Import of quantized models: each part in the format that an engine keeps it in."""

import pytest

from reports.importers.aiconfigurator import command, readers
from specs.errors import UserError
from specs.gpus import GPUS
from specs.models import MODELS
from specs.parallel import Shard, Split
from tests.reports.importers.aiconfigurator import planted_tables as planted
from tests.reports.importers.aiconfigurator.planted_tables import affine, shape

H200 = GPUS["h200_sxm"]
LLAMA = Split(MODELS["llama-3-70b"], 8)
O_TP8 = Shard("llama-3-70b", 8, 1, "o", 8192, 1024)
HEAD_TP8 = Shard("llama-3-70b", 8, 1, "lm_head", 16032, 8192)
DECODE = {"batch_size": 4, "isl": 1, "step": 1023, "latency": 0.5}
MIXED = {"kv_cache_dtype": "fp8", "latency": 0.25}
ALL_FP8 = {"attn_dtype": "fp8", "kv_cache_dtype": "fp8", "latency": 0.125}


@pytest.fixture
def system(tmp_path):
    return tmp_path / "h200_sxm"


def linears(system, *shards, dtypes=("fp8",)):
    return readers.read_linears(system, H200, shards, dtypes)


def attention(system, *dtypes):
    return readers.read_attention(system, H200, (LLAMA,), dtypes).measurements


def quantize(system, computescale, scale_matrix, framework="TRTLLM"):
    """Tables of both kernels; rows are (m, k, milliseconds)."""
    for name, rows in (("computescale", computescale), ("scale_matrix", scale_matrix)):
        planted.table(
            system / "quantize", [{"m": m, "k": k, "latency": time} for m, k, time in rows], framework,
            name=f"{name}_perf", quant_dtype="fp8",
        )  # fmt: skip


@pytest.mark.parametrize("dtype", ["fp8", "fp8-block", "nvfp4"])
def test_the_lm_head_is_read_in_bf16_too(system, dtype):
    theirs = {"fp8-block": "fp8_block"}.get(dtype, dtype)
    rows = [*shape(8192, 1024, affine, (64,)), *shape(16032, 8192, affine, (64,))]
    planted.gemm(system, [{**row, "gemm_dtype": kind} for row in rows for kind in ("bfloat16", theirs)])
    found = {(one.case.layer, one.case.dtype) for one in linears(system, O_TP8, HEAD_TP8, dtypes=(dtype,)).measurements}
    assert found == {("o", dtype), ("lm_head", "bf16"), ("lm_head", dtype)}


def test_nothing_is_read_twice_where_bf16_is_asked_for_too(system):
    rows = [*shape(8192, 1024, affine, (64,)), *shape(16032, 8192, affine, (64,))]
    planted.gemm(system, [{**row, "gemm_dtype": kind} for row in rows for kind in ("bfloat16", "fp8")])
    names = [one.case.name for one in linears(system, O_TP8, HEAD_TP8, dtypes=("bf16", "fp8")).measurements]
    assert len(names) == len(set(names)) == 4


def test_a_missing_format_of_the_head_is_said(system):
    planted.gemm(system, shape(16032, 8192, affine, (64,)), gemm_dtype="fp8")
    assert linears(system, HEAD_TP8).not_run == {"aiconfigurator::linear[bf16]": "no table holds GEMMs in bf16"}


def test_nvfp4_reads_nine_sixteenths_of_a_byte_and_writes_two(system):
    planted.gemm(system, shape(8192, 1024, affine), gemm_dtype="nvfp4")
    (case,) = (one.case for one in linears(system, O_TP8, dtypes=("nvfp4",)).measurements if one.case.tokens == 64)
    assert case.name == "aiconfigurator::linear[llama-3-70b-tp8-o-64-nvfp4-vllm]"
    assert case.hbm_bytes == 5_804_032  # 9/16 x (65,536 + 8,388,608) + 2 x 524,288


@pytest.mark.parametrize("dtype", ["fp8", "fp8-block", "nvfp4"])
def test_queries_are_bf16_over_either_cache(system, dtype):
    planted.attention(system, "generation", [DECODE, DECODE | MIXED, DECODE | ALL_FP8])
    plain, mixed = (one.case for one in attention(system, dtype))
    assert plain.name == "aiconfigurator::attention[llama-3-70b-tp8-decode-b4-c1024-bf16-vllm]"
    assert mixed.name == "aiconfigurator::attention[llama-3-70b-tp8-decode-b4-c1024-bf16-kvfp8-vllm]"
    assert [(one.dtype, one.kv_dtype) for one in (plain, mixed)] == [("bf16", None), ("bf16", "fp8")]
    # K and V: 2 x 4 x 1024 x 1 x 128 of one byte; q and the result: 2 x 4 x 8 x 128 of two
    assert mixed.hbm_bytes == 1_048_576 + 16_384


def test_the_cache_of_a_model_in_bf16_stays_bf16(system):
    planted.attention(system, "generation", [DECODE, DECODE | MIXED])
    assert [one.case.kv_dtype for one in attention(system, "bf16")] == [None]


def test_queries_in_fp8_are_read_of_a_framework_without_others(system):
    planted.attention(system, "context", [{**DECODE, **ALL_FP8}], "SGLang")
    planted.attention(system, "context", [DECODE, DECODE | ALL_FP8])
    found = [(one.framework, one.case.dtype, one.case.kv_dtype) for one in attention(system, "fp8")]
    assert sorted(found) == [("sglang", "fp8", None), ("vllm", "bf16", None)]


def test_the_quantization_of_activations_is_subtracted_from_one_framework(system):
    for framework, latency in (("TRTLLM", 0.03), ("VLLM", 0.04)):
        planted.gemm(system, [{"m": 64, "n": 8192, "k": 1024, "latency": latency}], framework, gemm_dtype="fp8")
        quantize(system, [(64, 1024, 0.007)], [(64, 1024, 0.002)], framework)
    imported = linears(system, O_TP8)
    found = {one.framework: (one.median, one.provenance, one.doubts) for one in imported.measurements}
    assert found["vllm"] == (pytest.approx(40e-6), "published", ())
    assert found["trtllm"] == (pytest.approx(21e-6), "published", ())  # 30 - 7 - 2 us
    assert imported.notes == ["h200_sxm: fp8 GEMMs of trtllm are without computescale and scale_matrix"]


def test_other_formats_keep_their_times(system):
    rows = [{"m": 64, "n": 8192, "k": 1024, "latency": 0.03, "gemm_dtype": kind} for kind in ("fp8_block", "bfloat16")]
    planted.gemm(system, rows, "TRTLLM")
    quantize(system, [(64, 1024, 0.007)], [(64, 1024, 0.002)])
    imported = linears(system, O_TP8, dtypes=("bf16", "fp8-block"))
    assert [one.median for one in imported.measurements] == [pytest.approx(30e-6)] * 2
    assert imported.notes == []


@pytest.mark.parametrize(
    ("axis", "sizes"), [("m", ((32, 1024), (96, 1024), (128, 1024))), ("k", ((64, 512), (64, 1536), (64, 2048)))]
)
def test_a_missing_time_of_quantization_lies_on_a_line_between_others(system, axis, sizes):
    planted.gemm(system, [{"m": 64, "n": 8192, "k": 1024, "latency": 0.03}], "TRTLLM", gemm_dtype="fp8")
    line = [(*at, time) for at, time in zip(sizes, (0.004, 0.008, 0.01), strict=True)]
    quantize(system, line, [(64, 1024, 0.0)])
    (one,) = linears(system, O_TP8).measurements
    assert one.median == pytest.approx(24e-6), axis  # half-way between 4 and 8 us


@pytest.mark.parametrize(
    ("milliseconds", "at", "why"),
    [
        (0.028, (64, 1024), "takes 30.0 us, and computescale and scale_matrix alone 30.0 us"),
        (0.007, (64, 512), "includes computescale, which no table has at m=64, k=1024"),
    ],
)
def test_a_time_without_a_rest_is_refused(system, milliseconds, at, why):
    planted.gemm(system, [{"m": 64, "n": 8192, "k": 1024, "latency": 0.03}], "TRTLLM", gemm_dtype="fp8")
    quantize(system, [(*at, milliseconds)], [(64, 1024, 0.002)])
    imported = linears(system, O_TP8)
    assert imported.measurements == []
    assert imported.refused == {"aiconfigurator::linear[llama-3-70b-tp8-o-64-fp8-trtllm]": why}


def test_times_keep_the_quantization_where_no_table_has_it(system):
    planted.gemm(system, [{"m": 64, "n": 8192, "k": 1024, "latency": 0.03}], "TRTLLM", gemm_dtype="fp8")
    imported = linears(system, O_TP8)
    assert imported.measurements[0].median == pytest.approx(30e-6)
    (note,) = imported.notes
    assert note.startswith("h200_sxm: fp8 GEMMs of trtllm include dynamic quantization (h200_sxm: no table quantize/")


def test_a_system_without_the_format_is_refused_although_it_has_attention(system):
    planted.whole(system)
    with pytest.raises(UserError, match=r"none of its tables holds llama-3-70b, .* in nvfp4"):
        command.result_text(planted.package(system.parent), "h200_sxm", command.ImportOptions(dtypes=("nvfp4",)))

import pytest

from reports.importers.aiconfigurator import readers
from specs.gpus import GPUS
from specs.models import MODELS
from specs.parallel import Split
from tests.reports.importers.aiconfigurator import planted_tables as planted

LLAMA = Split(MODELS["llama-3-70b"], 8)  # 8 heads and one of keys and values a rank
DECODE = {"batch_size": 4, "isl": 1, "step": 1023, "latency": 0.5}
PREFILL = {"batch_size": 2, "isl": 512, "step": 0, "latency": 0.5}


@pytest.fixture
def system(tmp_path):
    return tmp_path / "h200_sxm"


def read(system, *splits, dtypes=("bf16",)):
    return readers.read_attention(system, GPUS["h200_sxm"], splits or (LLAMA,), dtypes)


def test_decode_reads_keys_and_values_of_the_whole_context(system):
    planted.attention(system, "generation", [DECODE], version="0.24.0", kernel_source="fa3")
    imported = read(system)
    (one,) = imported.measurements
    assert one.samples == (pytest.approx(5e-4),)
    assert (one.framework, one.version, one.kernel_source) == ("vllm", "0.24.0", "fa3")
    assert (one.provenance, one.clock) == ("published", "published")
    case = one.case
    assert case.name == "aiconfigurator::attention[llama-3-70b-tp8-decode-b4-c1024-bf16-vllm]"
    assert (case.question, case.op, case.layer, case.implementation) == ("attention", "attention", "decode", "vllm")
    assert (case.cache, case.launch, case.tp, case.pp) == ("unknown", "unknown", 8, 1)
    assert (case.tokens, case.context, case.dtype) == (4, 1024, "bf16")
    assert case.flops == 16_777_216  # 4 queries x 1024 x 8 heads x 128, each 2 flops for QK and 2 for PV
    # K and V: 2 x 4 x 1024 x 1 x 128; q and the result: 2 x 4 x 8 x 128; 2 bytes each
    assert case.hbm_bytes == 2_097_152 + 16_384
    assert [*imported.not_run] == ["aiconfigurator::attention[prefill]"]


def test_prefill_is_causal(system):
    planted.attention(system, "context", [PREFILL])
    imported = read(system)
    case = imported.measurements[0].case
    assert case.name == "aiconfigurator::attention[llama-3-70b-tp8-prefill-b2-c512-bf16-vllm]"
    assert (case.layer, case.tokens, case.context) == ("prefill", 1024, 512)
    assert case.flops == 1_075_838_976  # 4 x 1024 queries x 513 / 2 x 8 x 128: a query sees itself and what is before
    # K and V: 2 x 2 x 512 x 128; q and the result: 2 x 1024 x 8 x 128; 2 bytes each
    assert case.hbm_bytes == 524_288 + 4_194_304
    assert [*imported.not_run] == ["aiconfigurator::attention[decode]"]


@pytest.mark.parametrize(
    "other",
    [
        {"num_heads": 16},
        {"num_key_value_heads": 8},
        {"head_dim": 64},
        {"window_size": 128},
        {"beam_width": 4},
        {"kv_cache_dtype": "fp8"},
        {"attn_dtype": "fp8", "kv_cache_dtype": "fp8"},
    ],
)
def test_other_attention_is_left_out(system, other):
    planted.attention(system, "generation", [DECODE, {**DECODE, "latency": 9.0, **other}])
    (one,) = read(system).measurements
    assert one.median == pytest.approx(5e-4)


def test_keys_and_values_in_fp8_where_the_queries_are_too(system):
    planted.attention(system, "generation", [DECODE], attn_dtype="fp8", kv_cache_dtype="fp8")
    (one,) = read(system, dtypes=("bf16", "fp8")).measurements
    assert (one.case.dtype, one.case.hbm_bytes) == ("fp8", 1_048_576 + 8_192)


def test_each_split_takes_the_heads_of_its_rank(system):
    heads = [{**DECODE, "num_heads": 64 // tp, "num_key_value_heads": 8 // tp, "latency": tp} for tp in (1, 2, 4, 8)]
    planted.attention(system, "generation", heads)
    splits = [Split(MODELS["llama-3-70b"], tp) for tp in (1, 4)]
    found = read(system, *splits, Split(MODELS["deepseek-v3"])).measurements
    assert [(one.case.tp, one.median) for one in found] == [(1, pytest.approx(1e-3)), (4, pytest.approx(4e-3))]


def test_old_tables_have_no_window(system):
    path = planted.attention(system, "generation", [DECODE])
    planted.pd.read_parquet(path).drop(columns="window_size").to_parquet(path)
    assert len(read(system).measurements) == 1


def test_several_kernels_for_one_point_stand_apart(system):
    both = [{**DECODE, "kernel_source": "fa3"}, {**DECODE, "kernel_source": "triton", "latency": 0.75}]
    planted.attention(system, "generation", [*both, {**DECODE, "step": 2047, "kernel_source": "fa3"}])
    names = {one.case.name.partition("decode-")[2]: one.median for one in read(system).measurements}
    assert names == {
        "b4-c1024-bf16-vllm-fa3]": pytest.approx(5e-4),
        "b4-c1024-bf16-vllm-triton]": pytest.approx(7.5e-4),
        "b4-c2048-bf16-vllm]": pytest.approx(5e-4),
    }


def test_the_newest_version(system):
    planted.attention(system, "generation", [DECODE], version="0.10.0")
    older = [{**DECODE, "latency": 9.0}, {**DECODE, "batch_size": 8}]
    planted.attention(system, "generation", older, version="0.9.0")
    (one,) = read(system).measurements
    assert (one.version, one.case.tokens) == ("0.10.0", 4)


def test_without_tables_both_are_missing_with_a_reason(system):
    imported = read(system)
    assert imported.measurements == []
    assert [*imported.not_run] == [f"aiconfigurator::attention[{phase}]" for phase in ("decode", "prefill")]
    assert all("no table attention/" in why for why in imported.not_run.values())

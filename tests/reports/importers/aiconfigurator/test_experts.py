import pytest

from reports.importers.aiconfigurator import readers
from specs.gpus import GPUS
from specs.models import MODELS
from tests.reports.importers.aiconfigurator import planted_tables as planted
from tests.reports.importers.aiconfigurator.planted_tables import TOKENS

QWEN = MODELS["qwen3-235b-a22b"]


@pytest.fixture
def system(tmp_path):
    return tmp_path / "h200_sxm"


def rows(milliseconds=lambda m: 1.0 + m, tokens=TOKENS, **told):
    return [{"num_tokens": m, "latency": milliseconds(m), **told} for m in tokens]


def read(system, models=(QWEN,), widths=(1, 2, 4, 8), dtypes=("bf16",)):
    return readers.read_experts(system, GPUS["h200_sxm"], models, widths, dtypes)


def by_tokens(imported):
    found = {one.case.tokens: one for one in imported.measurements}
    assert len(found) == len(imported.measurements)
    return found


def test_a_tabulated_point_says_all_that_is_known_of_it(system):
    planted.experts(system, rows(), version="0.24.0", kernel_source="vllm_fused_moe")
    one = by_tokens(read(system))[4]
    assert one.samples == (pytest.approx(5e-3),)
    assert (one.framework, one.version, one.kernel_source) == ("vllm", "0.24.0", "vllm_fused_moe")
    assert (one.provenance, one.interpolated_over, one.interpolation_error) == ("published", None, None)
    case = one.case
    assert case.name == "aiconfigurator::moe[qwen3-235b-a22b-tp2-4-bf16-balanced-vllm]"
    assert (case.question, case.op, case.layer, case.implementation) == ("moe", "moe", "experts", "vllm")
    assert (case.cache, case.launch, case.distribution, case.tp, case.pp) == ("unknown", "unknown", "balanced", 2, 1)
    # a slice of an expert is (2 x 1536 + 1536) / 2 x 4096 = 9,437,184 weights; each token visits 8 of them
    assert case.flops == 2 * 4 * 8 * 9_437_184
    # 4 tokens dealt evenly visit 32 of the 128 experts; x is read and y written, 4 x 4096 each
    assert case.hbm_bytes == (32 * 9_437_184 + 2 * 4 * 4096) * 2


def test_no_more_experts_are_read_than_there_are(system):
    planted.experts(system, rows())
    assert by_tokens(read(system))[64].case.hbm_bytes == (128 * 9_437_184 + 2 * 64 * 4096) * 2


def test_who_visits_whom_is_unknown_of_other_distributions(system):
    planted.experts(system, rows(distribution="power_law_1.2"))
    case = by_tokens(read(system))[4].case
    assert (case.distribution, case.hbm_bytes, case.flops) == ("power_law_1.2", 0, 2 * 4 * 8 * 9_437_184)


def test_fp8_reads_one_byte_and_writes_two(system):
    planted.experts(system, rows(moe_dtype="fp8"))
    assert read(system).measurements == []
    case = by_tokens(read(system, dtypes=("fp8",)))[4].case
    assert (case.dtype, case.hbm_bytes) == ("fp8", 32 * 9_437_184 + 4 * 4096 * (1 + 2))


@pytest.mark.parametrize(("tokens", "over"), [(125, "tokens 96–128"), (1000, "tokens 768–1024")])
def test_tokens_that_are_asked_for_are_interpolated(system, tokens, over):
    planted.experts(system, rows(lambda m: 5.0 if m == 128 else 1.0))
    one = by_tokens(read(system))[tokens]
    assert (one.provenance, one.interpolated_over) == ("interpolated", over)
    if tokens == 125:  # without 96, the line from 64 to 128 says 3; without 128, its neighbours say 1 for 5
        assert one.median == pytest.approx((1 + 4 * 29 / 32) * 1e-3)
        assert one.interpolation_error == pytest.approx(2.0)
    else:
        assert (one.median, one.interpolation_error) == (pytest.approx(1e-3), pytest.approx(0))


def test_only_experts_that_are_whole_on_every_rank(system):
    both = rows(moe_ep_size=1) + rows(lambda m: 99.0, moe_ep_size=2)
    planted.experts(system, both)
    found = by_tokens(read(system))
    assert sorted(found) == sorted({*TOKENS, 125, 1000})
    assert found[4].median == pytest.approx(5e-3)


def test_only_the_widths_and_models_that_are_asked_for(system):
    planted.experts(system, rows(moe_tp_size=2) + rows(moe_tp_size=4) + rows(inter_size=768) + rows(num_experts=64))
    imported = read(system, models=(QWEN, MODELS["deepseek-v3"], MODELS["llama-3-70b"]), widths=(4,))
    assert {(one.case.model, one.case.tp) for one in imported.measurements} == {("qwen3-235b-a22b", 4)}
    assert imported.not_run == {
        "aiconfigurator::moe[deepseek-v3-experts]": "no table holds experts of these shapes in these formats"
    }


def test_several_kernels_of_one_table_stand_apart(system):
    planted.experts(system, rows(kernel_source="a") + rows(lambda m: 2.0 + m, kernel_source="b"))
    found = {one.kernel_source: one for one in read(system).measurements if one.case.tokens == 4}
    assert {name: one.median for name, one in found.items()} == {"a": pytest.approx(5e-3), "b": pytest.approx(6e-3)}
    assert {one.case.name for one in found.values()} == {
        f"aiconfigurator::moe[qwen3-235b-a22b-tp2-4-bf16-balanced-vllm-{kernel}]" for kernel in "ab"
    }


def test_the_newest_version_of_each_series(system):
    planted.experts(system, rows(tokens=(1, 2)), version="0.10.0")
    planted.experts(system, rows(lambda m: 99.0) + rows(lambda m: 7.0, moe_tp_size=4), version="0.9.0")
    found = read(system).measurements
    assert {(one.version, one.case.tp, one.case.tokens) for one in found if one.case.tp == 2} == {
        ("0.10.0", 2, 1),
        ("0.10.0", 2, 2),
    }
    assert {one.version for one in found if one.case.tp == 4} == {"0.9.0"}


def test_fewer_tokens_that_take_longer_are_doubted(system):
    planted.experts(system, rows(lambda m: 9.0 if m == 8 else 1.0))
    found = by_tokens(read(system))
    assert {tokens: one.doubts for tokens, one in found.items() if one.doubts} == {
        8: ("9.00 times the time of 2048 tokens",)
    }


@pytest.mark.parametrize(("tp", "dtype", "hot"), [(2, "bfloat16", {1}), (4, "bfloat16", {1, 2}), (4, "fp8", {1, 2, 4})])
def test_the_few_experts_that_few_tokens_visit_may_be_hot(system, tp, dtype, hot):
    # a token visits 8 slices of 18.9 MB under TP2 in bf16; hot is less than 4 x 62.9 MB = 251.7 MB
    planted.experts(system, rows(moe_tp_size=tp, moe_dtype=dtype))
    found = by_tokens(read(system, dtypes=("bf16", "fp8")))
    assert {tokens for tokens, one in found.items() if one.maybe_hot} == hot
    assert {one.maybe_hot for one in found.values()} == {True, False}

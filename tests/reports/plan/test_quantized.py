"""Plans of quantized models: each part in the format that an engine keeps it in."""

from importlib import util

import pytest

from reports import results
from reports.plan import capacity, report
from reports.plan.planner import plan_for_profile
from reports.plan.profile import build_profile
from reports.plan.query import PlanQuery
from reports.plan.step import PartCosts, PromptChunk, Variant
from specs.parallel import Deployment
from specs.units import STORED_ITEMSIZE
from tests.reports.plan import planted_parts
from tests.reports.plan.planted_parts import US, attention, linear
from tests.reports.run_reports import run_reports

NO_PROMPT = PromptChunk()
QUERY = {"model": "llama-3-70b", "gpus": 8, "context": 256, "batches": (64,)}
TP8 = Deployment(tp=8)


def quantized(dtype, cached=(1, 2, 4, 8)):
    """The planted parts, linears twice as fast in `dtype`, and attention over fp8 at the TP in `cached`."""
    found = planted_parts.all_parts()
    for tp in (1, 2, 4, 8):
        for layer in ("qkv", "o", "gate_up", "down", "lm_head"):
            found += [
                linear(layer, tp, tokens, (40 + 0.4 * tokens) / tp * US, dtype=dtype) for tokens in (1, 1024, 16384)
            ]
    for tp in cached:
        found += [attention(tp, batch, 256, 0.3 * batch * US, kv_dtype="fp8") for batch in (1, 512)]
    return found


@pytest.fixture
def profile(tmp_path):
    def made(dtype="fp8", measurements=None):
        found = quantized(dtype) if measurements is None else measurements
        return build_profile([results.load(planted_parts.write(tmp_path / "planted.json", found))], dtype)

    return made


def costs(profile, elementwise=False, **asked):
    return PartCosts(profile, PlanQuery(**{**QUERY, "dtype": profile.dtype, **asked}), Variant("vllm", elementwise))


def microseconds(found):
    return {name: one.seconds / US for name, one in found.items()}


@pytest.mark.parametrize("dtype", ["fp8", "fp8-block", "nvfp4"])
def test_a_layer_has_linears_in_the_format_an_fp8_cache_and_messages_in_bf16(profile, dtype):
    # 4 x (40 + 0.4 x 64) / 8 = 32.8; 0.3 x 64 = 19.2; of 64 x 8192 x 2 = 1 MiB as in bf16: 214.8
    found = costs(profile(dtype)).layer_parts(8, 64, NO_PROMPT, 8)
    expected = {"linears": 32.8, "attention": 19.2, "all-reduce": 214.8}
    assert microseconds(found) == {name: pytest.approx(one) for name, one in expected.items()}
    assert found["attention"].cases
    assert all("kvfp8" in name for name in found["attention"].cases)


def test_the_head_stays_in_bf16_and_in_fp8_where_no_other_is(profile):
    assert microseconds(costs(profile()).head_parts(8, 64, 8))["lm_head"] == pytest.approx(41.0)  # as in bf16
    narrow = [one for one in quantized("fp8") if (one.case.layer, one.case.dtype) != ("lm_head", "bf16")]
    found = costs(profile(measurements=narrow)).head_parts(8, 64, 8)["lm_head"]
    assert found.seconds / US == pytest.approx((40 + 0.4 * 64) / 8)


def test_elementwise_kernels_move_bf16(profile):
    # test_part_costs works it out for bf16
    found = costs(profile(), elementwise=True).layer_parts(8, 64, NO_PROMPT, 8)["elementwise"]
    assert found.seconds / US == pytest.approx(8 + 2.10261, rel=1e-5)


@pytest.mark.parametrize(("dtype", "itemsize"), [("fp8", 1), ("fp8-block", 1), ("nvfp4", 0.5625), ("bf16", 2)])
def test_memory_is_that_of_each_parts_format(profile, dtype, itemsize):
    assert STORED_ITEMSIZE[dtype] == itemsize
    cache = 2 if dtype == "bf16" else 1
    # test_memory: linears of 106,954,752 elements and 32,768 B of norms a layer, embedding, head and norm in bf16
    weights = 80 * (106_954_752 * itemsize + 32_768) + 2_101_346_304 + 262_668_288 + 16_384
    cached = 64 * 256 * 2 * 80 * 128 * cache
    activations = 64 * (2 * 8192 + 7168) * 2 + 64 * 16_032 * 4
    found = profile(dtype, planted_parts.all_parts() if dtype == "bf16" else None)
    query = PlanQuery(**QUERY, dtype=dtype)
    assert capacity.required_bytes(TP8, query, found, 64) == weights + cached + activations + 3 * 2**30


def test_the_cache_is_bf16_where_no_attention_over_fp8_was_measured(profile):
    found = profile(measurements=quantized("fp8", cached=(1, 2, 4)))
    assert microseconds(costs(found).layer_parts(8, 64, NO_PROMPT, 8))["attention"] == pytest.approx(25.6)
    assert [found.kv_itemsize("llama-3-70b", tp, 256) for tp in (1, 2, 4, 8)] == [1, 1, 1, 2]
    assert found.kv_itemsize("llama-3-70b", 4, 384) == 2  # over fp8 only context 256 was measured
    made = plan_for_profile(found, PlanQuery(**QUERY, dtype="fp8"))
    assert list(made.notes) == [
        "linears in fp8, LM head in bf16, residual stream and messages in bf16",
        "queries in bf16 over a KV cache in fp8 at tp 1, 2, 4",
        "queries in bf16 over a KV cache in bf16 at tp 8; no file has queries in bf16 over a KV cache in fp8 there",
    ]
    record = report.plan_record(made)
    assert record["notes"] == list(made.notes)
    assert record["formats"]["kv_cache"] == {"1": "fp8", "2": "fp8", "4": "fp8", "8": "bf16"}
    assert record["formats"]["weights"] == "fp8"


def test_prompts_take_the_next_format_of_the_same_engine(profile):
    found = [*quantized("fp8"), attention(8, 1, 1024, 112 * US, phase="prefill")]
    found += [attention(8, 1, 1024, 7 * US, "sglang", phase="prefill", kv_dtype="fp8")]
    made = costs(profile(measurements=found), prefill_chunk=1024).layer_parts(8, 64, PromptChunk(1024, 1024), 8)
    assert microseconds(made)["attention of prompts"] == pytest.approx(112)


def test_a_plan_in_bf16_takes_no_attention_over_fp8_and_has_no_notes(profile):
    found = profile("bf16", quantized("fp8"))
    assert microseconds(costs(found).layer_parts(8, 64, NO_PROMPT, 8)) == {
        "linears": pytest.approx(65.6), "attention": pytest.approx(25.6), "all-reduce": pytest.approx(214.8),
    }  # fmt: skip
    made = plan_for_profile(found, PlanQuery(**QUERY))
    assert list(made.notes) == []
    assert report.plan_record(made)["formats"]["kv_cache"]["8"] == "bf16"


@pytest.mark.skipif(util.find_spec("aiconfigurator_core") is None, reason="aiconfigurator-core is not installed")
def test_published_tables_plan_llama_in_fp8_and_405b_in_stages(tmp_path, capsys):
    path = tmp_path / "fp8.json"
    asked = ["--system", "h200_sxm", "--dtype", "fp8", "--model", "llama-3-70b,llama-3.1-405b", "-o", path]
    assert run_reports("import", "aiconfigurator", *asked) == 0
    capsys.readouterr()
    made = {}
    for model in ("llama-3-70b", "llama-3.1-405b"):
        profile = build_profile([results.load(path)], "fp8")
        made[model] = plan_for_profile(
            profile, PlanQuery(model=model, gpus=8, context=1024, batches=(64,), dtype="fp8")
        )
    small, large = made["llama-3-70b"], made["llama-3.1-405b"]
    assert {one.deployment.tp for one in small.points if one.fits} == {1, 2, 4, 8}
    assert {one.deployment.pp for one in large.points if one.fits} == {1, 2, 4, 8}
    assert any("gate_up at tp 1 as two calls" in note for note in large.notes)
    assert not any("gate_up" in note for note in small.notes)

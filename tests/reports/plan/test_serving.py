"""A served load worked out by hand from planted parts, and the constants that are chosen for it."""

import pytest

from reports.plan import serving_constants
from reports.plan.capacity import max_sequences
from reports.plan.estimate import sum_costs
from reports.plan.serving import ServedLoad, step_features, tpot_seconds, ttft_seconds
from reports.plan.serving_constants import NO_CONSTANTS, ServingConstants, choose_constants, find_constants
from specs.parallel import Deployment
from tests.reports import planted
from tests.reports.plan import planted_parts
from tests.reports.plan.planted_parts import US

LOAD = ServedLoad(isl=256, osl=512, concurrency=64)


@pytest.fixture
def found(parts):
    """A step of 64 sequences beside a prompt of 256 tokens, under TP 8."""
    prompts = [planted_parts.attention(8, 1, n, 28 * n / 256 * US, phase="prefill") for n in (256, 1024)]
    return step_features(parts([*planted_parts.all_parts(), *prompts]), Deployment(8), LOAD)


def test_a_step_and_its_prompt_are_sums_of_planted_parts(parts, found):
    # linears 4 x (80 + 0.8 x 64) / 8 = 65.6 us a layer; attention 25.6 and two all-reduces of 107.4 beside them
    assert found.linears == pytest.approx(80 * 65.6 * US)
    head = sum(one.seconds for one in parts().head_parts(8, 64, 8).values())
    assert found.decode == pytest.approx(80 * (25.6 + 214.8) * US + head)
    # 256 rows more: linears 4 x 0.8 x 256 / 8 = 102.4, the prompt 28, all-reduces 2 x 256 x 8192 x 2 / 10240 = 819.2
    assert found.prompt == pytest.approx(80 * (102.4 + 28 + 819.2) * US)
    assert (found.prompts, found.waiting, found.layers, found.sequences) == (64 / 512, 64 / 20, 80, 64)
    assert found.all_reduces == pytest.approx(160 * 7 / 8)


def test_without_constants_tpot_is_the_step_and_its_share_of_prompts(found):
    assert tpot_seconds(found, NO_CONSTANTS) == pytest.approx(found.decode + found.linears + found.prompt / 8)
    step = found.decode + found.linears
    assert ttft_seconds(found, NO_CONSTANTS) == pytest.approx(step + found.prompt + 3.2 * found.prompt)


def test_every_constant_counts_once(found):
    constants = ServingConstants(
        host=1e-3, host_per_sequence=1e-5, skew=2e-6, prompt_launch=1e-5, prompt_factor=1.5, linear_factor=0.5,
        first=0.1, first_prompts=2, first_waiting=3, first_slot=0.5, stream_steps=7,
    )  # fmt: skip
    prompt = 1.5 * found.prompt + 80e-5
    step = found.decode + 0.5 * found.linears + 1e-3 + 64e-5 + 140 * 2e-6
    assert tpot_seconds(found, constants) == pytest.approx(step + prompt / 8)
    # a first token takes whole prompts, and half of the time of 512 tokens over 64 sequences, of which one has no place
    first = 0.1 + step + (2 + 9.6) * (found.prompt + 80e-5) + 0.5 * 8 * 63 / 64 * (step + prompt / 8)
    assert ttft_seconds(found, constants) == pytest.approx(first)
    assert ttft_seconds(found._replace(streamed=1.0), constants) == pytest.approx(first + 7 * step)


def test_an_engine_that_reads_prompts_first_waits_for_half_a_wave(parts):
    theirs = [
        *planted_parts.all_parts("sglang"),
        *(planted_parts.attention(8, 1, n, n * US, "sglang", phase="prefill") for n in (256, 1024, 4096)),
    ]
    # 64 prompts of 2048 tokens, four a step of 8192: a token waits for 30 of 64, a first token for 34
    found = step_features(parts(theirs, implementation="sglang"), Deployment(8), ServedLoad(2048, 512, 64))
    assert found.prompts == pytest.approx(30 / 512)
    assert found.waiting == 34
    # a quarter of a step of 8192 tokens, alone: linears 40 + 3276.8, four prompts 2048 each, messages 2 x (5 + 13107.2)
    assert found.prompt == pytest.approx(80 * (3316.8 + 8192 + 26224.4) / 4 * US)
    # as many prompts as a step takes: no token waits for another's prompt
    found = step_features(parts(theirs, implementation="sglang"), Deployment(8), ServedLoad(256, 512, 32))
    assert found.prompts == 0


def test_a_layer_measured_as_a_whole_has_no_linears_of_its_own(parts):
    whole = planted.case(
        "planted::layer", question="layer", op="layer", layer="layer", tp=8, tokens=64, batch=64, context=256,
        implementation="vllm", n=None, k=None,
    )  # fmt: skip
    prompts = [planted_parts.attention(8, 1, n, n * US, phase="prefill") for n in (256, 1024)]
    one = parts([*planted_parts.all_parts(), *prompts, planted.measured(whole, 50 * US)])
    found = step_features(one, Deployment(8), LOAD)
    assert found.linears == 0
    assert found.decode == pytest.approx(80 * (50 + 214.8) * US + sum_costs(one.head_parts(8, 64, 8).values()).seconds)


def test_sequences_beyond_memory_are_in_no_step(parts):
    prompts = [planted_parts.attention(1, 1, n, n * US, phase="prefill") for n in (256, 1024)]
    one = parts([*planted_parts.all_parts(), *prompts], layers=40)
    # half the model takes 70 of 141 GB on one GPU; a sequence of context 256 has 40 x 4096 x 256 bytes
    most = max_sequences(Deployment(1), one.query, one.profile)
    assert 400 < most < 1700
    assert step_features(one, Deployment(1), ServedLoad(256, 512, 4096)).sequences == most


def test_constants_of_the_group_itself_come_first(monkeypatch):
    def group(engine, gpu, dtype, host):
        return {
            "engine": engine,
            "gpu": gpu,
            "dtype": dtype,
            "models": ["llama-3-70b"],
            "runs": 30,
            "most_sequences": 64,
            "constants": {"host": host},
            "tpot_range": 0.1,
            "ttft_range": 0.3,
        }

    record = {
        "groups": [
            group("vllm", "h100_sxm", "bf16", 1.0),
            group("vllm", "h100_sxm", "fp8", 2.0),
            group("vllm", "b200_sxm", "fp8", 3.0),
            group("sglang", "h100_sxm", "bf16", 4.0),
        ],
        "elsewhere": {"tpot_range": 0.25, "ttft_range": 0.6},
    }
    monkeypatch.setattr(serving_constants, "read_fitted", lambda: record)
    found = find_constants("vllm", "h100_sxm", "fp8", "llama-3-70b")
    assert (found.constants.host, found.own, found.tpot_range) == (2.0, True, 0.1)
    for asked, host in (
        (("vllm", "b200_sxm", "nvfp4"), 2.0),  # of vllm's groups the mean
        (("sglang", "h200_sxm", "fp8-block"), 4.0),
        (("tgi", "h200_sxm", "bf16"), 2.5),  # of all groups
    ):
        found = find_constants(*asked, "llama-3-70b")
        assert (found.constants.host, found.own, found.tpot_range, found.ttft_range) == (host, False, 0.25, 0.6)
        assert found.source.endswith("none of them on this GPU in this format") or len(found.groups) == 1
    other = find_constants("vllm", "h100_sxm", "fp8", "qwen3-32b")
    assert (other.constants.host, other.own, other.tpot_range) == (2.0, False, 0.25)


def test_a_factor_on_linears_comes_from_the_same_format_alone():
    fitted = {
        ("vllm", "b200_sxm", "nvfp4"): ServingConstants(linear_factor=0.7, skew=1e-6),
        ("vllm", "h100_sxm", "fp8"): ServingConstants(linear_factor=1.0, skew=3e-6),
    }
    assert choose_constants(fitted, ("vllm", "gb200", "nvfp4")).linear_factor == 0.7
    other = choose_constants(fitted, ("vllm", "gb200", "bf16"))
    assert (other.linear_factor, other.skew) == (1.0, pytest.approx(2e-6))

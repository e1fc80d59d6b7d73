"""A case of a share: what the planner reads of it, what is streamed, and why it cannot run."""

import json
from dataclasses import replace

import pytest

from kernels.timing import device as devices
from kernels.timing.device import SAMPLING_LIMITS, Device
from specs.layer import HEAD_SHARE, LAYER_SHARE
from specs.measurement import Measurement
from suites.case import StepRunConfig
from suites.probes.share import Share, plan_share_case
from suites.workers.launcher import RankPlan

CPU = Device("cpu", "cpu", 2**20, SAMPLING_LIMITS["cpu"])
HOW = StepRunConfig("bf16", "torch", "gloo")
TP2 = Share("tiny", 4, 2, 2, 8, 32, LAYER_SHARE)


def entry(share=TP2, *, ranks=2, device=CPU, how=HOW, **changes):
    return plan_share_case("a", device, RankPlan(ranks, "cpu"), share._replace(**changes), "shares", how)


def test_a_layers_case_says_what_a_rank_computes_and_beside_how_many():
    case = entry().case
    assert (case.question, case.op, case.layer, case.kernel) == ("shares", "layer", "layer", "torch_layer")
    assert (case.model, case.tp, case.pp, case.ranks) == ("tiny", 2, 1, 2)
    assert (case.tokens, case.batch, case.context) == (8, 8, 32)
    assert (case.n, case.k, case.replicas, case.backend, case.launch) == (None, None, None, None, "eager")
    # qkv, o, gate and up, down under tp2, in flops two of each a token; attention and all else is small beside
    linears = 2 * 8 * (256 * 160 + 128 * 256 + 256 * 512 + 256 * 256)
    assert linears < case.flops < 1.1 * linears


def test_a_heads_case_has_the_rows_of_the_vocabulary_on_a_rank():
    case = entry(part=HEAD_SHARE).case
    assert (case.question, case.op, case.layer, case.kernel) == ("shares", "linear", "lm_head", "torch_linear")
    # tiny has 8 layers under 4096 words; with 4 of them 2048, of which a rank has half
    assert (case.n, case.k, case.tokens, case.tp, case.ranks) == (1024, 256, 8, 2, 2)
    assert (case.batch, case.context) == (None, None)
    assert case.flops == 2 * 8 * 1024 * 256
    assert case.hbm_bytes == 2 * (1024 * 256 + 8 * 256 + 8 * 1024)


def share_of(tp, at_once, llc_bytes):
    """Stages of which each rank has one, and what the case says of caches."""
    there = replace(CPU, llc_bytes=llc_bytes)
    found = plan_share_case("a", there, RankPlan(2, "cpu"), TP2._replace(tp=tp, ranks=at_once), "shares", HOW)
    return found.deployment.pp, found.case.cache


def test_no_more_layers_are_held_than_leave_the_caches_cold():
    # A layer is 1.08 MB and the head of 2048 words 1.05: with one of four layers a rank alone streams 2.1 MB, with
    # four 5.4, two ranks twice that and under TP half of it each.
    assert [share_of(1, 1, size) for size in (2**19, 2**20, 2**21)] == [(4, "cold"), (1, "cold"), (1, "unknown")]
    assert [share_of(1, 2, size) for size in (2**20, 2**21)] == [(4, "cold"), (1, "cold")]
    assert [share_of(2, 2, size) for size in (2**19, 2**20)] == [(4, "cold"), (1, "cold")]


def test_where_nothing_is_cold_ranks_stream_the_model_once_between_them():
    # all layers under tp, and by a rank alone; half of them by each of two ranks
    assert [share_of(*way, 2**30) for way in ((2, 2), (1, 1), (1, 2))] == [
        (1, "unknown"), (1, "unknown"), (2, "unknown"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "deepseek-v3"}, "deepseek-v3: a whole layer of it is not made"),
        ({"tp": 3, "ranks": 3}, "tiny: tp=3 must divide 16 heads and intermediate 512"),
        ({"layers": 9}, "tiny: --layers 9 exceeds its 8 layers"),
    ],
)
def test_what_cannot_run_says_why_in_one_line(changes, reason):
    told = plan_share_case("a", CPU, RankPlan(3, "cpu"), TP2._replace(**changes), "shares", HOW).not_run
    assert reason in told
    assert "\n" not in told


def test_one_rank_has_none_to_compute_beside():
    assert "one GPU is one rank" in entry(tp=1, **{}, device=CPU, ranks=1).not_run


def test_triton_wants_a_gpu():
    assert "this is cpu" in entry(how=HOW._replace(implementation="triton")).not_run


def test_a_share_that_is_too_large_says_what_fits(monkeypatch):
    monkeypatch.setattr(devices.Device, "free_bytes", lambda self: 2**24)
    assert (
        "free"
        in plan_share_case(
            "a", CPU, RankPlan(2, "cpu"), Share("llama-3-70b", 80, 2, 2, 8, 32, LAYER_SHARE), "shares", HOW
        ).not_run
    )


def test_an_interrupted_case_goes_on_with_its_skew():
    before = entry()
    before.seconds, before.skews, before.clock = [(1e-3, 2e-3)], [1e-4, 3e-4, 2e-4], "perf_counter"
    found = before.measurement()
    assert found.skew_seconds == 2e-4
    file = {"fullname": "a", "extra_info": found.extra_info(), "stats": {"data": list(found.samples)}}
    fresh = entry()
    fresh.restore(Measurement.from_benchmark(json.loads(json.dumps(file))))
    assert fresh.measurement().samples == found.samples
    assert fresh.measurement().skew_seconds == 2e-4


def test_a_rank_alone_has_no_skew():
    alone = entry(tp=1)
    alone = plan_share_case("a", CPU, RankPlan(2, "cpu"), TP2._replace(tp=1, ranks=1), "shares", HOW)
    alone.seconds, alone.skews, alone.clock = [(1e-3,)], [0.0], "perf_counter"
    assert alone.measurement().skew_seconds is None

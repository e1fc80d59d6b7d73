"""What a case of a whole model says of itself, and why it cannot run."""

from dataclasses import replace

import pytest

from kernels.timing.device import SAMPLING_LIMITS, Device
from specs.parallel import Deployment
from suites.case import StepRunConfig
from suites.decoder.workload import StepWorkload, layers_that_fit, need_bytes
from suites.probes.model import plan_step_case
from suites.workers.launcher import RankPlan

CPU = Device("cpu", "cpu", 2**20, SAMPLING_LIMITS["cpu"])
HOW = StepRunConfig("bf16", "torch", "gloo")
TP2 = Deployment(tp=2)
SYNC = Deployment(pp=2, schedule="sync")
ASYNC = Deployment(pp=2, schedule="async", micro_batches=2)
DECODE = StepWorkload("tiny", 4, 8, 8, 32)
"""Tiny in four of eight layers, with 2048 of 4096 rows of vocabulary: hidden 256, intermediate 512, 16 heads of 16."""


def entry(deployment=TP2, part=DECODE, how=HOW, ranks=2, device=CPU):
    return plan_step_case("a", device, RankPlan(ranks, "cpu"), deployment, "tp_vs_pp", how, part)


@pytest.fixture
def memory(monkeypatch):
    """Sets what is free of the memory that two ranks share."""
    return lambda count: monkeypatch.setattr(Device, "free_bytes", lambda self: count)


def test_a_case_says_how_the_model_is_laid_over_the_ranks_and_what_is_left_of_it():
    case = entry(replace(ASYNC, partition="balanced")).case
    assert (case.op, case.question, case.kernel, case.backend) == ("step", "tp_vs_pp", "torch_step", "gloo")
    assert (case.tp, case.pp, case.replicas, case.schedule, case.micro_batches) == (1, 2, 1, "async", 2)
    assert (case.partition, case.layers, case.vocab, case.ranks) == ("balanced", 4, 2048, 2)
    assert (case.tokens, case.batch, case.context) == (8, 8, 32)
    assert entry(part=StepWorkload("tiny", 8, 64, 4, 16)).case.vocab == 4096


def test_a_partition_that_deals_as_even_does_is_not_run_twice():
    # of 8 layers balanced gives the last stage 3, for the head weighs 1.9 of them; of 2 both give 1 and 1
    balanced = replace(ASYNC, partition="balanced")
    assert entry(balanced, part=StepWorkload("tiny", 8, 8, 8, 32)).not_run is None
    few = entry(balanced, part=StepWorkload("tiny", 2, 8, 8, 32))
    assert few.not_run.startswith("partition balanced deals 1, 1 layers to the stages of tiny with 2, as even does;")
    assert few.case.flops > 0


def test_bytes_of_memory_are_the_busiest_ranks_with_weights_once_a_micro_batch():
    # A layer: qkv (16 + 2 + 2) x 16 x 256, o 256 x 256, gate and up 1024 x 256, down 256 x 512, two norms of 256.
    layer = 81_920 + 65_536 + 262_144 + 131_072 + 512
    # The last stage has two of them, the final norm and the head; 8 sequences of 32 tokens, 2 kv heads of 16, k and v.
    last, cache = 2 * layer + 256 + 2048 * 256, 2 * 8 * 32 * 2 * 2 * 16
    assert entry(SYNC).case.hbm_bytes == 2 * (last + cache)
    assert entry(ASYNC).case.hbm_bytes == 2 * (2 * last + cache)


def test_bytes_sent_are_two_all_reduces_a_layer_or_a_hop():
    # hidden states of 8 tokens, 8 x 256 x 2 bytes: in a ring 2 (2 - 1) / 2 of them, twice in each of four layers
    assert entry(TP2).case.wire_bytes_sent_per_rank == 8 * 4096
    assert entry(SYNC).case.wire_bytes_sent_per_rank == 4096
    assert entry(Deployment(replicas=2)).case.wire_bytes_sent_per_rank == 0


def test_flops_of_replicas_are_those_of_their_part_of_the_batch():
    one, two = entry(Deployment(replicas=2)).case, entry(TP2).case
    # Linears are the same work either way; of keys and values each of the two has its head.
    assert one.flops == pytest.approx(two.flops, rel=0.02)
    assert one.flops > 8 * 2 * 4 * 540_672 / 2  # linears of four layers for half of 8 tokens


def test_prompts_attend_to_themselves_and_the_head_sees_one_token_of_each():
    prompts, decode = (
        entry(part=StepWorkload("tiny", 4, 64, 2, 32)).case,
        entry(part=StepWorkload("tiny", 4, 64, 64, 32)).case,
    )
    head = 2 * 62 * 2048 // 2 * 256  # 62 tokens fewer, of half the vocabulary
    assert decode.flops - head * 1.5 < prompts.flops < decode.flops - head


def test_weights_that_the_caches_could_hold_are_not_called_cold():
    assert entry().case.cache == "cold"  # 5 MB of both ranks over 1 MiB of cache
    assert entry(device=replace(CPU, llc_bytes=2**22)).case.cache == "unknown"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"deployment": Deployment(tp=8)},
            "tp 8 x pp 1 x replicas 1 is 8 ranks and this run has 2; choose factors of 2",
        ),
        ({"deployment": Deployment(tp=3), "ranks": 3}, "tiny: tp=3 must divide 16 heads and intermediate 512"),
        (
            {"deployment": Deployment(pp=5, schedule="sync"), "ranks": 5},
            "tiny cut down to 4 of its 8 layers has none for each of 5 stages; choose --layers of at least 5",
        ),
        (
            {"deployment": Deployment(pp=9, schedule="sync"), "ranks": 9, "part": DECODE._replace(layers=8)},
            "tiny: pp=9 exceeds its 8 layers",
        ),
        ({"deployment": replace(ASYNC, micro_batches=16)}, "16 micro-batches of 8 sequences a replica: at most one"),
        ({"deployment": Deployment(replicas=2), "part": DECODE._replace(tokens=7, batch=7)}, "batch 7 does not divide"),
        ({"deployment": Deployment(replicas=2), "part": DECODE._replace(tokens=1, batch=1)}, "batch 1 does not divide"),
        ({"part": DECODE._replace(layers=9)}, "tiny: --layers 9 exceeds its 8 layers"),
        ({"part": DECODE._replace(model="deepseek-v3")}, "deepseek-v3: a whole layer of it is not made"),
        ({"part": DECODE._replace(model="gpt-3-175b")}, "no gate in its MLP; choose a dense Llama"),
        ({"ranks": 1, "deployment": Deployment()}, "one GPU is one rank, with nobody to talk to"),
        ({"how": HOW._replace(implementation="triton")}, "this is cpu"),
        ({"how": HOW._replace(backend="nccl")}, "nccl runs on cuda, and these ranks are on cpu"),
    ],
)
def test_what_cannot_run_says_why_in_one_line(change, reason):
    found = entry(**change)
    assert reason in found.not_run
    assert "\n" not in found.not_run
    assert found.case.layers


def test_a_model_that_is_too_large_says_how_many_layers_fit(memory):
    part = StepWorkload("llama-3.2-1b", 16, 16, 16, 128)
    memory(2**30)
    told = entry(part=part).not_run
    assert told.startswith("llama-3.2-1b in tp2 needs 1.")
    layers = int(told.split("--layers ")[1])
    assert f"0.40 GiB are free: {layers} of 16 layers fit" in told
    assert entry(part=part._replace(layers=layers)).not_run is None
    assert entry(part=part._replace(layers=layers + 1)).not_run


def test_where_no_layer_fits_nothing_is_promised(memory):
    memory(2**24)
    assert (
        "not even a layer a stage fits; choose a smaller --model"
        in entry(part=StepWorkload("llama-3-70b", 80, 1, 1, 8)).not_run
    )


def test_memory_is_that_of_the_fullest_rank_with_caches_and_a_whole_embedding():
    # Behind TP2: half of each linear (a kv head of two is half of them), the norms, half of the head, all of the
    # embedding; half of the cache; 8 residuals, twice gate and up, and logits of 8 tokens.
    layer = (81_920 + 65_536 + 262_144 + 131_072) // 2 + 512
    weights = 4 * layer + 256 + 1024 * 256 + 2048 * 256
    cache = 4 * 8 * 32 * 2 * 16
    room = 8 * 8 * 256 + 2 * 8 * 512 + 8 * 1024
    assert need_bytes(TP2, DECODE, "bf16") == 2 * (weights + cache + room)


def test_as_many_layers_are_kept_as_fit():
    whole = DECODE._replace(layers=8)
    assert layers_that_fit(TP2, whole, "bf16", need_bytes(TP2, whole, "bf16")) == 8
    assert layers_that_fit(TP2, whole, "bf16", need_bytes(TP2, whole, "bf16") - 1) == 7
    assert layers_that_fit(TP2, whole, "bf16", need_bytes(TP2, DECODE, "bf16")) == 4

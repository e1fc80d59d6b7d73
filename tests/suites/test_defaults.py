"""What the suites measure when nobody says what: on a CPU and, without one here, on a GPU."""

import re
from dataclasses import replace
from itertools import groupby

import pytest
import torch

from kernels import registry
from kernels.linear import TORCH_LINEAR
from kernels.timing import device
from specs.layer import LINEAR_IMPLEMENTATIONS
from tests.suites.conftest import ROOT

CASE = re.compile(r"^suites/bench_\w+\.py::(bench_\w+)\[(.*)\]: .*?(; not here: (.*))?$", re.MULTILINE)


OF_STEPS = ("bench_decode_step", "bench_prefill_step")
OF_SHARES = ("bench_share",)
OF_RANKS = (
    "bench_collective",
    "bench_point_to_point",
    "bench_peer_copy",
    "bench_tp",
    "bench_pp",
    "bench_behind_linear",
)

READERS = ("axes", "bench_attention", "bench_ceilings", "session", "probes.share", "probes.model")
"""Modules that ask which device there is."""


@pytest.fixture
def listed(pytester, monkeypatch):
    """The plan of the suites on a device of the given kind: (function, id, reason), of kernels or those `of`."""

    def listed(kind, *options, of=None):
        if kind == "cuda":
            gpu = device.Device("cuda", "sm_90", 50 * 2**20, device.SAMPLING_LIMITS["cuda"])
            monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
            monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (140 * 2**30, 140 * 2**30))
            for module in (*(f"suites.{one}" for one in READERS), "kernels.timing.device"):
                monkeypatch.setattr(f"{module}.current_device", lambda: gpu)
            monkeypatch.setattr("suites.session.machine_info", lambda device: {"gpu": "NVIDIA H200"})
        command = (
            "-p",
            "no:cacheprovider",
            "--rootdir",
            ROOT,
            "-c",
            ROOT / "pyproject.toml",
            ROOT / "suites",
            "--list",
        )
        result = pytester.runpytest_inprocess(*command, *options)
        assert result.ret == 0, result.stderr.str()
        found = [(function, name, reason) for function, name, _, reason in CASE.findall(result.stdout.str())]
        return [case for case in found if (case[0] in of if of else case[0] not in (*OF_RANKS, *OF_STEPS, *OF_SHARES))]

    return listed


def test_a_cpu_measures_at_least_sixty_cases_of_its_default_model(listed):
    cases = listed("cpu")
    here = [(function, name) for function, name, reason in cases if not reason]
    assert len(here) >= 60
    layers = [name for function, name in here if "llama" in name]
    assert all(name.startswith("llama-3.2-1b-tp") for name in layers)
    for part in ("tp1-pp1", "tp2-pp1", "bf16", "fp32", "-1tok-", "-1000tok-", "lm_head"):
        assert any(part in name for name in layers), part
    assert {function for function, _ in here} >= {
        "bench_decode", "bench_prefill", "bench_sweep", "bench_read", "bench_copy", "bench_matmul", "bench_launch",
        "bench_decode_attention", "bench_prefill_attention", "bench_layer", "bench_part", "bench_prompt",
        "bench_prompt_part",
    }  # fmt: skip


def test_on_a_cpu_every_triton_case_is_listed_with_its_reason(listed):
    triton = [reason for _, name, reason in listed("cpu") if name.endswith("-triton")]
    assert triton
    assert all("this is cpu" in reason for reason in triton)


@pytest.fixture
def all_made(monkeypatch):
    """Five implementations, each for the tokens that it is made for; cublaslt's package is missing."""
    rows = (
        ("torch", range(1, 2**31)),
        ("cublaslt", range(1, 2**31)),
        ("triton", range(1, 65)),
        ("triton", range(65, 2**31)),
        ("triton-pdl", range(1, 65)),
        ("cuda", range(1, 5)),
    )
    made = [replace(TORCH_LINEAR, name=name, implementation=name, tokens=tokens) for name, tokens in rows]
    made[1] = replace(made[1], missing=lambda: "cublaslt needs a package")
    monkeypatch.setattr(registry, "LINEARS", tuple(made))
    for name in ("DECODE_ATTENTION", "PREFILL_ATTENTION"):
        there = tuple(replace(kernel, missing=lambda: None) for kernel in getattr(registry, name))
        monkeypatch.setattr(registry, name, there)


def implementations(names):
    """By all else in a linear's case: the implementations that stand next to each other."""
    parts = [re.fullmatch(r"(llama.*-graph)-(.*)", name).groups() for name in names]
    return [(case, tuple(one for _, one in rivals)) for case, rivals in groupby(parts, lambda part: part[0])]


def test_a_gpu_measures_a_70b_under_tp8_and_as_a_stage_of_pp8(listed, all_made):
    cases = listed("cuda")
    assert {reason for _, name, reason in cases if not name.endswith("-cublaslt")} == {""}
    assert {reason for _, name, reason in cases if name.endswith("-cublaslt")} == {"cublaslt needs a package"}
    layers = [name for _, name, _ in cases if "llama" in name]
    assert all(re.match(r"llama-3-70b-(tp8-pp1|tp1-pp8)-", name) for name in layers)
    assert all("-cold-graph-" in name for name in layers if "-layer-" not in name)
    wholes = [name for name in layers if "-layer-" in name]
    assert {name.split("-cold-")[1].split("-")[0] for name in wholes} == {"graph", "eager"}
    assert {name.split("eager-")[1] for name in wholes if "eager" in name} == {"torch", "torch-compile", "triton"}
    launches = [name for function, name, _ in cases if function == "bench_launch"]
    assert launches == ["fp32-cold-eager-torch", "fp32-cold-graph-torch"]


def test_a_gpu_copies_both_ways_reads_several_sizes_and_launches_nothing(listed):
    cases = listed("cuda")
    named = {function: [name for one, name, _ in cases if one == function] for function, _, _ in cases}
    assert named["bench_copy"] == ["fp32-cold-eager-torch", "fp32-cold-graph-torch"]
    assert named["bench_read"] == ["fp32-cold-graph-torch", "fp32-cold-graph-triton"]
    sizes = [f"{size}MiB-fp32-cold-graph-triton" for size in (16, 32, 64, 128)]  # 17, 34, 67 and 134 MB
    assert named["bench_sized_read"] == sizes
    assert named["bench_empty"] == ["fp32-cold-graph-triton"]


def test_a_cpu_keeps_its_time_for_other_ceilings(listed):
    cases = [(function, name) for function, name, _ in listed("cpu")]
    assert [name for function, name in cases if function == "bench_copy"] == ["fp32-cold-eager-torch"]
    assert not {"bench_sized_read", "bench_empty"} & {function for function, _ in cases}


def test_rivals_stand_next_to_each_other_and_each_takes_the_tokens_it_is_made_for(listed, all_made):
    for function in ("bench_decode", "bench_prefill", "bench_sweep"):
        groups = implementations([name for one, name, _ in listed("cuda") if one == function])
        assert len({case for case, _ in groups}) == len(groups), "one case stands in two places"
        for case, rivals in groups:
            tokens = int(re.search(r"-(\d+)tok-", case)[1])
            expected = ("torch", "cublaslt", "triton") + ("triton-pdl",) * (tokens <= 64) + ("cuda",) * (tokens <= 4)
            assert rivals == expected, case


def test_rivals_of_attention_stand_next_to_each_other_over_batches_and_contexts(listed, all_made):
    groups = implementations([name for one, name, _ in listed("cuda") if one == "bench_decode_attention"])
    assert {rivals for _, rivals in groups} == {("torch", "triton", "triton-paged", "flash-attn", "flashinfer")}
    asked = [
        re.search(r"llama-3-70b-tp(\d)-pp\d-attention-(\d+)tok-(\d+)ctx-bf16", case).groups() for case, _ in groups
    ]
    assert len(set(asked)) == len(asked) == 2 * 3 * 3
    assert ("1", "32", "8192") in asked  # what the target is set for
    prompts = implementations([name for one, name, _ in listed("cuda") if one == "bench_prefill_attention"])
    assert [rivals for _, rivals in prompts] == [("torch", "flash-attn")] * 4


def test_a_gpus_decode_batches_hold_those_that_the_figures_are_asked_for(listed, all_made):
    decode = [name for function, name, _ in listed("cuda") if function == "bench_decode"]
    assert {1, 8, 16, 32, 64} <= {int(re.search(r"-(\d+)tok-", name)[1]) for name in decode}


def test_the_linears_as_they_are_leave_out_only_what_is_not_made(listed):
    groups = implementations([name for function, name, _ in listed("cuda") if function == "bench_sweep"])
    for case, rivals in groups:
        tokens = int(re.search(r"-(\d+)tok-", case)[1])
        assert rivals == tuple(one for one in LINEAR_IMPLEMENTATIONS if registry.has_linear(one, tokens)), case
    assert {"torch", "cublaslt", "triton"} <= set.intersection(*(set(rivals) for _, rivals in groups))


def test_the_options_choose(listed):
    options = ("--model=llama-3-8b,gpt-3-175b", "--tp=1,4", "--tokens=1,300", "--layer=down", "--dtype=fp16")
    cases = listed("cpu", *options, "--impl=torch", "--cache=cold,hot")
    names = [name for function, name, _ in cases if function == "bench_decode"]
    # 2 models x 2 tp x 1 layer x (1 of 2 token counts is a decode batch) x 1 dtype x 2 caches
    assert len(names) == 8
    assert all("-down-1tok-fp16-" in name for name in names)
    assert {function for function, _, _ in cases} >= {"bench_read", "bench_matmul", "bench_prefill", "bench_sweep"}


def test_attention_alone_at_the_contexts_asked_for(listed):
    options = (
        "--model=llama-3-8b",
        "--tp=1,4",
        "--layer=attention",
        "--tokens=2,600",
        "--context=100,4096",
    )
    cases = {name: function for function, name, _ in listed("cpu", *options, "--impl=triton-paged,torch,cuda")}
    attention = [name for name, function in cases.items() if function.endswith("_attention")]
    # decode: 1 model x 2 tp x 1 of 2 token counts x 2 contexts x 2 implementations; prefill: 2 tp x torch
    assert len(attention) == 8 + 2
    assert "llama-3-8b-tp4-pp1-attention-2tok-100ctx-bf16-cold-eager-triton-paged" in attention
    assert not [name for name, function in cases.items() if function in ("bench_decode", "bench_sweep")]


def test_an_ungated_model_has_its_own_layers(listed):
    names = {
        name.split("-pp1-")[1].split("-")[0]
        for f, name, _ in listed("cpu", "--model=gpt-3-175b")
        if f == "bench_decode"
    }
    assert names == {"qkv", "o", "up", "down", "lm_head"}


def test_two_ranks_of_a_cpu_measure_every_operation_and_list_each_absent_backend_once(listed):
    cases = listed("cpu", of=OF_RANKS)
    here = [name for _, name, reason in cases if not reason]
    assert {name.split("-")[0] for name in here} >= {
        "all_reduce", "all_gather", "reduce_scatter", "broadcast", "send_recv", "exchange", "ring_shift", "ping_pong",
        "all_reduce_rmsnorm",
    }  # fmt: skip
    for part in ("-1KiB-", "-256MiB-", "-gap1ms-", "-hidden-", "-hidden+residual-"):
        assert any(part in name for name in here), part
    absent = [name for _, name, reason in cases if reason and name.startswith("all_reduce-")]
    assert len(absent) == len(set(absent)) == len({name.split("eager-")[1] for name in absent})


def test_one_gpu_lists_its_collectives_with_the_reason(listed):
    reasons = [reason for _, _, reason in listed("cuda", of=OF_RANKS)]
    assert 1 <= len(reasons) < 20
    assert all(reason for reason in reasons)


def test_two_ranks_of_a_cpu_run_all_reduces_behind_both_row_parallel_linears_with_and_without_a_late_rank(listed):
    cases = listed("cpu", of=("bench_behind_linear",))
    assert not [reason for _, _, reason in cases if reason]
    model = "all_reduce-llama-3.2-1b-tp2"
    assert {name for _, name, _ in cases} == {
        f"{model}-{layer}-{tokens}tok{late}-bf16-eager-gloo"
        for layer in ("o", "down")
        for tokens in (1, 16, 128)
        for late in ("", "-late1ms", "-late4ms")
    }


def test_one_gpu_lists_an_all_reduce_behind_a_linear_once_with_the_reason(listed):
    ((_, _, reason),) = listed("cuda", of=("bench_behind_linear",))
    assert reason.startswith("one GPU is one rank")


def test_eight_gpus_run_all_reduces_behind_linears_in_a_graph_and_eager(listed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    names = [name for _, name, _ in listed("cuda", "--impl=nccl,gloo", of=("bench_behind_linear",))]
    nccl = [name for name in names if name.endswith("-nccl")]
    # 2 linears x 5 token counts x 2 launches x 3 delays
    assert len(nccl) == 60
    assert "all_reduce-llama-3-70b-tp8-down-16tok-late0.08ms-bf16-graph-nccl" in nccl


def test_two_ranks_of_a_cpu_run_the_model_each_way_at_batches_that_each_way_can_take(listed):
    cases = listed("cpu", of=OF_STEPS)
    assert not [reason for _, _, reason in cases if reason]
    ways = {}
    for _, name, _ in cases:
        model, point, way = re.fullmatch(r"(.*?layers)-(\d+tok-ctx128|prompt\d+x4)-(.*)-bf16-torch", name).groups()
        assert model == "llama-3.2-1b-2layers"
        ways.setdefault(point, []).append(way)
    assert ways.pop("1tok-ctx128") == ["tp2", "pp2-sync"], "one request is no batch for two"
    assert set(ways) == {f"{batch}tok-ctx128" for batch in (16, 64, 256)} | {"prompt32x4", "prompt64x4"}
    assert set(map(tuple, ways.values())) == {("tp2", "pp2-sync", "pp2-async2", "tp1x2")}


def test_two_ranks_of_a_cpu_compute_the_shares_of_those_runs(listed):
    cases = listed("cpu", of=OF_SHARES)
    assert not [reason for _, _, reason in cases if reason]
    ways = {}
    for _, name, _ in cases:
        model, batch, way, part = re.fullmatch(r"(.*?layers)-(\d+)tok-ctx128-(.*once)-(.*)-bf16-torch", name).groups()
        assert model == "llama-3.2-1b-2layers"
        ways.setdefault((way, part), []).append(int(batch))
    for part in ("layer", "lm_head"):
        assert sorted(ways["tp2-2atonce", part]) == sorted(ways["tp1-1atonce", part]) == [1, 16, 64, 256]
        assert sorted(ways["tp1-2atonce", part]) == [8, 32, 128]
    assert len(ways) == 6


def test_eight_gpus_have_the_shares_of_every_split_and_micro_batch(listed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(device.Device, "total_bytes", lambda self: 140 * 2**30)
    found = {}
    for _, name, _ in listed("cuda", of=OF_SHARES):
        batch, tp, at_once = map(int, re.search(r"-(\d+)tok-ctx2048-tp(\d)-(\d)atonce-", name).groups())
        found.setdefault((tp, at_once), set()).add(batch)
    assert set(found) == {(8, 8), (1, 1), (1, 8), (4, 4), (4, 8), (2, 8)}
    assert found[1, 8] >= {1024 // 8, 1024 // 16, 256 // 8, 64 // 8, 2}  # of pp8-async8, -async16, replicas


@pytest.mark.parametrize(("gib", "layers"), [(140, 80), (80, 52)])
def test_eight_gpus_keep_as_many_layers_as_fit_at_every_batch_and_prompt(listed, monkeypatch, gib, layers):
    # A layer of 70B under TP8 is 214 MB of weights, 1074 MB of keys and values at 1024 x 2048 tokens, and 29.5 MB of
    # embedding and head, cut in proportion: 52 of them are 68.5 GB, with 0.2 GB beside, of four fifths of 80 GiB.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(device.Device, "total_bytes", lambda self: gib * 2**30)
    names = [name for _, name, _ in listed("cuda", of=OF_STEPS)]
    assert {name.split("layers-")[0] for name in names} == {f"llama-3-70b-{layers}"}
    assert {f"{batch}tok-ctx2048" for batch in (1, 16, 64, 256, 1024)} | {"prompt512x8", "prompt4096x8"} == {
        re.search(r"layers-(\d+tok-ctx\d+|prompt\d+x\d+)-", name)[1] for name in names
    }


def test_one_gpu_lists_a_share_once_with_the_reason(listed):
    cases = listed("cuda", of=OF_SHARES)
    assert len(cases) == 2  # a layer and a head
    assert all("one GPU is one rank" in reason for _, _, reason in cases)


def test_one_gpu_lists_the_experiment_twice_with_the_reason(listed):
    cases = listed("cuda", of=OF_STEPS)
    assert [function for function, _, _ in cases] == list(OF_STEPS)
    assert all("one GPU is one rank" in reason for _, _, reason in cases)


def test_an_option_for_all_suites_leaves_out_whole_models_that_it_cannot_mean(listed):
    options = ("--tp=8", "--tokens=1", "--impl=torch")
    assert [name for function, name, reason in listed("cpu", *options) if function == "bench_decode" and not reason]
    (told,) = {reason for _, _, reason in listed("cpu", *options, of=OF_STEPS)}
    assert told.startswith("tp 8 x pp 1 x replicas 1 is 8 ranks and this run has 2; choose factors of 2, or --ranks 8")

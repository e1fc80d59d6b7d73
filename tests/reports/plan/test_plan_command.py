"""`python -m reports plan` as a user calls it: what it writes, and what it refuses in one line."""

import json
from dataclasses import replace

import pytest

from reports.plan.query import PlanQuery
from reports.plan.tables import reproduce_command
from specs import models
from tests.reports import planted
from tests.reports.plan import planted_parts
from tests.reports.plan.planted_parts import US
from tests.reports.run_reports import run_reports

KEYS = {
    *("batch", "tp", "pp", "replicas", "schedule", "micro_batches", "partition", "step_seconds", "low", "high"),
    *("tokens_per_second", "communication_share", "bubble_share", "fits", "provenance"),
}


@pytest.fixture
def planned(tmp_path, capsys):
    def made(*options, measurements=None):
        path = planted_parts.write(tmp_path / "planted.json", measurements)
        asked = ["--model", "llama-3-70b", "--gpus", 8, "--context", 256, "--format", "json"]
        assert run_reports("plan", path, *asked, *options) == 0
        return json.loads(capsys.readouterr().out)

    return made


@pytest.fixture
def refused(tmp_path, capsys):
    def made(*options, measurements=None, machine=planted_parts.PUBLISHED):
        path = planted_parts.write(tmp_path / "planted.json", measurements, machine)
        assert run_reports("plan", path, "--context", 256, *options) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        return said[0]

    return made


@pytest.fixture
def _forgotten(monkeypatch):
    monkeypatch.setattr(models, "_FROM_CONFIG", {})


def config(tmp_path, **changes):
    """The config.json of Llama-3-70B with changes."""
    text = {
        "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64,
        "num_hidden_layers": 80, "num_key_value_heads": 8, "vocab_size": 128256, **changes,
    }  # fmt: skip
    (tmp_path / "mine").mkdir(exist_ok=True)
    (tmp_path / "mine" / "config.json").write_text(json.dumps(text))
    return tmp_path / "mine"


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.3-70B-Instruct", "LLAMA-3.1-70b", None])
def test_an_id_or_a_file_of_the_same_shapes_gives_the_same_plan(planned, tmp_path, name):
    options = ["--batch", "64"]
    assert planned(*options, "--model", name or config(tmp_path)) == planned(*options)


@pytest.mark.usefixtures("_forgotten")
def test_a_model_of_a_file_is_planned_under_its_slug_and_reproduced_by_its_path(tmp_path, capsys):
    found = [
        replace(one, case=replace(one.case, model="mine") if one.case.model else one.case)
        for one in planted_parts.all_parts()
    ]
    path, place = planted_parts.write(tmp_path / "planted.json", found), config(tmp_path, num_hidden_layers=40)
    assert run_reports("plan", path, "--model", place, "--context", 256, "--batch", 64) == 0
    assert "(mine, bf16, context 256; " in capsys.readouterr().out
    query = PlanQuery(model=str(place), gpus=8)
    assert query.model == "mine"
    assert reproduce_command([path], query).endswith(f"{path} --model {place / 'config.json'}")


def test_a_file_of_a_mixture_of_experts_is_refused_with_what_is_missing(refused, tmp_path):
    said = refused("--model", config(tmp_path, num_local_experts=8))
    assert "config.json: not implemented: routing of tokens to experts (num_local_experts 8); dense models" in said


def at(plan, **which):
    return [one for one in plan["points"] if all(one[name] == value for name, value in which.items())]


def test_every_point_has_the_keys_of_the_contract(planned):
    plan = planned("--batch", "8,64")
    assert all(set(one) >= KEYS for one in plan["points"])
    assert set(plan["crossover"]) >= {"batch", "low", "high", "verdict"}


def test_every_split_of_eight_is_there_once_with_each_schedule(planned):
    points = at(planned("--batch", 64), batch=64)
    splits = {(one["tp"], one["pp"], one["replicas"]) for one in points}
    assert splits == {(a, b, 8 // (a * b)) for a in (1, 2, 4, 8) for b in (1, 2, 4, 8) if a * b <= 8}
    assert len(at({"points": points}, tp=1, pp=8)) == 3  # sync, and async with 8 and with 16
    names = [(*(one[name] for name in ("tp", "pp", "replicas", "schedule", "micro_batches")),) for one in points]
    assert len(names) == len(set(names))


def test_step_is_that_of_the_straight_sum(planned):
    # test_step works it out: 80 x 306.0 + 46.4 us without elementwise kernels, 80 x 10.10261 us with them
    (one,) = at(planned("--batch", 64), tp=8)
    assert one["step_seconds"] / US == pytest.approx(80 * 316.10261 + 46.4)
    assert one["low"] / US == pytest.approx(80 * 306.0 + 46.4)
    assert one["tokens_per_second"] == pytest.approx(64 / one["step_seconds"])


def test_what_memory_cannot_hold_is_listed_with_why_and_without_a_figure(planned):
    alone = at(planned("--batch", 64), tp=1, pp=1)
    assert [one["fits"] for one in alone] == [False]
    assert alone[0]["step_seconds"] is None
    assert "the fullest rank needs" in alone[0]["why"]


def test_what_cannot_be_cut_so_is_listed_with_why(planned):
    (seven,) = [one["why"] for one in planned("--gpus", 7, "--batch", 7)["left_out"] if one["tp"] == 7]
    assert "tp=7 must divide 64 heads" in seven
    (stages,) = {one["why"] for one in planned("--gpus", 8, "--layers", 4, "--batch", 8)["left_out"] if one["pp"] == 8}
    assert "pp=8 exceeds its 4 layers" in stages
    plan = planned("--batch", "1")
    reasons = {(one["tp"], one["replicas"]): one["why"] for one in plan["left_out"]}
    assert "does not divide over 4 replicas" in reasons[2, 4]


def test_cases_of_a_point_are_in_the_file(planned, tmp_path):
    plan = planned("--batch", 64)
    names = {one["fullname"] for one in json.loads((tmp_path / "planted.json").read_text())["benchmarks"]}
    (one,) = at(plan, tp=8)
    assert set(one["cases"]) == {"linears", "attention", "all-reduce", "lm_head"}
    assert {case for cases in one["cases"].values() for case in cases} <= names


def test_the_front_rises_in_both_and_targets_keep_their_promise(planned):
    plan = planned("--batch", "8,64,512", "--latency", "0.02,0.1")
    figures = [at(plan, **one)[0] for one in plan["pareto"]]
    seconds, rates = [[one[name] for one in figures] for name in ("step_seconds", "tokens_per_second")]
    assert seconds == sorted(seconds)
    assert rates == sorted(rates)
    fast = [one for one in plan["points"] if one["fits"] and one["step_seconds"] <= 0.02]
    assert plan["targets"][0]["best"]["tokens_per_second"] == max(one["tokens_per_second"] for one in fast)


def test_what_is_assumed_is_said_with_its_range_and_reason(planned):
    (hop,) = [one for one in planned("--batch", 8)["assumed"] if one["name"] == "hop_seconds"]
    assert (hop["value"], hop["low"], hop["high"]) == (10e-6, 5e-6, 20e-6)
    assert hop["why"]


def test_a_shared_link_slows_what_is_moved_and_not_what_is_waited(planned):
    (plain,), (shared,) = (at(planned("--batch", 64, *more), tp=8) for more in ((), ("--link-share", 0.5)))
    # an all-reduce of 1 MiB: 5.1 us of the smallest message, and 102.3 us that take twice as long
    assert (shared["step_seconds"] - plain["step_seconds"]) / US == pytest.approx(160 * 102.3 + 0.3, abs=0.5)
    assert shared["provenance"]["all-reduce"] == "modelled"


def test_a_group_over_two_nodes_pays_the_link_between_them(planned):
    plan = planned("--gpus", 16, "--nodes", 2, "--gpus-per-node", 8, "--batch", 64)
    (one,) = at(plan, tp=16) or [None]
    assert one is None  # no linears of tp 16: no figure is made up
    assert any("tp 16" in row["why"] for row in plan["left_out"] if row["tp"] == 16)
    (inside,) = at(plan, tp=8, pp=2, schedule="sync")
    (alone,) = at(planned("--batch", 64), tp=8, pp=1)
    # one hop on, of 1 MiB at 50 GB/s and 20 us, and one back with 512 B; against the step of one node
    assert (inside["step_seconds"] - alone["step_seconds"]) / US == pytest.approx(20 + 20.97 + 20 + 0.01, abs=0.05)
    assert inside["provenance"]["hop"] == "modelled"
    assert plan["provenance"] == "modelled"


def test_tp_over_two_nodes_of_four_adds_a_ring_between_them(planned):
    (one,) = at(planned("--nodes", 2, "--gpus-per-node", 4, "--batch", 64), tp=8)
    # within four ranks 1 MiB takes 107.4 us; then a quarter of it between two nodes at 50 GB/s, 5.24 us, and 2 x 20 us
    within = 80 * (316.10261 - 214.8) + 41
    gather = 5.4 + 2 * 20 + 4096 / 4 / 50e9 / US
    assert one["step_seconds"] / US == pytest.approx(within + 160 * (107.4 + 5.243 + 40) + gather, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "llama-9"], "unknown model 'llama-9'"),
        (["--model", "llama-4"], "model 'llama-4': not implemented: routing of tokens to experts; dense models"),
        (["--model", "google/gemma-3-27b-it"], "'google/gemma-3-27b-it': not implemented: alternating attention"),
        (["--model", "deepseek-ai/DeepSeek-V3"], "it has experts, attention of another kind"),
        (["--model", "qwen3-235b-a22b"], "it has experts"),
        (["--model", "llama-3-8b"], "no layer of llama-3-8b in bf16 on h200_sxm; its files have llama-3-70b"),
        (["--gpus", "0"], "--gpus 0: below 1"),
        (["--batch", "0"], "--batch '0'"),
        (["--batch", "1,x"], "'x' is no whole number"),
        (["--backend", "mpi"], "--backend 'mpi' is unknown; choose from best, custom, nccl"),
        (["--partition", "odd"], "--partition 'odd' is unknown"),
        (["--dtype", "fp8"], "linears in bf16, none in fp8; choose --dtype bf16"),
        (["--batch", "100000"], "100000 sequences of context 256"),
        (["--context", "100000"], "measured from 256 to 512"),
        (["--link-share", "0"], "--link-share 0"),
        (["--link-share", "nan"], "--link-share nan"),
        *((["--link-bandwidth", text], "--link-bandwidth") for text in ("-1", "nan", "inf", "1e-300")),
        *((["--link-latency", text], "--link-latency") for text in ("-1", "nan", "inf")),
        (["--launch", "lazy"], "unknown launch 'lazy'"),
        (["--gpus", "1000000007"], "--gpus 1000000007: over 1024"),
        (["--gpus", "1000"], "batch 1 does not divide over 25 replicas"),
        (["--layers", "0"], "--layers 0: below 1"),
        (["--layers", "-1"], "--layers -1: below 1"),
        (["--nodes", "2"], "--gpus-per-node"),
        (["--nodes", "2", "--gpus-per-node", "8"], "that is 16 GPUs, and --gpus says 8"),
        (["--layers", "100"], "--layers 100 exceeds its 80 layers"),
    ],
)
def test_what_cannot_be_planned_is_one_line_with_the_value_and_a_way_out(refused, options, said):
    assert said in refused(*options)


def test_an_all_reduce_of_another_rank_count_is_never_taken(refused, planned):
    fewer = [one for one in planted_parts.all_parts() if not (one.case.op == "all_reduce" and one.case.ranks == 8)]
    plan = planned("--batch", 64, measurements=fewer)
    (why,) = [one["why"] for one in plan["left_out"] if one["tp"] == 8]
    assert "there are those of 2, 4; none is guessed" in why
    assert plan["crossover"] == {"batch": None, "low": None, "high": None, "verdict": "none"}


def test_two_files_of_different_gpus_are_refused(tmp_path, capsys):
    one = planted_parts.write(tmp_path / "a.json")
    other = planted_parts.write(tmp_path / "b.json", machine=planted.CPU)
    assert run_reports("plan", one, other, "--context", 256) == 2
    assert "a plan is for one; give files of one GPU" in capsys.readouterr().err


def test_a_latency_scales_what_the_smallest_message_takes_and_a_lower_one_never_slows(planned):
    seconds = {}
    for latency in ("0", "1e-6", "10e-6", "20e-6"):
        ((one),) = at(planned("--batch", 64, "--link-latency", latency), tp=8)
        seconds[latency] = one["step_seconds"]
    ((plain),) = at(planned("--batch", 64), tp=8)
    assert seconds["10e-6"] == pytest.approx(plain["step_seconds"])  # what is assumed of a hop
    # 161 all-reduces, of which the smallest message takes 5.1 us
    assert (seconds["20e-6"] - seconds["10e-6"]) / US == pytest.approx(161 * 5.1)
    assert seconds["0"] < seconds["1e-6"] < seconds["10e-6"]


def test_replicas_share_a_chunk_of_prompts(planned):
    prompts = [
        planted_parts.attention(tp, 1, n, n * US, phase="prefill") for tp in (1, 2, 4, 8) for n in (64, 256, 1024)
    ]
    measurements = [*planted_parts.all_parts(), *prompts]
    plan = planned("--batch", 64, "--prefill-chunk", 512, measurements=measurements)
    ((tp8),), ((four),) = at(plan, tp=8), at(plan, tp=4, pp=1)
    # attention of 512 tokens of prompts on each rank of TP 8, and of 256 in each of two replicas
    plain = planned("--batch", 64)
    ((bare),), ((bare_four),) = at(plain, tp=8), at(plain, tp=4, pp=1)
    linears, message, elementwise = 4 * 0.8 * 512 / 8, 2 * 512 * 1.6, 512 * 157_696 / 4.8e12 / US
    extra = (tp8["step_seconds"] - bare["step_seconds"]) / US
    assert extra == pytest.approx(80 * (linears + message + elementwise + 512), rel=1e-4)
    assert (four["step_seconds"] - bare_four["step_seconds"]) / US < 0.75 * extra


def test_a_group_that_would_straddle_hosts_is_left_out(planned):
    plan = planned("--gpus", 12, "--nodes", 2, "--gpus-per-node", 6, "--batch", 12)
    assert not at(plan, tp=4)
    assert any("tp 4 over hosts of 6 GPUs" in one["why"] for one in plan["left_out"] if one["tp"] == 4)
    # of three pipelines of four stages the second one lies in both hosts
    (three,) = at(plan, tp=1, pp=4, schedule="sync")
    (inside,) = at(planned("--gpus", 12, "--batch", 12), tp=1, pp=4, schedule="sync")
    assert three["step_seconds"] > inside["step_seconds"]


def test_one_host_that_is_named_is_no_what_if(planned):
    plain, named = planned("--batch", 64), planned("--batch", 64, "--nodes", 1, "--gpus-per-node", 8)
    assert named["provenance"] == plain["provenance"] == "composed"
    assert [one["low"] for one in named["points"]] == [one["low"] for one in plain["points"]]

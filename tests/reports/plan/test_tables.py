"""A plan in the terminal: what each table says of the planted H200, within 120 columns."""

import json
import re
import shlex
from dataclasses import replace
from functools import cache

import pytest

from reports import output, results
from reports.output import Table
from reports.plan import tables as plan_tables
from reports.plan.planner import LatencyTarget, plan_for_files
from reports.plan.query import Interconnect, PlanQuery
from reports.plan.tables import reproduce_command
from specs.parallel import Deployment
from tests.reports.plan import planted_parts
from tests.reports.run_reports import run_reports


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The plan and its blocks, tables by their titles; each question is planned once."""

    @cache
    def usual(**asked):
        return drawn_up(None, asked)

    def made(measurements=None, **asked):
        return drawn_up(measurements, asked) if measurements else usual(**asked)

    def drawn_up(measurements, asked):
        path = planted_parts.write(tmp_path_factory.mktemp("plan") / "planted.json", measurements)
        question = PlanQuery(**{"model": "llama-3-70b", "gpus": 8, "context": 256, "batches": (8, 64), **asked})
        plan = plan_for_files([results.load(path)], question)
        blocks = plan_tables.build_tables(plan)
        return plan, blocks[0], {one.title: one for one in blocks if isinstance(one, Table)}

    return made


def rows(block, **which):
    """Rows as mappings by title, line breaks taken out."""
    titles = [re.sub(r"-\n|\n", lambda found: "" if found[0] == "-\n" else " ", one.title) for one in block.columns]
    found = [dict(zip(titles, row, strict=True)) for row in block.rows]
    return [one for one in found if all(one[title] == value for title, value in which.items())]


def test_the_answer_stands_first_and_says_that_nothing_of_it_was_run(drawn):
    _, head, _ = drawn()
    assert head.title == "TP or PP over 8 x h200_sxm"
    assert head.rows[0][1].startswith(
        "On 8 x h200_sxm (llama-3-70b, bf16, context 256; put together from parts, not run)"
    )
    assert "what if" not in dict(head.rows)


def test_a_row_has_the_step_its_range_and_where_it_goes(drawn):
    # test_step works the step out: 80 x 316.10261 + 46.4 us = 25.33 ms, without elementwise kernels 24.53 ms;
    # all-reduces take 160 x 107.4 + 5.4 us of it
    _, _, tables = drawn()
    (one,) = rows(tables["every split"], batch="64", split="tp8")
    assert (one["step ms"], one["low–high ms"], one["tokens/s"]) == ("25.3", "24.5–25.3", "2,526")
    assert (one["comm %"], one["bubble %"]) == (f"{100 * 17.1894 / 25.3346:.1f}", "–")
    assert one["rests on"] == "interp."
    assert "assumed or modelled in every row: elementwise" in tables["every split"].caption


def test_the_bubble_is_what_stages_wait_for_one_another(drawn):
    # in two stages of 40 layers that the whole batch walks through each waits half the time, less hops and the head
    plan, _, tables = drawn()
    (one,) = rows(tables["every split"], batch="64", split="tp4-pp2", schedule="sync")
    assert 49 < float(one["bubble %"]) <= 50
    (point,) = [p for p in plan.points if (p.batch, str(p.deployment)) == (64, "tp4-pp2-sync")]
    shares = point.breakdown.communication_share, point.breakdown.bubble_share
    assert (one["comm %"], one["bubble %"]) == tuple(f"{100 * share:.1f}" for share in shares)


def test_each_batch_is_a_group_and_names_its_fastest(drawn):
    plan, _, tables = drawn()
    groups = tables["every split"].groups
    assert [{row[0] for row in group} for group in groups] == [{"8"}, {"64"}]
    for batch, group in zip((8, 64), groups, strict=True):
        there = [one for one in plan.points if one.fits and one.batch == batch]
        assert len(group) == len(there)
        (best,) = [row for row in group if row[-1].startswith("best")]
        fastest = min(there, key=lambda one: one.seconds)
        assert best[1] == plan_tables.parallelism_label(fastest.deployment)
        tied = [one for one in there if one is not fastest and one.low <= fastest.high]
        assert len([row for row in group if row[-1].startswith("tied")]) == len(tied)


def test_what_is_assumed_stands_behind_a_plus(drawn):
    _, _, tables = drawn()
    found = {one["rests on"] for one in rows(tables["every split"], batch="64", split="pp8")}
    assert found == {"interp. + head, hop"}  # half a head was measured, and no hop


def test_the_crossover_is_told_by_implementation_elementwise_and_partition(drawn):
    slow = [*planted_parts.all_parts(), *planted_parts.all_parts("sglang", factor=1.5)]
    plan, _, tables = drawn(slow)
    found = tables["crossover"]
    assert [(one["implementation"], one["elementwise"]) for one in rows(found)] == [
        *(("sglang", "counted"), ("sglang", "fused")),
        *(("vllm", "counted"), ("vllm", "fused")),
    ]
    by = {(who.implementation, who.elementwise, way): batch for (who, way), batch in plan.crossover.leads_from.items()}
    (one,) = rows(found, implementation="vllm", elementwise="fused")
    ways = {way: str(by["vllm", False, way] or "–") for way in ("even", "balanced")}
    assert {way: one[f"layers {way}"] for way in ways} == ways
    whole = plan.crossover
    assert found.caption == (
        "batch from which on async PP 8 gives more tokens a second than TP 8 for good: about "
        f"{whole.batch} in the middle of the variants, surely {whole.high}; it may be ahead from {whole.low} on "
        "(crossover)"
    )
    assert {plan_tables.FOR_GOOD_NOTE, plan_tables.VARIANTS_NOTE, plan_tables.UNSEEN_NOTE} <= set(found.notes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verdict": "tp", "low": None, "batch": None, "high": None}, "for good: none (tp)"),
        (
            {"verdict": "ambiguous", "low": 8, "batch": None, "high": None},
            "for good: in some variants none; it may be ahead from 8 on (ambiguous)",
        ),
    ],
)
def test_a_crossover_that_is_none_or_open_is_said_as_such(drawn, changes, said):
    plan, _, _ = drawn()
    blocks = plan_tables.build_tables(replace(plan, crossover=replace(plan.crossover, **changes)))
    assert blocks[1].caption.endswith(said)


def test_what_is_best_is_so_among_the_batches_asked_for(drawn):
    _, _, tables = drawn()
    for title in ("best split for a latency", "Pareto front"):
        assert tables[title].caption.startswith("among the batches asked for")
        assert tables[title].notes == (plan_tables.KERNELS_NOTE, plan_tables.BATCHES_NOTE)


def test_whose_all_reduces_are_behind_it_and_how_they_were_timed_is_said(drawn):
    # the engine's kernel is the faster at every message: NCCL takes twice as long
    both = [
        *planted_parts.all_parts(),
        *planted_parts.all_parts("sglang", factor=0.5),
    ]  # of two the faster is the middle
    told = [dict(drawn(**asked)[1].rows)["all-reduces"] for asked in ({}, {"backend": "nccl"})]
    assert told == [
        "behind the middle figures: custom (vllm) timed in a graph, of bf16",
        "behind the middle figures: nccl (vllm) timed eagerly, of bf16",
    ]
    assert "custom (sglang) timed in a graph" in dict(drawn(both)[1].rows)["all-reduces"]
    assert "all-reduces" not in dict(drawn(gpus=1, layers=8)[1].rows)


def test_a_latency_that_nothing_reaches_says_so(drawn):
    _, _, tables = drawn(latencies=(0.001, 1.0))
    first, last = rows(tables["best split for a latency"])
    assert (first["at most ms"], first["split"]) == ("1", "none is as fast")
    assert last["at most ms"] == "1000"
    assert float(last["tokens/s"].replace(",", "")) > 0


def test_what_memory_cannot_hold_and_what_cannot_run_take_a_line_for_each_reason(drawn):
    _, _, tables = drawn(batches=(1, 64))
    found = rows(tables["what is not planned"])
    (memory,) = [one for one in found if one["why"].startswith("memory")]
    assert "tp1x8 at any batch" in memory["splits"]
    (divide,) = [one for one in found if "does not divide over" in one["why"]]
    assert "tp4x2 at 1" in divide["splits"]
    assert divide["why"].endswith("more like this)")


def test_a_part_that_nobody_measured_is_named(drawn):
    fewer = [one for one in planted_parts.all_parts() if not (one.case.op == "all_reduce" and one.case.ranks == 8)]
    _, head, tables = drawn(fewer)
    assert "cannot both be planned (no all-reduce over 8 ranks on h200_sxm: there are those of 2, 4)" in head.rows[0][1]
    (one,) = [one for one in rows(tables["what is not planned"]) if "all-reduce over 8 ranks" in one["why"]]
    assert one["splits"] == "tp8 at 8 and 64"
    assert "crossover" not in tables


def test_what_is_assumed_has_its_range_and_reason(drawn):
    _, _, tables = drawn()
    assumed = {one["what"]: one for one in rows(tables["assumed"])}
    assert (assumed["hop"]["figure"], assumed["hop"]["range"]) == ("10 us", "5–20")
    assert "one host" in assumed["hop"]["why"]
    assert (assumed["workspace"]["figure"], assumed["workspace"]["range"]) == ("3 GiB", "")
    assert "node hop" not in assumed


def test_a_what_if_is_labelled_modelled_and_says_what_lies_between_nodes(drawn):
    fabric = Interconnect(nodes=2, gpus_per_node=4, bytes_per_second=25e9, share=0.5)
    _, head, tables = drawn(interconnect=fabric)
    said = dict(head.rows)
    assert "modelled for other links" in said[""]
    assert said["what if"].startswith("2 nodes of 4 GPUs, a link of 25 GB/s in one direction, 50% of the link left")
    assert said["what if"].endswith(": all-reduces and hops that cross nodes are modelled, nobody measured them")
    _, head, _ = drawn(interconnect=Interconnect(share=0.5))
    assert dict(head.rows)["what if"] == (
        "50% of the link left by others: all all-reduces and hops are modelled, nobody measured them"
    )
    _, head, _ = drawn(interconnect=Interconnect(nodes=8, gpus_per_node=1))
    assert dict(head.rows)["what if"].startswith("8 nodes of 1 GPU: all-reduces")
    (one,) = rows(tables["every split"], batch="64", split="tp8")
    assert one["rests on"] == "interp. + all-reduce"
    assert {"node hop", "node link"} <= {row["what"] for row in rows(tables["assumed"])}


def test_the_terminal_stays_within_120_columns(drawn):
    path_like = Interconnect(nodes=2, gpus_per_node=4)
    for asked in ({}, {"interconnect": path_like, "draft_tokens": 1}, {"batches": (1, 8, 64, 512, 4096)}):
        plan, _, _ = drawn(**asked)
        text = output.render_terminal(plan_tables.build_tables(plan), width=120)
        assert max(map(len, text.splitlines())) <= 120


def test_the_cases_of_a_plan_are_those_that_show_names(tmp_path, capsys):
    path = planted_parts.write(tmp_path / "planted.json")
    assert run_reports("plan", path, "--context", 256, "--batch", "1,64", "--format", "json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert run_reports("show", path, "--format", "json") == 0
    names = {one["name"] for one in json.loads(capsys.readouterr().out)}
    used = {case for point in plan["points"] for cases in point["cases"].values() for case in cases}
    assert used
    assert used <= names


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--context", 512, "--batch", "8,64", "--backend", "nccl", "--partition", "balanced", "--latency", "0.03"],
        ["--context", 256, "--layers", 8, "--draft-tokens", 2, "--link-latency", "1e-06"],
        ["--context", 256, "--nodes", 2, "--gpus-per-node", 4, "--link-bandwidth", "2.5e+10", "--link-share", 0.5],
    ],
)
def test_the_reproduce_command_is_the_one_the_plan_was_made_by(tmp_path, monkeypatch, options):
    asked = []
    monkeypatch.setattr("reports.plan.report.write_plan", lambda paths, question, *_: asked.append((paths, question)))
    path = tmp_path / "a file.json"
    assert run_reports("plan", path, *options) == 0
    said = shlex.split(reproduce_command(*asked[0]))
    assert said[:4] == ["python", "-m", "reports", "plan"]
    assert len(said) == 5 + len(options)  # nothing that is usual is said
    assert run_reports(*said[3:]) == 0
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    ("deployment", "cut", "kind"),
    [
        (Deployment(8), "tp8", "TP"),
        (Deployment(1, 8, 1, "sync"), "pp8", "sync PP"),
        (Deployment(1, 8, 1, "async", 8), "pp8", "async PP"),
        (Deployment(2, 4, 1, "async", 4), "tp2-pp4", "mixed TP x PP"),
        (Deployment(2, 2, 2, "sync"), "tp2-pp2x2", "replicas"),
        (Deployment(1, 1, 8), "tp1x8", "replicas"),
    ],
)
def test_splits_are_named_and_sorted_into_kinds(deployment, cut, kind):
    assert (plan_tables.parallelism_label(deployment), plan_tables.deployment_kind(deployment)) == (cut, kind)


def test_of_many_that_are_tied_the_first_are_named(drawn):
    plan, _, _ = drawn()
    there = [one for one in plan.points if one.fits and one.batch == 64]
    other = next(one for one in plan.points if one.fits and one.batch == 8)
    best, *rest = there
    assert plan_tables.tied_names(LatencyTarget(1.0, best, [other, *rest[:2]])).endswith(f"{other.deployment} at 8")
    assert plan_tables.tied_names(LatencyTarget(1.0, best, rest)).endswith(f"{len(rest) - plan_tables.MAX_NAMED} more")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0099996, "10.0"), (0.00984, "9.84"), (0.0994, "99.4"), (1.234, "1,234")]
)
def test_milliseconds_have_three_digits(seconds, said):
    assert plan_tables.format_milliseconds(seconds) == said

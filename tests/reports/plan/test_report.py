"""The chapter on plans: of which files there are any, what it says of several GPUs, and what leads the report."""

from dataclasses import replace

import pytest

from reports import output, results
from reports.html import report
from reports.output import Table
from reports.plan import planner, tables
from reports.plan import report as plan_report
from reports.plan.answer import (
    batches_near_crossover,
    better_than_both,
    is_surely_faster,
    short_answer,
    short_answers_intro,
    tp_and_pp_points,
)
from reports.tp_vs_pp import report as experiments
from specs.parallel import Deployment
from tests.reports import planted, planted_sweeps
from tests.reports.plan import planted_parts
from tests.reports.tp_vs_pp.planted_steps import SYNC, TP2, step

L40S = planted_parts.PUBLISHED | {"gpu": "NVIDIA L40S", "gpu_memory_bytes": 48_000_000_000}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """An H200 by two frameworks, an L40S that lacks an all-reduce of 8, and a CPU."""
    folder = tmp_path_factory.mktemp("chapter")
    two = [*planted_parts.all_parts(), *planted_parts.all_parts("sglang", factor=1.5)]
    slow = [one for one in planted_parts.all_parts(factor=2.0) if (one.case.op, one.case.ranks) != ("all_reduce", 8)]
    paths = [
        planted_parts.write(folder / "h200.json", two),
        planted_parts.write(folder / "l40s.json", slow, L40S),
        planted_parts.write(folder / "cpu.json", machine=planted.CPU),
    ]
    return [results.load(path) for path in paths]


@pytest.fixture(scope="module")
def written(loaded):
    return plan_report.build_section(loaded)


def test_there_is_a_plan_of_each_gpu_whose_file_holds_one_and_of_nothing_else(written, tmp_path):
    assert [one.name for one in written.planned] == ["h200_sxm", "l40s"]  # not of the CPU
    linears = planted_sweeps.by_frameworks([planted_sweeps.roofline(200)])
    alone = planted.write(tmp_path / "linears.json", linears, planted_sweeps.PUBLISHED)
    nothing = plan_report.build_section([results.load(alone)])
    assert not nothing
    assert (nothing.sentences(), nothing.blocks(), nothing.data()) == ([], [], [])


def test_a_plan_is_made_once_for_all_who_ask(loaded, written):
    assert planner.plan_for_file(loaded[0]) is written.planned[0].plan
    again = results.load(loaded[0].path)
    assert planner.plan_for_file(again) is not written.planned[0].plan  # another reading may be of another content


def test_it_says_first_what_all_share_and_then_each_answer(written):
    intro, h200, l40s = written.sentences()
    assert intro.startswith("Planned over 8 GPUs (llama-3-70b, bf16, context 256; put together from parts, not run)")
    found = written.planned[0].plan.crossover
    assert found.verdict == "crossover"
    assert h200.startswith(f"On 8 x h200_sxm: TP 8 below a batch of {found.low}, async PP 8 from {found.high} on")
    assert l40s.startswith("On 8 x l40s: TP 8 and PP 8 cannot both be planned (no all-reduce over 8 ranks on l40s")


def test_the_crossovers_stand_side_by_side(written):
    table = written.tables()[0]
    h200, l40s = table.rows
    found = written.planned[0].plan.crossover
    assert found.low < found.batch < found.high
    assert h200[:4] == ("h200_sxm", str(found.low), str(found.batch), str(found.high))
    assert l40s[:5] == ("l40s", "–", "–", "–", "not both planned")
    assert "there are those of 2, 4" in l40s[-1]


def test_every_latency_has_a_row_for_each_gpu(written):
    table = written.tables()[1]
    assert [[row[:2] for row in group] for group in table.groups] == [
        [(f"{1e3 * latency:g}", "h200_sxm"), (f"{1e3 * latency:g}", "l40s")]
        for latency in planner.REPORT_QUERY.latencies
    ]


def test_the_machine_readable_one_has_points_and_how_to_get_their_cases(written):
    (h200, _) = written.data()
    assert h200["command"].endswith("h200.json --context 256")
    assert h200["crossover"]["verdict"] == "crossover"
    assert h200["points"]
    assert not any("cases" in point for point in h200["points"])


def test_the_terminal_has_the_section(written):
    text = output.render_terminal(written.blocks(), width=120)
    assert text.startswith("TP or PP, planned\n  On 8 x h200_sxm (llama-3-70b")
    assert [one.title for one in written.blocks() if isinstance(one, Table)] == [
        "where async PP overtakes TP",
        "best split for a latency",
    ]
    assert max(map(len, text.splitlines())) <= 120


def test_sources_are_numbered_once_and_hold_every_case_of_a_point(written):
    plan = written.planned[0].plan
    points = plan_report.highlighted_points(plan)
    found = plan_report.number_sources(points)
    assert len(set(found.sources)) == len(found.sources)
    for one, numbers in found.points:
        told = {part: found.sources[number - 1] for part, number in numbers.items()}
        assert told == {part: (part, tuple(cases)) for part, cases in one.breakdown.cases.items() if cases}
    for batch in {one.batch for one in plan.points if one.fits}:
        alike = [one for one in plan.points if one.fits and one.batch == batch]
        best = max(alike, key=lambda one: one.tokens_per_second)
        assert {id(one) for one in (best, *tp_and_pp_points(plan, alike)) if one} <= {id(one) for one in points}
    assert {id(one) for one in plan.front} <= {id(one) for one in points}


def test_the_report_leads_with_the_question_and_an_answer_for_each_gpu(loaded, written):
    told = report.build_report(loaded[:2])
    question, tokens = told.answers()
    assert (question.title, tokens.title) == (report.TP_VS_PP_QUESTION, "Do 125 tokens take as long as 1000?")
    lines = [text for _, text in question.rows]
    middle = written.planned[0].plan.crossover.batch
    assert lines[0] == (
        "Planned over 8 GPUs, TP 8 is faster at small batches and async PP 8 at large ones, for good from about "
        f"{middle} (h200_sxm) in the middle of what is in doubt."
    )
    assert lines[1] == short_answers_intro(planner.REPORT_QUERY)
    assert lines[2] == short_answer(written.planned[0].plan, "h200_sxm")
    assert told.data()["question"] == report.TP_VS_PP_QUESTION
    assert told.data()["tokens"]["question"] == tokens.title
    assert [one["name"] for one in told.data()["plans"]] == ["h200_sxm", "l40s"]


def test_an_experiment_comes_first_and_the_ends_of_all_crossovers_are_named(tmp_path, loaded):
    """TP takes 10 ms on the machine, PP 18; a GPU whose linears take longer has its crossover elsewhere."""
    run = [step(TP2, 10.0, 1, 4), step(SYNC, 18.0, 1, 4)]
    own = results.load(planted.write(tmp_path / "own.json", run))
    a100 = planted_parts.PUBLISHED | {"gpu": "NVIDIA A100-SXM4-80GB", "gpu_memory_bytes": 80_000_000_000}
    slow = results.load(planted_parts.write(tmp_path / "a100.json", planted_parts.all_parts(factor=3.0), a100))
    plans, ran = plan_report.build_section([loaded[0], slow]), experiments.build_section([own])
    (first, one), (last, other) = sorted((p.plan.crossover.batch, p.name) for p in plans.planned)
    assert first < last
    found = report.tp_vs_pp_answer(ran, plans)
    assert found.headline == (
        "Measured on Planted CPU 9000, TP 2 is faster than PP 2 at a batch of 1; planned over 8 GPUs, TP 8 is faster "
        f"at small batches and async PP 8 at large ones, for good from about {first} ({one}) to {last} ({other}) in "
        "the middle of what is in doubt; replicas of a smaller split beat both on 1 of 2 at the asked batch nearest to "
        "that."
    )
    assert found.details == [*ran.sentences(), *plans.sentences()]


def test_the_headline_counts_what_surely_beats_both_near_the_crossover(written):
    one = written.planned[0]
    batch = batches_near_crossover(one.plan)[0]
    best, tp, pp = better_than_both(one.plan, batch)
    assert abs(batch - one.plan.crossover.batch) == min(
        abs(other - one.plan.crossover.batch) for other in one.plan.query.batches
    )
    assert not is_surely_faster(best, (tp, pp))
    assert "beat" not in report.tp_vs_pp_answer(experiments.build_section([]), plan_report.PlanSection([one])).headline
    sure = replace(best, high=0.9 * min(tp.low, pp.low))
    changed = [replace(one.plan, points=[sure if point is best else point for point in one.plan.points])]
    hybrid = replace(sure, deployment=Deployment(4, 2, 1, "async", 2))
    changed.append(replace(one.plan, points=[hybrid if point is best else point for point in one.plan.points]))
    told = [
        report.tp_vs_pp_answer(
            experiments.build_section([]), plan_report.PlanSection([replace(one, plan=plan) for plan in plans])
        ).headline
        for plans in (changed[:1], changed[1:], [changed[0], one.plan])
    ]
    ends = [text.rpartition("; ")[2] for text in told]
    assert ends == [
        "replicas of a smaller split beat both on 1 of 1 at the asked batch nearest to that.",
        "other splits beat both on 1 of 1 at the asked batch nearest to that.",
        "replicas of a smaller split beat both on 1 of 2 at the asked batch nearest to that.",
    ]


def test_the_tables_say_what_their_ranges_and_batches_leave_out(written):
    crossovers, targets = written.tables()
    assert crossovers.caption.endswith("than TP 8 for good")
    assert {tables.FOR_GOOD_NOTE, tables.VARIANTS_NOTE, tables.UNSEEN_NOTE} <= set(crossovers.notes)
    assert targets.caption.startswith("among the batches asked for")
    assert "of kernels and messages alone" in targets.notes[0]
    assert "--batch" in targets.notes[1]


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("tp", "TP 8 at every batch from 8 to 64; at"),
        ("pp", "async PP 8 at every batch from 8 to 64; at"),
        (
            "ambiguous",
            "nothing is certain up to 64: async PP 8 takes the lead for good in 0 of 2 variants; at",
        ),
    ],
)
def test_other_verdicts_are_said_as_such(written, verdict, said):
    one = written.planned[0]
    found = replace(
        one.plan.crossover,
        verdict=verdict,
        batch=None,
        low=8,
        high=None,
        batch_range=(8, 64),
        leads_from={1: None, 2: None},
    )
    changed = replace(one, plan=replace(one.plan, crossover=found))
    assert f": {said}" in short_answer(changed.plan, "it")
    table = plan_report.PlanSection([changed]).tables()[0]
    assert table.rows[0][4] == plan_report.VERDICT_NAMES[verdict]


def test_without_experiment_and_plan_it_says_what_to_run():
    found = report.tp_vs_pp_answer(experiments.build_section([]), plan_report.build_section([]))
    assert found.headline.startswith("Not measured: no file here has steps of a whole model")
    assert "bench_tp_vs_pp" in found.details[0]

"""A plan's sentence: no more certain than its crossover, and an answer where there is no crossover."""

from dataclasses import replace

import pytest

from reports import formatting, results
from reports.deployment_names import deployment_name
from reports.plan.answer import answer_sentence, is_surely_faster, short_answer, short_answers_intro
from reports.plan.planner import plan_for_files
from reports.plan.query import PlanQuery
from tests.reports.plan import planted_parts


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    def planned(measurements=None, **asked):
        path = planted_parts.write(tmp_path_factory.mktemp("answer") / "planted.json", measurements)
        question = {"model": "llama-3-70b", "gpus": 8, "context": 256, "batches": (8, 64, 512)}
        return plan_for_files([results.load(path)], PlanQuery(**{**question, **asked}))

    return planned


@pytest.fixture(scope="module")
def usual(made):
    return made()


def crossing(plan, **changes):
    facts = {"verdict": "crossover", "low": 80, "batch": 96, "high": 120, "batch_range": (8, 8192)}
    return replace(plan, crossover=replace(plan.crossover, **{**facts, **changes}))


def test_pp_leads_for_good_from_the_last_batch_on_and_between_the_lead_changes(usual):
    plan = crossing(usual)
    assert (
        ": TP 8 is faster below a batch of 80, async PP 8 gives more tokens a second for good from 120 on (about 96 in "
        "the middle of the variants), and between 80 and 120 the lead depends on whose kernels run and may change at "
        "tile sizes; "
    ) in answer_sentence(plan)
    assert (
        ": TP 8 below a batch of 80, async PP 8 from 120 on (about 96 in the middle of the variants); "
        in short_answer(plan, "it")
    )
    assert "PP for good" in short_answers_intro(plan.query)
    assert "may change at tile sizes" in short_answers_intro(plan.query)


def test_where_all_variants_agree_nothing_lies_between(usual):
    text = answer_sentence(crossing(usual, low=96, high=96))
    assert "below a batch of 96, async PP 8 gives more tokens a second for good from 96 on; " in text


def test_below_the_least_batch_that_was_looked_at_nothing_is_said(usual):
    plan = crossing(usual, low=8)
    assert "below a batch" not in answer_sentence(plan)
    assert "between 8, the least looked at, and 120" in answer_sentence(plan)
    assert ": async PP 8 from 120 on" in short_answer(plan, "it")


def test_without_a_crossover_the_best_at_the_middle_and_the_largest_batch_is_named(made):
    fewer = [one for one in planted_parts.all_parts() if (one.case.op, one.case.ranks) != ("all_reduce", 8)]
    plan = made(fewer)
    assert plan.crossover is None
    for text in (answer_sentence(plan), short_answer(plan, "it")):
        for batch in (64, 512):
            there = [one for one in plan.points if one.fits and one.batch == batch]
            best = min(there, key=lambda one: one.seconds)
            reach = sum(not is_surely_faster(best, [one]) for one in there if one is not best)
            give = "give" if best.deployment.replicas > 1 else "gives"
            rate = formatting.three_digits(batch / best.seconds)
            tied = f" ({formatting.pluralize(reach, 'other')} cannot be told from it)" if reach else ""
            assert (
                f"at a batch of {batch}, {deployment_name(best.deployment)} {give} the most tokens a second: "
                f"{rate}{tied}"
            ) in text
        assert "at a batch of 8," not in text


def test_one_gpu_leaves_nothing_to_cut(made):
    text = answer_sentence(made(gpus=1, layers=8, batches=(8,)))
    assert "one GPU leaves nothing to cut; at a batch of 8, one rank gives the most tokens a second" in text
    assert "TP 1" not in text

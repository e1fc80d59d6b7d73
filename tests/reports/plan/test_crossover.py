"""Where async PP overtakes TP on a planted system, against the batch worked out by hand."""

import pytest

from reports import results
from reports.plan.crossover import find_crossover
from reports.plan.planner import part_costs_by_variant, plan_for_files
from reports.plan.profile import build_profile
from reports.plan.query import PlanQuery
from reports.plan.step import estimate_step
from specs.errors import UserError
from specs.parallel import Deployment
from tests.reports import planted
from tests.reports.plan import planted_parts


@pytest.fixture
def planned(tmp_path):
    def made(measurements=None, **asked):
        path = planted_parts.write(tmp_path / "planted.json", measurements)
        question = {"model": "llama-3-70b", "gpus": 8, "context": 256, "batches": (1, 8, 64)}
        return plan_for_files([results.load(path)], PlanQuery(**{**question, **asked}))

    return made


def lead_batch(plan, implementation, partition, *, elementwise):
    found = {(who.implementation, who.elementwise, way): one for (who, way), one in plan.crossover.leads_from.items()}
    return found[implementation, elementwise, partition]


def test_the_batch_is_the_first_multiple_of_the_gpus_from_which_on_pp_leads(planned):
    # without elementwise kernels, times 80 layers, B rows under TP and B/8 in each of 8 microbatches under PP:
    #   TP: 4 (10 + 0.1 B) + 0.4 B + 2 (5 + 1.6 B) = 50 + 4 B, and once the head: (25 + 0.25 B) + 5 + B/160
    #   PP: 8 of [10 layers of 4 (80 + 0.1 B) + 0.05 B = 320 + 0.45 B, and the head 200 + 0.25 B]
    # 80 (50 + 4 B) + 30 + 0.25625 B = 4030 + 320.25625 B meets 80 (320 + 0.45 B) + 1600 + 2 B = 27200 + 38 B at 82.09
    assert lead_batch(planned(), "vllm", "even", elementwise=False) == 88


def leads(made, deployments, batches):
    """Ratios t(TP) / t(PP) at their least, as estimated and at their most, with one step at a time."""

    def best(batch, names, among):
        found = [
            estimate_step(made, one, one.split(made.query.truncated_model), batch)
            for one in among
            if batch % one.micro_batches == 0
        ]
        return [min(getattr(one, name) for one in found) for name in names]

    for batch in batches:
        tp = best(batch, ("low", "seconds", "high"), deployments[:1])
        pp = best(batch, ("high", "seconds", "low"), deployments[1:])
        yield [a / b for a, b in zip(tp, pp, strict=True)]


def test_every_batch_counts_as_if_its_step_were_estimated_alone(tmp_path):
    # another framework, faster beyond 1024 tokens, whose tables end at 40 MiB: 2560 rows
    other = [
        one
        for one in planted_parts.all_parts("trtllm", 0.8, 0.6, maybe_hot=True)
        if one.case.message_bytes != planted_parts.MESSAGES[-1]
    ]
    other += [planted_parts.all_reduce(8, size, (5 + size / 12000) * 1e-6, "trtllm") for size in (2**20, 40 * 2**20)]
    path = planted_parts.write(tmp_path / "x.json", [*planted_parts.all_parts(), *other])
    query = PlanQuery(model="llama-3-70b", gpus=8, context=256, backend="custom")
    profile = build_profile([results.load(path)], "bf16")
    made = part_costs_by_variant(profile, query)
    found = find_crossover(made, profile, query)
    assert found.batch_range == (8, 2560)
    batches = range(8, 2561, 8)
    first, certain = [], []
    for one in made:
        for partition in ("even", "balanced"):
            pp = [Deployment(1, 8, 1, "async", count, partition) for count in (8, 16)]
            ratios = list(leads(one, [Deployment(tp=8), *pp], batches))
            behind = [[batch for batch, ratio in zip(batches, ratios, strict=True) if ratio[n] <= 1] for n in (0, 1)]
            first.append(next(batch for batch, ratio in zip(batches, ratios, strict=True) if ratio[2] >= 1))
            certain.append(max(behind[0], default=0) + 8)
            assert found.leads_from[one.variant, partition] == max(behind[1], default=0) + 8
    assert (found.low, found.high) == (min(first), max(certain))
    assert 8 < found.low < found.batch < found.high < 2560


def test_the_range_spans_implementations(planned):
    # linears twice as slow: TP 80 (90 + 4.4 B) + 30, PP 80 (640 + 0.85 B) + 1600: they meet at 161.4
    slow = planted_parts.all_parts("sglang", factor=2.0)
    found = planned([*planted_parts.all_parts(), *slow]).crossover
    assert found.verdict == "crossover"
    assert found.low <= 88
    assert found.high >= 168
    assert found.low < found.batch < found.high


def without_message_time(framework="vllm"):
    """A system whose messages and attention take next to nothing."""
    found = [one for one in planted_parts.all_parts(framework, attending=1e-6) if one.case.op != "all_reduce"]
    sizes = [(ranks, size) for ranks in (2, 4, 8) for size in planted_parts.MESSAGES]
    return [*found, *(planted_parts.all_reduce(*one, 1e-9, framework) for one in sizes)]


def test_tp_leads_throughout_where_messages_cost_nothing(planned):
    found = planned(without_message_time()).crossover
    assert (found.verdict, found.batch, found.low, found.high) == ("tp", None, None, None)


def test_pp_leads_throughout_where_a_message_costs_a_fortune(planned):
    dear = [
        planted_parts.all_reduce(one.case.ranks, one.case.message_bytes, 1.0)
        if one.case.op == "all_reduce" and one.case.implementation == "custom"
        else one
        for one in planted_parts.all_parts()
    ]
    found = planned(dear, backend="custom").crossover
    assert (found.verdict, found.batch, found.low, found.high) == ("pp", 8, 8, 8)


def test_it_abstains_where_some_variants_never_cross(planned):
    found = planned([*planted_parts.all_parts(), *without_message_time("sglang")], backend="custom").crossover
    assert found.verdict == "ambiguous"
    assert found.batch is None
    assert found.high is None
    assert found.low <= 88


def test_maybe_hot_linears_widen_the_range(planned):
    plain, hot = planned().crossover, planned(planted_parts.all_parts(maybe_hot=True)).crossover
    assert hot.low <= plain.low
    assert hot.high >= plain.high
    assert hot.high - hot.low > plain.high - plain.low or hot.low < plain.low


def test_memory_ends_the_batches_and_says_so(planned):
    # eight H200 hold 1128 GB; beside 141 GB of weights a sequence of 512 tokens takes 512 x 327,680 B = 168 MB
    found = planned(context=512).crossover
    assert "memory holds" in found.bound_by
    assert 4000 < found.batch_range[1] < 987e9 / 168e6
    assert planned().crossover.bound_by == ""  # of 256 tokens 8192 fit
    assert planned().crossover.batch_range == (8, 8192)


def test_weights_that_do_not_fit_are_refused_with_both_figures(planned):
    with pytest.raises(UserError, match=r"the fullest rank needs 144\.\d GB and h200_sxm has 141\.0 GB; at most 0 fit"):
        planned(gpus=1, batches=(1,))


def test_a_batch_that_is_asked_for_twice_is_planned_once_and_points_keep_the_order_of_batches(planned):
    found = [one for one in planned(batches=(64, 8, 64, 20000, 4)).points if one.deployment.tp == 8]
    assert [(one.batch, one.fits) for one in found] == [(64, True), (8, True), (20000, False), (4, True)]


def test_files_of_two_gpus_and_of_another_format_are_refused(tmp_path):
    one = results.load(planted_parts.write(tmp_path / "a.json"))
    other = results.load(planted_parts.write(tmp_path / "b.json", machine=planted.CPU))
    with pytest.raises(UserError, match=r"files of 2 GPUs, h200_sxm .* a plan is for one"):
        build_profile([one, other], "bf16")
    with pytest.raises(UserError, match=r"a\.json: linears in bf16, none in fp8; choose --dtype bf16"):
        build_profile([one], "fp8")


def test_batches_end_where_parts_do_and_that_is_said(planned):
    # all-reduces up to 1 MiB: 64 rows of 16 KiB
    short = [one for one in planted_parts.all_parts() if one.case.op != "all_reduce"]
    short += [
        planted_parts.all_reduce(ranks, size, (5 + size / 10240) * 1e-6)
        for ranks in (2, 4, 8)
        for size in (1024, 2**20)
    ]
    found = planned(short).crossover
    assert found.batch_range == (8, 64)
    assert found.bound_by == "parts were measured for 64 sequences, not for 72"

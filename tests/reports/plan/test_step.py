"""A step put together from planted parts, against sums worked out by hand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from reports.plan.estimate import MissingMeasurementError
from reports.plan.step import PartCosts, Variant, break_down, estimate_step, estimate_steps
from specs.models import find_model
from specs.parallel import Deployment, Split
from tests.reports import planted
from tests.reports.plan import planted_parts
from tests.reports.plan.planted_parts import US

LINK = 450e9  # bytes a second in one direction, the H200 row's


def composed(parts, deployment, batch):
    return estimate_step(parts, deployment, deployment.split(parts.query.truncated_model), batch)


def hop(rows):
    """10 us and 16 KiB a row."""
    return 10 + rows * 16384 / LINK / US


def test_tp_is_eighty_layers_and_the_head(parts):
    # a layer: 65.6 + 25.6 + 214.8 = 306.0; the head 41 + 5.4
    assert composed(parts(), Deployment(tp=8), 64).seconds / US == pytest.approx(80 * 306.0 + 46.4)


def test_sync_is_the_sum_of_all_stages_and_hops(parts):
    # a layer whole, 64 rows: 4 x (80 + 51.2) + 25.6 = 550.4; the head 2 x 164; seven hops and one of ids: 8 x 64 B
    step = composed(parts(), Deployment(pp=8, schedule="sync"), 64)
    assert step.seconds / US == pytest.approx(80 * 550.4 + 328 + 7 * hop(64) + hop(8 * 64 / 16384))


def test_async_is_as_long_as_its_slowest_stage_for_every_micro_batch(parts):
    # 8 rows: a layer 4 x (80 + 6.4) + 3.2 = 348.8; ten of them and the head, 2 x 108, eight times over
    step = composed(parts(), Deployment(pp=8, schedule="async", micro_batches=8), 64)
    assert step.seconds / US == pytest.approx(8 * (10 * 348.8 + 216))


def test_micro_batches_read_the_weights_again_each(parts):
    eight, sixteen = (
        composed(parts(), Deployment(pp=8, schedule="async", micro_batches=m), 64).seconds for m in (8, 16)
    )
    # 4 rows: a layer 4 x (80 + 3.2) + 1.6 = 334.4; ten and the head 2 x 104, sixteen times
    assert sixteen / US == pytest.approx(16 * (10 * 334.4 + 208))
    assert sixteen > 1.8 * eight


def test_the_balanced_partition_takes_a_layer_from_the_stage_with_the_head(parts):
    # the head's 1.23 layers of parameters: seven stages of at most 11 layers; the longest then sets the pace
    laid = Deployment(pp=8, schedule="async", micro_batches=8, partition="balanced")
    assert composed(parts(), laid, 64).seconds / US == pytest.approx(8 * max(11 * 348.8, 9 * 348.8 + 216))


def test_with_too_few_micro_batches_the_loop_sets_the_pace_and_hops_count(parts):
    # 4 microbatches of 16 rows on 8 stages: a way round is 80 layers of 4 x (80 + 12.8) + 6.4 = 377.6, the head, hops
    step = composed(parts(), Deployment(pp=8, schedule="async", micro_batches=4), 64)
    assert step.seconds / US == pytest.approx(80 * 377.6 + 2 * 116 + 7 * hop(16) + hop(8 * 16 / 16384))


def test_where_micro_batches_differ_the_event_model_gives_the_step(parts):
    # 12 sequences in 8: four of 2, four of 1; a layer is 4 x (80 + 0.8 b) + 0.4 b, the head 2 x (100 + b)
    step = composed(parts(), Deployment(pp=8, schedule="async", micro_batches=8), 12)
    stage = {rows: 10 * (4 * (80 + 0.8 * rows) + 0.4 * rows) + 200 + 2 * rows for rows in (1, 2)}
    assert step.seconds / US == pytest.approx(4 * stage[2] + 4 * stage[1])


@pytest.mark.parametrize(
    "deployment",
    [
        Deployment(tp=8),
        Deployment(pp=8, schedule="sync"),
        Deployment(pp=8, schedule="async", micro_batches=8, partition="balanced"),
        Deployment(tp=2, pp=2, replicas=2, schedule="async", micro_batches=2),
    ],
    ids=str,
)
def test_steps_at_several_batches_are_those_of_each_batch_alone(parts, deployment):
    made, batches = parts(planted_parts.all_parts(maybe_hot=True)), [10, 8, 64, 100, 4000]
    split = deployment.split(made.query.truncated_model)
    together = estimate_steps(made, deployment, split, batches)
    for place, batch in enumerate(batches):
        found, alone = together.at(place), composed(made, deployment, batch)
        figures = [(one.seconds, one.low, one.high) for one in (found, alone)]
        assert figures[0] == pytest.approx(figures[1], rel=1e-12)
        assert found.low < found.high
        assert break_down(found).cases == break_down(alone).cases
        assert break_down(found).provenance == break_down(alone).provenance
        assert break_down(found).bubble_share == pytest.approx(break_down(alone).bubble_share, abs=1e-12)


def test_batches_with_a_part_that_was_not_measured_have_no_step(parts):
    tp8 = Deployment(tp=8)
    found = estimate_steps(parts(), tp8, tp8.split(parts().query.truncated_model), [20000, 8, 16384, 16385])
    assert found.known.tolist() == [False, True, False, False]  # all-reduces end at 128 MiB: 8192 rows
    with pytest.raises(MissingMeasurementError, match="20000 tokens through qkv at tp 8: measured up to 16384"):
        estimate_steps(parts(), tp8, tp8.split(parts().query.truncated_model), [20001, 20000])


def share(tokens, seconds):
    """A layer of one rank beside seven others."""
    case = planted.case(
        f"planted::share[{tokens}]", question="shares", op="layer", layer="layer", tp=8, tokens=tokens, batch=tokens,
        context=256, ranks=8, implementation="vllm", n=None, k=None,
    )  # fmt: skip
    return planted.measured(case, seconds * US)


def test_a_layer_measured_as_a_whole_at_some_batches_is_composed_at_the_others(parts):
    tp8, made = Deployment(tp=8), parts([*planted_parts.all_parts(), share(1, 50), share(64, 113)])
    found = estimate_steps(made, tp8, tp8.split(made.query.truncated_model), [128, 64, 32])
    # linears 4 x (80 + 0.8 x 128) / 8, attention 0.4 x 128, all-reduces of 2 MiB; heads (100 + b) x 2 / 8, b KiB / 16
    assert found.seconds[0] / US == pytest.approx(80 * (91.2 + 51.2 + 2 * (5 + 204.8)) + 57 + 5.8)
    assert found.seconds[1] / US == pytest.approx(80 * (113 + 214.8) + 46.4)
    assert found.seconds[2] / US == pytest.approx(80 * (50 + 31 + 2 * (5 + 51.2)) + 33 + 5.2)
    used = [set(break_down(found.at(place)).provenance) for place in range(3)]
    assert used == [{"linears", "attention", "all-reduce", "lm_head"}, *2 * [{"layer", "all-reduce", "lm_head"}]]
    only = [one for one in planted_parts.all_parts() if one.case.layer not in ("qkv", "decode")]
    made = parts([*only, share(1, 50), share(64, 113)])
    found = estimate_steps(made, tp8, tp8.split(made.query.truncated_model), [128, 64])
    assert found.known.tolist() == [False, True]


def test_replicas_each_have_their_part_of_the_batch(parts):
    assert (
        composed(parts(), Deployment(tp=2, replicas=4), 64).seconds
        == composed(parts(gpus=2), Deployment(tp=2), 16).seconds
    )


def test_an_assumed_hop_gives_the_step_its_range(parts):
    step = composed(parts(), Deployment(pp=8, schedule="sync"), 64)
    assert step.low / US == pytest.approx(step.seconds / US - 8 * 5)
    assert step.high / US == pytest.approx(step.seconds / US + 8 * 10)


def test_shares_are_of_the_step_and_the_bubble_is_what_a_stage_waits(parts):
    made, laid = parts(), Deployment(pp=8, schedule="async", micro_batches=8)
    found = break_down(composed(made, laid, 64))
    # seven stages compute 3488 of 3704, the last all of it
    assert found.bubble_share == pytest.approx(7 / 8 * (1 - 3488 / 3704))
    assert found.communication_share == 0
    assert found.provenance["linears"] == "interpolated"
    assert found.provenance["hop"] == "assumed"
    assert any("gate_up" in case for case in found.cases["linears"])


def test_all_reduces_are_the_communication_of_tp(parts):
    made, laid = parts(), Deployment(tp=8)
    step = composed(made, laid, 64)
    found = break_down(step)
    assert found.communication_share == pytest.approx((80 * 214.8 + 5.4) / (80 * 306.0 + 46.4))
    assert found.bubble_share == 0


def test_norms_of_queries_and_keys_cost_two_kernels_and_their_bytes():
    def elementwise(model):
        made = object.__new__(PartCosts)
        made.variant, made.residual_itemsize = Variant("vllm"), 2
        made.profile = SimpleNamespace(read_bytes_per_second=4.8e12)
        found = {}
        made._add_elementwise(found, Split(model, 8), 64)
        return found["elementwise"].seconds / US

    model = find_model("qwen3-32b")
    # q and k of a rank read and written: 2·(8 + 1)·128 values of 2 bytes, 64 rows; two kernels of 2 us
    more = elementwise(model) - elementwise(replace(model, qk_norm=False))
    assert more == pytest.approx(2 * 2 + 64 * 2 * 2304 / 4.8e12 / US)

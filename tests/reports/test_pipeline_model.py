"""The event model against closed forms by hand, against every cycle there is, and against long walks."""

import random
from fractions import Fraction
from itertools import pairwise

import pytest

from reports.pipeline_model import decode_step_seconds, simulate_decode, simulate_prefill
from tests.reports import longest_path
from tests.reports.longest_path import alike


def tables(draw, stages, slots, equal=False):
    """Whole seconds, so that what is exact can be asked for; half of the hops take none."""

    def row(most):
        return [draw.randint(0, most())] * slots if equal else [draw.randint(0, most()) for _ in range(slots)]

    return [row(lambda: 9) for _ in range(stages)], [row(lambda: draw.choice((0, 25))) for _ in range(stages)]


def drawn(count, stages, slots, **how):
    draw = random.Random(8)
    return [tables(draw, draw.randint(1, stages), draw.randint(1, slots), **how) for _ in range(count)]


def slowest_cycle(busy, hop):
    """The largest mean of all cycles of turns, one by one: of each its seconds and how often it goes to a next step."""
    stages, slots, found = len(busy), len(busy[0]), []

    def go(path, seconds, steps):
        stage, slot = path[-1]
        nexts = (
            ((stage, (slot + 1) % slots), busy[stage][slot], slot + 1 == slots),
            (((stage + 1) % stages, slot), busy[stage][slot] + hop[stage][slot], stage + 1 == stages),
        )
        for turn, more, again in nexts:
            if turn == path[0]:
                found.append(Fraction(seconds + more, steps + again))
            elif turn > path[0] and turn not in path:
                go([*path, turn], seconds + more, steps + again)

    for stage in range(stages):
        for slot in range(slots):
            go([(stage, slot)], 0, 0)
    return max(found)


def test_as_many_micro_batches_as_stages_keep_equal_stages_busy_all_the_time_where_hops_take_none():
    ran = simulate_decode(alike([2.0] * 4, 4), alike([0.0] * 4, 4))
    assert ran.step_seconds == 8.0  # 4 microbatches x 2 s
    assert ran.idle_shares == [0.0] * 4


def test_a_single_micro_batch_waits_for_every_stage_and_every_hop():
    busy, hop = alike([1.0, 2.0, 3.0], 1), alike([0.25, 0.5, 1.25], 1)
    ran = simulate_decode(busy, hop)
    assert decode_step_seconds(busy, hop) == ran.step_seconds == 8.0  # 1 + 2 + 3 and 0.25 + 0.5 + 1.25
    assert ran.idle_shares == pytest.approx([7 / 8, 6 / 8, 5 / 8])
    assert [(turn.start, turn.end) for turn in ran.executions] == [(0.0, 1.0), (1.25, 3.25), (3.75, 6.75)]


def test_equal_stages_are_busy_one_part_in_so_many_stages_with_a_single_micro_batch():
    assert simulate_decode(alike([3.0] * 4, 1), alike([0.0] * 4, 1)).idle_shares == [0.75] * 4


def test_fewer_micro_batches_than_stages_leave_the_step_that_of_one_round():
    ran = simulate_decode(alike([1.0] * 4, 2), alike([0.0] * 4, 2))
    assert ran.step_seconds == 4.0  # once round 4 stages, in which each computes 2 s
    assert ran.idle_shares == [0.5] * 4


def test_a_slow_last_stage_sets_the_pace_and_the_others_wait_for_it():
    ran = simulate_decode(alike([1.0, 1.0, 1.0, 1.5], 4), alike([0.0] * 4, 4))
    assert ran.step_seconds == 6.0  # 4 x 1.5
    assert ran.idle_shares == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0])


@pytest.mark.parametrize(
    ("slots", "seconds", "idle"),
    [
        (2, 3.0, 1 / 3),  # a round of 1 + 0.5 + 1 + 0.5, in which a stage computes 2 s
        (3, 3.0, 0.0),  # a third one fills that
        (4, 4.0, 0.0),  # 4 x 1 s
    ],
)
def test_hops_hide_behind_micro_batches_beyond_the_stages(slots, seconds, idle):
    busy, hop = alike([1.0, 1.0], slots), alike([0.5, 0.5], slots)
    ran = simulate_decode(busy, hop)
    assert ran.step_seconds == decode_step_seconds(busy, hop) == seconds
    assert ran.idle_shares == pytest.approx([idle] * 2)


def test_eight_prompts_through_eight_stages_use_them_eight_fifteenths_of_the_time():
    ran = simulate_prefill(alike([2.0] * 8, 8), alike([0.0] * 8, 8))
    assert ran.step_seconds == 30.0  # (8 + 8 - 1) x 2
    assert ran.idle_shares == pytest.approx([7 / 15] * 8)
    assert 1 - ran.idle_shares[0] == pytest.approx(0.533, abs=5e-4)


def test_a_prefill_pays_the_hops_between_stages_once_and_none_behind_the_last():
    ran = simulate_prefill(alike([1.0, 1.0, 1.0], 2), alike([0.5, 0.25, 9.0], 2))
    assert ran.step_seconds == 4.75  # (2 + 3 - 1) x 1 and 0.5 + 0.25
    assert [turn.start for turn in ran.executions if turn.stage == 2] == [2.75, 3.75]


def test_a_prefill_ends_where_the_longest_path_does():
    for busy, hop in drawn(200, 6, 6):
        ran, (walk,) = simulate_prefill(busy, hop), longest_path.ends(busy, hop, 1)
        assert ran.step_seconds == walk[-1][-1]
        assert all(turn.end == walk[turn.stage][turn.micro_batch] for turn in ran.executions)


def test_a_step_of_unequal_micro_batches_lasts_what_the_slowest_of_all_cycles_does():
    for busy, hop in drawn(150, 3, 4):
        assert simulate_decode(busy, hop).step_seconds == pytest.approx(float(slowest_cycle(busy, hop)), rel=1e-14)


def test_a_long_walk_of_unequal_micro_batches_keeps_to_the_step():
    for busy, hop in drawn(40, 5, 6):
        assert simulate_decode(busy, hop).step_seconds == pytest.approx(longest_path.period(busy, hop), rel=1e-12)


@pytest.mark.parametrize("equal", [True, False])
def test_the_period_is_the_step_of_decode(equal):
    for busy, hop in drawn(300, 8, 8, equal=equal):
        assert decode_step_seconds(busy, hop) == pytest.approx(simulate_decode(busy, hop).step_seconds, rel=1e-14)


def test_neither_stages_nor_rounds_may_set_the_pace_but_a_cycle_over_two_steps():
    """Stage 0 with slots 1, 2 and 0, on to stage 1, there slots 0 and 1, and back: 5 turns and 2 hops in two steps."""
    busy, hop = alike([1, 1], 3), [[1, 0, 0], [0, 1, 0]]
    assert max(map(sum, busy)) == max(sum(row[slot] for row in busy + hop) for slot in range(3)) == 3
    assert simulate_decode(busy, hop).step_seconds == decode_step_seconds(busy, hop) == 3.5
    done = [step[-1][-1] for step in longest_path.ends(busy, hop, 40)][-5:]
    assert sorted({later - one for one, later in pairwise(done)}) == [3, 4]  # in turn, for ever


def test_a_slot_that_is_hardly_slower_than_another_sets_the_pace_long_before_it_holds_that_up():
    """Slot 0 goes round in 1 + 1 + 2 s, and is not met by slot 1, which takes 1e-9 more, for 1e9 steps."""
    busy, hop = alike([1.0, 1.0], 2), [[0.0, 0.0], [2.0, 2.0 + 1e-9]]
    walk = [step[-1][0] for step in longest_path.ends(busy, hop, 300)]
    assert walk[-1] - walk[-2] == 4.0
    assert (
        simulate_decode(busy, hop).step_seconds == decode_step_seconds(busy, hop) == pytest.approx(4 + 1e-9, rel=1e-14)
    )


def test_every_turn_of_a_steady_step_starts_when_its_stage_is_free_and_its_message_there():
    for busy, hop in drawn(200, 5, 6):
        ran, stages, slots = simulate_decode(busy, hop), len(busy), len(busy[0])
        end = {(turn.stage, turn.micro_batch): turn.end for turn in ran.executions}
        assert len(ran.executions) == stages * slots
        assert ran.executions[0].start == 0.0
        for turn in ran.executions:
            free = (
                end[turn.stage, turn.micro_batch - 1]
                if turn.micro_batch
                else end[turn.stage, slots - 1] - ran.step_seconds
            )
            before = (turn.stage or stages) - 1
            came = (
                end[before, turn.micro_batch] + hop[before][turn.micro_batch] - (0 if turn.stage else ran.step_seconds)
            )
            assert turn.start == pytest.approx(max(free, came), abs=1e-9)
            assert turn.end - turn.start == pytest.approx(busy[turn.stage][turn.micro_batch], abs=1e-9)


def test_a_pipeline_that_takes_no_time_is_not_idle_either():
    assert simulate_decode([[0.0]], [[0.0]]).idle_shares == [0.0]


@pytest.mark.parametrize("of", [simulate_decode, simulate_prefill, decode_step_seconds])
@pytest.mark.parametrize(
    ("busy", "hop"),
    [
        ([], []),
        ([[]], [[]]),
        ([[1.0, 1.0], [1.0]], [[1.0, 1.0], [1.0]]),
        ([[1.0], [1.0]], [[1.0]]),
        ([[1.0, 1.0]], [[1.0]]),
        ([[1.0], [-1.0]], [[0.0], [0.0]]),
        ([[1.0], [1.0]], [[0.0], [-1e-9]]),
        ([[1.0, float("nan")]], [[0.0, 0.0]]),
        ([[1.0]], [[float("inf")]]),
    ],
)
def test_tables_that_are_empty_ragged_or_negative_are_refused(of, busy, hop):
    with pytest.raises(ValueError, match=r"busy and hop have rows|a stage takes .* seconds; give finite times"):
        of(busy, hop)
